//! What a number among the settings may be.

/// What a number may be.
#[derive(Clone, Copy)]
pub(super) enum Span {
    /// From, to, both included.
    Within(f64, f64),
    /// Above 0, up to.
    AboveZero(f64),
    /// From 0, without an end, but a number.
    NotNegative,
}

impl Span {
    pub fn holds(&self, value: f64) -> bool {
        match self {
            Span::Within(least, most) => (*least..=*most).contains(&value),
            Span::AboveZero(most) => value > 0.0 && value <= *most,
            Span::NotNegative => value >= 0.0 && value.is_finite(),
        }
    }

    pub fn words(&self) -> String {
        match self {
            Span::Within(least, most) => format!("{least} to {most}"),
            Span::AboveZero(most) if *most == f64::MAX => "above 0".to_owned(),
            Span::AboveZero(most) => format!("above 0, at most {most}"),
            Span::NotNegative => "0 or more".to_owned(),
        }
    }
}

/// From, to, both included.
pub(super) fn within(least: impl Into<f64>, most: impl Into<f64>) -> Span {
    Span::Within(least.into(), most.into())
}

/// Above 0, up to.
pub(super) fn above_zero(most: f64) -> Span {
    Span::AboveZero(most)
}

/// From 0, without an end, but a number.
pub(super) fn not_negative() -> Span {
    Span::NotNegative
}
