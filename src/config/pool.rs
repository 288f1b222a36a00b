//! How long a run's prompts last.

use super::Config;
use crate::domain::plan::PromptReuse;
use serde::Serialize;

/// How many iterations a run's prompts last for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PoolForecast {
    /// Prompts that wait to be answered.
    pub prompts: usize,
    /// Prompts of an iteration.
    pub per_iteration: u32,
    /// Iterations to come that answer prompts.
    pub iterations: u32,
    /// How many of these they last for, the last one with fewer prompts than it may have.
    pub covered: u32,
    /// What happens then.
    pub then: WhenUsedUp,
}

/// What a run does once its prompts are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenUsedUp {
    /// The policy writes more.
    Writes,
    /// It answers some of them again.
    Reuses,
    /// It waits for more.
    Waits,
    /// It ends.
    Ends,
}

impl Config {
    /// How long so many prompts last; of the iterations to come `supervised` answer none.
    pub fn pool_lasts(&self, prompts: usize, over: u32, supervised: u32) -> PoolForecast {
        let iterations = self.iterations.saturating_sub(over).saturating_sub(supervised);
        let per_iteration = self.prompts.per_iteration;
        let lasts = prompts.div_ceil(per_iteration.max(1) as usize);
        let then = match () {
            () if self.prompts.generate => WhenUsedUp::Writes,
            () if self.prompts.reuse == PromptReuse::WhenEmpty => WhenUsedUp::Reuses,
            () if self.prompts.wait_for > 0 => WhenUsedUp::Waits,
            () => WhenUsedUp::Ends,
        };
        let covered = u32::try_from(lasts).unwrap_or(u32::MAX).min(iterations);
        PoolForecast { prompts, per_iteration, iterations, covered, then }
    }
}

impl PoolForecast {
    /// Whether the run ends before its iterations are over, for want of prompts.
    pub fn is_short(&self) -> bool {
        self.then == WhenUsedUp::Ends && self.covered < self.iterations
    }
}

impl std::fmt::Display for PoolForecast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PoolForecast { prompts, per_iteration, iterations, covered, then } = self;
        if *iterations == 0 {
            return write!(f, "no iteration to come answers prompts");
        }
        if covered == iterations {
            let before = u64::from(*per_iteration) * u64::from(covered.saturating_sub(1));
            let last = (*prompts as u64).saturating_sub(before);
            write!(f, "the prompts last for all {iterations} iterations that answer any")?;
            return match last < u64::from(*per_iteration) {
                true => write!(f, ", the last one has {last} and not {per_iteration}"),
                false => Ok(()),
            };
        }
        write!(
            f,
            "the prompts last for {covered} of {iterations} iterations of {per_iteration}; then "
        )?;
        f.write_str(match then {
            WhenUsedUp::Writes => "the policy writes more (prompts.generate)",
            WhenUsedUp::Reuses => "they are answered again (prompts.reuse)",
            WhenUsedUp::Waits => "the run waits for more (prompts.wait_for)",
            WhenUsedUp::Ends => {
                "the run ends. Bring more, have the policy write them (prompts.generate: true), or answer \
                 them again (prompts.reuse: when_empty)"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lasts(prompts: usize, change: impl FnOnce(&mut Config)) -> PoolForecast {
        let mut config = Config::default();
        config.prompts.per_iteration = 40;
        config.iterations = 4;
        change(&mut config);
        config.pool_lasts(prompts, 0, 1)
    }

    #[test]
    fn a_pool_lasts_as_long_as_it_lasts() {
        let short = lasts(50, |_| {});
        assert_eq!((short.iterations, short.covered, short.is_short()), (3, 2, true));
        assert!(
            short
                .to_string()
                .starts_with("the prompts last for 2 of 3 iterations of 40; then the run ends")
        );
        let long = lasts(120, |_| {});
        assert_eq!(long.to_string(), "the prompts last for all 3 iterations that answer any");
        let nearly = lasts(100, |_| {}).to_string();
        assert!(nearly.ends_with("the last one has 20 and not 40"), "{nearly}");
        for (change, then) in [
            ((|c: &mut Config| c.prompts.generate = true) as fn(&mut Config), WhenUsedUp::Writes),
            (|c| c.prompts.reuse = PromptReuse::WhenEmpty, WhenUsedUp::Reuses),
            (|c| c.prompts.wait_for = 8, WhenUsedUp::Waits),
        ] {
            let lasts = lasts(0, change);
            assert_eq!((lasts.then, lasts.covered, lasts.is_short()), (then, 0, false));
        }
    }
}
