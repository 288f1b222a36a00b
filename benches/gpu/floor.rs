//! Floors: what no program can do without, in bytes and in multiplications and additions, and how
//! long the card's own ceilings make that take.
//!
//! P are the numbers of the matrices that every row is multiplied with, the head among them; a table
//! that is only looked up in is not. Attention's products count for those keys that a row sees.

use gradus::lm::config::ModelConfig;
use gradus::lm::gpu::Ceilings;

/// What a piece of work comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Needs {
    pub bytes: f64,
    pub flops: f64,
}

impl Needs {
    /// Seconds where fetching and computing happen at the same time.
    pub fn overlapped(&self, ceilings: &Ceilings) -> f64 {
        let [bytes, flops] = self.parts(ceilings);
        bytes.max(flops)
    }

    /// Seconds where one comes after the other, as an optimiser's pass comes after the products.
    pub fn in_turn(&self, ceilings: &Ceilings) -> f64 {
        self.parts(ceilings).iter().sum()
    }

    fn parts(&self, ceilings: &Ceilings) -> [f64; 2] {
        [self.bytes / ceilings.memory_gb_per_s / 1e9, self.flops / ceilings.product_tflops / 1e12]
    }
}

/// The numbers of a network that floors are made of.
pub struct Counts {
    /// Numbers of the layers' matrices.
    pub layers: f64,
    /// Numbers of the head.
    pub head: f64,
    /// All that move in full training, norms and biases left out.
    pub all: f64,
    /// Bytes of a token's keys and values.
    pub kv_bytes: f64,
    /// Multiplications and additions of a row's queries with one key, and of that with its value.
    pub seen: f64,
    /// Bytes of a number.
    pub dtype: f64,
}

impl Counts {
    pub fn of(c: &ModelConfig, dtype_bytes: u64) -> Counts {
        let (q, kv) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
        let layer = c.hidden_size * (2 * q + 2 * kv + 3 * c.intermediate_size);
        let head = (c.vocab_size * c.hidden_size) as f64;
        let layers = (layer * c.num_hidden_layers) as f64;
        let dtype = dtype_bytes as f64;
        Counts {
            layers,
            head,
            all: layers + if c.tie_word_embeddings { head } else { 2.0 * head },
            kv_bytes: (2 * kv * c.num_hidden_layers) as f64 * dtype,
            seen: (4 * q * c.num_hidden_layers) as f64,
            dtype,
        }
    }

    /// P.
    pub fn matmul(&self) -> f64 {
        self.layers + self.head
    }

    /// A step of decoding: P x W + batch x context x bytes of keys and values; 2 P a sequence.
    pub fn decode(&self, batch: usize, context: usize) -> Needs {
        let (batch, context) = (batch as f64, context as f64);
        Needs {
            bytes: self.matmul() * self.dtype + batch * context * self.kv_bytes,
            flops: batch * (2.0 * self.matmul() + context * self.seen),
        }
    }

    /// Reading prompts; of the head only what the last token of each needs.
    pub fn prefill(&self, prompts: usize, tokens: usize) -> Needs {
        let (prompts, rows) = (prompts as f64, (prompts * tokens) as f64);
        let seen = prompts * triangle(tokens);
        Needs {
            bytes: self.matmul() * self.dtype,
            flops: 2.0 * (self.layers * rows + self.head * prompts) + seen * self.seen,
        }
    }

    /// A DPO step over pairs: products forward, twice as many backward (as many where the weights
    /// stay: `moves` is an adapter's numbers), and 28 bytes for each number that moves: master and
    /// two moments read and written, the gradient read and the copy that is computed with written.
    /// A pair's prompt counts once, the last token of a completion has no row, and the head sees
    /// completions alone: no program needs more.
    pub fn dpo(&self, pairs: usize, [prompt, response]: [usize; 2], moves: Option<f64>) -> Needs {
        let rows = (pairs * (prompt + 2 * (response - 1))) as f64;
        let scored = (2 * pairs * response) as f64;
        let whole = prompt + response - 1;
        let seen = 2.0 * triangle(whole) - triangle(prompt);
        // Attention's own products have no weights: they are twice as many backward either way.
        let attention = 3.0 * pairs as f64 * seen * self.seen;
        let products = if moves.is_some() { 4.0 } else { 6.0 };
        let adapter = moves.map_or(0.0, |numbers| 6.0 * numbers * rows);
        Needs {
            bytes: 28.0 * moves.unwrap_or(self.all),
            flops: products * (self.layers * rows + self.head * scored) + adapter + attention,
        }
    }
}

