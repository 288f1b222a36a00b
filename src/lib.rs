//! gradus: a language model that improves itself on your own machine and keeps the receipts.
pub mod blob;
pub mod demo;
pub mod domain;
pub mod lm;
pub mod log;
