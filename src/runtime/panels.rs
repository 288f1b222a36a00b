//! PANELS: which rubric that judges somebody means, whether what judges is what somebody thinks, and
//! which of two versions is older.

use crate::domain::{Panel, RubricId};
use crate::error::{Code, Error};
use crate::view::RunView;
use std::cmp::Ordering;

/// Digits of a hash that are enough to mean a rubric.
const HASH_DIGITS_MIN: usize = 4;

fn label(view: &RunView, rubric: &RubricId) -> String {
    view.rubrics.installed.get(rubric).map_or_else(
        || rubric.short().to_owned(),
        |facts| format!("{}@{} ({})", facts.name, facts.version, rubric.short()),
    )
}

/// What judges, in words.
fn judges(view: &RunView) -> String {
    let members = view.panel.as_ref().map_or(&[][..], Panel::members);
    let names: Vec<String> = members.iter().map(|member| label(view, &member.rubric)).collect();
    match names.is_empty() {
        true => "nobody".to_owned(),
        false => names.join(", "),
    }
}

/// The installed rubric that somebody means.
///
/// # Errors
/// [`Error::Refused`] with what is installed, when it is none or not only one.
pub fn find(view: &RunView, wanted: &str) -> Result<RubricId, Error> {
    let found = view.rubrics_named(wanted);
    match found.as_slice() {
        [only] => Ok((*only).clone()),
        _ => {
            let known: Vec<String> = view
                .rubrics
                .installed
                .iter()
                .map(|(id, facts)| format!("{}@{} ({})", facts.name, facts.version, id.short()))
                .collect();
            let (what, code) = match found.is_empty() {
                true => ("no", Code::RubricUnknown),
                false => ("more than one", Code::RubricAmbiguous),
            };
            Err(Error::refused(
                code,
                format!(
                    "{what} installed rubric is {wanted:?}; installed are {}. Install the \
                 one that is meant, or name another",
                    known.join(", ")
                ),
            ))
        }
    }
}

/// The rubric that somebody means among those that judge, or judged in the open iteration: its
/// name, `name@version`, or the beginning of its hash.
pub(super) fn judging(view: &RunView, wanted: &str) -> Result<RubricId, Error> {
    let members = view.panel.iter().flat_map(Panel::members).map(|member| &member.rubric);
    let open = view.open().map(|(_, open)| open.rubrics());
    let mut all: Vec<&RubricId> = members.collect();
    for rubric in open.into_iter().flatten() {
        if !all.contains(&rubric) {
            all.push(rubric);
        }
    }
    let (name, version) = match wanted.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (wanted, None),
    };
    let meant = |rubric: &&&RubricId| {
        let named = view.rubrics.installed.get(**rubric).is_some_and(|facts| {
            facts.name == name && version.is_none_or(|version| facts.version == version)
        });
        named || (wanted.len() >= HASH_DIGITS_MIN && rubric.0.starts_with(wanted))
    };
    match all.iter().filter(meant).collect::<Vec<_>>().as_slice() {
        [only] => Ok((**only).clone()),
        [] => {
            // Said as of every other verb when there is no such rubric at all.
            let rubric = find(view, wanted)?;
            Err(Error::refused(
                Code::RubricNotJudging,
                format!(
                    "{} does not judge, and judged nothing in the open iteration: there is \
                 nothing to roll back. What judges: {}",
                    label(view, &rubric),
                    judges(view)
                ),
            ))
        }
        several => {
            let names: Vec<String> = several.iter().map(|r| label(view, r)).collect();
            Err(Error::refused(
                Code::RubricAmbiguous,
                format!(
                    "more than one rubric that judges is {wanted:?}: {}. Say which one by the \
                 beginning of its hash",
                    names.join(", ")
                ),
            ))
        }
    }
}

