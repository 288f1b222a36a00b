//! From replies to one score for each answer. Pure: knows neither log nor model.
//!
//! What an answer got in the different orders of one group is averaged first, and counts only when
//! every order gave a score: half of a swapped pair is all position. Then the k samples combine as
//! the rubric says, then the groups by their mean.

use crate::domain::Scale;
use crate::rubric::Aggregation;
use std::collections::BTreeMap;

/// One reply: which answers it saw, in order, and what each of them got; no scores, no verdict.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyScores<'a> {
    pub shown: &'a [usize],
    pub sample: u32,
    pub scores: &'a [f64],
}

/// What one answer got in one group: by sample, over the orders; `None` where one had no score.
type Samples = BTreeMap<u32, Vec<Option<f64>>>;

/// What an answer came to over all replies about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AggregateScore {
    pub score: f64,
    /// Standard error of the score over the k samples; `None` with fewer than two of them. Where
    /// samples combine to something else than their mean it is still the mean's.
    pub standard_error: Option<f64>,
}

/// What each of `answers` answers came to.
pub(crate) fn aggregate(
    replies: &[ReplyScores<'_>],
    answers: usize,
    rule: Aggregation,
) -> Vec<Option<AggregateScore>> {
    let mut groups: BTreeMap<(usize, Vec<usize>), Samples> = BTreeMap::new();
    for reply in replies {
        let mut group = reply.shown.to_vec();
        group.sort_unstable();
        for (place, answer) in reply.shown.iter().enumerate() {
            let samples = groups.entry((*answer, group.clone())).or_default();
            samples.entry(reply.sample).or_default().push(reply.scores.get(place).copied());
        }
    }
    let score_of = |answer: usize| {
        let ours = groups.iter().filter(|((one, _), _)| *one == answer);
        let all: Vec<AggregateScore> = ours.filter_map(|(_, s)| of_a_group(s, rule)).collect();
        let scores: Vec<f64> = all.iter().map(|one| one.score).collect();
        let errors: Option<Vec<f64>> = all.iter().map(|one| one.standard_error).collect();
        let standard_error = errors.map(|errors| root_of_squares(&errors) / errors.len() as f64);
        Some(AggregateScore { score: mean(&scores)?, standard_error })
    };
    (0..answers).map(score_of).collect()
}

fn of_a_group(samples: &Samples, rule: Aggregation) -> Option<AggregateScore> {
    let values: Vec<f64> = samples
        .values()
        .filter_map(|orders| mean(&orders.iter().copied().collect::<Option<Vec<f64>>>()?))
        .collect();
    let standard_error = standard_error(&values);
    Some(AggregateScore { score: combine(&values, rule)?, standard_error })
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
pub(crate) fn combine(values: &[f64], rule: Aggregation) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match rule {
        Aggregation::Mean => mean(values),
        Aggregation::Minimum => sorted.first().copied(),
        Aggregation::Median => {
            let middle = sorted.len().saturating_sub(1) / 2;
            mean(sorted.get(middle..=sorted.len() / 2)?)
        }
        Aggregation::Majority => {
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
pub(crate) struct WeightedScore {
    pub score: Option<AggregateScore>,
    pub weight: f64,
    pub scale: Scale,
}

/// One score under all rubrics that judged an answer: their mean by weight, each as a share of its
/// scale, brought into `scale`. None unless every rubric gave one: two answers whose scores come
/// from different rubrics do not compare.
pub(crate) fn aggregate_panel(scores: &[WeightedScore], scale: Scale) -> Option<AggregateScore> {
    if let [only] = scores
        && only.scale == scale
    {
        return only.score;
    }
    let (mut sum, mut weights) = (0.0, 0.0);
    let mut errors = Some(Vec::new());
    for WeightedScore { score, weight, scale } in scores {
        let AggregateScore { score, standard_error } = (*score)?;
        sum += weight * (score - scale.min) / scale.width();
        weights += weight;
        match (&mut errors, standard_error) {
            (Some(errors), Some(error)) => errors.push(weight * error / scale.width()),
            _ => errors = None,
        }
    }
    let in_scale = |share: f64| scale.width() * share / weights;
    (weights > 0.0).then(|| AggregateScore {
        score: scale.min + in_scale(sum),
        standard_error: errors.map(|errors| in_scale(root_of_squares(&errors))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<'a>(shown: &'a [usize], sample: u32, scores: &'a [f64]) -> ReplyScores<'a> {
        ReplyScores { shown, sample, scores }
    }

    fn scores(replies: &[ReplyScores<'_>], answers: usize) -> Vec<Option<f64>> {
        let scores = aggregate(replies, answers, Aggregation::Mean);
        scores.into_iter().map(|t| t.map(|t| t.score)).collect()
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
        let errors: Vec<Option<f64>> = aggregate(&alone, 2, Aggregation::Mean)
            .iter()
            .map(|t| t.unwrap().standard_error)
            .collect();
        assert!((errors[0].unwrap() - 0.577_350_269).abs() < 1e-9);
        assert_eq!(errors[1], None);
        let duels = [
            shown(&[0, 1], 0, &[1.0, 0.0]),
            shown(&[0, 1], 1, &[0.0, 1.0]),
            shown(&[0, 2], 0, &[1.0, 0.0]),
            shown(&[0, 2], 1, &[1.0, 0.0]),
        ];
        let first = aggregate(&duels, 3, Aggregation::Mean)[0].unwrap();
        assert_eq!((first.score, first.standard_error), (0.75, Some(0.25)));
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
            assert_eq!(combine(&values, Aggregation::Mean), Some(mean));
            assert_eq!(combine(&values, Aggregation::Median), Some(median));
            assert_eq!(combine(&values, Aggregation::Majority), Some(majority));
            assert_eq!(combine(&values, Aggregation::Minimum), Some(minimum));
        }
        for rule in
            [Aggregation::Mean, Aggregation::Median, Aggregation::Majority, Aggregation::Minimum]
        {
            assert_eq!(combine(&[], rule), None);
        }
    }

    #[test]
    fn several_rubrics_weigh_in_one_scale() {
        let one = |score: Option<f64>, weight, scale| {
            let score = score.map(|score| AggregateScore { score, standard_error: Some(0.3) });
            WeightedScore { score, weight, scale }
        };
        let scale = Scale { min: 0.0, max: 5.0 };
        let five = one(Some(4.0), 1.0, scale);
        assert_eq!(aggregate_panel(&[five], scale).unwrap().score, 4.0);
        // 0.8 of its scale with weight 1, 0.5 of its scale with weight 3.
        let ten = one(Some(5.5), 3.0, Scale { min: 1.0, max: 10.0 });
        let both = aggregate_panel(&[five, ten], scale).unwrap();
        assert!((both.score - 5.0 * (0.8 + 3.0 * 0.5) / 4.0).abs() < 1e-12);
        let error = 5.0 * (0.06f64.powi(2) + 0.1f64.powi(2)).sqrt() / 4.0;
        assert!((both.standard_error.unwrap() - error).abs() < 1e-12);
        assert_eq!(aggregate_panel(&[ten], scale).unwrap().score, 2.5);
        let unscored = one(None, 1.0, Scale { min: 0.0, max: 1.0 });
        assert_eq!(aggregate_panel(&[five, unscored], scale), None);
        assert_eq!(aggregate_panel(&[], scale), None);
    }
}
