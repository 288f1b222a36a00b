//! As much of JSON as it takes to find a verdict that a judge wrote as an object: where it ends, and
//! its members as they are written. Strings may stand in single quotation marks, as Python prints
//! them.

/// A member of an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member<'a> {
    /// Its name as written, without the marks.
    pub name: &'a str,
    /// Its value as written; of a string what stands between the marks.
    pub value: &'a str,
}

/// The length of a string at the start of `text`, with its marks.
fn string_length(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate();
    let (_, mark) = bytes.next().filter(|(_, byte)| b"\"'".contains(byte))?;
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            _ if byte == mark => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Calls `on` with every sign outside of strings and how deep it stands, until it says stop.
fn outside_strings(text: &str, mut on: impl FnMut(usize, u8, usize) -> bool) {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' | b'\'' => match string_length(&text[at..]) {
                Some(length) => {
                    at += length;
                    continue;
                }
                None => return,
            },
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if byte.is_ascii_punctuation() && !on(at, *byte, depth) {
            return;
        }
        at += 1;
    }
}

/// The length of the object at the start of `text`, if it ends and has members.
pub fn object_length(text: &str) -> Option<usize> {
    if !text.strip_prefix('{')?.trim_start().starts_with(['"', '\'']) {
        return None;
    }
    let mut end = None;
    outside_strings(text, |at, c, depth| {
        if depth == 0 {
            end = (c == b'}').then_some(at + 1);
        }
        depth > 0
    });
    end
}

fn unmarked(written: &str) -> &str {
    match string_length(written) {
        Some(length) if length == written.len() => &written[1..length - 1],
        _ => written,
    }
}

/// The members of an object, those of objects inside it left out.
pub fn members(object: &str) -> Vec<Member<'_>> {
    let inner = object.get(1..object.len().saturating_sub(1)).unwrap_or_default();
    let mut parts = Vec::new();
    let mut from = 0;
    outside_strings(inner, |at, c, depth| {
        if c == b',' && depth == 0 {
            parts.push(&inner[from..at]);
            from = at + 1;
        }
        true
    });
    parts.push(&inner[from..]);
    parts.into_iter().filter_map(member).collect()
}

fn member(part: &str) -> Option<Member<'_>> {
    let part = part.trim();
    let (name, rest) = part.split_at(string_length(part)?);
    let value = rest.trim_start().strip_prefix(':')?.trim();
    Some(Member { name: unmarked(name), value: unmarked(value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_taken_apart() {
        let text = r#"{"a": 1, "b": {"c": [2, "}"]}, 'd': "e, \" f" } and more"#;
        let object = &text[..object_length(text).unwrap()];
        assert!(object.ends_with("f\" }"), "{object}");
        let found: Vec<_> = members(object).iter().map(|m| (m.name, m.value)).collect();
        assert_eq!(found, [("a", "1"), ("b", r#"{"c": [2, "}"]}"#), ("d", r#"e, \" f"#)]);
        for text in ["", "{}", "{", "{\"a\": 1", "{a: 1}", "x", "{\"a\": \"}"] {
            assert_eq!(object_length(text), None, "{text:?}");
        }
    }
}
