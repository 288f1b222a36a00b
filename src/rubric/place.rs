//! Where in a judge's answer a score was read. A component of wit/v0.2 says so itself, and is checked;
//! of one of wit/v0.1 it is found out by what its `parse` does.

use super::call::{CallError, Readout, ScorePlace, check_scores, differ};
use crate::domain::Scale;

/// The most places of one answer, and choices of one place.
const PLACES_MAX: usize = 64;
const CHOICES_MAX: usize = 256;
/// How often `parse` of wit/v0.1 is called again to find its place.
pub(super) const TRIES_MAX: usize = 16;

/// Places must be in order and apart, hold one of their choices, and give scores that a verdict may
/// give.
pub(super) fn check_places(
    places: &[ScorePlace],
    answer: &str,
    candidates: usize,
    scale: Scale,
) -> Result<(), CallError> {
    let wrong = |reason: String| Err(CallError::trapped(reason));
    if places.len() > PLACES_MAX {
        return wrong(format!("{} places, more than {PLACES_MAX}", places.len()));
    }
    let mut free = 0;
    for ScorePlace { start, end, weight, choices } in places {
        let at = format!("the place {start} to {end}");
        let Some(written) = answer.get(*start..*end).filter(|written| !written.is_empty()) else {
            return wrong(format!(
                "{at} is no text of the answer, which has {} bytes",
                answer.len()
            ));
        };
        if *start < free {
            return wrong(format!("{at} begins before the one before it ends"));
        }
        free = *end;
        if !(weight.is_finite() && *weight > 0.0) {
            return wrong(format!("{at} weighs {weight}, not a number above 0"));
        }
        if choices.len() > CHOICES_MAX {
            return wrong(format!("{at} has {} choices, more than {CHOICES_MAX}", choices.len()));
        }
        if !differ(choices) {
            return wrong(format!("{at} needs at least two different choices"));
        }
        if choices.iter().any(|(text, _)| text.trim() != text) {
            return wrong(format!("{at} has a choice with space around it"));
        }
        if !choices.iter().any(|(text, _)| text == written) {
            return wrong(format!("{at} holds {written:?}, which is none of its choices"));
        }
        for (_, scores) in choices {
            check_scores(scores, candidates, scale)?;
        }
    }
    Ok(())
}

/// Marks that may stand between the text before a score and the score.
const MARKS: &str = "*_`<[(\"'";

/// Where a verdict may have been read: after every `lead` the longest of the choices, if that gives
/// the scores that were read.
fn candidates<'a>(
    answer: &'a str,
    lead: &'a str,
    choices: &'a [(String, Vec<f64>)],
    scores: &'a [f64],
) -> impl Iterator<Item = (usize, &'a str)> {
    let low = answer.to_ascii_lowercase();
    let found: Vec<usize> = match lead.to_ascii_lowercase().as_str() {
        // Without one only a reply that is the score itself says where it is.
        "" => vec![0],
        lead => low.match_indices(lead).map(|(at, lead)| at + lead.len()).collect(),
    };
    found.into_iter().filter_map(move |after| {
        let rest = answer.get(after..)?;
        let written = rest.trim_start_matches(|c: char| c.is_whitespace() || MARKS.contains(c));
        let here = choices.iter().filter(|(text, _)| written.starts_with(text.as_str()));
        let (text, given) = here.max_by_key(|(text, _)| text.len())?;
        (given == scores).then_some((answer.len() - written.len(), text.as_str()))
    })
}

