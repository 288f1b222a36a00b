//! POLICIES of a run: what they are called, and which of them acts because somebody says so.

use crate::domain::{Event, Iteration, Offset, PolicyRef};
use crate::error::{Code, Error};
use crate::view::RunView;
use serde::{Deserialize, Serialize};

/// What M0 is called too.
const BASE: &str = "base";
/// What the policy is called that acts now.
const LATEST: &str = "latest";

/// A policy of a run, for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PolicyRow {
    /// `M0` is the base, `M2` what iteration 2 made.
    pub name: String,
    /// Its weights.
    pub policy: PolicyRef,
    /// Whether it acts now.
    pub acts: bool,
    /// Whether somebody wants it to stay.
    pub pinned: bool,
    /// Why it was not promoted, where it was not.
    pub rejected: Option<String>,
}

/// A policy that somebody chose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyChoice {
    /// `M2`, where it is an iteration's.
    pub name: String,
    /// Its weights.
    pub policy: PolicyRef,
    /// Whether it stays, whatever later iterations come to.
    pub pinned: bool,
    /// Where the log says so; `None` where it was so already.
    pub at: Option<Offset>,
}

fn name_of(iteration: Iteration) -> String {
    format!("M{iteration}")
}

/// Every policy, in the order in which they came about.
pub(super) fn list(view: &RunView) -> Vec<PolicyRow> {
    let row = |name: String, policy: &PolicyRef, rejected: Option<String>| {
        let acts = view.policy.as_ref() == Some(policy);
        PolicyRow { name, policy: policy.clone(), acts, pinned: acts && view.pinned, rejected }
    };
    let base = view.base.iter().map(|base| row(name_of(Iteration(0)), base, None));
    let over = view.past().filter_map(|(number, past)| {
        Some(row(name_of(number), past.made.as_ref()?, past.rejected.clone()))
    });
    let open = view.open().and_then(|(number, open)| {
        Some(row(name_of(number), open.made()?, open.rejected().map(str::to_owned)))
    });
    base.chain(over).chain(open).collect()
}

/// What the policy is called that acts now.
pub(super) fn acting(view: &RunView) -> Option<String> {
    let is = |made: Option<&PolicyRef>| made.is_some() && made == view.policy.as_ref();
    if is(view.base.as_ref()) {
        return Some(name_of(Iteration(0)));
    }
    let open = view.open().filter(|(_, open)| is(open.made())).map(|(number, _)| number);
    // From the newest on: it is one of the last, mostly.
    let made_it = |number: &Iteration| {
        is(view.finished_iteration(*number).and_then(|past| past.made.as_ref()))
    };
    let over = || (1..view.next_iteration().0.0).rev().map(Iteration).find(made_it);
    open.or_else(over).map(name_of)
}

/// The policy that a person means: `latest`, `base`, `M2`, or the beginning of its hash.
///
/// # Errors
/// [`Error::Refused`] with the names that there are.
pub fn find(view: &RunView, wanted: &str) -> Result<PolicyRow, Error> {
    let all = list(view);
    let names = || all.iter().map(|row| row.name.clone()).collect::<Vec<_>>().join(", ");
    let is = |row: &&PolicyRow| match wanted {
        LATEST => row.acts,
        BASE => row.name == "M0",
        name if name.eq_ignore_ascii_case(&row.name) => true,
        hash => hash.len() >= 4 && row.policy.id().to_string().starts_with(hash),
    };
    let found: Vec<&PolicyRow> = all.iter().filter(is).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        // Two iterations may end in the same weights.
        [one, others @ ..] if others.iter().all(|row| row.policy == one.policy) => {
            Ok((*one).clone())
        }
        [] => Err(Error::refused(
            Code::PolicyUnknown,
            format!(
                "the run has no policy {wanted:?}. It has {}; {LATEST} is the one that acts, {BASE} is \
             M0, and the beginning of a hash (4 characters or more) is a name too",
                names()
            ),
        )),
        several => Err(Error::refused(
            Code::PolicyUnknown,
            format!(
                "{wanted:?} is the beginning of {} hashes; give more of it, or one of {}",
                several.len(),
                names()
            ),
        )),
    }
}

/// What is recorded when a policy is chosen, and what is told then; nothing is recorded where it is
/// so already.
pub(super) fn choose(
    view: &RunView,
    row: PolicyRow,
    pinned: bool,
    reason: String,
) -> (Option<Event>, PolicyChoice) {
    let PolicyRow { name, policy, acts, .. } = row;
    let changes = !acts || view.pinned != pinned;
    let event = Event::PolicyChosen { policy: policy.clone(), pinned, reason };
    (changes.then_some(event), PolicyChoice { name, policy, pinned, at: None })
}

/// The policy that acted before the one that does.
///
/// # Errors
/// [`Error::Refused`] where none did.
pub(super) fn before(view: &RunView) -> Result<PolicyRow, Error> {
    let none = || {
        Error::refused(
            Code::NoEarlierPolicy,
            "no policy acted before this one: it is the base".to_owned(),
        )
    };
    let all = list(view);
    let at = all.iter().position(|row| row.acts).ok_or_else(none)?;
    let before = all.into_iter().take(at).rev().find(|row| row.rejected.is_none());
    before.ok_or_else(none)
}
