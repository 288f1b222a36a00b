//! Which rubrics judge: one, or several at once, each with a weight and the prompts it is for.

use super::id::RubricId;
use crate::codes::Code;
use serde::{Deserialize, Serialize};

fn one() -> f64 {
    1.0
}

/// A rubric on a panel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PanelMember {
    /// Which.
    pub rubric: RubricId,
    /// How much its scores count among those of a prompt's other rubrics.
    #[serde(default = "one")]
    pub weight: f64,
    /// It judges prompts with one of these tags; without any, those that no tagged member takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl PanelMember {
    /// A rubric for every prompt, with weight 1.
    pub fn plain(rubric: RubricId) -> PanelMember {
        PanelMember { rubric, weight: 1.0, tags: Vec::new() }
    }
}

/// The rubrics that judge. Written as the rubric's id alone where it is one for all prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "WrittenPanel", into = "WrittenPanel")]
pub struct Panel(Vec<PanelMember>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenPanel {
    One(RubricId),
    Several(Vec<PanelMember>),
}

impl From<WrittenPanel> for Panel {
    fn from(written: WrittenPanel) -> Panel {
        match written {
            WrittenPanel::One(rubric) => Panel::one(rubric),
            WrittenPanel::Several(members) => Panel(members),
        }
    }
}

impl From<Panel> for WrittenPanel {
    fn from(panel: Panel) -> WrittenPanel {
        match panel.0.as_slice() {
            [only] if *only == PanelMember::plain(only.rubric.clone()) => {
                WrittenPanel::One(only.rubric.clone())
            }
            _ => WrittenPanel::Several(panel.0),
        }
    }
}

/// Why rubrics make no panel.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PanelError {
    /// A prompt without a known tag would have no judge.
    #[error(
        "every rubric has tags, so prompts without one of them would not be judged: \
         activate one rubric without tags"
    )]
    NobodyForTheRest,
    /// A weight that is no weight.
    #[error("rubric {rubric} has weight {weight}; a weight is above 0")]
    Weight {
        /// Whose.
        rubric: String,
        /// What was given.
        weight: f64,
    },
    /// A rubric is there twice.
    #[error("rubric {0} is there twice; give one entry all its tags")]
    Twice(String),
}

impl PanelError {
    /// What happened, as programs tell it apart.
    pub fn code(&self) -> Code {
        match self {
            PanelError::NobodyForTheRest => Code::PanelLacksGeneralist,
            PanelError::Weight { .. } => Code::PanelWeight,
            PanelError::Twice(_) => Code::PanelTwice,
        }
    }

    /// Whether the same call may succeed later, with nothing in it changed.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }
}

impl Panel {
    /// One rubric for every prompt.
    pub fn one(rubric: RubricId) -> Panel {
        Panel(vec![PanelMember::plain(rubric)])
    }

    /// Several rubrics.
    ///
    /// # Errors
    /// [`PanelError`], also for none.
    pub fn new(members: Vec<PanelMember>) -> Result<Panel, PanelError> {
        for (at, member) in members.iter().enumerate() {
            if !(member.weight.is_finite() && member.weight > 0.0) {
                let rubric = member.rubric.short().to_owned();
                return Err(PanelError::Weight { rubric, weight: member.weight });
            }
            if members.iter().take(at).any(|before| before.rubric == member.rubric) {
                return Err(PanelError::Twice(member.rubric.short().to_owned()));
            }
        }
        match members.iter().any(|member| member.tags.is_empty()) {
            true => Ok(Panel(members)),
            false => Err(PanelError::NobodyForTheRest),
        }
    }

    /// Its members; the first one's scale is that of the scores.
    pub fn members(&self) -> &[PanelMember] {
        &self.0
    }

    /// The members that judge a prompt with these tags.
    pub fn for_tags(&self, tags: &[String]) -> Vec<&PanelMember> {
        let named: Vec<&PanelMember> = self
            .0
            .iter()
            .filter(|member| member.tags.iter().any(|tag| tags.contains(tag)))
            .collect();
        match named.is_empty() {
            true => self.0.iter().filter(|member| member.tags.is_empty()).collect(),
            false => named,
        }
    }

    /// The same without a rubric, if what is left is still a panel.
    pub fn without(&self, rubric: &RubricId) -> Result<Panel, PanelError> {
        Panel::new(self.0.iter().filter(|member| member.rubric != *rubric).cloned().collect())
    }

    /// The rubrics that have no place any more when `next` takes its place.
    pub fn leaving(&self, next: &Panel) -> Vec<RubricId> {
        let rubrics = self.0.iter().map(|member| &member.rubric);
        rubrics.filter(|rubric| !next.has(rubric)).cloned().collect()
    }

    /// Whether a rubric is on the panel.
    pub fn has(&self, rubric: &RubricId) -> bool {
        self.0.iter().any(|member| member.rubric == *rubric)
    }
}

