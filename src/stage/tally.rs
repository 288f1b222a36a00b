//! From replies to one score for each answer. Pure: knows neither log nor model.
//!
//! What an answer got in the different orders of one group is averaged first, and counts only when
//! every order gave a score: half of a swapped pair is all position. Then the k samples combine as
//! the rubric says, then the groups by their mean.

use crate::rubric::Combine;
use std::collections::BTreeMap;

/// One reply: which answers it saw, in order, and what each of them got; no scores, no verdict.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    pub seen: &'a [usize],
    pub sample: u32,
    pub scores: &'a [f64],
}

/// What one answer got in one group: by sample, over the orders; `None` where one had no score.
type Samples = BTreeMap<u32, Vec<Option<f64>>>;

/// What an answer came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tallied {
    pub score: f64,
    /// Standard error of the score over the k samples; `None` with fewer than two of them. Where
    /// samples combine to something else than their mean it is still the mean's.
    pub error: Option<f64>,
}

/// What each of `answers` answers came to.
pub(crate) fn tally(
    replies: &[Shown<'_>],
    answers: usize,
    combine: Combine,
) -> Vec<Option<Tallied>> {
    let mut groups: BTreeMap<(usize, Vec<usize>), Samples> = BTreeMap::new();
    for reply in replies {
        let mut group = reply.seen.to_vec();
        group.sort_unstable();
        for (place, answer) in reply.seen.iter().enumerate() {
            let samples = groups.entry((*answer, group.clone())).or_default();
            samples.entry(reply.sample).or_default().push(reply.scores.get(place).copied());
        }
    }
    let tallied = |answer: usize| {
        let ours = groups.iter().filter(|((one, _), _)| *one == answer);
        let all: Vec<Tallied> = ours.filter_map(|(_, s)| of_a_group(s, combine)).collect();
        let scores: Vec<f64> = all.iter().map(|t| t.score).collect();
        let errors: Option<Vec<f64>> = all.iter().map(|t| t.error).collect();
        let error = errors.map(|errors| root_of_squares(&errors) / errors.len() as f64);
        Some(Tallied { score: mean(&scores)?, error })
    };
    (0..answers).map(tallied).collect()
}

fn of_a_group(samples: &Samples, combine: Combine) -> Option<Tallied> {
    let values: Vec<f64> = samples
        .values()
        .filter_map(|orders| mean(&orders.iter().copied().collect::<Option<Vec<f64>>>()?))
        .collect();
    Some(Tallied { score: combined(&values, combine)?, error: standard_error(&values) })
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn root_of_squares(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Of the mean of several values: their standard deviation (n - 1) by the root of n.
fn standard_error(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let deviations: Vec<f64> = values.iter().map(|v| v - mean).collect();
    let n = values.len() as f64;
    Some(root_of_squares(&deviations) / ((n - 1.0) * n).sqrt())
}

/// Several judgments of one thing as one number; none without any.
pub(crate) fn combined(values: &[f64], combine: Combine) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match combine {
        Combine::Mean => mean(values),
        Combine::Minimum => sorted.first().copied(),
        Combine::Median => {
            let middle = sorted.len().saturating_sub(1) / 2;
            mean(sorted.get(middle..=sorted.len() / 2)?)
        }
        Combine::Majority => {
            let count = |value: f64| sorted.iter().filter(|other| **other == value).count();
            let most = sorted.iter().map(|value| count(*value)).max()?;
            let mut modes: Vec<f64> =
                sorted.iter().copied().filter(|value| count(*value) == most).collect();
            modes.dedup();
            mean(&modes)
        }
    }
}

/// What an answer came to under one rubric of a panel, and that rubric's scale.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weighed {
    pub tallied: Option<Tallied>,
    pub weight: f64,
    pub scale: (f64, f64),
}

/// One score under all rubrics that judged an answer: their mean by weight, each as a share of its
/// scale, brought into `scale`. None unless every rubric gave one: two answers whose scores come
/// from different rubrics do not compare.
pub(crate) fn together(under: &[Weighed], scale: (f64, f64)) -> Option<Tallied> {
    if let [only] = under
        && only.scale == scale
    {
        return only.tallied;
    }
    let (low, high) = scale;
    let (mut sum, mut weights) = (0.0, 0.0);
    let mut errors = Some(Vec::new());
    for Weighed { tallied, weight, scale: (min, max) } in under {
        let Tallied { score, error } = (*tallied)?;
        sum += weight * (score - min) / (max - min);
        weights += weight;
        match (&mut errors, error) {
            (Some(errors), Some(error)) => errors.push(weight * error / (max - min)),
            _ => errors = None,
        }
    }
    let brought = |share: f64| (high - low) * share / weights;
    (weights > 0.0).then(|| Tallied {
        score: low + brought(sum),
        error: errors.map(|errors| brought(root_of_squares(&errors))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<'a>(seen: &'a [usize], sample: u32, scores: &'a [f64]) -> Shown<'a> {
        Shown { seen, sample, scores }
    }

    fn scores(replies: &[Shown<'_>], answers: usize) -> Vec<Option<f64>> {
        let tallied = tally(replies, answers, Combine::Mean);
        tallied.into_iter().map(|t| t.map(|t| t.score)).collect()
    }

    /// numpy: std([3, 4, 5], ddof=1) / sqrt(3); over two groups the root of the squares' sum by 2.
    #[test]
    fn the_error_is_that_of_the_samples() {
        let alone = [
            shown(&[0], 0, &[3.0]),
            shown(&[0], 1, &[4.0]),
            shown(&[0], 2, &[5.0]),
            shown(&[1], 0, &[3.0]),
        ];
        let errors: Vec<Option<f64>> =
            tally(&alone, 2, Combine::Mean).iter().map(|t| t.unwrap().error).collect();
        assert!((errors[0].unwrap() - 0.577_350_269).abs() < 1e-9);
        assert_eq!(errors[1], None);
        let duels = [
            shown(&[0, 1], 0, &[1.0, 0.0]),
            shown(&[0, 1], 1, &[0.0, 1.0]),
            shown(&[0, 2], 0, &[1.0, 0.0]),
            shown(&[0, 2], 1, &[1.0, 0.0]),
        ];
        let first = tally(&duels, 3, Combine::Mean)[0].unwrap();
        assert_eq!((first.score, first.error), (0.75, Some(0.25)));
    }

    #[test]
    fn one_alone_is_the_mean_of_its_samples() {
        let replies = [
            shown(&[0], 0, &[3.0]),
            shown(&[0], 1, &[]),
            shown(&[0], 2, &[4.0]),
            shown(&[1], 0, &[]),
        ];
        assert_eq!(scores(&replies, 2), [Some(3.5), None]);
    }

    #[test]
    fn a_judge_that_always_takes_the_first_makes_a_tie() {
        let replies = [shown(&[0, 1], 0, &[1.0, 0.0]), shown(&[1, 0], 0, &[1.0, 0.0])];
        assert_eq!(scores(&replies, 2), [Some(0.5), Some(0.5)]);
    }

    #[test]
    fn one_order_without_a_score_voids_the_other() {
        let mut replies = vec![shown(&[0, 1], 0, &[1.0, 0.0]), shown(&[1, 0], 0, &[])];
        assert_eq!(scores(&replies, 2), [None, None]);
        replies.extend([shown(&[0, 1], 1, &[0.0, 1.0]), shown(&[1, 0], 1, &[1.0, 0.0])]);
        assert_eq!(scores(&replies, 2), [Some(0.0), Some(1.0)]);
    }

    #[test]
    fn a_tournament_is_the_share_of_duels_won() {
        let replies = [
            shown(&[0, 1], 0, &[1.0, 0.0]),
            shown(&[0, 2], 0, &[1.0, 0.0]),
            shown(&[1, 2], 0, &[0.5, 0.5]),
        ];
        assert_eq!(scores(&replies, 3), [Some(1.0), Some(0.25), Some(0.25)]);
    }

    #[test]
    fn every_way_to_combine() {
        for (values, mean, median, majority, minimum) in [
            (vec![3.0, 4.0, 4.0], 11.0 / 3.0, 4.0, 4.0, 3.0),
            (vec![5.0, 1.0, 2.0, 4.0], 3.0, 3.0, 3.0, 1.0),
            (vec![2.0, 2.0, 5.0, 5.0, 0.0], 2.8, 2.0, 3.5, 0.0),
            (vec![1.0], 1.0, 1.0, 1.0, 1.0),
        ] {
            assert_eq!(combined(&values, Combine::Mean), Some(mean));
            assert_eq!(combined(&values, Combine::Median), Some(median));
            assert_eq!(combined(&values, Combine::Majority), Some(majority));
            assert_eq!(combined(&values, Combine::Minimum), Some(minimum));
        }
        for combine in [Combine::Mean, Combine::Median, Combine::Majority, Combine::Minimum] {
            assert_eq!(combined(&[], combine), None);
        }
    }

    #[test]
    fn several_rubrics_weigh_in_one_scale() {
        let one = |score: Option<f64>, weight, scale| {
            let tallied = score.map(|score| Tallied { score, error: Some(0.3) });
            Weighed { tallied, weight, scale }
        };
        let five = one(Some(4.0), 1.0, (0.0, 5.0));
        let scale = (0.0, 5.0);
        assert_eq!(together(&[five], scale).unwrap().score, 4.0);
        // 0.8 of its scale with weight 1, 0.5 of its scale with weight 3.
        let ten = one(Some(5.5), 3.0, (1.0, 10.0));
        let both = together(&[five, ten], scale).unwrap();
        assert!((both.score - 5.0 * (0.8 + 3.0 * 0.5) / 4.0).abs() < 1e-12);
        let error = 5.0 * (0.06f64.powi(2) + 0.1f64.powi(2)).sqrt() / 4.0;
        assert!((both.error.unwrap() - error).abs() < 1e-12);
        assert_eq!(together(&[ten], scale).unwrap().score, 2.5);
        assert_eq!(together(&[five, one(None, 1.0, (0.0, 1.0))], scale), None);
        assert_eq!(together(&[], scale), None);
    }
}
