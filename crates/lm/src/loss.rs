//! Losses as pure functions of summed log-probabilities (the DPO family), each with its
//! derivatives, so that the tensor graph ends at the log-probabilities.
//!
//! `h = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)`, `z = beta h`.

use serde::{Deserialize, Serialize};

/// A loss on pairs, with its parameters. `h` is the chosen text's log-ratio to the reference less
/// the rejected text's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Loss {
    /// `-log sigmoid(beta h)` (arXiv 2305.18290); with label smoothing, cDPO.
    Sigmoid {
        /// Strength of the pull to the reference.
        beta: f64,
        /// How often a label is believed to be swapped.
        label_smoothing: f64,
    },
    /// The sigmoid loss made unbiased for labels that are swapped so often (arXiv 2403.00409).
    Robust {
        /// Strength of the pull to the reference.
        beta: f64,
        /// How often a label is swapped; below 0.5.
        label_smoothing: f64,
    },
    /// `(h - 1 / (2 beta))^2` on length-averaged log-ratios, as TRL (arXiv 2310.12036).
    Ipo {
        /// Strength of the pull to the reference.
        beta: f64,
    },
    /// `max(0, 1 - beta h)` (SLiC, arXiv 2305.10425).
    Hinge {
        /// Strength of the pull to the reference.
        beta: f64,
    },
}

impl Loss {
    /// Strength of the pull to the reference; it also scales implicit rewards.
    pub fn beta(&self) -> f64 {
        match *self {
            Loss::Sigmoid { beta, .. }
            | Loss::Robust { beta, .. }
            | Loss::Ipo { beta }
            | Loss::Hinge { beta } => beta,
        }
    }
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

/// What a preference step minimises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DpoSettings {
    /// The loss of a pair.
    pub loss: Loss,
    /// Weight of `-logp(chosen) / tokens` (Iterative RPO).
    pub nll_weight: f64,
    /// Weight of the supervised rows that are rehearsed beside the pairs.
    pub rehearsal_weight: f64,
}

/// What a pair counts for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Belief {
    /// What its loss is multiplied by.
    pub weight: f64,
    /// Probability that the chosen text is the better one.
    pub label: f64,
}

impl Belief {
    /// One pair, surely.
    pub const SURE: Belief = Belief { weight: 1.0, label: 1.0 };
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

impl PairLoss {
    const ZERO: PairLoss = PairLoss { loss: 0.0, d_chosen: 0.0, d_rejected: 0.0 };

    fn scaled(self, by: f64) -> PairLoss {
        PairLoss {
            loss: self.loss * by,
            d_chosen: self.d_chosen * by,
            d_rejected: self.d_rejected * by,
        }
    }

    fn plus(self, other: PairLoss) -> PairLoss {
        PairLoss {
            loss: self.loss + other.loss,
            d_chosen: self.d_chosen + other.d_chosen,
            d_rejected: self.d_rejected + other.d_rejected,
        }
    }

    /// By the better text's log-probability and the worse one's, the other way round.
    fn swapped(self) -> PairLoss {
        PairLoss { loss: self.loss, d_chosen: self.d_rejected, d_rejected: self.d_chosen }
    }
}

impl PairLogps {
    fn swapped(&self) -> PairLogps {
        PairLogps {
            chosen: self.rejected,
            rejected: self.chosen,
            reference_chosen: self.reference_rejected,
            reference_rejected: self.reference_chosen,
            tokens_chosen: self.tokens_rejected,
            tokens_rejected: self.tokens_chosen,
        }
    }

