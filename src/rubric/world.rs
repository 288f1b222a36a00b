//! The two versions of the world that components may speak, behind one face: whatever a guest hands
//! over leaves this file as types of the room's own, so that nothing else knows which it was.

use super::RubricError;
use super::bindings::{v0_1, v0_2};
use super::call::{Readout, RubricInput, ScorePlace};
use super::component::{Aggregation, RubricInfo, Subject, text};
use super::engine::{Host, RubricEngine, store};
use super::examine::Example;
use crate::domain::{Message, Role};
use wasmtime::Store;
use wasmtime::component::{Component, HasSelf, Linker};

/// A version of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// A verdict does not say where it was read.
    V0_1,
    /// It does.
    V0_2,
}

impl Version {
    pub fn name(self) -> &'static str {
        match self {
            Version::V0_1 => "0.1",
            Version::V0_2 => "0.2",
        }
    }
}

/// What `render` gave, not checked yet.
pub(super) struct RawPrompt {
    pub messages: Vec<Message>,
    pub max_tokens: u32,
    pub stop: Vec<String>,
    pub readout: Option<Readout>,
}

/// What `parse` gave, not checked yet.
pub(super) struct RawVerdict {
    pub scores: Vec<f64>,
    pub places: Vec<ScorePlace>,
    pub criteria: Vec<(String, f64)>,
    pub rationale: String,
}

/// Why `parse` gave no verdict.
pub(super) enum ParseFailure {
    Missing,
    Ambiguous(Vec<String>),
    OutOfRange(f64),
    Malformed(String),
}

