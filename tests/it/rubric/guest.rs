//! Makes components out of `tests/golden/rubrics/guest.wat` and the project's WIT, both of which a
//! test may bend first: another version, another import, another answer.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const WAT: &str = include_str!("../../golden/rubrics/guest.wat");
const WIT: &str = include_str!("../../../wit/v0.2/rubric.wit");
const WIT_0_1: &str = include_str!("../../../wit/v0.1/rubric.wit");

/// A guest's two texts.
pub struct Guest {
    wat: String,
    wit: String,
}

impl Guest {
    /// One that loads.
    pub fn new() -> Guest {
        Guest { wat: WAT.to_owned(), wit: WIT.to_owned() }
    }

    /// The same of wit/v0.1.
    pub fn of_0_1() -> Guest {
        let mut guest = Guest::new();
        guest.wit = WIT_0_1.to_owned();
        guest.wat = replaced(&guest.wat, "@0.2.0", "@0.1.0");
        // Where 0.2 has its places, 0.1 has what follows them.
        [
            ("criteria", 2616),
            ("criteria-count", 2620),
            ("rationale", 2624),
            ("rationale-bytes", 2628),
        ]
        .into_iter()
        .fold(guest, |guest, (knob, at)| guest.with(knob, &at.to_string()))
    }

    /// Puts `value` in the place of the word after the comment `(;knob;)`.
    pub fn with(mut self, knob: &str, value: &str) -> Guest {
        let comment = format!("(;{knob};)");
        let at = self.wat.find(&comment).unwrap_or_else(|| panic!("no knob {knob}"));
        let start = at + comment.len() + 1;
        let rest = &self.wat[start..];
        let bytes = rest.find(|c: char| c.is_whitespace() || c == ')').expect("a word");
        self.wat.replace_range(start..start + bytes, value);
        self
    }

    /// The same guest in another version of the world.
    pub fn version(mut self, version: &str) -> Guest {
        self.wit = replaced(&self.wit, "gradus:rubric@0.2.0", &format!("gradus:rubric@{version}"));
        self.wat = replaced(&self.wat, "@0.2.0", &format!("@{version}"));
        self
    }

    /// The same guest, which also wants `interface` of `package`.
    pub fn importing(mut self, package: &str, version: &str, interface: &str) -> Guest {
        let path = format!("{package}/{interface}@{version}");
        self.wit = replaced(&self.wit, "import log;", &format!("import log;\n    import {path};"));
        self.wit.push_str(&format!(
            "\npackage {package}@{version} {{ interface {interface} {{ get: func() -> u32; }} }}\n"
        ));
        let import = format!("(import \"{path}\" \"get\" (func (result i32)))");
        self.wat = replaced(&self.wat, "(;imports;)", &import);
        self
    }

    /// The same guest with more in its module.
    pub fn more(mut self, text: &str) -> Guest {
        self.wat = replaced(&self.wat, "(;more;)", text);
        self
    }

    /// The same guest with another WIT.
    pub fn wit(mut self, from: &str, to: &str) -> Guest {
        self.wit = replaced(&self.wit, from, to);
        self
    }

    /// The core module alone.
    pub fn module(&self) -> Vec<u8> {
        wat::parse_str(&self.wat).expect("guest.wat is well formed")
    }

    /// The component.
    pub fn component(&self) -> Vec<u8> {
        let mut module = self.module();
        let mut resolve = Resolve::default();
        let package = resolve.push_str("rubric.wit", &self.wit).expect("the WIT parses");
        let world = resolve.select_world(&[package], Some("rubric")).expect("it has the world");
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .expect("the world fits into a section");
        let encoder = ComponentEncoder::default().module(&module).expect("a module of the world");
        encoder.validate(true).encode().expect("a component")
    }
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "nothing to replace: {from}");
    text.replace(from, to)
}
