//! What a run is at, in lines: the same for who watches it work and for who asks from elsewhere.

use gradus::runtime::Status;

/// The stages in the order of the loop.
const LOOP: [&str; 5] = ["sampler", "judge", "pair_store", "trainer", "evaluator"];
/// How wide a bar is.
const BAR: usize = 24;

/// A stage's progress.
pub struct StageLine<'a> {
    /// Which.
    pub stage: &'a str,
    /// How much is done.
    pub done: u64,
    /// Of how much.
    pub total: u64,
    /// What is known beside that.
    pub beside: String,
}

/// `3 min 12 s`.
pub fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// The stages that have begun: the one that works first, then the others in the order of the loop.
pub fn stages(status: &Status) -> Vec<StageLine<'_>> {
    let line = |stage: &'_ str| {
        let (stage, (done, total)) = status.progress.get_key_value(stage)?;
        let mut beside = Vec::new();
        let left = status.iteration.as_ref().and_then(|it| it.left_seconds.get(stage));
        beside.extend(left.map(|left| format!("{} left", span(*left))));
        let drawn = status.stages.get(stage).map_or(0, |state| state.drawn);
        beside.extend((drawn > 0).then(|| format!("{drawn} tokens in hand")));
        let beside = beside.join(", ");
        Some(StageLine { stage, done: *done, total: *total, beside })
    };
    let mut names: Vec<&str> = LOOP.to_vec();
    names.sort_by_key(|name| *name != status.stage);
    names.into_iter().filter_map(line).collect()
}

/// `143 pairs; loss 0.693, margin 0.12; 312 tokens/s`.
pub fn figures(status: &Status) -> String {
    let mut parts = Vec::new();
    if let Some(iteration) = &status.iteration {
        if iteration.pairs > 0 {
            parts.push(format!("{} pairs", iteration.pairs));
        }
        let margin =
            iteration.margin.map_or_else(String::new, |margin| format!(", margin {margin:.3}"));
        parts.extend(iteration.loss.map(|loss| format!("loss {loss:.3}{margin}")));
    }
    parts.extend(status.tokens_per_second.map(|rate| format!("{rate:.0} tokens/s")));
    parts.join("; ")
}

/// `3 min so far, about 5 min left`.
pub fn times(status: &Status) -> String {
    let Some(iteration) = &status.iteration else { return String::new() };
    let so_far = format!("{} so far", span(iteration.seconds));
    match (iteration.all_left_seconds, iteration.at_least) {
        (Some(left), false) => format!("{so_far}, about {} left", span(left)),
        (Some(left), true) => format!("{so_far}, at least {} left", span(left)),
        (None, _) => so_far,
    }
}

/// Everything in one line.
pub fn line(status: &Status) -> String {
    let stage = |one: &StageLine<'_>| format!("{} {}/{}", one.stage, one.done, one.total);
    let stages: Vec<String> = stages(status).iter().map(stage).collect();
    let parts = [stages.join(", "), figures(status), times(status)];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{}  {}", status.model, parts.join("; "))
}

/// A line for each stage, with a bar.
pub fn bars(status: &Status) -> String {
    let bar = |done: u64, total: u64| {
        let filled = (BAR as u64 * done.min(total) / total.max(1)) as usize;
        format!("{}{}", "#".repeat(filled), "-".repeat(BAR - filled))
    };
    let line = |one: StageLine<'_>| {
        let StageLine { stage, done, total, beside } = one;
        let count = format!("{done}/{total}");
        format!("  {stage:<10} {} {count:<11} {beside}", bar(done, total)).trim_end().to_owned()
            + "\n"
    };
    stages(status).into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus::runtime::IterationProgress;

    #[test]
    fn the_stage_that_works_comes_first() {
        let mut iteration = IterationProgress::default();
        iteration.seconds = 75.0;
        iteration.pairs = 12;
        (iteration.loss, iteration.margin) = (Some(0.7123), Some(0.25));
        iteration.left_seconds.insert("judge".to_owned(), 61.0);
        iteration.all_left_seconds = Some(3725.0);
        let mut status = Status::default();
        status.model = "M2 DPO".to_owned();
        status.stage = "judge".to_owned();
        status.iteration = Some(iteration);
        status.tokens_per_second = Some(312.4);
        for (stage, done) in [("trainer", 0), ("sampler", 48), ("judge", 12)] {
            status.progress.insert(stage.to_owned(), (done, 48));
        }
        assert_eq!(
            line(&status),
            "M2 DPO  judge 12/48, sampler 48/48, trainer 0/48; 12 pairs; loss 0.712, margin 0.250; 312 \
             tokens/s; 1 min 15 s so far, about 1 h 2 min left"
        );
        assert_eq!(
            bars(&status).lines().next(),
            Some("  judge      ######------------------ 12/48       1 min 1 s left")
        );
        assert_eq!(line(&Status::default()).trim(), "");
    }
}