/// The calls of one version. Its types have the same names as the other's and differ to the compiler
/// alone, so one text serves both.
macro_rules! calls {
    ($version:ident, $places:expr) => {
        pub(super) mod $version {
            use super::*;
            use crate::rubric::bindings::$version::Rubric as Bindings;
            use crate::rubric::bindings::$version::exports::gradus::rubric::judge as wit;
            use crate::rubric::bindings::$version::gradus::rubric::types;

            fn item_in(item: &RubricInput) -> wit::Item {
                let field = |(name, value): &(String, String)| types::Field {
                    name: name.clone(),
                    value: value.clone(),
                };
                wit::Item {
                    task: item.task.clone(),
                    context: item.context.clone(),
                    reference: item.reference.clone(),
                    candidates: item.candidates.clone(),
                    fields: item.fields.iter().map(field).collect(),
                }
            }

            fn item_out(item: wit::Item) -> RubricInput {
                RubricInput {
                    task: item.task,
                    context: item.context,
                    reference: item.reference,
                    candidates: item.candidates,
                    fields: item.fields.into_iter().map(|f| (f.name, f.value)).collect(),
                }
            }

            fn choices(choices: Vec<types::Choice>) -> Vec<(String, Vec<f64>)> {
                choices.into_iter().map(|choice| (choice.text, choice.scores)).collect()
            }

            pub fn describe(
                guest: &Bindings,
                store: &mut Store<Host>,
            ) -> wasmtime::Result<RubricInfo> {
                let info = guest.gradus_rubric_judge().call_describe(store)?;
                Ok(RubricInfo {
                    name: info.name,
                    version: info.version,
                    description: info.description,
                    subject: match info.subject {
                        types::Subject::Response => Subject::Response,
                        types::Subject::Judgment => Subject::Judgment,
                    },
                    min_candidates: info.min_candidates,
                    max_candidates: info.max_candidates,
                    scale_min: info.scale.min,
                    scale_max: info.scale.max,
                    aggregation: match info.aggregation {
                        types::Aggregation::Mean => Aggregation::Mean,
                        types::Aggregation::Median => Aggregation::Median,
                        types::Aggregation::Majority => Aggregation::Majority,
                        types::Aggregation::Minimum => Aggregation::Minimum,
                    },
                    order_sensitive: info.order_sensitive,
                })
            }

            pub fn examples(
                guest: &Bindings,
                store: &mut Store<Host>,
            ) -> wasmtime::Result<Vec<Example>> {
                let examples = guest.gradus_rubric_judge().call_examples(store)?;
                let example = |example: wit::Example| Example {
                    name: example.name,
                    item: item_out(example.item),
                    answer: example.answer,
                    scores: match example.expect {
                        types::Expectation::Scores(scores) => Some(scores),
                        types::Expectation::Rejected => None,
                    },
                };
                Ok(examples.into_iter().map(example).collect())
            }

            pub fn render(
                guest: &Bindings,
                store: &mut Store<Host>,
                item: &RubricInput,
            ) -> wasmtime::Result<Result<RawPrompt, String>> {
                let rendered = guest.gradus_rubric_judge().call_render(store, &item_in(item))?;
                let message = |message: types::Message| Message {
                    role: match message.role {
                        types::Role::System => Role::System,
                        types::Role::User => Role::User,
                        types::Role::Assistant => Role::Assistant,
                    },
                    content: message.content,
                };
                Ok(rendered.map(|prompt| RawPrompt {
                    messages: prompt.messages.into_iter().map(message).collect(),
                    max_tokens: prompt.max_tokens,
                    stop: prompt.stop,
                    readout: prompt
                        .readout
                        .map(|r| Readout { lead: r.lead, choices: choices(r.choices) }),
                }))
            }

            pub fn parse(
                guest: &Bindings,
                store: &mut Store<Host>,
                item: &RubricInput,
                answer: &str,
            ) -> wasmtime::Result<Result<RawVerdict, ParseFailure>> {
                let judge = guest.gradus_rubric_judge();
                let parsed = judge.call_parse(store, &item_in(item), answer)?;
                let places: fn(&mut wit::Verdict) -> Vec<ScorePlace> = $places;
                let verdict = parsed.map(|mut verdict| RawVerdict {
                    places: places(&mut verdict),
                    scores: verdict.scores,
                    criteria: verdict.criteria.into_iter().map(|c| (c.name, c.value)).collect(),
                    rationale: verdict.rationale,
                });
                Ok(verdict.map_err(|error| match error {
                    wit::ParseError::Missing => ParseFailure::Missing,
                    wit::ParseError::Ambiguous(found) => ParseFailure::Ambiguous(found),
                    wit::ParseError::OutOfRange(score) => ParseFailure::OutOfRange(score),
                    wit::ParseError::Malformed(reason) => ParseFailure::Malformed(reason),
                }))
            }
        }
    };
}

mod calls {
    use super::*;

    calls!(v0_1, |_| Vec::new());
    calls!(v0_2, |verdict| {
        let place = |place: types::Place| ScorePlace {
            start: place.start as usize,
            end: place.end as usize,
            weight: place.weight,
            choices: choices(place.choices),
        };
        std::mem::take(&mut verdict.places).into_iter().map(place).collect()
    });
}

/// A component, ready to be instantiated.
pub(super) enum Ready {
    V0_1(v0_1::RubricPre<Host>),
    V0_2(v0_2::RubricPre<Host>),
}

/// An instance.
pub(super) enum Guest {
    V0_1(v0_1::Rubric),
    V0_2(v0_2::Rubric),
}

/// Which version a component speaks; the later one if both.
fn version(engine: &RubricEngine, component: &Component) -> Result<Version, RubricError> {
    let speaks = |name: &str| component.get_export_index(None, name).is_some();
    if speaks("gradus:rubric/judge@0.2.0") {
        return Ok(Version::V0_2);
    }
    if speaks("gradus:rubric/judge@0.1.0") {
        return Ok(Version::V0_1);
    }
    let ty = component.component_type();
    let found: Vec<String> = ty.exports(&engine.engine).map(|(name, _)| name.to_owned()).collect();
    let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
    Err(RubricError::World { found })
}

