//! Drawing tokens, against a port of crates/lm/src/generate/sample.rs: the same masses to the last
//! bit, and sums in f64 in the order of ids or of likelihood.

use crate::args;
use crate::gpu::{Buffer, Element, Stream, gpu, noise, run};
use gradus_kernels::{Choice, Chosen, Emulator, choose_launch};

impl Element for Choice {
    const RUBBISH: Choice =
        Choice { unit: f64::NAN, temperature: 0.0, top_p: 0.0, min_p: 0.0, top_k: u32::MAX };
}
impl Element for Chosen {
    const RUBBISH: Chosen = Chosen { logp: f64::NAN, id: u32::MAX, broken: u32::MAX };
}

const ALL: Choice = Choice { unit: 0.0, temperature: 1.0, top_p: 1.0, min_p: 0.0, top_k: 0 };

/// crates/lm/src/ops/exp.rs.
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = p * r + c;
    }
    let y = p * r * r + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    y * f32::from_bits(exponent)
}

/// `kept` of sample.rs, by sorting everything.
fn kept(logits: &[f32], choice: &Choice) -> Vec<(u32, f64)> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = 1.0 / choice.temperature;
    let mass = |logit: &f32| match (logit - most) * scale {
        x if x > -87.0 => f64::from(exp(x)),
        _ => 0.0,
    };
    let mut tokens: Vec<(u32, f64)> = (0..).zip(logits.iter().map(mass)).collect();
    let likelier = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let k = choice.top_k as usize;
    if k > 0 && k < tokens.len() {
        tokens.sort_unstable_by(likelier);
        tokens.truncate(k);
    }
    if choice.top_p < 1.0 {
        tokens.sort_unstable_by(likelier);
        let need = f64::from(choice.top_p) * tokens.iter().map(|t| t.1).sum::<f64>();
        let mut sum = 0.0;
        let reached = tokens.iter().position(|token| {
            sum += token.1;
            sum >= need
        });
        tokens.truncate(reached.map_or(tokens.len(), |at| at + 1));
    }
    if choice.min_p > 0.0 {
        tokens.retain(|token| token.1 >= f64::from(choice.min_p));
    }
    tokens
}

fn expected(logits: &[f32], choice: &Choice) -> u32 {
    if choice.temperature == 0.0 {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        return logits.iter().position(|logit| *logit == most).unwrap() as u32;
    }
    let kept = kept(logits, choice);
    let target = choice.unit * kept.iter().map(|token| token.1).sum::<f64>();
    let mut below = 0.0;
    let chosen = kept.iter().find(|token| {
        below += token.1;
        target < below
    });
    chosen.or(kept.last()).unwrap().0
}

fn logp(logits: &[f32], id: u32) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
    f64::from(logits[id as usize]) - f64::from(most) - sum.ln()
}

/// A row of logits for each choice.
fn chosen(gpu: Emulator, logits: &[f32], choices: &[Choice]) -> Vec<Chosen> {
    let vocab = logits.len() / choices.len();
    let (at, choices_at) = (Buffer::new(logits), Buffer::new(choices));
    let mut out = Buffer::<Chosen>::blank(choices.len());
    let args = args![at.read(), vocab, choices_at.read(), out.write(), choices.len()];
    run(gpu, "choose", choose_launch(choices.len() as u32), args);
    out.get().to_vec()
}

/// Every combination of cuts and temperatures.
fn choices(vocab: usize) -> Vec<Choice> {
    let mut all = vec![Choice { temperature: 0.0, ..ALL }];
    for temperature in [0.4, 1.3] {
        for top_k in [0, 1, 7, vocab as u32 / 2, vocab as u32 + 3] {
            for (top_p, min_p) in
                [(1.0, 0.0), (0.1, 0.0), (0.9, 0.0), (1.0, 0.05), (0.8, 0.3), (0.9999, 1.0)]
            {
                all.push(Choice { unit: 0.0, temperature, top_p, min_p, top_k });
            }
        }
    }
    all
}

