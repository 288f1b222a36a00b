//! `prompts.held_out`, changed after the run was laid out: more of the given prompts are held out,
//! or fewer are measured on. What is held out once is never trained on again.

use crate::blob::BlobStore;
use crate::config::Config;
use crate::domain::event::SeedRow;
use crate::domain::{Event, Offset, Prompt, PromptId, PromptOrigin, Seed};
use crate::error::Error;
use crate::log::{Batch, Log};
use crate::prompts::held_out::{HeldOut, order, text_of};
use crate::stage::StageError;
use crate::view::RunView;
use std::collections::BTreeSet;

/// Ids in one event, which has to stay small.
const IDS_PER_EVENT: usize = 10_000;
/// Prompts that are compared with everything trained on at a time.
const AT_A_TIME: usize = 256;

/// What a changed `prompts.held_out` came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldOutChange {
    /// The setting before.
    pub before: u32,
    /// The setting now.
    pub wanted: u32,
    /// Prompts that are held out from here on.
    pub added: usize,
    /// Of all prompts held out, those that may be measured on.
    pub measured: usize,
    /// All prompts held out.
    pub held_out: usize,
    /// Given and generated prompts left that no iteration has used.
    pub unused: usize,
}

impl std::fmt::Display for HeldOutChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let HeldOutChange { before, wanted, added, measured, held_out, unused } = self;
        write!(f, "prompts.held_out was {before} and is {wanted}: ")?;
        if *measured < *held_out && *added == 0 {
            return write!(
                f,
                "{measured} of the {held_out} held-out prompts are measured on; the others stay \
                 out of training"
            );
        }
        if (*measured as u64) < u64::from(*wanted) {
            let some = if *added == 0 { "none".to_owned() } else { format!("only {added}") };
            write!(
                f,
                "{some} more could be had, for the other prompts were trained on, stand in the seed \
                 data or were written by the model; "
            )?;
        } else {
            write!(f, "{added} more are held out from here on; ")?;
        }
        write!(f, "{measured} are measured on, {unused} unused ones are left to train on")
    }
}

/// Obeys the setting when it is not what was obeyed last. The same prompts whenever it is done.
pub(super) fn obey(
    config: &Config,
    log: &dyn Log,
    blobs: &BlobStore,
    view: &mut RunView,
) -> Result<Option<HeldOutChange>, Error> {
    let wanted = config.prompts.held_out;
    let (Some(before), Some(root)) = (view.held_out_wanted, view.seed) else {
        return Ok(None);
    };
    if before == wanted {
        return Ok(None);
    }
    let lacking = (wanted as usize).saturating_sub(view.never_trained_on_count());
    let chosen = match lacking {
        0 => Vec::new(),
        _ => choose(lacking, root, log, blobs, view)?,
    };
    let event = |ids: &[PromptId]| Event::PromptsHeldOut { wanted, prompts: ids.to_vec() };
    let events: Vec<Event> = match chosen.is_empty() {
        true => vec![event(&[])],
        false => chosen.chunks(IDS_PER_EVENT).map(event).collect(),
    };
    log.append(Batch { key: None, events, cursor: None })?;
    view.catch_up(log)?;
    Ok(Some(HeldOutChange {
        before,
        wanted,
        added: chosen.len(),
        measured: view.held_out().count(),
        held_out: view.never_trained_on_count(),
        unused: view.waiting(),
    }))
}

/// A prompt that was admitted.
pub(super) fn admitted(log: &dyn Log, id: &PromptId, at: Offset) -> Result<Prompt, Error> {
    match log.get(at)?.map(|record| record.event) {
        Some(Event::PromptAdmitted { prompt }) => Ok(prompt),
        _ => Err(StageError::Missing(format!("prompt {id} is not at offset {at}")).into()),
    }
}

/// Given prompts that no iteration has used and that nothing which trains holds, in the order in
/// which `init` would take them; and unused ones that nearly equal one of them, which could not be
/// trained on any more.
fn choose(
    wanted: usize,
    root: Seed,
    log: &dyn Log,
    blobs: &BlobStore,
    view: &RunView,
) -> Result<Vec<PromptId>, Error> {
    let (mut free, mut trained) = (Vec::new(), Vec::new());
    let unused: BTreeSet<&PromptId> = view.unused().map(|(id, _)| id).collect();
    for (id, facts) in &view.prompts {
        let prompt = admitted(log, id, facts.offset)?;
        match facts.origin {
            PromptOrigin::Given if unused.contains(id) => free.push(prompt),
            PromptOrigin::HeldOut => {}
            _ => trained.push(prompt),
        }
    }
    let seeds = seed_rows(blobs, view)?;
    order(&mut free, root);
    let mut chosen: Vec<Prompt> = Vec::new();
    let mut from = 0;
    while chosen.len() < wanted && from < free.len() {
        let mut some: Vec<Prompt> = free.iter().skip(from).take(AT_A_TIME).cloned().collect();
        from += some.len();
        without_trained(&mut some, &trained, &seeds);
        some.truncate(wanted - chosen.len());
        chosen.extend(some);
    }
    let held = HeldOut::of(&chosen);
    let ids: BTreeSet<PromptId> = chosen.iter().map(|prompt| prompt.id.clone()).collect();
    let twins = free
        .into_iter()
        .filter(|prompt| !ids.contains(&prompt.id) && held.in_chat(&prompt.messages).is_some());
    Ok(chosen.iter().map(|prompt| prompt.id.clone()).chain(twins.map(|twin| twin.id)).collect())
}

