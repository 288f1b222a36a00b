//! THE MODEL: tokens and tensors. Knows no prompt pool, rubric, log or actor.
//!
//! Read [`decoder`] for the network, [`generate`] for drawing, [`train`] for SFT and DPO steps.

pub mod cancel;
pub mod config;
pub mod decoder;
pub mod error;
pub mod logp;
pub mod lora;
pub mod loss;
pub mod ops;
pub mod optimizer;
pub mod train;
pub mod weights;