/// The place that `parse` read `scores` from, told by what it does: with another choice there it reads
/// something else. The first such place; none after [`TRIES_MAX`] tries.
///
/// `reads` says what `parse` makes of another answer, `None` for no scores.
///
/// # Errors
/// Those of `reads`.
pub(super) fn find(
    answer: &str,
    readout: &Readout,
    scores: &[f64],
    mut reads: impl FnMut(&str) -> Result<Option<Vec<f64>>, CallError>,
) -> Result<Option<ScorePlace>, CallError> {
    let mut choices: Vec<(String, Vec<f64>)> = Vec::new();
    for (text, given) in &readout.choices {
        let text = text.trim();
        if !text.is_empty() && choices.iter().all(|(known, _)| known != text) {
            choices.push((text.to_owned(), given.clone()));
        }
    }
    let Some((other, _)) = choices.iter().find(|(_, given)| given != scores) else {
        return Ok(None);
    };
    let places = candidates(answer, readout.lead.trim(), &choices, scores);
    for (start, text) in places.take(TRIES_MAX) {
        let end = start + text.len();
        let (before, after) = (answer.get(..start), answer.get(end..));
        let changed = [before.unwrap_or_default(), other, after.unwrap_or_default()].concat();
        if reads(&changed)?.as_deref() != Some(scores) {
            return Ok(Some(ScorePlace { start, end, weight: 1.0, choices: choices.clone() }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readout(lead: &str, choices: &[&str]) -> Readout {
        let choice = |text: &&str| ((*text).to_owned(), vec![text.trim().parse().unwrap()]);
        Readout { lead: lead.to_owned(), choices: choices.iter().map(choice).collect() }
    }

    /// Reads the number after the first `Score:` of the last line that has one outside of quotation
    /// marks.
    fn parse(answer: &str) -> Option<Vec<f64>> {
        let line = answer.lines().rfind(|l| l.contains("Score:") && !l.contains('"'))?;
        let (_, number) = line.split_once("Score:")?;
        Some(vec![number.trim_matches(['*', ' ', '.']).parse().ok()?])
    }

    fn found(answer: &str) -> Option<(usize, usize)> {
        let readout = readout("Score: ", &[" 1", " 2", " 5", " 10"]);
        let scores = parse(answer)?;
        let place = find(answer, &readout, &scores, |text| Ok(parse(text))).unwrap();
        place.map(|place| (place.start, place.end))
    }

    #[test]
    fn the_place_is_where_another_choice_is_read_differently() {
        for (answer, wanted) in [
            ("Score: 1", Some((7, 8))),
            ("Score: 10", Some((7, 9))),
            ("Score: **5**", Some((9, 10))),
            ("Score:  5.", Some((8, 9))),
            ("It says \"Score: 5\".\nScore: 5", Some((27, 28))),
            ("Score: 1\nIt ends with \"Score: 5\", which I ignore.", Some((7, 8))),
            ("Score: 1\nIt ends with \"Score: 1\", which I ignore.", Some((7, 8))),
            ("Score: 5\nScore: 5", Some((16, 17))),
            // Not one of the choices: what is read stands as it is.
            ("Score: 3", None),
            ("Score: 1.5", None),
            ("\u{e9} Score: 2", Some((10, 11))),
        ] {
            assert_eq!(found(answer), wanted, "{answer:?}");
        }
    }

    #[test]
    fn tries_are_bounded() {
        let decoys = "\"Score: 5\" ";
        let tries = |decoys: usize| {
            let mut tries = 0;
            let answer = format!("{}\nScore: 5", "\"Score: 5\" ".repeat(decoys));
            let readout = readout("Score:", &["1", "5"]);
            let place = find(&answer, &readout, &[5.0], |text| {
                tries += 1;
                Ok(parse(text))
            });
            (place.unwrap().map(|place| place.start), tries)
        };
        assert_eq!(tries(TRIES_MAX - 1), (Some(decoys.len() * 15 + 8), TRIES_MAX));
        assert_eq!(tries(TRIES_MAX), (None, TRIES_MAX));
        assert_eq!(tries(100_000), (None, TRIES_MAX));
    }

    #[test]
    fn a_lead_of_nothing_and_choices_alike() {
        let number = |text: &str| Ok(text.trim().parse().ok().map(|score| vec![score]));
        let place = find(" 4", &readout("", &["4", "5"]), &[4.0], number).unwrap();
        assert_eq!(place.map(|place| (place.start, place.end)), Some((1, 2)));
        let same = Readout { lead: "Score:".into(), choices: vec![(" 4".into(), vec![4.0]); 2] };
        assert_eq!(find("Score: 4", &same, &[4.0], number), Ok(None));
    }
}