/// Takes away the prompts that something which trains holds, word for word or nearly.
fn without_trained(some: &mut Vec<Prompt>, trained: &[Prompt], seeds: &[(String, SeedRow)]) {
    loop {
        let held = HeldOut::of(some.iter());
        let in_prompts = trained.iter().filter_map(|prompt| held.found_in_chat(&prompt.messages));
        let in_rows = seeds.iter().filter_map(|(name, row)| match name.as_str() {
            "eft" => held.found_in_question(&row.messages),
            _ => held.found_in_chat(&row.messages),
        });
        let found: BTreeSet<&str> = in_prompts.chain(in_rows).map(|(_, text)| text).collect();
        if found.is_empty() {
            return;
        }
        // Each pass finds one prompt a row: another may be behind it.
        some.retain(|prompt| !found.contains(text_of(&prompt.messages).trim()));
    }
}

/// The rows of all seed data, each with the name of its data.
fn seed_rows(blobs: &BlobStore, view: &RunView) -> Result<Vec<(String, SeedRow)>, Error> {
    let mut rows = Vec::new();
    for facts in &view.seed_data {
        let bytes = blobs.read(&facts.blob)?;
        for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let row = serde_json::from_slice(line).map_err(|error| {
                StageError::Missing(format!("seed data {}: {error}", facts.name))
            })?;
            rows.push((facts.name.clone(), row));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BlobStore;
    use crate::domain::{BlobHash, Iteration, Message, PolicyRef};
    use crate::log::MemoryLog;
    use std::sync::Arc;

    fn given(text: &str) -> Event {
        Event::PromptAdmitted { prompt: Prompt::user(text, PromptOrigin::Given) }
    }

    fn id(text: &str) -> PromptId {
        Prompt::user(text, PromptOrigin::Given).id
    }

    /// Twelve given prompts, two held out; one is used, one stands in a seed row and one in a
    /// judge's question, two are nearly equal.
    fn run(blobs: &BlobStore) -> (Arc<MemoryLog>, RunView, Config) {
        let mut config = Config::default();
        config.prompts.held_out = 2;
        let mut events: Vec<Event> = (1..=9).map(|n| given(&format!("add {n} and 1 ."))).collect();
        events.push(given("Name a red fruit."));
        events.push(given("name a red fruit, please"));
        for text in ["Name a tree.", "Name a blue bird."] {
            let prompt = Prompt::user(text, PromptOrigin::HeldOut);
            events.push(Event::PromptAdmitted { prompt });
        }
        let row =
            |text: &str| SeedRow { messages: vec![Message::user(text)], completion: "x".into() };
        for (name, row) in
            [("ift", row("Add 1 and 1!")), ("eft", row("<task> add 2 and 1 . <answer>"))]
        {
            let blob = blobs.put(&serde_json::to_vec(&row).unwrap()).unwrap();
            events.push(Event::SeedDataAdmitted { name: name.into(), rows: 1, blob });
        }
        let base = PolicyRef::full(BlobHash("w".into()));
        events.push(Event::RunStarted { seed: 7, base, settings: config.recorded() });
        let used = vec![id("add 3 and 1 .")];
        events.push(Event::PromptsSealed { iteration: Iteration(1), prompts: used, left: 0 });
        let log = Arc::new(MemoryLog::default());
        log.append(Batch { key: None, events, cursor: None }).unwrap();
        let view = super::super::fold(log.as_ref()).unwrap();
        (log, view, config)
    }

    fn ids(view: &RunView) -> BTreeSet<PromptId> {
        view.never_trained_on().map(|(id, _)| id.clone()).collect()
    }

    #[test]
    fn raised_lowered_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(dir.path()).unwrap();
        let (log, mut view, mut config) = run(&blobs);
        let tail = log.tail();
        assert_eq!(obey(&config, log.as_ref(), &blobs, &mut view).unwrap(), None);
        assert_eq!(log.tail(), tail, "nothing is recorded where nothing changed");

        config.prompts.held_out = 5;
        let change = obey(&config, log.as_ref(), &blobs, &mut view).unwrap().unwrap();
        assert_eq!((change.before, change.wanted, change.measured), (2, 5, 5), "{change}");
        let held = ids(&view);
        assert!(held.len() >= 5);
        for trained in ["add 1 and 1 .", "add 2 and 1 .", "add 3 and 1 ."] {
            assert!(!held.contains(&id(trained)), "{trained} is trained on");
        }
        let twins = [id("Name a red fruit."), id("name a red fruit, please")];
        assert!(twins.iter().all(|t| held.contains(t)) || !twins.iter().any(|t| held.contains(t)));
        assert_eq!(obey(&config, log.as_ref(), &blobs, &mut view).unwrap(), None);
        assert_eq!(ids(&super::super::fold(log.as_ref()).unwrap()), held, "the log says it");

        config.prompts.held_out = 1;
        let change = obey(&config, log.as_ref(), &blobs, &mut view).unwrap().unwrap();
        assert_eq!((change.measured, change.added), (1, 0));
        assert!(change.to_string().contains("stay out of training"), "{change}");
        assert_eq!((view.held_out().count(), ids(&view)), (1, held.clone()));

        config.prompts.held_out = 400;
        let change = obey(&config, log.as_ref(), &blobs, &mut view).unwrap().unwrap();
        assert!(change.to_string().contains("only"), "{change}");
        assert_eq!((change.held_out, change.unused), (10, 2), "{change}");
        assert_eq!(view.held_out().count(), 10);
    }

    #[test]
    fn the_same_prompts_are_chosen_again() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(dir.path()).unwrap();
        let chosen = || {
            let (log, mut view, mut config) = run(&blobs);
            config.prompts.held_out = 4;
            obey(&config, log.as_ref(), &blobs, &mut view).unwrap();
            ids(&view)
        };
        assert_eq!(chosen(), chosen());
    }
}
