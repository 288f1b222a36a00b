//! Drawing on a small random network: cached equals recomputed, alone equals in company.

use super::*;
use crate::config::Architecture;
use crate::decoder::Decoder;
use crate::logp::sequence_logps;
use crate::tensors::{TensorSpec, tensors};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;

fn small() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::default(),
        rope_scaling: None,
        vocab_size: 61,
        hidden_size: 48,
        intermediate_size: 72,
        num_hidden_layers: 3,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        head_dim: 8,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        max_position_embeddings: 96,
        tie_word_embeddings: true,
        bos_token_id: None,
        eos_token_ids: vec![0],
    }
}

/// Reproducible weights large enough that logits differ clearly.
pub(crate) fn random_weights(config: &ModelConfig, seed: u8) -> Weights {
    let mut rng = ChaCha8Rng::from_seed([seed; 32]);
    let mut made = BTreeMap::new();
    for TensorSpec { name, shape, .. } in tensors(config) {
        let count: usize = shape.iter().product();
        let centre = if name.contains("norm") { 1.0 } else { 0.0 };
        let scale = if name.contains("embed") { 1.0 } else { 0.3 };
        let values: Vec<f32> = (0..count)
            .map(|_| centre + scale * (rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * 2.0)
            .collect();
        made.insert(name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
    }
    Weights(made)
}

fn generator() -> Generator {
    Generator::new(&small(), random_weights(&small(), 1)).unwrap()
}

fn sampling(temperature: f32, max_new_tokens: usize) -> Sampling {
    Sampling {
        temperature,
        top_p: 0.95,
        top_k: None,
        min_p: None,
        repetition_penalty: 1.0,
        max_new_tokens,
        stop_ids: vec![0],
    }
}

fn tokens(seed: u8, count: usize) -> Vec<u32> {
    let mut rng = ChaCha8Rng::from_seed([seed; 32]);
    (0..count).map(|_| 1 + rng.next_u32() % 60).collect()
}

fn request(prompt: Vec<u32>, first: u64, candidates: u64) -> DrawRequest {
    let root = Seed::root(9);
    let seeds = (first..first + candidates).map(|i| root.index(i)).collect();
    DrawRequest { prompt, seeds, sampling: sampling(1.0, 20) }
}

/// Log-probability of the continuation, each position from a fresh reading of everything before.
fn recomputed(generator: &Generator, prompt: &[u32], ids: &[u32]) -> (f64, Vec<u32>) {
    let mut logp = 0.0;
    let mut greedy = vec![];
    for index in 0..ids.len() {
        let context = [prompt, &ids[..index]].concat();
        let mut session = generator.network.session();
        let mut prefill = Prefill::new(&mut *session, generator.config(), vec![&context], &[1]);
        let likeliest = sampling(0.0, 1);
        let mut at_end = |session: &mut dyn KvSession, ends: &[(usize, usize)]| {
            let at = [ends[0].0];
            logp += session.logps(&at, &ids[index..=index])?[0];
            let request = TokenRequest { sampling: &likeliest, unit: 0.0, seen: None };
            greedy.push(session.choose(&at, &[request])?[0].0);
            Ok(())
        };
        prefill.read(&[0], &Cancel::default(), &mut at_end).unwrap();
    }
    (logp, greedy)
}

#[test]
fn cached_decoding_equals_reading_everything_again() {
    let generator = generator();
    let mut wanted = request(tokens(2, 17), 0, 3);
    let drawn = generator.draw(std::slice::from_ref(&wanted), &Cancel::default()).unwrap();
    for candidate in &drawn[0] {
        let (logp, _) = recomputed(&generator, &wanted.prompt, &candidate.token_ids);
        assert!((logp - candidate.logp).abs() < 1e-9, "{logp} {}", candidate.logp);
    }
    wanted.sampling.temperature = 0.0;
    let drawn = generator.draw(std::slice::from_ref(&wanted), &Cancel::default()).unwrap();
    let (_, greedy) = recomputed(&generator, &wanted.prompt, &drawn[0][0].token_ids);
    assert_eq!(greedy, drawn[0][0].token_ids);
    assert_eq!(drawn[0][0], drawn[0][2]);
}

/// What is recorded of a drawn completion is what training would find for it.
#[test]
fn drawn_log_probabilities_are_the_trainers() {
    let requests: Vec<_> =
        (0..6).map(|n| request(tokens(n, 9 + 5 * n as usize), 10 * u64::from(n), 3)).collect();
    let drawn = generator().draw(&requests, &Cancel::default()).unwrap();
    let together = requests.iter().zip(&drawn);
    let (sequences, recorded): (Vec<_>, Vec<f64>) = together
        .flat_map(|(r, all)| all.iter().map(|d| ((r.prompt.clone(), d.token_ids.clone()), d.logp)))
        .unzip();
    let decoder = Decoder::new(&small(), random_weights(&small(), 1), None).unwrap();
    let found = sequence_logps(&decoder, &sequences, &Cancel::default()).unwrap();
    for (recorded, found) in recorded.iter().zip(&found) {
        assert!((recorded - found).abs() < 1e-4, "{recorded} {found}");
        assert!(*recorded < -1.0, "some choice was left");
    }
}

/// 8 bits: a little different, and no less indifferent to company.
#[test]
fn eight_bits_draw_nearly_the_same_and_know_no_company_either() {
    let weights = random_weights(&small(), 1);
    let eight = Generator::stored(&small(), weights, Storage::EightBit).unwrap();
    let contexts: Vec<Vec<u32>> = (0..20).map(|n| tokens(n, 12 + n as usize)).collect();
    let choices: Vec<Vec<u32>> = (1..60).map(|id| vec![id]).collect();
    let read = |generator: &Generator, contexts: &[Vec<u32>]| {
        generator.choice_logps(contexts, &choices, &Cancel::default()).unwrap()
    };
    let (exact, eight_all) = (read(&generator(), &contexts), read(&eight, &contexts));
    assert_eq!(read(&eight, &contexts[3..4])[0], eight_all[3]);
    let gap = |(a, b): (&f64, &f64)| (a.exp() - b.exp()).abs();
    let gaps = exact.iter().flatten().zip(eight_all.iter().flatten()).map(gap);
    let most = gaps.fold(0.0, f64::max);
    assert!(most > 0.0 && most < 0.05, "{most}");
}

#[test]
fn company_changes_nothing() {
    let generator = generator();
    let shared = tokens(3, 30);
    let requests: Vec<DrawRequest> = (0..23u64)
        .map(|i| {
            let own = tokens(i as u8 + 10, 1 + i as usize * 2);
            let prompt = if i % 2 == 0 { [shared.as_slice(), &own].concat() } else { own };
            request(prompt, i * 10, 1 + i % 5)
        })
        .collect();
    let cancel = Cancel::default();
    let together = generator.draw(&requests, &cancel).unwrap();
    let distinct: std::collections::BTreeSet<_> =
        together.iter().flatten().map(|d| &d.token_ids).collect();
    assert!(distinct.len() > 30, "the draws differ, or this test shows nothing");
    assert!(together.iter().flatten().any(|d| d.stop == StopReason::TurnEnd));
    for (request, drawn) in requests.iter().zip(&together) {
        assert_eq!(&generator.draw(std::slice::from_ref(request), &cancel).unwrap()[0], drawn);
    }
    for live_max in [1, 3, 7] {
        let narrow = self::generator().with_live_max(live_max);
        assert_eq!(narrow.draw(&requests, &cancel).unwrap(), together, "live_max {live_max}");
    }
}

#[test]
fn a_penalty_keeps_greedy_drawing_from_repeating_itself() {
    let generator = generator();
    let drawn = |repetition_penalty| {
        let mut wanted = request(tokens(2, 17), 0, 1);
        wanted.sampling = Sampling { repetition_penalty, stop_ids: vec![], ..sampling(0.0, 30) };
        generator.draw(&[wanted], &Cancel::default()).unwrap().remove(0).remove(0)
    };
    let different = |ids: &[u32]| ids.iter().collect::<BTreeSet<_>>().len();
    let (free, held) = (drawn(1.0), drawn(1e6));
    assert!(different(&held.token_ids) > different(&free.token_ids));
    // What is recorded is the probability under the unmodified distribution.
    let (logp, _) = recomputed(&generator, &tokens(2, 17), &held.token_ids);
    assert!((logp - held.logp).abs() < 1e-9);
}

#[test]
fn choices_are_scored_like_recomputed_continuations() {
    let generator = generator();
    let shared = tokens(4, 25);
    let contexts: Vec<Vec<u32>> =
        (0..5).map(|i| [shared.as_slice(), &tokens(i + 40, 4)].concat()).collect();
    let choices = vec![vec![7], vec![8], vec![9, 10, 11], vec![9, 12]];
    let got = generator.choice_logps(&contexts, &choices, &Cancel::default()).unwrap();
    for (context, got) in contexts.iter().zip(&got) {
        for (choice, got) in choices.iter().zip(got) {
            let (logp, _) = recomputed(&generator, context, choice);
            assert!((logp - got).abs() < 1e-9, "{logp} {got}");
        }
    }
    let all: Vec<Vec<u32>> = (0..61).map(|id| vec![id]).collect();
    let whole = generator.choice_logps(&contexts[..1], &all, &Cancel::default()).unwrap();
    let sum: f64 = whole[0].iter().map(|l| l.exp()).sum();
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    assert!(generator.choice_logps(&contexts, &[vec![]], &Cancel::default()).is_err());
    assert!(generator.choice_logps(&contexts, &[vec![61]], &Cancel::default()).is_err());
}

#[test]
fn bounds_and_cancel_hold() {
    let generator = generator();
    let cancel = Cancel::default();
    assert!(generator.draw(&[request(vec![], 0, 1)], &cancel).is_err());
    assert!(generator.draw(&[request(tokens(1, 96), 0, 1)], &cancel).is_err());
    assert!(generator.draw(&[request(vec![61], 0, 1)], &cancel).is_err());
    let mut long = request(tokens(1, 90), 0, 2);
    long.sampling = Sampling { stop_ids: vec![], max_new_tokens: 50, ..sampling(1.0, 50) };
    let drawn = generator.draw(&[long, request(tokens(2, 3), 0, 0)], &cancel).unwrap();
    assert_eq!(drawn[0][0].token_ids.len(), 6);
    assert_eq!(drawn[0][0].stop, StopReason::Length);
    assert!(drawn[1].is_empty());
    cancel.cancel();
    let stopped = generator.draw(&[request(tokens(1, 5), 0, 1)], &cancel);
    assert!(matches!(stopped, Err(LmError::Cancelled)));
}

#[test]
fn memory_is_given_back() {
    let generator = generator();
    let requests = [request(tokens(1, 20), 0, 3), request(tokens(1, 20), 5, 2)];
    let prompts = requests.iter().map(|r| r.prompt.as_slice()).collect();
    let mut session = generator.network.session();
    let mut prefill = Prefill::new(&mut *session, generator.config(), prompts, &[3, 2]);
    let newcomers = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)];
    let cancel = Cancel::default();
    let mut firsts = FirstTokens::new(&prefill.plan.leaves, &requests);
    let mut live = admit(&mut prefill, &mut firsts, &newcomers, &cancel).unwrap();
    assert_eq!(prefill.session.tree().live(), 1);
    generator.step(&mut live, prefill.session).unwrap();
    assert_eq!(prefill.session.tree().live(), 6);
    live.iter_mut().for_each(|l| l.stop = Some(StopReason::Length));
    retire(&mut live, prefill.session.tree(), &mut [vec![None; 3], vec![None; 2]]);
    assert_eq!(prefill.session.tree().live(), 0);
}

