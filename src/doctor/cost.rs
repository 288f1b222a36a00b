//! What drawing costs as a function of what is drawn: tokens that are read, steps, and the rows of
//! each step. Pure; the prices are measured elsewhere.

/// What drawing sequences of known lengths comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Flow {
    /// Steps in which every live sequence gets its next token.
    pub steps: f64,
    /// Live sequences, summed over the steps.
    pub rows: f64,
}

/// Follows `lm::generate`: at most `live_max` sequences at a time, newcomers let in by the quarter;
/// the first token of each comes with the reading of its prompt.
pub(super) fn flow(lengths: impl Iterator<Item = usize>, live_max: usize) -> Flow {
    let (mut waiting, mut live) = (lengths.peekable(), Vec::new());
    let mut flow = Flow::default();
    loop {
        if live.len() <= live_max * 3 / 4 && waiting.peek().is_some() {
            let room = live_max - live.len();
            live.extend(waiting.by_ref().take(room).map(|length| length.saturating_sub(1)));
            live.retain(|left| *left > 0);
            continue;
        }
        if live.is_empty() {
            return flow;
        }
        flow.steps += 1.0;
        flow.rows += live.len() as f64;
        live.iter_mut().for_each(|left| *left -= 1);
        live.retain(|left| *left > 0);
    }
}

/// A straight line through what was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct CostLine {
    /// At nothing.
    pub fixed: f64,
    /// For each.
    pub each: f64,
}

impl CostLine {
    /// Through two points; one that would begin below zero, or fall, goes through the origin.
    pub fn through((x0, y0): (f64, f64), (x1, y1): (f64, f64)) -> CostLine {
        let each = (y1 - y0) / (x1 - x0);
        let fixed = y0 - each * x0;
        if each.is_finite() && each >= 0.0 && fixed >= 0.0 {
            return CostLine { fixed, each };
        }
        let (x, y) = if x1 >= x0 { (x1, y1) } else { (x0, y0) };
        CostLine { fixed: 0.0, each: y / x.max(1.0) }
    }

    /// Its height.
    pub fn at(&self, x: f64) -> f64 {
        self.fixed + self.each * x
    }
}

/// Prices, seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prices {
    /// Of a token that is read.
    pub token: f64,
    /// Of a step, by its rows.
    pub step: CostLine,
}

impl Prices {
    /// Of reading and drawing.
    pub fn of(&self, tokens: f64, flow: Flow) -> f64 {
        tokens * self.token + flow.steps * self.step.fixed + flow.rows * self.step.each
    }
}

/// How many tokens sequences begin with together, and how many there are when each beginning that
/// two of them share is read once.
pub(super) fn shared<'a>(sequences: impl Iterator<Item = &'a [u32]>) -> (usize, usize) {
    let mut all: Vec<&[u32]> = sequences.collect();
    all.sort_unstable();
    all.dedup();
    let common = |a: &[u32], b: &[u32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let first = all.first().copied().unwrap_or_default();
    let together = all.last().map_or(0, |last| common(first, last));
    let rest = all.iter().zip(all.iter().skip(1));
    let rest = rest.map(|(one, next)| next.len() - common(one, next)).sum::<usize>();
    (together, first.len() + rest)
}

/// The lengths of `count` sequences like those that were seen: theirs, again and again.
pub(super) fn like(seen: &[usize], count: usize) -> impl Iterator<Item = usize> {
    seen.iter().copied().cycle().take(if seen.is_empty() { 0 } else { count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_flow_as_the_generator_lets_them() {
        assert_eq!(flow([3, 1, 2].into_iter(), 8), Flow { steps: 2.0, rows: 3.0 });
        // Two at a time: the third comes when one has ended.
        let narrow = flow([4, 4, 4].into_iter(), 2);
        assert_eq!((narrow.steps, narrow.rows), (6.0, 9.0));
        assert_eq!(flow(std::iter::empty(), 4), Flow::default());
        let all: f64 = flow(like(&[5, 9], 100), 16).rows;
        assert_eq!(all, 100.0 * 6.0, "no token is drawn twice");
    }

    #[test]
    fn shared_beginnings_are_counted_once() {
        let all: [&[u32]; 4] = [&[1, 2, 3], &[1, 2, 4, 5], &[1, 2, 3], &[1, 9]];
        assert_eq!(shared(all.into_iter()), (1, 3 + 2 + 1));
        assert_eq!(shared(std::iter::empty()), (0, 0));
    }

    #[test]
    fn lines_go_through_what_was_measured() {
        let line = CostLine::through((2.0, 5.0), (4.0, 6.0));
        assert_eq!((line.fixed, line.each, line.at(10.0)), (4.0, 0.5, 9.0));
        let falling = CostLine::through((2.0, 6.0), (4.0, 5.0));
        assert_eq!((falling.fixed, falling.each), (0.0, 1.25));
        assert_eq!(CostLine::through((3.0, 6.0), (3.0, 6.0)).at(1.0), 2.0);
    }
}
