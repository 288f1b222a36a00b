//! The win rate that would have been, had both sides' answers the same length: a logistic regression of
//! who won on the difference of lengths, read off where that is none ("Length-Controlled AlpacaEval",
//! arXiv 2404.04475; its model without the difficulty of instructions, which is known for AlpacaEval's own
//! alone).

/// Ridge of the regression: scikit-learn's `C = 100`. It keeps a side that always wins finite.
const RIDGE: f64 = 0.01;
/// Newton's steps; a few are enough.
const STEPS_MAX: usize = 100;

/// What a prompt showed: who won (1, or 0; a tie is 0.5), and by how much our answer was longer, in any
/// unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LengthAndWin {
    /// 1, 0.5 or 0.
    pub win: f64,
    /// Ours minus theirs.
    pub longer: f64,
}

/// The share of wins at equal lengths; `None` of fewer than two prompts.
pub fn length_controlled(prompts: &[LengthAndWin]) -> Option<f64> {
    let n = prompts.len() as f64;
    if prompts.len() < 2 {
        return None;
    }
    let mean = prompts.iter().map(|one| one.longer).sum::<f64>() / n;
    let squares = prompts.iter().map(|one| (one.longer - mean).powi(2)).sum::<f64>();
    let spread = (squares / (n - 1.0)).sqrt();
    let feature =
        |one: &LengthAndWin| if spread > 0.0 { (one.longer / spread).tanh() } else { 0.0 };
    let rows: Vec<(f64, f64)> = prompts.iter().map(|one| (feature(one), one.win)).collect();
    let (mut slope, mut base) = (0.0, 0.0);
    for _ in 0..STEPS_MAX {
        let (by_slope, by_base) = newton_step(&rows, slope, base)?;
        (slope, base) = (slope - by_slope, base - by_base);
        if by_slope.abs().max(by_base.abs()) < 1e-12 {
            break;
        }
    }
    Some(logistic(base))
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Hessian's inverse times gradient of the penalised negative log-likelihood.
fn newton_step(rows: &[(f64, f64)], slope: f64, base: f64) -> Option<(f64, f64)> {
    let (mut g0, mut g1) = (RIDGE * slope, RIDGE * base);
    let (mut h00, mut h01, mut h11) = (RIDGE, 0.0, RIDGE);
    for (x, win) in rows {
        let p = logistic(slope * x + base);
        let weight = p * (1.0 - p);
        g0 += (p - win) * x;
        g1 += p - win;
        h00 += weight * x * x;
        h01 += weight * x;
        h11 += weight;
    }
    let determinant = h00 * h11 - h01 * h01;
    (determinant > 0.0)
        .then(|| ((h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Preferences, differences of length, scikit-learn's rate, alpaca_eval's.
    type Row = (Vec<f64>, Vec<f64>, f64, f64);

    fn of(row: &Row) -> Vec<LengthAndWin> {
        let both = row.0.iter().zip(&row.1);
        both.map(|(win, longer)| LengthAndWin { win: *win, longer: *longer }).collect()
    }

    #[test]
    fn it_is_scikit_learns_and_nearly_alpaca_evals() {
        let text = include_str!("../../tests/golden/stats/length_controlled.json");
        let rows: Vec<Row> = serde_json::from_str(text).unwrap();
        assert_eq!(rows.len(), 8);
        for row in &rows {
            let found = length_controlled(&of(row)).unwrap();
            assert!((found - row.2).abs() < 1e-6, "{found} {}", row.2);
            // It chooses an L1 penalty by cross-validation: that pulls to a half.
            let more = (row.3 - 0.5).abs() - (found - 0.5).abs();
            assert!((found - row.3).abs() < 0.03 || more < 0.0, "{found} {}", row.3);
        }
    }

    #[test]
    fn length_alone_wins_nothing() {
        let longer_wins = |n: usize| LengthAndWin {
            win: f64::from(u8::from(n.is_multiple_of(2))),
            longer: if n.is_multiple_of(2) { 50.0 } else { -50.0 },
        };
        let all: Vec<LengthAndWin> = (0..60).map(longer_wins).collect();
        let found = length_controlled(&all).unwrap();
        assert!((found - 0.5).abs() < 1e-6, "{found}");
        let same = vec![LengthAndWin { win: 1.0, longer: 10.0 }; 30];
        assert!(length_controlled(&same).unwrap() > 0.99);
        assert_eq!(length_controlled(&all[..1]), None);
    }
}
