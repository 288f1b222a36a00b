//! THE MODEL: tokens and tensors. Knows no prompt pool, rubric, log or actor.
//!
//! Read [`decoder`] for the network that trains, [`train`] for SFT and DPO steps, [`generate`] for
//! drawing, [`policy`] for the port that stages use.

#![deny(unsafe_code)]

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
pub mod fork;
pub mod generate;
pub mod gguf;
pub mod gguf_tokenizer;
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
pub mod weights;