fn check(gpu: Emulator, vocab: usize, seed: u64, choices: &[Choice], round: impl Fn(f32) -> f32) {
    let mut stream = Stream(seed);
    let logits: Vec<f32> =
        noise(vocab * choices.len(), seed).iter().map(|x| round(5.0 * x)).collect();
    let drawn = |choice: &Choice| Choice { unit: stream.unit(), ..*choice };
    let choices: Vec<Choice> = choices.iter().map(drawn).collect();
    let rows = logits.chunks(vocab).zip(&choices);
    for ((logits, choice), found) in rows.zip(chosen(gpu, &logits, &choices)) {
        let id = expected(logits, choice);
        assert_eq!((found.id, found.broken), (id, 0), "of {vocab}: {choice:?}");
        let gap = found.logp - logp(logits, id);
        assert!(gap.abs() < 1e-6, "of {vocab}: {choice:?}: log-probability off by {gap}");
    }
}

#[test]
fn every_cut_draws_what_sorting_draws() {
    let Some(gpu) = gpu() else { return };
    for (vocab, seed) in [(1, 0), (33, 1), (1000, 2), (3001, 3)] {
        check(gpu, vocab, seed, &choices(vocab), |x| x);
    }
}

/// Steps of a half: a token shares its logit with a fortieth of the vocabulary.
#[test]
fn equals_go_by_id() {
    let Some(gpu) = gpu() else { return };
    for (vocab, seed) in [(5, 1), (40, 2), (2500, 3)] {
        check(gpu, vocab, seed, &choices(vocab), |x| (2.0 * x).round() / 2.0);
    }
    check(gpu, 700, 6, &choices(700), |_| 1.5);
}

#[test]
fn large_vocabularies() {
    let Some(gpu) = gpu() else { return };
    let some = [
        ALL,
        Choice { min_p: 0.01, ..ALL },
        Choice { top_p: 0.95, temperature: 0.7, ..ALL },
        Choice { top_k: 50, top_p: 0.9, ..ALL },
        Choice { top_k: 40_000, ..ALL },
        Choice { temperature: 0.0, ..ALL },
        // Most masses are nothing.
        Choice { temperature: 0.05, top_k: 30_000, top_p: 0.999, ..ALL },
    ];
    check(gpu, 50_000, 1, &some, |x| x);
    check(gpu, 49_152, 2, &some, |x| x.round());
}

/// The ends of the unit: the first token that can be drawn, and one that can.
#[test]
fn the_ends_of_the_distribution_are_drawn_from_what_is_kept() {
    let Some(gpu) = gpu() else { return };
    let vocab = 300;
    for unit in [0.0, 1.0 - f64::EPSILON / 2.0] {
        let choices: Vec<Choice> =
            choices(vocab).iter().map(|choice| Choice { unit, ..*choice }).collect();
        let mut logits = noise(vocab * choices.len(), 7);
        // Tokens that cannot come, at both ends.
        for row in logits.chunks_mut(vocab) {
            (row[0], row[vocab - 1]) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        }
        let rows = logits.chunks(vocab).zip(&choices).skip(1);
        for ((logits, choice), found) in rows.zip(chosen(gpu, &logits, &choices).iter().skip(1)) {
            let kept = kept(logits, choice);
            let mut possible = kept.iter().filter(|token| token.1 > 0.0).map(|token| token.0);
            match unit == 0.0 {
                true => assert_eq!(Some(found.id), possible.next(), "{choice:?}"),
                false => assert!(possible.any(|id| id == found.id), "{choice:?}: {found:?}"),
            }
        }
    }
}

#[test]
fn what_is_not_a_number_is_named() {
    let Some(gpu) = gpu() else { return };
    let mut logits = noise(3 * 2000, 8);
    (logits[1700], logits[431]) = (f32::NAN, f32::NAN);
    logits[4000 + 9] = f32::INFINITY;
    for choice in choices(2000).into_iter().step_by(9) {
        let found = chosen(gpu, &logits, &[choice; 3]);
        assert_eq!((found[0].broken, found[1].broken), (432, 0));
        assert!(found[0].logp.is_nan() && found[1].logp < 0.0);
        // Infinite is a number: something is drawn, as on the CPU.
        assert!(found[2].broken == 0 && found[2].id < 2000);
    }
}