/// Whether the rubrics that judge are the ones with these hash beginnings, one for each.
///
/// # Errors
/// [`Error::Refused`] with what judges now, when they are not.
pub(super) fn must_be(view: &RunView, hashes: &str) -> Result<(), Error> {
    let wanted: Vec<&str> = hashes.split(',').map(str::trim).collect();
    if let Some(short) = wanted.iter().find(|hash| hash.len() < HASH_DIGITS_MIN) {
        return Err(Error::refused(
            Code::RubricHashShort,
            format!(
                "{short:?} is too short for the beginning of a rubric's hash: give {HASH_DIGITS_MIN} \
             digits or more"
            ),
        ));
    }
    let members = view.panel.as_ref().map_or(&[][..], Panel::members);
    let is =
        |hash: &&str| members.iter().filter(|member| member.rubric.0.starts_with(*hash)).count();
    let on_panel = |rubric: &RubricId| wanted.iter().any(|hash| rubric.0.starts_with(*hash));
    if wanted.len() == members.len()
        && wanted.iter().all(|hash| is(hash) == 1)
        && members.iter().all(|member| on_panel(&member.rubric))
    {
        return Ok(());
    }
    Err(Error::refused(
        Code::PanelChanged,
        format!("what judges is not {hashes} any more but {}: nothing was changed", judges(view)),
    ))
}

/// A version as it is compared: its numbers, and what is before its release.
type ParsedVersion<'a> = (Vec<u64>, Option<Vec<&'a str>>);

/// Reads `1.4.0`, `1.4`, `1.4.0-rc.1`, each with an optional `+build`, which does not count.
fn version(text: &str) -> Option<ParsedVersion<'_>> {
    let text = text.split_once('+').map_or(text, |(version, _)| version);
    let (numbers, before) = match text.split_once('-') {
        Some((numbers, before)) => (numbers, Some(before.split('.').collect())),
        None => (text, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let number = |part: &str| part.parse().ok().filter(|_| digits(part));
    let mut numbers = numbers.split('.').map(number).collect::<Option<Vec<u64>>>()?;
    while numbers.len() > 1 && numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some((numbers, before))
}

/// Parts that are numbers come before words, and are compared as numbers (Semantic Versioning 2.0,
/// 11.4).
fn part(a: &str, b: &str) -> Ordering {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

/// Which of two versions is older; `None` when one of them cannot be read.
pub(super) fn compare(a: &str, b: &str) -> Option<Ordering> {
    let ((a, a_before), (b, b_before)) = (version(a)?, version(b)?);
    let released = |before: &Option<Vec<&str>>| before.is_none();
    let before = || match (&a_before, &b_before) {
        (Some(a), Some(b)) => {
            let parts = a.iter().zip(b).map(|(a, b)| part(a, b));
            parts.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
        }
        (a, b) => released(a).cmp(&released(b)),
    };
    Some(a.cmp(&b).then_with(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        use Ordering::{Equal, Greater, Less};
        for (a, b, wanted) in [
            ("0.0.1", "0.4.0", Some(Less)),
            ("0.10.0", "0.9.9", Some(Greater)),
            ("1", "1.0.0", Some(Equal)),
            ("1.0", "1.0.1", Some(Less)),
            ("2.0.0-rc.1", "2.0.0", Some(Less)),
            ("2.0.0-rc.2", "2.0.0-rc.10", Some(Less)),
            ("2.0.0-rc.1", "2.0.0-1", Some(Greater)),
            ("2.0.0-rc", "2.0.0-rc.1", Some(Less)),
            ("1.0.0+a", "1.0.0+b", Some(Equal)),
            ("one", "1.0.0", None),
            ("1.0.0", "v1.0.0", None),
            ("1..0", "1.0.0", None),
            ("", "1.0.0", None),
            ("+1.0", "1.0", None),
            ("99999999999999999999.0", "1.0", None),
        ] {
            assert_eq!(compare(a, b), wanted, "{a} {b}");
        }
    }
}
