//! Structs that are written as JSON arrays: what was a tuple when records began to hold it has named
//! fields in the code and keeps its form on disk.

/// Conversions between a struct and the tuple of its fields, for `#[serde(from, into)]`.
macro_rules! tuple_form {
    ($name:ident { $($field:ident: $type:ty),+ }) => {
        impl From<($($type),+)> for $name {
            fn from(($($field),+): ($($type),+)) -> $name {
                $name { $($field),+ }
            }
        }

        impl From<$name> for ($($type),+) {
            fn from($name { $($field),+ }: $name) -> ($($type),+) {
                ($($field),+)
            }
        }
    };
}
pub(crate) use tuple_form;

#[cfg(test)]
mod tests {
    use crate::domain::{JudgmentCounts, Scale};

    #[test]
    fn what_was_a_tuple_is_written_as_one() {
        let counts = JudgmentCounts { total: 5, unscored: 2 };
        assert_eq!(serde_json::to_string(&counts).unwrap(), "[5,2]");
        assert_eq!(serde_json::from_str::<JudgmentCounts>("[5,2]").unwrap(), counts);
        let scale = Scale { min: 0.0, max: 5.0 };
        assert_eq!(serde_json::to_string(&scale).unwrap(), "[0.0,5.0]");
        assert_eq!(serde_json::from_str::<Scale>("[0.0,5.0]").unwrap(), scale);
    }
}
