//! THE MODEL: tokens and tensors, on the CPU and on GPUs. A crate of its own that sees nothing of gradus
//! but its kernels; it knows no prompt pool, rubric, log or actor.
//!
//! Read [`arch`] for what a family of networks is like, [`decoder`] for the network that trains,
//! [`train`] for SFT and DPO steps, [`generate`] for drawing, [`policy`] for the port that stages
//! use.
//!
//! The rooms, from the bottom to the top (each uses only those above it in this list; gradus'
//! `tests/it/tidy.rs` holds that):
//!
//! - `error`: what can go wrong
//! - `seed`: derived randomness
//! - `chat`: turns of a chat
//! - `completion`: what the model answered
//! - `foreground`: what comes first, and what gives way to it
//! - `cancel`: a flag that long computations look at
//! - `threads`: the threads that all computations share
//! - `ops`: operations over rows of f32, forward and backward
//! - `speed`: what this machine's CPU allows
//! - `arch`: what a family of networks is like
//! - `config`: the numbers of one network
//! - `tensors`: which tensors it has: names and shapes
//! - `weights`: tensors by name, read and written
//! - `lora`: low-rank adapters
//! - `loss`: losses of pairs
//! - `optimizer`: AdamW, schedules, the state that is saved
//! - `packed`: sequences one after another, and what is scored of them
//! - `device`: which device computes, and why
//! - `estimate`: what training and drawing hold in memory
//! - `decoder`: the network that trains, on the CPU
//! - `logp`: log-probabilities of responses
//! - `generate`: the network that draws, on the CPU, and how it draws
//! - `train`: a step: loss terms, gradients, the optimiser
//! - `gpu`: both networks on a GPU
//! - `tokenizer`: text to ids and back
//! - `vocabulary`: the port of whoever makes ids of text
//! - `template`: chats to text
//! - `gguf`: GGUF files
//! - `gguf_tokenizer`: the tokenizer in them
//! - `chat_files`: what of a model's files is about text
//! - `model_files`: a model as files
//! - `gguf_vocabulary`: its tokenizer as a GGUF file has it
//! - `gguf_write`: a model as a GGUF file
//! - `policy`: the port that stages use
//! - `fork`: where a reply may go on in one of several ways
//!
//! # What is candle's, and what is ours
//!
//! From candle: tensors and their storage, devices, GGUF and its dequantisation, `VarBuilder` through
//! which both networks take their weights ([`weights::Weights::into_var_builder`],
//! [`decoder::Decoder::read`]), `Activation` for `hidden_act` of `config.json`. Ours is the rest, for
//! reasons that were measured with candle 0.11.1:
//!
//! | of candle | why not |
//! | --- | --- |
//! | `ops::{rms_norm, layer_norm, softmax_last_dim}`, `rotary_emb::rope*`, `RmsNorm::forward` | no backward: they drop gradients without a word while the loss still falls. Of the 21 tensors of candle-transformers' Llama 20 got no gradient, of Mistral's 8 none and 8 a wrong one (central differences) |
//! | the autograd graph, from operations that have a backward | a DPO step of 135 M parameters took 2.3 times as long as TRL's, held 10.9 GB, and computed gradients of frozen weights; the passes here take 0.3 to 0.4 of TRL's time (docs/performance.md) |
//! | its matrix product and inference operations in drawing | 10.2 s where [`generate`] took 5.0 s; and a row's bits depend on the rows beside it, which exact resumption and caching by content exclude |
//! | `kv_cache` | one sequence each: no shared beginnings |
//! | `AdamW` | its state cannot be saved; of weights in bf16 100 steps at 5e-6 moved nothing |
//! | `Init`, `Tensor::rand`, `sampling` | the CPU's generator cannot be seeded; here every draw has a seed of its own ([`seed`]) |
//! | `loss`, log-sigmoid from its operations | slope 1.0 or 1.5 instead of 0.5 at margin 0, where DPO begins; [`loss`] has its derivatives by hand |

#![deny(unsafe_code, missing_docs)]
#![allow(
    clippy::indexing_slicing,
    reason = "numeric loops over rows whose lengths were checked where they came in; a bound that is \
              asked for at every number costs the vector instructions"
)]

pub mod arch;
pub mod cancel;
pub mod chat;
pub mod chat_files;
pub mod completion;
pub mod config;
pub mod decoder;
pub mod device;
pub mod error;
pub mod estimate;
pub mod foreground;
pub mod fork;
pub mod generate;
pub mod gguf;
pub mod gguf_tokenizer;
mod gguf_vocabulary;
pub mod gguf_write;
pub mod gpu;
pub mod logp;
pub mod lora;
pub mod loss;
pub mod model_files;
pub mod ops;
pub mod optimizer;
pub mod packed;
pub mod policy;
pub mod seed;
pub mod speed;
pub mod template;
pub mod tensors;
pub mod threads;
pub mod tokenizer;
pub mod train;
pub mod vocabulary;
pub mod weights;
