//! Rows as Parquet, beside the same rows as JSON lines: what pyarrow, pandas, DuckDB and `datasets` open
//! (the format: apache/parquet-format, Encodings.md and parquet.thrift). As little of it as such rows
//! take: plain values, no compression, groups of some thousand rows. The well-kept crate for it brings 27
//! more, for one file of an export; this one is held to pyarrow by `scripts/check_exports.py`.
//!
//! Columns: text, whole numbers, numbers, true or false, lists of texts, and lists of chat turns
//! (`role`, `content`). What else a row holds is text as JSON.

use crate::error::Error;
use crate::report::tensorboard;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

/// Rows that are written together.
const GROUP: usize = 8192;
const MAGIC: &[u8; 4] = b"PAR1";

// Of parquet.thrift.
const BOOLEAN: i64 = 0;
const INT64: i64 = 2;
const DOUBLE: i64 = 5;
const BYTE_ARRAY: i64 = 6;
const REQUIRED: i64 = 0;
const OPTIONAL: i64 = 1;
const REPEATED: i64 = 2;
const UTF8: i64 = 0;
const LIST: i64 = 3;
const PLAIN: i64 = 0;
const RLE: i64 = 3;

/// What a column holds. Any of it may be nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ColumnKind {
    Text,
    Whole,
    Real,
    Flag,
    Texts,
    Turns,
    /// As JSON.
    Other,
}

impl ColumnKind {
    fn of(value: &Value) -> Option<ColumnKind> {
        let is_turn = |value: &Value| {
            let Value::Object(map) = value else { return false };
            let text = |key| map.get(key).is_some_and(Value::is_string);
            map.len() == 2 && text("role") && text("content")
        };
        Some(match value {
            Value::Null => return None,
            Value::Bool(_) => ColumnKind::Flag,
            Value::Number(n) if n.is_i64() => ColumnKind::Whole,
            Value::Number(_) => ColumnKind::Real,
            Value::String(_) => ColumnKind::Text,
            Value::Array(all) if all.is_empty() => return None,
            Value::Array(all) if all.iter().all(Value::is_string) => ColumnKind::Texts,
            Value::Array(all) if all.iter().all(is_turn) => ColumnKind::Turns,
            Value::Array(_) | Value::Object(_) => ColumnKind::Other,
        })
    }

    /// A column that holds both.
    fn with(self, other: ColumnKind) -> ColumnKind {
        match (self, other) {
            (a, b) if a == b => a,
            (ColumnKind::Whole, ColumnKind::Real) | (ColumnKind::Real, ColumnKind::Whole) => {
                ColumnKind::Real
            }
            _ => ColumnKind::Other,
        }
    }

    fn physical(self) -> i64 {
        match self {
            ColumnKind::Whole => INT64,
            ColumnKind::Real => DOUBLE,
            ColumnKind::Flag => BOOLEAN,
            _ => BYTE_ARRAY,
        }
    }

    /// The leaves below a column: their paths.
    fn leaves(self, name: &str) -> Vec<Vec<String>> {
        let path = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
        match self {
            ColumnKind::Texts => vec![path(&[name, "list", "element"])],
            ColumnKind::Turns => vec![
                path(&[name, "list", "element", "role"]),
                path(&[name, "list", "element", "content"]),
            ],
            _ => vec![path(&[name])],
        }
    }
}

struct Column {
    name: String,
    kind: ColumnKind,
}

type JsonRow = Map<String, Value>;

fn rows(path: &Path) -> Result<impl Iterator<Item = Result<JsonRow, Error>>, Error> {
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let path = path.to_owned();
    Ok(BufReader::new(file).lines().map(move |line| {
        let line = line.map_err(|error| Error::io(&path, error))?;
        serde_json::from_str(&line).map_err(|error| Error::not_json("a row", &error))
    }))
}

