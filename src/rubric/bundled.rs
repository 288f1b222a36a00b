//! The components that come with gradus, built from `plugins/` by `scripts/build-plugins`.

/// The paper's additive five-point rubric.
pub const ADDITIVE_FIVE: &[u8] = include_bytes!("../../assets/rubrics/additive-five.wasm");
/// Which of two responses is better.
pub const PAIRWISE: &[u8] = include_bytes!("../../assets/rubrics/pairwise.wasm");
/// Yes or no to weighted criteria that the prompt brings.
pub const CHECKLIST: &[u8] = include_bytes!("../../assets/rubrics/checklist.wasm");
/// Which of two judgments is better.
pub const META_JUDGE: &[u8] = include_bytes!("../../assets/rubrics/meta-judge.wasm");
/// Constraints that a program checks.
pub const VERIFIER: &[u8] = include_bytes!("../../assets/rubrics/verifier.wasm");
/// Evidence and a verdict for every requirement that the prompt brings.
pub const REQUIREMENTS: &[u8] = include_bytes!("../../assets/rubrics/requirements.wasm");
/// What a new rubric begins as.
pub const SKELETON: &[u8] = include_bytes!("../../assets/rubrics/skeleton.wasm");
/// The demo world's rubric.
pub const DEMO_COMPACT: &[u8] = include_bytes!("../../assets/rubrics/demo-compact.wasm");

/// Every bundled rubric by its name.
pub const ALL: [(&str, &[u8]); 8] = [
    ("additive-five", ADDITIVE_FIVE),
    ("checklist", CHECKLIST),
    ("demo-compact", DEMO_COMPACT),
    ("meta-judge", META_JUDGE),
    ("pairwise", PAIRWISE),
    ("requirements", REQUIREMENTS),
    ("skeleton", SKELETON),
    ("verifier", VERIFIER),
];
