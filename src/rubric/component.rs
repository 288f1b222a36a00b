//! A component, loaded and validated: size, compile, version, imports, description, and every
//! golden case twice with the same result and the same fuel. What passes never changes.

use super::RubricError;
use super::call::{CallError, ParsedReply, Readout, Rendered, RubricInput, parsed_reply, rendered};
use super::engine::{FUEL_MAX, Host, RubricEngine, store};
use super::examine::{Example, require_golden, run_golden};
use super::place;
use super::world::{Guest, Ready, Version};
use crate::domain::{RubricId, Scale};
use sha2::{Digest, Sha256};
use std::sync::{Arc, OnceLock};
use wasmtime::Store;
use wasmtime::component::Component;

/// Large enough for Python guests; compiling cannot be interrupted, so there is a limit.
const COMPONENT_BYTES_MAX: usize = 32 << 20;
const EXAMPLES_MAX: usize = 1000;

/// How judgments of one item combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Their mean.
    Mean,
    /// Their median.
    Median,
    /// The most frequent.
    Majority,
    /// The lowest.
    Minimum,
}

/// What a rubric judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Answers to a task.
    Response,
    /// Judgments of an answer.
    Judgment,
}

/// What a rubric says of itself.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RubricInfo {
    /// Short and stable.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// One sentence.
    pub description: String,
    /// What it judges.
    pub subject: Subject,
    /// Fewest candidates of an item.
    pub min_candidates: u32,
    /// Most candidates of an item.
    pub max_candidates: u32,
    /// Lowest score.
    pub scale_min: f64,
    /// Highest score.
    pub scale_max: f64,
    /// How judgments of one item combine.
    pub aggregation: Aggregation,
    /// Whether the order of candidates may matter to the judge.
    pub order_sensitive: bool,
}

impl RubricInfo {
    /// Its lowest and highest score.
    pub fn scale(&self) -> Scale {
        Scale { min: self.scale_min, max: self.scale_max }
    }
}

struct Inner {
    id: RubricId,
    info: RubricInfo,
    is_a_program: OnceLock<bool>,
    engine: wasmtime::Engine,
    ready: Ready,
}

/// A validated rubric; cheap to clone, never changes.
#[derive(Clone)]
pub struct Rubric(Arc<Inner>);

pub(super) fn text(error: &wasmtime::Error) -> String {
    format!("{error:#}")
}

/// What wasmtime maps for a 32-bit memory and its guard.
const ADDRESS_SPACE: &str = "4 GiB of address space per instance; see ulimit -v";

/// Whether a call failed for what the operating system refused, and not for what a guest did: the
/// same call may well succeed a moment later.
fn is_the_hosts(error: &wasmtime::Error) -> bool {
    let refused = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<rustix::io::Errno>() || cause.is::<std::io::Error>()
    };
    error.is::<wasmtime::error::OutOfMemory>() || error.chain().any(refused)
}

/// Why a component is not used whose call gave nothing.
pub(super) fn unusable(error: CallError, why: impl FnOnce(String) -> RubricError) -> RubricError {
    match error {
        CallError::Host { reason } => RubricError::Sandbox(reason),
        other => why(other.to_string()),
    }
}

fn compile(engine: &RubricEngine, bytes: &[u8], id: &str) -> Result<Component, RubricError> {
    if bytes.len() > COMPONENT_BYTES_MAX {
        let max = COMPONENT_BYTES_MAX;
        return Err(RubricError::TooLarge { bytes: bytes.len(), max });
    }
    // The text format would be taken too, and only bytes have an identity.
    if !bytes.starts_with(b"\0asm") {
        return Err(RubricError::Compile("it does not begin with the WASM magic bytes".into()));
    }
    if bytes.get(4..8) == Some(&[1, 0, 0, 0]) {
        let reason = "it is a core module, not a component; was the component step forgotten?";
        return Err(RubricError::Compile(reason.to_owned()));
    }
    if let Some(kept) = engine.cache.as_ref().and_then(|cache| cache.get(&engine.engine, id)) {
        return Ok(kept);
    }
    let compiled = Component::new(&engine.engine, bytes);
    let compiled = compiled.map_err(|error| RubricError::Compile(text(&error)))?;
    if let Some(cache) = &engine.cache {
        cache.put(id, &compiled);
    }
    Ok(compiled)
}

