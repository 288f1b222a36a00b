//! Intervals that stay inside 0 to 1 and always have a width: Wilson's for a share, Tango's for a
//! win rate; and the exact sign test, which with answers that differ on one side alone is
//! McNemar's.

use super::Interval;

/// Two-sided 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A share of 95 % certainty: the level of every test here.
pub const ALPHA: f64 = 0.05;

/// The share `k` of `n` with its 95 % score interval (Wilson 1927, as in Newcombe 1998, method 3);
/// `None` where nothing was counted. More than all counts as all.
pub fn wilson(k: u32, n: u32) -> Option<Interval> {
    if n == 0 {
        return None;
    }
    let count = f64::from(n);
    let share = f64::from(k.min(n)) / count;
    let spread = (share * (1.0 - share) / count + Z * Z / (4.0 * count * count)).sqrt();
    let scale = 1.0 + Z * Z / count;
    let middle = (share + Z * Z / (2.0 * count)) / scale;
    let half = Z * spread / scale;
    Some(Interval {
        mean: share,
        low: if k == 0 { 0.0 } else { (middle - half).max(0.0) },
        high: if k >= n { 1.0 } else { (middle + half).min(1.0) },
    })
}

/// Two-sided sign test: how likely is a split at least this uneven when both sides are alike?
/// Ties are left out.
pub fn sign_test(wins: u32, losses: u32) -> f64 {
    let n = wins + losses;
    let most = wins.max(losses);
    // log C(n, k) - n log 2, summed over the tail.
    let mut log_choose = 0.0f64;
    let mut tail = 0.0f64;
    for k in 0..=n {
        if k > 0 {
            log_choose += f64::from(n - k + 1).ln() - f64::from(k).ln();
        }
        if k >= most {
            tail += (log_choose - f64::from(n) * std::f64::consts::LN_2).exp();
        }
    }
    (2.0 * tail).min(1.0)
}

/// The win rate, ties counted half, with its 95 % interval; `None` where nothing was compared.
///
/// It is 1/2 + d/2, where d = (wins - losses) / n is the difference of two paired shares, and d has
/// the score interval of Tango (Statistics in Medicine 17, 1998, 891-908). So it knows that ties
/// are no noise, never leaves 0 to 1, has a width also when every prompt is a tie, and leaves 1/2
/// out where McNemar's test without continuity correction says p < 0.05.
pub fn win_rate(wins: u32, ties: u32, losses: u32) -> Option<Interval> {
    let n = f64::from(wins) + f64::from(ties) + f64::from(losses);
    if n == 0.0 {
        return None;
    }
    let (wins, losses) = (f64::from(wins), f64::from(losses));
    let rate = |difference: f64| 0.5 + difference / 2.0;
    let found = (wins - losses) / n;
    let bound = |limit: f64| crossing(found, limit, |d| tango(wins, losses, n, d));
    Some(Interval { mean: rate(found), low: rate(bound(-1.0)), high: rate(bound(1.0)) })
}

/// Tango's statistic: how many standard errors the difference found is from `d`, the errors being
/// those that the most likely shares with this difference would have.
fn tango(wins: f64, losses: f64, n: f64, d: f64) -> f64 {
    // The share of losses, by maximum likelihood: the larger root of 2n q^2 + b q + c = 0.
    let b = (2.0 * n - wins + losses) * d - wins - losses;
    let c = -losses * d * (1.0 - d);
    let q = ((b * b - 8.0 * n * c).max(0.0).sqrt() - b) / (4.0 * n);
    let variance = n * (2.0 * q.max(0.0) + d * (1.0 - d));
    match wins - losses - n * d {
        0.0 => 0.0,
        gap => gap / variance.max(0.0).sqrt(),
    }
}

