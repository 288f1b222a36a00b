//! Losses as pure functions of summed log-probabilities (the DPO family), each with its
//! derivatives, so that the tensor graph ends at the log-probabilities.
//!
//! `h = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)`, `z = beta h`.

use serde::{Deserialize, Serialize};

/// TRL's `loss_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// `-log sigmoid(z)` (arXiv 2305.18290); with label smoothing, cDPO.
    #[default]
    Sigmoid,
    /// `(h - 1 / (2 beta))^2` on length-averaged log-ratios, as TRL (arXiv 2310.12036).
    Ipo,
    /// `max(0, 1 - z)` (SLiC, arXiv 2305.10425).
    Hinge,
}

/// Log-probabilities of one pair, natural log, summed over response tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLogps {
    /// The policy's, of the chosen completion.
    pub chosen: f64,
    /// The policy's, of the rejected completion.
    pub rejected: f64,
    /// The reference's, of the chosen completion.
    pub reference_chosen: f64,
    /// The reference's, of the rejected completion.
    pub reference_rejected: f64,
    /// Scored tokens of the chosen completion.
    pub tokens_chosen: usize,
    /// Scored tokens of the rejected completion.
    pub tokens_rejected: usize,
}

/// Which loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DpoSettings {
    /// Strength of the pull to the reference.
    pub beta: f64,
    /// The shape.
    pub loss_type: LossType,
    /// cDPO's epsilon: how often a label is believed to be swapped.
    pub label_smoothing: f64,
    /// Weight of `-logp(chosen) / tokens` (Iterative RPO).
    pub nll_weight: f64,
    /// Weight of the supervised rows that are rehearsed beside the pairs.
    pub rehearsal_weight: f64,
}

/// A loss and its derivatives by the policy's two log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLoss {
    /// The loss.
    pub loss: f64,
    /// d loss / d chosen.
    pub d_chosen: f64,
    /// d loss / d rejected.
    pub d_rejected: f64,
}

/// `log(1 + exp(x))` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// The loss of one pair.
pub fn pair_loss(logps: &PairLogps, settings: &DpoSettings) -> PairLoss {
    let chosen = logps.chosen - logps.reference_chosen;
    let rejected = logps.rejected - logps.reference_rejected;
    let z = settings.beta * (chosen - rejected);
    let mut result = match settings.loss_type {
        LossType::Sigmoid => {
            let smooth = settings.label_smoothing;
            let slope = -(1.0 - smooth) * sigmoid(-z) + smooth * sigmoid(z);
            PairLoss {
                loss: (1.0 - smooth) * softplus(-z) + smooth * softplus(z),
                d_chosen: slope * settings.beta,
                d_rejected: -slope * settings.beta,
            }
        }
        LossType::Hinge => {
            let slope = if z < 1.0 { -settings.beta } else { 0.0 };
            PairLoss { loss: (1.0 - z).max(0.0), d_chosen: slope, d_rejected: -slope }
        }
        LossType::Ipo => {
            let (n, m) = (logps.tokens_chosen.max(1) as f64, logps.tokens_rejected.max(1) as f64);
            let gap = chosen / n - rejected / m - 1.0 / (2.0 * settings.beta);
            PairLoss { loss: gap * gap, d_chosen: 2.0 * gap / n, d_rejected: -2.0 * gap / m }
        }
    };
    let tokens = logps.tokens_chosen.max(1) as f64;
    result.loss -= settings.nll_weight * logps.chosen / tokens;
    result.d_chosen -= settings.nll_weight / tokens;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: DpoSettings = DpoSettings {
        beta: 0.1,
        loss_type: LossType::Sigmoid,
        label_smoothing: 0.0,
        nll_weight: 0.0,
        rehearsal_weight: 0.0,
    };
    const PAIR: PairLogps = PairLogps {
        chosen: -8.0,
        rejected: -11.0,
        reference_chosen: -10.0,
        reference_rejected: -9.0,
        tokens_chosen: 5,
        tokens_rejected: 7,
    };

    fn check(settings: DpoSettings, pair: PairLogps, expected: f64) {
        let loss = pair_loss(&pair, &settings);
        assert!((loss.loss - expected).abs() < 1e-9, "{} is not {expected}", loss.loss);
        let step = 1e-6;
        let at = |c: f64, r: f64| {
            let moved = PairLogps { chosen: pair.chosen + c, rejected: pair.rejected + r, ..pair };
            pair_loss(&moved, &settings).loss
        };
        let by_chosen = (at(step, 0.0) - at(-step, 0.0)) / (2.0 * step);
        let by_rejected = (at(0.0, step) - at(0.0, -step)) / (2.0 * step);
        assert!((loss.d_chosen - by_chosen).abs() < 1e-6);
        assert!((loss.d_rejected - by_rejected).abs() < 1e-6);
    }

    /// Values worked out by hand for beta 0.1, log-probabilities -8 and -11, references -10, -9.
    #[test]
    fn hand_values() {
        check(SETTINGS, PAIR, 0.5130152524);
        assert!((pair_loss(&PAIR, &SETTINGS).d_chosen - -0.0401312340).abs() < 1e-9);
        let swapped = PairLogps {
            chosen: -11.0,
            rejected: -8.0,
            reference_chosen: -9.0,
            reference_rejected: -10.0,
            ..PAIR
        };
        check(SETTINGS, swapped, 0.9130152524);
        check(DpoSettings { label_smoothing: 0.1, ..SETTINGS }, PAIR, 0.5530152524);
        check(DpoSettings { loss_type: LossType::Hinge, ..SETTINGS }, PAIR, 0.6);
        check(DpoSettings { loss_type: LossType::Ipo, ..SETTINGS }, PAIR, 18.6130612245);
        check(DpoSettings { nll_weight: 1.0, ..SETTINGS }, PAIR, 2.1130152524);
    }

    #[test]
    fn the_loss_begins_at_ln_2_and_stays_finite_far_out() {
        let start = PairLogps { reference_chosen: -8.0, reference_rejected: -11.0, ..PAIR };
        check(SETTINGS, start, std::f64::consts::LN_2);
        for chosen in [-1e5, 1e5] {
            let far = pair_loss(&PairLogps { chosen, ..PAIR }, &SETTINGS);
            assert!(far.loss.is_finite() && far.d_chosen.is_finite());
        }
    }
}