impl Rubric {
    /// Compiles and validates a component.
    ///
    /// # Errors
    /// [`RubricError`] naming the step and, for golden cases, the case.
    pub fn load(engine: &RubricEngine, bytes: &[u8]) -> Result<Rubric, RubricError> {
        let rubric = Rubric::load_untried(engine, bytes)?;
        require_golden(&run_golden(&rubric)?)?;
        Ok(rubric)
    }

    /// Compiles a component and reads what it says of itself, without trying its golden cases.
    ///
    /// # Errors
    /// [`RubricError`] naming the step.
    pub fn load_untried(engine: &RubricEngine, bytes: &[u8]) -> Result<Rubric, RubricError> {
        let id = Rubric::id_of(bytes);
        let component = compile(engine, bytes, id.as_str())?;
        let ready = Ready::link(engine, &component)?;
        let (info, engine) = (unknown(), engine.engine.clone());
        let mut inner = Inner { id, info, is_a_program: OnceLock::new(), engine, ready };
        inner.info = describe(&inner)?;
        Ok(Rubric(Arc::new(inner)))
    }

    /// What a component with these bytes is called, whatever they are: their sha256.
    pub fn id_of(bytes: &[u8]) -> RubricId {
        RubricId(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// sha256 of the component's bytes.
    pub fn id(&self) -> &RubricId {
        &self.0.id
    }

    /// What it says of itself.
    pub fn info(&self) -> &RubricInfo {
        &self.0.info
    }

    /// Whether it asks no model: none of its golden cases renders a message. One that cannot be
    /// tried is taken for one that asks.
    pub fn is_a_program(&self) -> bool {
        *self.0.is_a_program.get_or_init(|| {
            let asks_nothing = |example: &Example| {
                self.render(&example.item).is_ok_and(|rendered| rendered.messages.is_empty())
            };
            let examples = self.examples().unwrap_or_else(|error| {
                tracing::debug!(%error, "a rubric's golden cases cannot be read now");
                Vec::new()
            });
            !examples.is_empty() && examples.iter().all(asks_nothing)
        })
    }

    /// What to ask the judge about an item.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn render(&self, item: &RubricInput) -> Result<Rendered, CallError> {
        let info = &self.0.info;
        let n = item.candidates.len();
        if n < info.min_candidates as usize || n > info.max_candidates as usize {
            let (min, max) = (info.min_candidates, info.max_candidates);
            return Err(CallError::Refused(format!("{n} candidates, it takes {min} to {max}")));
        }
        let (answer, store) = self.0.call(|guest, store| guest.render(store, item))?;
        let prompt = answer.map_err(CallError::Refused)?;
        let mut done = rendered(prompt, n, self.0.info.scale())?;
        done.fuel = used(&store);
        done.log = store.into_data().log;
        Ok(done)
    }

    /// Reads the judge's answer about an item. A component of wit/v0.2 also says where.
    ///
    /// # Errors
    /// [`CallError::Trapped`].
    pub fn parse(&self, item: &RubricInput, answer: &str) -> Result<ParsedReply, CallError> {
        let (parsed, store) = self.0.call(|guest, store| guest.parse(store, item, answer))?;
        parsed_reply(parsed, answer, item.candidates.len(), self.0.info.scale(), used(&store))
    }

    /// The same, and for a component of wit/v0.1 the place where `parse` read the score is found out:
    /// it is called again, at most 16 times, with another choice of `readout` (what `render` gave for
    /// the item) after one of the answer's leads, until it reads something else. Where that finds
    /// none there is no place. The fuel is that of the first call.
    ///
    /// # Errors
    /// As [`Rubric::parse`].
    pub fn read(
        &self,
        item: &RubricInput,
        answer: &str,
        readout: Option<&Readout>,
    ) -> Result<ParsedReply, CallError> {
        let mut reading = self.parse(item, answer)?;
        if let (Version::V0_1, Some(readout), ParsedReply::Verdict { scores, places, .. }) =
            (self.0.ready.version(), readout, &mut reading)
        {
            let found =
                place::find(answer, readout, scores, |text| match self.parse(item, text) {
                    Ok(ParsedReply::Verdict { scores, .. }) => Ok(Some(scores)),
                    Ok(_) | Err(CallError::Trapped { .. } | CallError::Refused(_)) => Ok(None),
                    Err(error @ CallError::Host { .. }) => Err(error),
                })?;
            places.extend(found);
        }
        Ok(reading)
    }

    /// The version of the world that it speaks: `0.1` or `0.2`.
    pub fn world(&self) -> &'static str {
        self.0.ready.version().name()
    }

