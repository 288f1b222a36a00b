//! Answers before a whole panel: each prompt's are judged by the rubrics that its tags lead to, and
//! what they come to together is one score.

use super::ask::{Asking, Bench, Marked, Sheet};
use super::tally::{Tallied, Weighed, together};
use super::{StageContext, StageError};
use crate::domain::{Panel, PanelMember, RubricId, RubricName};
use crate::rubric::Rubric;

/// What became of a sheet.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    /// What each rubric that was asked made of it.
    pub under: Vec<(RubricId, Marked)>,
    /// One for each answer: in the scale of the panel's first rubric.
    pub tallied: Vec<Option<Tallied>>,
}

impl Judged {
    /// What an answer came to.
    pub fn of(&self, answer: usize) -> Option<Tallied> {
        self.tallied.get(answer).copied().flatten()
    }
}

/// A rubric that can be asked.
pub(crate) fn installed(context: &StageContext, id: &RubricId) -> Result<Rubric, StageError> {
    let missing = || format!("rubric {} is active but not installed", id.short());
    context.rubrics.get(id).ok_or_else(|| StageError::Rubric(missing()))
}

/// What a rubric's id stands for.
pub(crate) fn name_of(rubric: &Rubric) -> RubricName {
    let info = rubric.info();
    let (name, version) = (info.name.clone(), info.version.clone());
    RubricName { rubric: rubric.id().clone(), name, version }
}

fn scale(rubric: &Rubric) -> (f64, f64) {
    (rubric.info().scale_min, rubric.info().scale_max)
}

/// Judges every sheet under the panel; the results are in their order.
pub(crate) fn judge_under(
    panel: &Panel,
    sheets: &[Sheet<'_>],
    asking: Asking<'_>,
) -> Result<Vec<Judged>, StageError> {
    let context = asking.context;
    let mut under: Vec<Vec<(&PanelMember, Rubric, Marked)>> =
        sheets.iter().map(|_| Vec::new()).collect();
    for (place, member) in panel.members().iter().enumerate() {
        let takes = |sheet: &Sheet<'_>| panel.for_tags(&sheet.tags).contains(&member);
        let places: Vec<usize> =
            sheets.iter().enumerate().filter(|(_, s)| takes(s)).map(|(at, _)| at).collect();
        if places.is_empty() {
            continue;
        }
        let rubric = installed(context, &member.rubric)?;
        let ours: Vec<Sheet<'_>> =
            places.iter().filter_map(|at| sheets.get(*at)).map(|s| s.for_member(place)).collect();
        let bench = Bench { asking, rubric: &rubric, samples: asking.judge.samples };
        for (at, marked) in places.iter().zip(bench.judge(&ours)?) {
            if let Some(under) = under.get_mut(*at) {
                under.push((member, rubric.clone(), marked));
            }
        }
    }
    let lead =
        panel.members().first().map(|member| installed(context, &member.rubric)).transpose()?;
    let scale_of_all = lead.as_ref().map_or((0.0, 1.0), scale);
    let judged = sheets.iter().zip(under).map(|(sheet, under)| {
        let tallied = |answer: usize| {
            let weighed: Vec<Weighed> = under
                .iter()
                .map(|(member, rubric, marked)| Weighed {
                    tallied: marked.tallied.get(answer).copied().flatten(),
                    weight: member.weight,
                    scale: scale(rubric),
                })
                .collect();
            together(&weighed, scale_of_all)
        };
        let tallied = (0..sheet.answers.len()).map(tallied).collect();
        let under = under.iter().map(|(_, rubric, marked)| (rubric.id().clone(), marked.clone()));
        Judged { under: under.collect(), tallied }
    });
    Ok(judged.collect())
}