/// What is asked of a rubric that takes another's place: of its first prompts, whose pairs wait for
/// its end, and from then on of its last ones, as long as it judges.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// How many judgments. In records of old alone, which did not count prompts.
    #[serde(default, skip_serializing_if = "is_none_of")]
    pub judgments: u32,
    /// How many prompts. 0: no trial.
    #[serde(default, skip_serializing_if = "is_none_of")]
    pub prompts: u32,
    /// Share of their judgments that may be without a score.
    pub unparsed_max: f64,
    /// After that, so many of its last prompts are looked at. 0: none.
    #[serde(default, skip_serializing_if = "is_none_of")]
    pub watch: u32,
    /// Mean probability that the judge must put on the rubric's choices where they are read.
    #[serde(default, skip_serializing_if = "is_no_share")]
    pub mass_min: f64,
}

fn is_none_of(count: &u32) -> bool {
    *count == 0
}

fn is_no_share(share: &f64) -> bool {
    *share == 0.0
}

impl Default for Trial {
    fn default() -> Trial {
        Trial { judgments: 0, prompts: 16, unparsed_max: 0.5, watch: 32, mass_min: 0.05 }
    }
}

impl Trial {
    /// So many prompts of a rubric are remembered at most.
    pub const PROMPTS_MAX: u32 = 1024;

    /// Whether anything is asked of the first judgments.
    pub fn is_due(&self) -> bool {
        self.prompts > 0 || self.judgments > 0
    }
}

/// From when on an activated panel judges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// Iterations opened from here on.
    #[default]
    NextIteration,
    /// Judgments begun from here on, of the open iteration too. Each prompt is still judged by one
    /// panel alone.
    Immediately,
}

impl When {
    /// Whether it is the default, which is not written.
    pub fn is_next_iteration(&self) -> bool {
        *self == When::NextIteration
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(rubric: &str, weight: f64, tags: &[&str]) -> PanelMember {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        PanelMember { rubric: RubricId(rubric.to_owned()), weight, tags }
    }

    #[test]
    fn one_plain_rubric_is_written_as_its_id() {
        let plain = Panel::one(RubricId("a".into()));
        assert_eq!(serde_json::to_string(&plain).unwrap(), "\"a\"");
        assert_eq!(serde_json::from_str::<Panel>("\"a\"").unwrap(), plain);
        let two = Panel::new(vec![member("a", 2.0, &[]), member("b", 1.0, &["math"])]).unwrap();
        let written = serde_json::to_string(&two).unwrap();
        assert_eq!(
            written,
            r#"[{"rubric":"a","weight":2.0},{"rubric":"b","weight":1.0,"tags":["math"]}]"#
        );
        assert_eq!(serde_json::from_str::<Panel>(&written).unwrap(), two);
    }

    #[test]
    fn a_trial_of_old_is_read_as_it_was() {
        let old = r#"{"judgments":40,"unparsed_max":0.5}"#;
        let trial: Trial = serde_json::from_str(old).unwrap();
        assert_eq!((trial.judgments, trial.prompts, trial.watch), (40, 0, 0));
        assert_eq!(serde_json::to_string(&trial).unwrap(), old);
        let new = serde_json::to_string(&Trial::default()).unwrap();
        assert_eq!(new, r#"{"prompts":16,"unparsed_max":0.5,"watch":32,"mass_min":0.05}"#);
    }

    #[test]
    fn tags_route_and_the_rest_goes_to_seats_without_any() {
        let members = vec![
            member("a", 1.0, &[]),
            member("b", 1.0, &["math", "code"]),
            member("c", 3.0, &["code"]),
            member("d", 1.0, &[]),
        ];
        let panel = Panel::new(members).unwrap();
        let for_tags = |tags: &[&str]| {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            let members = panel.for_tags(&tags).into_iter().map(|s| s.rubric.0.clone());
            members.collect::<Vec<_>>()
        };
        assert_eq!(for_tags(&[]), ["a", "d"]);
        assert_eq!(for_tags(&["poem"]), ["a", "d"]);
        assert_eq!(for_tags(&["math"]), ["b"]);
        assert_eq!(for_tags(&["poem", "code"]), ["b", "c"]);
    }

    #[test]
    fn what_is_no_panel() {
        let rest = Panel::new(vec![member("a", 1.0, &["math"])]);
        assert_eq!(rest, Err(PanelError::NobodyForTheRest));
        assert_eq!(Panel::new(Vec::new()), Err(PanelError::NobodyForTheRest));
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let bad = Panel::new(vec![member("a", weight, &[])]);
            assert!(matches!(bad, Err(PanelError::Weight { .. })), "{weight}");
        }
        let twice = Panel::new(vec![member("a", 1.0, &[]), member("a", 1.0, &["math"])]);
        assert!(matches!(twice, Err(PanelError::Twice(_))));
    }
}
