//! THE DEMO WORLD: a tiny language of instructions that a program can grade.
//!
//! [`words`] is the vocabulary, [`grammar`] the instructions and their right answers, [`oracle`]
//! the additive score of an answer, [`corrupt`] how answers go wrong, [`critique`] what a judge
//! writes before it scores, [`corpus`] the documents the base was pretrained on and the seed data
//! of the loop, [`tokenizer`] the files of its word-level tokenizer.
//!
//! What the base sees of the oracle's rule: pretraining holds critiques, in which each item of an
//! answer is compared with what was asked (`ok` or `bad`) and counted. It never holds the five
//! points or the score; those come with the loop's EFT seed. After the EFT seed no oracle value
//! reaches the loop, except in the control arm that says so.

pub mod corpus;
pub mod corrupt;
pub mod critique;
pub mod grammar;
pub mod oracle;
pub mod tokenizer;
pub mod words;
pub mod writer;
