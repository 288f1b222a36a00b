//! The components that come with gradus, built from `plugins/` by `scripts/build-plugins`.

/// The paper's additive five-point rubric.
pub const ADDITIVE_FIVE: &[u8] = include_bytes!("../../assets/rubrics/additive-five.wasm");
/// The demo world's rubric.
pub const DEMO_COMPACT: &[u8] = include_bytes!("../../assets/rubrics/demo-compact.wasm");
