//! Ports of models: a whole small run with each of them brought by a host, frozen models of
//! candle-transformers beside the run's own, and our own decoder held to them.

mod brought;
mod fakes;
mod families;
mod named;
mod oracle;
mod small;