/// Not a test of correctness: `cargo test --release -- --ignored tiny_speed --nocapture`.
#[test]
#[ignore = "measures; run it alone"]
fn tiny_speed() {
    let config = ModelConfig {
        architecture: Architecture::default(),
        rope_scaling: None,
        vocab_size: 200,
        hidden_size: 128,
        intermediate_size: 384,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 32,
        max_position_embeddings: 512,
        ..small()
    };
    let generator = Generator::new(&config, random_weights(&config, 1)).unwrap();
    let requests: Vec<DrawRequest> = (0..64u8)
        .map(|i| {
            let mut one = request(tokens(i, 40), u64::from(i) * 8, 4);
            one.sampling = Sampling { stop_ids: vec![], ..sampling(0.7, 48) };
            one
        })
        .collect();
    let start = std::time::Instant::now();
    let drawn = generator.draw(&requests, &Cancel::default()).unwrap();
    let count: usize = drawn.iter().flatten().map(|d| d.token_ids.len()).sum();
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{count} tokens, {seconds:.2} s, {:.0} tokens/s", count as f64 / seconds);
}

/// Requests that come one after another while others are drawn; of the first, one candidate is not
/// wanted after its fourth token.
#[derive(Default)]
struct Coming {
    waiting: Vec<DrawRequest>,
    asked: usize,
    told: BTreeMap<(usize, usize), Vec<(u32, f64)>>,
    ended: BTreeMap<(usize, usize), Drawn>,
    refused: Vec<usize>,
}