impl Ready {
    /// Links a component to what a rubric of its version gets.
    ///
    /// # Errors
    /// [`RubricError`] when it is of no version that is spoken here, or asks for more.
    pub fn link(engine: &RubricEngine, component: &Component) -> Result<Ready, RubricError> {
        let version = version(engine, component)?;
        let failed = |error: wasmtime::Error| RubricError::Engine(text(&error));
        let mut linker = Linker::<Host>::new(&engine.engine);
        match version {
            Version::V0_1 => v0_1::Rubric::add_to_linker::<_, HasSelf<_>>(&mut linker, |h| h),
            Version::V0_2 => v0_2::Rubric::add_to_linker::<_, HasSelf<_>>(&mut linker, |h| h),
        }
        .map_err(failed)?;
        let linked =
            linker.instantiate_pre(component).map_err(|error| RubricError::Import(text(&error)))?;
        let ready = match version {
            Version::V0_1 => Ready::V0_1(v0_1::RubricPre::new(linked).map_err(failed)?),
            Version::V0_2 => Ready::V0_2(v0_2::RubricPre::new(linked).map_err(failed)?),
        };
        ready.check_types(engine)?;
        Ok(ready)
    }

    /// An interface of the right name may still hold functions of other types. wasmtime compares them
    /// when an instance is first used; a trap before that is left to the first real call to report.
    fn check_types(&self, engine: &RubricEngine) -> Result<(), RubricError> {
        let mut store = store(&engine.engine).map_err(RubricError::Engine)?;
        let pre = match self {
            Ready::V0_1(pre) => pre.instance_pre(),
            Ready::V0_2(pre) => pre.instance_pre(),
        };
        let Ok(instance) = pre.instantiate(&mut store) else { return Ok(()) };
        let checked = match self {
            Ready::V0_1(_) => v0_1::Rubric::new(&mut store, &instance).map(drop),
            Ready::V0_2(_) => v0_2::Rubric::new(&mut store, &instance).map(drop),
        };
        checked.map_err(|error| RubricError::World {
            found: format!("a judge of other types ({})", text(&error)),
        })
    }

    pub fn version(&self) -> Version {
        match self {
            Ready::V0_1(_) => Version::V0_1,
            Ready::V0_2(_) => Version::V0_2,
        }
    }

    pub fn instantiate(&self, store: &mut Store<Host>) -> wasmtime::Result<Guest> {
        Ok(match self {
            Ready::V0_1(pre) => Guest::V0_1(pre.instantiate(store)?),
            Ready::V0_2(pre) => Guest::V0_2(pre.instantiate(store)?),
        })
    }
}

impl Guest {
    pub fn describe(&self, store: &mut Store<Host>) -> wasmtime::Result<RubricInfo> {
        match self {
            Guest::V0_1(guest) => calls::v0_1::describe(guest, store),
            Guest::V0_2(guest) => calls::v0_2::describe(guest, store),
        }
    }

    pub fn examples(&self, store: &mut Store<Host>) -> wasmtime::Result<Vec<Example>> {
        match self {
            Guest::V0_1(guest) => calls::v0_1::examples(guest, store),
            Guest::V0_2(guest) => calls::v0_2::examples(guest, store),
        }
    }

    pub fn render(
        &self,
        store: &mut Store<Host>,
        item: &RubricInput,
    ) -> wasmtime::Result<Result<RawPrompt, String>> {
        match self {
            Guest::V0_1(guest) => calls::v0_1::render(guest, store, item),
            Guest::V0_2(guest) => calls::v0_2::render(guest, store, item),
        }
    }

    pub fn parse(
        &self,
        store: &mut Store<Host>,
        item: &RubricInput,
        answer: &str,
    ) -> wasmtime::Result<Result<RawVerdict, ParseFailure>> {
        match self {
            Guest::V0_1(guest) => calls::v0_1::parse(guest, store, item, answer),
            Guest::V0_2(guest) => calls::v0_2::parse(guest, store, item, answer),
        }
    }
}