/// Writes the rows of a file of JSON lines as Parquet.
///
/// # Errors
/// What the file system says; a row that is no JSON object.
pub(super) fn from_json_lines(from: &Path, to: &Path) -> Result<(), Error> {
    let mut columns: Vec<Column> = Vec::new();
    for row in rows(from)? {
        for (name, value) in row? {
            let known = columns.iter_mut().find(|column| column.name == name);
            match (known, ColumnKind::of(&value)) {
                (Some(column), Some(kind)) => column.kind = column.kind.with(kind),
                (None, Some(kind)) => columns.push(Column { name, kind }),
                (_, None) => {}
            }
        }
    }
    let io = |error| Error::io(to, error);
    let mut file = Counted { to: BufWriter::new(File::create(to).map_err(io)?), written: 0 };
    file.put(MAGIC).map_err(io)?;
    let (mut groups, mut all, mut count) = (Vec::new(), Vec::new(), 0);
    for row in rows(from)? {
        all.push(row?);
        if all.len() == GROUP {
            groups.push(group(&mut file, &columns, &all).map_err(io)?);
            count += all.len();
            all.clear();
        }
    }
    if !all.is_empty() {
        groups.push(group(&mut file, &columns, &all).map_err(io)?);
        count += all.len();
    }
    let footer = footer(&columns, &groups, count);
    file.put(&footer).map_err(io)?;
    file.put(&(footer.len() as u32).to_le_bytes()).map_err(io)?;
    file.put(MAGIC).map_err(io)?;
    file.to.flush().map_err(io)
}

struct Counted {
    to: BufWriter<File>,
    written: u64,
}

impl Counted {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.written += bytes.len() as u64;
        self.to.write_all(bytes)
    }
}

/// A group of rows, written: its bytes of thrift.
fn group(file: &mut Counted, columns: &[Column], rows: &[JsonRow]) -> std::io::Result<Thrift> {
    let (mut chunks, begun) = (Vec::new(), file.written);
    for column in columns {
        for path in column.kind.leaves(&column.name) {
            let values = LeafValues::of(column, path.last().map_or("", String::as_str), rows);
            let (at, page) = (file.written, values.page());
            let mut header = Thrift::default();
            header.int(1, 0, I32).int(2, page.len() as i64, I32).int(3, page.len() as i64, I32);
            let mut data = Thrift::default();
            data.int(1, values.levels as i64, I32)
                .int(2, PLAIN, I32)
                .int(3, RLE, I32)
                .int(4, RLE, I32);
            header.nested(5, data);
            file.put(&header.end())?;
            file.put(&page)?;
            let size = (file.written - at) as i64;
            let mut meta = Thrift::default();
            meta.int(1, column.kind.physical(), I32).ints(2, &[PLAIN, RLE]).texts(3, &path);
            meta.int(4, 0, I32).int(5, values.levels as i64, I64);
            meta.int(6, size, I64).int(7, size, I64).int(9, at as i64, I64);
            let mut chunk = Thrift::default();
            chunk.int(2, at as i64, I64).nested(3, meta);
            chunks.push(chunk);
        }
    }
    let mut group = Thrift::default();
    group.structs(1, chunks).int(2, (file.written - begun) as i64, I64);
    group.int(3, rows.len() as i64, I64);
    Ok(group)
}

/// What stands in a leaf of a column, over some rows.
#[derive(Default)]
struct LeafValues {
    /// Whether it is in a list.
    repeated: bool,
    /// One of each kind for each value that is there or is not.
    repetition: Vec<u8>,
    definition: Vec<u8>,
    levels: usize,
    bytes: Vec<u8>,
    flags: Vec<bool>,
}

impl LeafValues {
    fn of(column: &Column, leaf: &str, rows: &[JsonRow]) -> LeafValues {
        let repeated = matches!(column.kind, ColumnKind::Texts | ColumnKind::Turns);
        let mut all = LeafValues { repeated, ..LeafValues::default() };
        for row in rows {
            match row.get(&column.name) {
                None | Some(Value::Null) => all.level(0, 0),
                Some(Value::Array(items)) if repeated && items.is_empty() => all.level(0, 1),
                Some(Value::Array(items)) if repeated => {
                    for (at, item) in items.iter().enumerate() {
                        all.level(u8::from(at > 0), 2);
                        let text = if item.is_object() { item.get(leaf) } else { Some(item) };
                        all.text(text.and_then(Value::as_str).unwrap_or_default());
                    }
                }
                Some(value) => {
                    all.level(0, 1);
                    all.scalar(column.kind, value);
                }
            }
        }
        all
    }