impl DrawSource for Coming {
    fn next(&mut self, room: usize, idle: bool) -> Option<Vec<DrawRequest>> {
        assert!(room > 0);
        self.asked += 1;
        if self.waiting.is_empty() {
            return None;
        }
        let comes = idle || self.asked.is_multiple_of(3);
        Some(if comes { vec![self.waiting.remove(0)] } else { Vec::new() })
    }

    fn token(&mut self, token: ToldToken) -> bool {
        let told = self.told.entry((token.request, token.candidate)).or_default();
        told.push((token.id, token.logp.unwrap()));
        (token.request, token.candidate) != (0, 1) || told.len() < 4
    }

    fn ended(&mut self, request: usize, candidate: usize, drawn: Drawn) {
        assert!(self.ended.insert((request, candidate), drawn).is_none());
    }

    fn refused(&mut self, request: usize, _: LmError) {
        self.refused.push(request);
    }
}

#[test]
fn requests_that_come_while_others_are_drawn_give_what_they_give_alone() {
    let generator = generator();
    let request = |prompt: Vec<u32>| DrawRequest {
        seeds: (0..3).map(|n| Seed::root(n).derive("coming")).collect(),
        prompt,
        sampling: sampling(1.0, 12),
    };
    let good = [vec![5, 9, 3], vec![5, 9, 4], vec![7; 40], vec![5, 9, 3]].map(request);
    let mut source = Coming { waiting: good.to_vec(), ..Coming::default() };
    source.waiting.insert(1, request(vec![1; 200]));
    generator.draw_continuously(&mut source, &Cancel::default()).unwrap();
    assert_eq!(source.refused, [1], "what does not fit is refused, and the others go on");
    let alone = generator.draw(&good, &Cancel::default()).unwrap();
    for (number, alone) in [0, 2, 3, 4].into_iter().zip(&alone) {
        for (candidate, alone) in alone.iter().enumerate() {
            let told = &source.told[&(number, candidate)];
            let ids: Vec<u32> = told.iter().map(|(id, _)| *id).collect();
            if (number, candidate) == (0, 1) {
                assert_eq!(ids, alone.token_ids[..4], "nobody wanted the rest");
                assert!(!source.ended.contains_key(&(0, 1)));
                continue;
            }
            assert_eq!((&ids, &source.ended[&(number, candidate)]), (&alone.token_ids, alone));
            let sum: f64 = told.iter().map(|(_, logp)| logp).sum();
            assert!((sum - alone.logp).abs() < 1e-9, "a token's own log-probability");
        }
    }
}