    fn log_ratios(&self) -> (f64, f64) {
        (self.chosen - self.reference_chosen, self.rejected - self.reference_rejected)
    }
}

/// `-log sigmoid(z)`, of the other order with probability `swapped`.
fn logistic(beta: f64, swapped: f64, logps: &PairLogps) -> PairLoss {
    let (chosen, rejected) = logps.log_ratios();
    let z = beta * (chosen - rejected);
    let slope = -(1.0 - swapped) * sigmoid(-z) + swapped * sigmoid(z);
    PairLoss {
        loss: (1.0 - swapped) * softplus(-z) + swapped * softplus(z),
        d_chosen: slope * beta,
        d_rejected: -slope * beta,
    }
}

/// The loss of a pair whose chosen text is surely the better one.
fn sure_loss(loss: Loss, logps: &PairLogps) -> PairLoss {
    let (chosen, rejected) = logps.log_ratios();
    match loss {
        Loss::Sigmoid { beta, label_smoothing } => logistic(beta, label_smoothing, logps),
        Loss::Robust { beta, label_smoothing: swapped } => {
            let right = logistic(beta, 0.0, logps).scaled(1.0 - swapped);
            let wrong = logistic(beta, 1.0, logps).scaled(-swapped);
            right.plus(wrong).scaled(1.0 / (1.0 - 2.0 * swapped))
        }
        Loss::Hinge { beta } => {
            let z = beta * (chosen - rejected);
            let slope = if z < 1.0 { -beta } else { 0.0 };
            PairLoss { loss: (1.0 - z).max(0.0), d_chosen: slope, d_rejected: -slope }
        }
        Loss::Ipo { beta } => {
            let (n, m) = (logps.tokens_chosen.max(1) as f64, logps.tokens_rejected.max(1) as f64);
            let gap = chosen / n - rejected / m - 1.0 / (2.0 * beta);
            PairLoss { loss: gap * gap, d_chosen: 2.0 * gap / n, d_rejected: -2.0 * gap / m }
        }
    }
}

/// The loss of one pair. A label between 0 and 1 gives the mean of both orders' losses, each as
/// likely as the label says; for the sigmoid loss that is cDPO's (Mitchell 2023).
pub fn pair_loss(logps: &PairLogps, belief: Belief, settings: &DpoSettings) -> PairLoss {
    let share = |surely: f64, logps: &PairLogps| match surely {
        0.0 => PairLoss::ZERO,
        surely => sure_loss(settings.loss, logps).scaled(surely),
    };
    let other = share(1.0 - belief.label, &logps.swapped()).swapped();
    let mut result = share(belief.label, logps).plus(other);
    let tokens = logps.tokens_chosen.max(1) as f64;
    result.loss -= settings.nll_weight * logps.chosen / tokens;
    result.d_chosen -= settings.nll_weight / tokens;
    result.scaled(belief.weight)
}

/// The loss of a pair of which the policy thinks what its reference thinks.
pub fn initial_loss(loss: Loss, belief: Belief) -> f64 {
    let same = PairLogps {
        chosen: 0.0,
        rejected: 0.0,
        reference_chosen: 0.0,
        reference_rejected: 0.0,
        tokens_chosen: 1,
        tokens_rejected: 1,
    };
    let alone = DpoSettings { loss, nll_weight: 0.0, rehearsal_weight: 0.0 };
    pair_loss(&same, belief, &alone).loss
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGMOID: Loss = Loss::Sigmoid { beta: 0.1, label_smoothing: 0.0 };
    const SETTINGS: DpoSettings =
        DpoSettings { loss: SIGMOID, nll_weight: 0.0, rehearsal_weight: 0.0 };
    const PAIR: PairLogps = PairLogps {
        chosen: -8.0,
        rejected: -11.0,
        reference_chosen: -10.0,
        reference_rejected: -9.0,
        tokens_chosen: 5,
        tokens_rejected: 7,
    };

    fn with(loss: Loss) -> DpoSettings {
        DpoSettings { loss, ..SETTINGS }
    }

    fn check(settings: DpoSettings, pair: PairLogps, expected: f64) {
        let loss = pair_loss(&pair, Belief::SURE, &settings);
        assert!((loss.loss - expected).abs() < 1e-9, "{} is not {expected}", loss.loss);
        let step = 1e-6;
        let at = |c: f64, r: f64| {
            let moved = PairLogps { chosen: pair.chosen + c, rejected: pair.rejected + r, ..pair };
            pair_loss(&moved, Belief::SURE, &settings).loss
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
        assert!((pair_loss(&PAIR, Belief::SURE, &SETTINGS).d_chosen - -0.0401312340).abs() < 1e-9);
        let swapped = PairLogps {
            chosen: -11.0,
            rejected: -8.0,
            reference_chosen: -9.0,
            reference_rejected: -10.0,
            ..PAIR
        };
        check(SETTINGS, swapped, 0.9130152524);
        check(with(Loss::Sigmoid { beta: 0.1, label_smoothing: 0.1 }), PAIR, 0.5530152524);
        check(with(Loss::Robust { beta: 0.1, label_smoothing: 0.1 }), PAIR, 0.4630152524);
        check(with(Loss::Robust { beta: 0.1, label_smoothing: 0.0 }), PAIR, 0.5130152524);
        check(with(Loss::Hinge { beta: 0.1 }), PAIR, 0.6);
        check(with(Loss::Ipo { beta: 0.1 }), PAIR, 18.6130612245);
        check(DpoSettings { nll_weight: 1.0, ..SETTINGS }, PAIR, 2.1130152524);
    }

    #[test]
    fn the_loss_begins_at_ln_2_and_stays_finite_far_out() {
        let start = PairLogps { reference_chosen: -8.0, reference_rejected: -11.0, ..PAIR };
        check(SETTINGS, start, std::f64::consts::LN_2);
        for chosen in [-1e5, 1e5] {
            let far = pair_loss(&PairLogps { chosen, ..PAIR }, Belief::SURE, &SETTINGS);
            assert!(far.loss.is_finite() && far.d_chosen.is_finite());
        }
    }

    /// cDPO's smoothing says of every pair what a label of 1 - epsilon says of one; a weight
    /// multiplies what a pair counts for.
    #[test]
    fn labels_and_weights() {
        let smoothed = with(Loss::Sigmoid { beta: 0.1, label_smoothing: 0.1 });
        let believed = Belief { weight: 1.0, label: 0.9 };
        let (a, b) =
            (pair_loss(&PAIR, Belief::SURE, &smoothed), pair_loss(&PAIR, believed, &SETTINGS));
        for (a, b) in [(a.loss, b.loss), (a.d_chosen, b.d_chosen), (a.d_rejected, b.d_rejected)] {
            assert!((a - b).abs() < 1e-12, "{a} and {b}");
        }
        let losses = [SIGMOID, Loss::Hinge { beta: 0.1 }, Loss::Ipo { beta: 0.1 }];
        for settings in losses.map(with) {
            let of = |weight, label| pair_loss(&PAIR, Belief { weight, label }, &settings);
            let other = pair_loss(&PAIR.swapped(), Belief::SURE, &settings).swapped();
            assert_eq!(of(1.0, 1.0), sure_loss(settings.loss, &PAIR));
            assert_eq!(of(1.0, 0.0), other);
            let mean = of(1.0, 1.0).scaled(0.75).plus(other.scaled(0.25));
            assert!((of(1.0, 0.75).loss - mean.loss).abs() < 1e-12);
            assert!((of(1.0, 0.75).d_rejected - mean.d_rejected).abs() < 1e-12);
            assert_eq!(of(0.5, 0.75), of(1.0, 0.75).scaled(0.5));
        }
    }
}