    fn level(&mut self, repetition: u8, definition: u8) {
        self.repetition.push(repetition);
        self.definition.push(definition);
        self.levels += 1;
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    fn scalar(&mut self, kind: ColumnKind, value: &Value) {
        match kind {
            ColumnKind::Whole => {
                self.bytes.extend(value.as_i64().unwrap_or_default().to_le_bytes())
            }
            ColumnKind::Real => self.bytes.extend(value.as_f64().unwrap_or_default().to_le_bytes()),
            ColumnKind::Flag => self.flags.push(value.as_bool().unwrap_or_default()),
            ColumnKind::Text => self.text(value.as_str().unwrap_or_default()),
            ColumnKind::Texts | ColumnKind::Turns | ColumnKind::Other => {
                self.text(&value.to_string());
            }
        }
    }

    /// Repetition levels where it is in a list, definition levels, values.
    fn page(&self) -> Vec<u8> {
        let mut page = Vec::new();
        let mut levels = |values: &[u8]| {
            let encoded = runs(values);
            page.extend((encoded.len() as u32).to_le_bytes());
            page.extend(encoded);
        };
        if self.repeated {
            levels(&self.repetition);
        }
        levels(&self.definition);
        page.extend(&self.bytes);
        for eight in self.flags.chunks(8) {
            let bits = eight.iter().enumerate();
            page.push(bits.fold(0, |byte, (at, flag)| byte | (u8::from(*flag) << at)));
        }
        page
    }
}

/// Levels as runs of the same one (of at most two bits, so a byte each).
fn runs(values: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for run in values.chunk_by(|a, b| a == b) {
        varint(&mut bytes, (run.len() as u64) << 1);
        bytes.extend(run.first());
    }
    bytes
}

/// A schema element: its name, its kind where it is a leaf, how often it is there, what is below it, and
/// what it is taken for.
fn element(
    name: &str,
    (kind, repetition): (Option<i64>, Option<i64>),
    (children, converted): (usize, Option<i64>),
) -> Thrift {
    let mut element = Thrift::default();
    if let Some(kind) = kind {
        element.int(1, kind, I32);
    }
    if let Some(repetition) = repetition {
        element.int(3, repetition, I32);
    }
    element.text(4, name);
    if children > 0 {
        element.int(5, children as i64, I32);
    }
    if let Some(converted) = converted {
        element.int(6, converted, I32);
    }
    element
}

fn schema(columns: &[Column]) -> Vec<Thrift> {
    let mut all = vec![element("schema", (None, None), (columns.len(), None))];
    let text = |name| element(name, (Some(BYTE_ARRAY), Some(REQUIRED)), (0, Some(UTF8)));
    for Column { name, kind } in columns {
        let list = || {
            let outer = element(name, (None, Some(OPTIONAL)), (1, Some(LIST)));
            [outer, element("list", (None, Some(REPEATED)), (1, None))]
        };
        match kind {
            ColumnKind::Texts => all.extend(list().into_iter().chain([text("element")])),
            ColumnKind::Turns => {
                all.extend(list());
                all.push(element("element", (None, Some(REQUIRED)), (2, None)));
                all.extend([text("role"), text("content")]);
            }
            _ => {
                let utf8 = (kind.physical() == BYTE_ARRAY).then_some(UTF8);
                all.push(element(name, (Some(kind.physical()), Some(OPTIONAL)), (0, utf8)));
            }
        }
    }
    all
}

fn footer(columns: &[Column], groups: &[Thrift], rows: usize) -> Vec<u8> {
    let mut footer = Thrift::default();
    footer.int(1, 1, I32).structs(2, schema(columns)).int(3, rows as i64, I64);
    footer
        .structs(4, groups.to_vec())
        .text(6, concat!("gradus version ", env!("CARGO_PKG_VERSION")));
    footer.end()
}

const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const LIST_OF: u8 = 9;
const STRUCT: u8 = 12;

/// A struct in thrift's compact protocol, under way: fields come in the order of their numbers.
#[derive(Clone, Default)]
struct Thrift {
    bytes: Vec<u8>,
    last: u8,
}

/// Seven bits a byte, the lowest first.
fn varint(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend(tensorboard::varint(value));
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

impl Thrift {
    fn field(&mut self, number: u8, kind: u8) {
        self.bytes.push(((number - self.last) << 4) | kind);
        self.last = number;
    }

    fn int(&mut self, number: u8, value: i64, kind: u8) -> &mut Thrift {
        self.field(number, kind);
        varint(&mut self.bytes, zigzag(value));
        self
    }

    fn binary(&mut self, text: &str) {
        varint(&mut self.bytes, text.len() as u64);
        self.bytes.extend(text.as_bytes());
    }

    fn text(&mut self, number: u8, text: &str) -> &mut Thrift {
        self.field(number, BINARY);
        self.binary(text);
        self
    }

    fn list(&mut self, number: u8, (kind, length): (u8, usize)) {
        self.field(number, LIST_OF);
        match length {
            0..15 => self.bytes.push(((length as u8) << 4) | kind),
            _ => {
                self.bytes.push(0xf0 | kind);
                varint(&mut self.bytes, length as u64);
            }
        }
    }

    fn ints(&mut self, number: u8, values: &[i64]) -> &mut Thrift {
        self.list(number, (I32, values.len()));
        values.iter().for_each(|value| varint(&mut self.bytes, zigzag(*value)));
        self
    }

    fn texts(&mut self, number: u8, texts: &[String]) -> &mut Thrift {
        self.list(number, (BINARY, texts.len()));
        texts.iter().for_each(|text| self.binary(text));
        self
    }

    fn structs(&mut self, number: u8, all: Vec<Thrift>) -> &mut Thrift {
        self.list(number, (STRUCT, all.len()));
        all.into_iter().for_each(|one| self.bytes.extend(one.end()));
        self
    }

    fn nested(&mut self, number: u8, one: Thrift) -> &mut Thrift {
        self.field(number, STRUCT);
        self.bytes.extend(one.end());
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_thrift_and_parquet_have_them() {
        let mut bytes = Vec::new();
        varint(&mut bytes, 300);
        assert_eq!(bytes, [0xac, 0x02]);
        assert_eq!([0, -1, 1, -2].map(zigzag), [0, 1, 2, 3]);
        assert_eq!(runs(&[1, 1, 1, 0, 2]), [6, 1, 2, 0, 2, 2]);
        let mut one = Thrift::default();
        one.int(1, 2, I32).text(4, "ab");
        assert_eq!(one.end(), [0x15, 4, 0x38, 2, b'a', b'b', 0]);
    }

    #[test]
    fn a_column_is_what_all_its_values_are() {
        let kind = |all: &str| {
            let values: Vec<Value> = serde_json::from_str(all).unwrap();
            let kinds = values.iter().filter_map(ColumnKind::of);
            kinds.reduce(ColumnKind::with)
        };
        for (values, wanted) in [
            ("[1, null, 2]", Some(ColumnKind::Whole)),
            ("[1, 2.5]", Some(ColumnKind::Real)),
            ("[\"a\", null]", Some(ColumnKind::Text)),
            ("[\"a\", 1]", Some(ColumnKind::Other)),
            ("[[], [\"a\"]]", Some(ColumnKind::Texts)),
            ("[[{\"role\": \"user\", \"content\": \"a\"}]]", Some(ColumnKind::Turns)),
            ("[[{\"role\": \"user\"}]]", Some(ColumnKind::Other)),
            ("[true]", Some(ColumnKind::Flag)),
            ("[null, []]", None),
        ] {
            assert_eq!(kind(values), wanted, "{values}");
        }
    }

    /// That pyarrow reads it back as these rows is `scripts/check_exports.py`'s.
    #[test]
    fn a_file_has_its_rows_between_its_marks() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("rows.jsonl"), dir.path().join("rows.parquet"));
        let lines = [
            r#"{"prompt": [{"role": "user", "content": "héllo"}], "score": 1, "ok": true, "tags": ["a", "b"]}"#,
            r#"{"prompt": [], "score": 2.5, "ok": null, "tags": null, "late": "x"}"#,
        ];
        std::fs::write(&from, lines.join("\n")).unwrap();
        from_json_lines(&from, &to).unwrap();
        let bytes = std::fs::read(&to).unwrap();
        assert!(bytes.starts_with(MAGIC) && bytes.ends_with(MAGIC));
        let length =
            u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap());
        assert!((length as usize) < bytes.len() - 8);
        let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(["héllo", "late", "element", "gradus version"].iter().all(|text| holds(text)));
    }
}