    /// What a judge could have written where a score is read, in the replies of its golden cases: the
    /// reply up to there, and the choices. Those alone, for what others would look like it does not say.
    ///
    /// # Errors
    /// [`RubricError`] when it does not give its cases, or breaks on one.
    pub fn written_choices(&self) -> Result<Vec<(String, Vec<String>)>, RubricError> {
        let broke = |error| unusable(error, RubricError::Describe);
        let mut all = Vec::new();
        for case in self.examples()?.into_iter().filter(|case| case.scores.is_some()) {
            let rendered = self.render(&case.item).map_err(broke)?;
            let reading = self.read(&case.item, &case.answer, rendered.readout.as_ref());
            let ParsedReply::Verdict { places, .. } = reading.map_err(broke)? else { continue };
            for place in places {
                let before = case.answer.get(..place.start).unwrap_or_default().to_owned();
                all.push((before, place.choices.into_iter().map(|(text, _)| text).collect()));
            }
        }
        Ok(all)
    }

    /// The golden cases it brings.
    pub(super) fn examples(&self) -> Result<Vec<Example>, RubricError> {
        let (examples, _) = self
            .0
            .call(|guest, store| guest.examples(store))
            .map_err(|error| unusable(error, RubricError::Describe))?;
        if examples.len() > EXAMPLES_MAX {
            let reason = format!("{} golden cases, more than {EXAMPLES_MAX}", examples.len());
            return Err(RubricError::Describe(reason));
        }
        Ok(examples)
    }
}

fn used(store: &Store<Host>) -> u64 {
    FUEL_MAX.saturating_sub(store.get_fuel().unwrap_or_default())
}

impl Inner {
    /// Runs one call on a fresh instance; state never passes from one judgment to the next.
    fn call<T>(
        &self,
        run: impl FnOnce(&Guest, &mut Store<Host>) -> wasmtime::Result<T>,
    ) -> Result<(T, Store<Host>), CallError> {
        let mut store = store(&self.engine).map_err(CallError::trapped)?;
        let result = self.ready.instantiate(&mut store).and_then(|guest| run(&guest, &mut store));
        match result {
            Ok(value) => Ok((value, store)),
            Err(error) if is_the_hosts(&error) => {
                let reason = format!("{} (a rubric reserves {ADDRESS_SPACE})", text(&error));
                Err(CallError::Host { reason })
            }
            Err(error) => {
                let mut reason = text(&error);
                if let Some(last) = store.data().log.last() {
                    reason.push_str(&format!(" (its last log line: {last})"));
                }
                Err(CallError::Trapped { reason })
            }
        }
    }
}

fn unknown() -> RubricInfo {
    RubricInfo {
        name: String::new(),
        version: String::new(),
        description: String::new(),
        subject: Subject::Response,
        min_candidates: 1,
        max_candidates: 1,
        scale_min: 0.0,
        scale_max: 1.0,
        aggregation: Aggregation::Mean,
        order_sensitive: false,
    }
}

fn describe(inner: &Inner) -> Result<RubricInfo, RubricError> {
    let (info, _) = inner
        .call(|guest, store| guest.describe(store))
        .map_err(|error| unusable(error, RubricError::Describe))?;
    let wrong = |reason: String| Err(RubricError::Describe(reason));
    let name_fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if info.name.is_empty() || info.name.len() > 64 || !info.name.chars().all(name_fits) {
        return wrong(format!("name {:?} is not 1 to 64 letters, digits, - or _", info.name));
    }
    if info.min_candidates == 0 || info.min_candidates > info.max_candidates {
        let (min, max) = (info.min_candidates, info.max_candidates);
        return wrong(format!("it takes {min} to {max} candidates"));
    }
    let (min, max) = (info.scale_min, info.scale_max);
    if !(min.is_finite() && max.is_finite() && min < max) {
        return wrong(format!("its scale is {min} to {max}"));
    }
    Ok(info)
}
