//! Which answers a rubric that compares is shown together. Few answers: every group of its size.
//! Many: as many groups as a bound allows, so chosen that every answer is in equally many of them,
//! for a score is the mean over an answer's groups. Pure.

use std::collections::BTreeSet;

/// Groups of a prompt's answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Groups {
    /// Those that are shown, each sorted.
    pub shown: Vec<Vec<usize>>,
    /// How many others there would be.
    pub left_out: u64,
}

/// So many ways to take `size` of `n`, or [`u64::MAX`].
fn ways(n: usize, size: usize) -> u64 {
    let mut count = 1u128;
    for at in 0..size.min(n) {
        // Exact at each step: a product of neighbours by a factorial.
        count = count * (n - at) as u128 / (at + 1) as u128;
        if count > u128::from(u64::MAX) {
            return u64::MAX;
        }
    }
    if size > n { 0 } else { count as u64 }
}

/// All groups of `size` of `n`, in order.
fn all(n: usize, size: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..size {
        all = all
            .into_iter()
            .flat_map(|group: Vec<usize>| {
                let from = group.last().map_or(0, |last| last + 1);
                (from..n).map(move |next| [group.as_slice(), &[next]].concat())
            })
            .collect();
    }
    all
}

/// Groups of `size` of `n` answers. With more than `most` of them, whole rounds: in a round the
/// answers stand in a circle, and a group is an answer and those at every `step`-th place after it,
/// so each answer is in as many groups of a round as any other. At least one round is shown, the
/// circle itself, so that all are connected.
pub(super) fn groups(n: usize, size: usize, most: usize) -> Groups {
    let count = ways(n, size);
    if count <= most as u64 {
        return Groups { shown: all(n, size), left_out: 0 };
    }
    let mut shown: Vec<Vec<usize>> = Vec::new();
    let mut seen = BTreeSet::new();
    for step in 1..n {
        let circle = (0..n).map(|first| {
            let group: BTreeSet<usize> = (0..size).map(|at| (first + at * step) % n).collect();
            group.into_iter().collect::<Vec<usize>>()
        });
        let round: BTreeSet<Vec<usize>> = circle.filter(|group| group.len() == size).collect();
        // Only whole rounds of new groups are even.
        if round.is_empty() || round.iter().any(|group| seen.contains(group)) {
            continue;
        }
        if !shown.is_empty() && shown.len() + round.len() > most {
            continue;
        }
        seen.extend(round.iter().cloned());
        shown.extend(round);
    }
    let left_out = count.saturating_sub(shown.len() as u64);
    Groups { shown, left_out }
}

/// The orders in which a group is shown.
pub(super) fn orders(group: &[usize], order_sensitive: bool) -> Vec<Vec<usize>> {
    let rotations = if order_sensitive { group.len() } else { 1 };
    (0..rotations)
        .map(|by| {
            let mut order = group.to_vec();
            order.rotate_left(by);
            order
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_answers_are_all_compared() {
        let shown = |n, size| groups(n, size, 256).shown;
        assert_eq!(shown(3, 1), [[0], [1], [2]]);
        assert_eq!(shown(4, 2), [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
        assert_eq!(shown(3, 3), [[0, 1, 2]]);
        assert!(shown(2, 3).is_empty());
        assert_eq!(groups(23, 2, 256).shown.len(), 253);
    }

    #[test]
    fn orders_are_rotations() {
        assert_eq!(orders(&[0, 2], true), [[0, 2], [2, 0]]);
        assert_eq!(orders(&[0, 1, 2], true), [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
        assert_eq!(orders(&[0, 1, 2], false), [[0, 1, 2]]);
    }

    /// Case A12: 24 answers in pairs are 276 groups.
    #[test]
    fn many_answers_are_compared_evenly_and_within_the_bound() {
        for (n, size, most) in
            [(24, 2, 256), (24, 2, 30), (100, 2, 256), (1000, 2, 256), (24, 3, 256), (30, 4, 100)]
        {
            let Groups { shown, left_out } = groups(n, size, most);
            assert!(shown.len() <= most.max(n), "{n} {size}: {}", shown.len());
            assert_eq!(shown.len() as u64 + left_out, ways(n, size));
            let mut times = vec![0; n];
            for group in &shown {
                assert_eq!(group.len(), size);
                assert!(group.windows(2).all(|pair| pair[0] < pair[1]));
                group.iter().for_each(|at| times[*at] += 1);
            }
            assert!(times.iter().all(|t| *t == times[0] && *t > 0), "{n} {size}: {times:?}");
            assert_eq!(shown.iter().collect::<BTreeSet<_>>().len(), shown.len());
        }
        assert_eq!(groups(24, 2, 256).shown.len(), 252, "all but the opposite ones");
    }

    #[test]
    fn counts_that_would_overflow_do_not() {
        assert_eq!(ways(1000, 500), u64::MAX);
        assert_eq!((ways(5, 2), ways(2, 3), ways(7, 7)), (10, 0, 1));
    }
}