/// Where, from `found` towards `limit`, a statistic that is 0 at `found` is `Z` standard errors
/// away; `limit` where it never is.
fn crossing(found: f64, limit: f64, statistic: impl Fn(f64) -> f64) -> f64 {
    let (mut near, mut far) = (found, limit);
    if statistic(limit).abs() < Z {
        return limit;
    }
    // Halved until nothing changes: 2^-60 of the width is below the last bit.
    for _ in 0..60 {
        let middle = (near + far) / 2.0;
        if statistic(middle).abs() < Z {
            near = middle;
        } else {
            far = middle;
        }
    }
    (near + far) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `wilson`: k, n, low, high by statsmodels. `sign`: wins, losses, p by scipy. `win_rate`: wins,
    /// ties, losses, low, high, from the likelihood by scipy's optimisers.
    #[derive(serde::Deserialize)]
    struct SharesGolden {
        wilson: Vec<(u32, u32, f64, f64)>,
        sign: Vec<(u32, u32, f64)>,
        win_rate: Vec<(u32, u32, u32, f64, f64)>,
    }

    fn golden() -> SharesGolden {
        serde_json::from_str(include_str!("../../tests/golden/stats/shares.json")).unwrap()
    }

    #[test]
    fn shares_equal_statsmodels() {
        let rows = golden().wilson;
        assert!(rows.len() > 50);
        for (k, n, low, high) in rows {
            let found = wilson(k, n).unwrap();
            assert!((found.low - low).abs() < 1e-12, "{k} of {n}: {found:?}");
            assert!((found.high - high).abs() < 1e-12, "{k} of {n}: {found:?}");
        }
        assert_eq!(wilson(0, 0), None);
    }

    #[test]
    fn the_sign_test_equals_scipy() {
        let rows = golden().sign;
        assert!(rows.len() > 50);
        for (wins, losses, p) in rows {
            let found = sign_test(wins, losses);
            assert!((found - p).abs() < 1e-10, "{wins} against {losses}: {found} {p}");
        }
    }

    #[test]
    fn win_rates_have_tangos_interval() {
        let rows = golden().win_rate;
        assert!(rows.len() > 100);
        for (wins, ties, losses, low, high) in rows {
            let found = win_rate(wins, ties, losses).unwrap();
            let at = format!("{wins}/{ties}/{losses}: {found:?}, {low} to {high}");
            assert!((found.low - low).abs() < 1e-7 && (found.high - high).abs() < 1e-7, "{at}");
        }
        assert_eq!(win_rate(0, 0, 0), None);
    }

    /// Every split of up to twelve prompts: inside, with a width, around the rate, the mirror of the
    /// other side's, and with 1/2 outside exactly where McNemar's statistic says so.
    #[test]
    fn intervals_stay_inside_and_always_have_a_width() {
        let splits = (0..=12u32).flat_map(|w| (0..=12 - w).map(move |t| (w, t)));
        for (wins, ties, losses) in
            splits.flat_map(|(w, t)| (0..=12 - w - t).map(move |l| (w, t, l)))
        {
            let Some(found) = win_rate(wins, ties, losses) else { continue };
            let at = format!("{wins}/{ties}/{losses}: {found:?}");
            assert!(0.0 <= found.low && found.high <= 1.0, "{at}");
            assert!(found.low <= found.mean && found.mean <= found.high, "{at}");
            assert!(found.high - found.low > 0.2, "{at}");
            let mirror = win_rate(losses, ties, wins).unwrap();
            assert!((found.low + mirror.high - 1.0).abs() < 1e-12, "{at} {mirror:?}");
            let (w, l) = (f64::from(wins), f64::from(losses));
            let mcnemar = if wins == losses { 0.0 } else { (w - l).abs() / (w + l).sqrt() };
            assert_eq!(found.low > 0.5 || found.high < 0.5, mcnemar > Z, "{at}");
        }
    }

    /// What was printed as [-26.2, 59.5], as [50, 50] and as [0, 0].
    #[test]
    fn the_intervals_that_were_wrong() {
        let percent = |wins, ties, losses| {
            let found = win_rate(wins, ties, losses).unwrap();
            [found.mean, found.low, found.high].map(|x| (x * 1000.0).round() / 10.0)
        };
        assert_eq!(percent(1, 0, 5), [16.7, 3.0, 56.4]);
        assert_eq!(percent(0, 4, 0), [50.0, 25.5, 74.5]);
        assert_eq!(percent(0, 0, 1), [0.0, 0.0, 79.3]);
    }
}
