//! Every kernel and product, called with buffers instead of addresses: who may be given what, and
//! how long it must be. A kernel that is given too little would read or write somebody else's
//! memory, so that is checked here, always; it is a mistake of ours and panics.
//!
//! What each computes is said in `crates/kernels`; shapes are those of [`super`].

mod attention;
mod launch;
mod layers;
mod rows;
mod step;

pub(super) use attention::{
    AttentionGradients, AttentionInputs, KeyTiles, QueryTiles, attention, attention_backward,
};
pub(super) use launch::{MatrixProduct, Operand, product};
pub(super) use layers::{
    Angles, GradientSum, HeadNorm, HeadRows, add_bias, add_columns, heads, heads_backward,
    rms_norm, rms_norm_backward, scale_rows, swiglu, swiglu_backward,
};
pub(super) use rows::{
    ScatterAdd, add_rows, fill, gather_rows, narrowed, store_rows, token_logps,
    token_logps_backward,
};
pub(super) use step::{
    ASKED_WORDS, AdamWBuffers, CHOSEN_WORDS, adamw, adamw_finite, choose, square_sum,
};
