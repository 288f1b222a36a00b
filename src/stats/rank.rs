//! Rank correlations, and the paper's measures of a judge (Yuan et al., section 2.4).

/// Ranks from 1, ties get their mean rank.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let value = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
    order.sort_by(|a, b| value(*a).total_cmp(&value(*b)));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let tied = order.iter().skip(start);
        let first = order.get(start).map_or(f64::NAN, |at| value(*at));
        let n = tied.take_while(|at| value(**at) == first).count().max(1);
        let rank = start as f64 + (n as f64 + 1.0) / 2.0;
        for at in order.iter().skip(start).take(n) {
            if let Some(slot) = ranks.get_mut(*at) {
                *slot = rank;
            }
        }
        start += n;
    }
    ranks
}

fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    let n = x.len() as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let pairs = || x.iter().zip(y);
    let xy: f64 = pairs().map(|(a, b)| (a - mx) * (b - my)).sum();
    let xx: f64 = x.iter().map(|a| (a - mx).powi(2)).sum();
    let yy: f64 = y.iter().map(|b| (b - my).powi(2)).sum();
    (xx > 0.0 && yy > 0.0).then(|| xy / (xx * yy).sqrt())
}

/// Spearman's rank correlation; `None` where it is undefined (fewer than two values, or a
/// constant side).
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() || x.len() < 2 {
        return None;
    }
    pearson(&ranks(x), &ranks(y))
}

fn pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (i + 1..n).map(move |j| (i, j)))
}

fn gap(values: &[f64], (i, j): (usize, usize)) -> f64 {
    values.get(i).copied().unwrap_or_default() - values.get(j).copied().unwrap_or_default()
}

/// Kendall's tau-b; `None` where it is undefined.
pub fn kendall_tau_b(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() || x.len() < 2 {
        return None;
    }
    let (mut same, mut x_pairs, mut y_pairs) = (0.0, 0.0, 0.0);
    for at in pairs(x.len()) {
        let (dx, dy) = (gap(x, at), gap(y, at));
        let sign = |d: f64| if d == 0.0 { 0.0 } else { d.signum() };
        same += sign(dx) * sign(dy);
        x_pairs += sign(dx).abs();
        y_pairs += sign(dy).abs();
    }
    let product: f64 = x_pairs * y_pairs;
    (product > 0.0).then(|| same / product.sqrt())
}

/// How a judge agrees with the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Share of truly ordered pairs that the judge orders the same; a judged tie counts half.
    pub pairwise_accuracy: f64,
    /// Share of groups whose every truly ordered pair is ordered the same.
    pub exact_match: f64,
    /// Mean over the groups where it is defined.
    pub spearman: f64,
    /// Mean over the groups where it is defined.
    pub kendall: f64,
    /// Groups with at least two different true values.
    pub groups: u32,
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Agreement over groups of (truth, score); groups without two different true values are left
/// out, for any order of theirs is right.
pub fn judge_agreement(groups: &[(&[f64], &[f64])]) -> Agreement {
    let (mut right, mut ordered) = (0.0, 0.0);
    let (mut exact, mut rhos, mut taus) = (Vec::new(), Vec::new(), Vec::new());
    for (truth, score) in groups {
        let known: Vec<(usize, usize)> =
            pairs(truth.len().min(score.len())).filter(|at| gap(truth, *at) != 0.0).collect();
        if known.is_empty() {
            continue;
        }
        let mut all = true;
        for at in &known {
            let point = match gap(truth, *at) * gap(score, *at) {
                same if same > 0.0 => 1.0,
                0.0 => 0.5,
                _ => 0.0,
            };
            all &= point == 1.0;
            right += point;
            ordered += 1.0;
        }
        exact.push(if all { 1.0 } else { 0.0 });
        rhos.extend(spearman(truth, score));
        taus.extend(kendall_tau_b(truth, score));
    }
    Agreement {
        pairwise_accuracy: if ordered > 0.0 { right / ordered } else { 0.0 },
        exact_match: mean(&exact),
        spearman: mean(&rhos),
        kendall: mean(&taus),
        groups: exact.len() as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row of the golden file: x, y, scipy's spearman and kendall tau-b (null if undefined).
    type RankRow = (Vec<f64>, Vec<f64>, Option<f64>, Option<f64>);

    #[test]
    fn correlations_equal_scipy() {
        let text = include_str!("../../tests/golden/stats/rank.json");
        let rows: Vec<RankRow> = serde_json::from_str(text).unwrap();
        assert!(rows.len() > 50);
        let close = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() < 1e-12,
            (a, b) => a.is_none() && b.is_none(),
        };
        for (x, y, rho, tau) in rows {
            assert!(close(spearman(&x, &y), rho), "{x:?} {y:?} {:?} {rho:?}", spearman(&x, &y));
            assert!(close(kendall_tau_b(&x, &y), tau), "{x:?} {y:?}");
        }
    }

    #[test]
    fn agreement_counts_what_is_ordered() {
        let groups: [(&[f64], &[f64]); 3] = [
            (&[1.0, 2.0, 3.0], &[0.1, 0.2, 0.3]),
            (&[1.0, 2.0], &[0.5, 0.5]),
            (&[4.0, 4.0], &[1.0, 2.0]),
        ];
        let a = judge_agreement(&groups);
        assert_eq!(a.groups, 2);
        assert!((a.pairwise_accuracy - 3.5 / 4.0).abs() < 1e-12);
        assert!((a.exact_match - 0.5).abs() < 1e-12);
        assert!((a.spearman - 1.0).abs() < 1e-12);
    }
}