/// Keys that rows see which see themselves and all before them.
fn triangle(rows: usize) -> f64 {
    (rows * (rows + 1)) as f64 / 2.0
}

/// Numbers of an adapter of this rank on all seven matrices of every layer.
pub fn adapter_numbers(c: &ModelConfig, rank: usize) -> usize {
    let (q, kv) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
    let (h, i) = (c.hidden_size, c.intermediate_size);
    let ends = 2 * (h + q) + 2 * (h + kv) + 3 * (h + i);
    rank * ends * c.num_hidden_layers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::shapes;

    fn counts(name: &str) -> Counts {
        let shape = shapes(&[name.to_owned()]).unwrap().remove(0);
        Counts::of(&shape.config, 2)
    }

    /// By hand: SmolLM2 30 x 576 x (2 x 576 + 2 x 192 + 3 x 1536) + 49152 x 576.
    #[test]
    fn parameters_by_hand() {
        assert_eq!(counts("135M").matmul(), 134_479_872.0);
        assert_eq!(counts("1B").matmul(), 1_235_746_816.0);
        assert_eq!(counts("7B").matmul(), 7_070_285_824.0);
        assert_eq!(counts("7B").all - counts("7B").matmul(), 152_064.0 * 3584.0);
        assert_eq!(counts("1B").kv_bytes, 32_768.0);
        let shape = shapes(&["1B".to_owned()]).unwrap().remove(0);
        // (2 x 4096 + 2 x 2560 + 3 x 10240) x 16 x 16 layers.
        assert_eq!(adapter_numbers(&shape.config, 16), 11_272_192);
    }

    /// 1B, 64 sequences of 512: 2.472 GB + 1.074 GB; at 4.3 TB/s 825 us.
    #[test]
    fn decoding_by_hand() {
        let needs = counts("1B").decode(64, 512);
        assert!((needs.bytes - 3.545e9).abs() < 2e6, "{}", needs.bytes);
        let ceilings = Ceilings { memory_gb_per_s: 4300.0, product_tflops: 790.0 };
        assert!((needs.overlapped(&ceilings) - 825e-6).abs() < 1e-6);
    }

    /// The toy: layers 2 x 64 x (2 x 64 + 2 x 32 + 3 x 128) = 73,728; head 16,384; a pair of 12 +
    /// 2 x 12 has 34 rows and 24 scored tokens; its rows see 2 x 276 - 78 = 474 keys.
    #[test]
    fn a_step_by_hand() {
        let counts = counts("tiny");
        let needs = counts.dpo(1, [12, 12], None);
        let products = 6.0 * (73_728.0 * 34.0 + 16_384.0 * 24.0);
        assert_eq!(needs.flops, products + 3.0 * 474.0 * (4.0 * 64.0 * 2.0));
        assert_eq!(needs.bytes, 28.0 * 90_112.0);
        let lora = counts.dpo(1, [12, 12], Some(1000.0));
        assert_eq!(lora.flops, products / 1.5 + 6.0 * 34_000.0 + 3.0 * 474.0 * 512.0);
        assert_eq!(lora.bytes, 28_000.0);
        let ceilings = Ceilings { memory_gb_per_s: 1.0, product_tflops: 1.0 };
        let in_turn = needs.in_turn(&ceilings);
        assert!((in_turn - needs.bytes / 1e9 - needs.flops / 1e12).abs() < 1e-12);
    }

    #[test]
    fn reading_by_hand() {
        let needs = counts("tiny").prefill(2, 3);
        assert_eq!(needs.flops, 2.0 * (73_728.0 * 6.0 + 16_384.0 * 2.0) + 2.0 * 6.0 * 512.0);
    }
}
