//! Bad inputs by hand: each with a word that its error must have.

use super::targets::Bad;

fn owned(list: &[(&'static str, &str, &'static str)]) -> Vec<Bad> {
    list.iter().map(|(name, text, word)| (*name, text.as_bytes().to_vec(), *word)).collect()
}

pub fn journals() -> Vec<Bad> {
    let mut list = owned(&[
        ("nothing", "", ""),
        ("one byte", "{", ""),
        ("a byte order mark", "\u{feff}{\"crc\":\"00000000\",", ""),
        ("no checksum", "{\"offset\":0}\n", ""),
        ("an open line", "{\"crc\":\"00000000\",\"format\":2", ""),
        ("NUL bytes", "\0\0\0\0\n\0\0\n", ""),
    ]);
    list.push(("a line of 2 MB", vec![b'x'; 2 << 20], ""));
    list.push(("JSON 10 000 deep", vec![b'['; 10_000], ""));
    list
}

pub fn scores() -> Vec<Bad> {
    let mut list = owned(&[
        ("nothing", "", "no score"),
        ("no score", "It is good.", "no score"),
        ("a negative score", "Score: -1", ""),
        ("a score above the scale", "Score: 6", ""),
        ("two scores", "Score: 4\nScore: 2", ""),
        ("Devanagari digits", "Score: ५", ""),
        ("full-width digits of another scale", "Score: ５／１０", "not a number from 0 to 5"),
        ("a joiner in the word", "Sc\u{200d}ore: 4", "no score"),
        ("only a quoted score", "> Score: 5", "no score"),
        ("another scale", "Score: 4/10", ""),
        ("infinity", "Score: inf", ""),
    ]);
    list.push(("a megabyte in one line", vec![b'a'; 1 << 20], ""));
    list
}

pub fn templates() -> Vec<Bad> {
    let mut list = owned(&[
        ("an open block", "{% for message in messages %}", "template"),
        ("an unknown filter", "{{ messages | nothing }}", "nothing"),
        ("an unknown function", "{{ launch() }}", "launch"),
        ("an include", "{% include 'x' %}", "template"),
        ("its own error", "{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("a loop over a number", "{% for m in 3 %}{% endfor %}", "template"),
        (
            "a long loop",
            "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
            "",
        ),
        ("recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "template"),
    ]);
    list.push(("10 000 open brackets", "{{".repeat(10_000).into_bytes(), "template"));
    list
}

/// Forty files as people break them: the error names the line and what is meant.
pub fn settings() -> Vec<Bad> {
    let mut list = owned(&[
        ("an unknown key", "sed: 1\n", "gradus.yaml:1:1 unknown key sed. Did you mean seed?"),
        ("a key at the wrong level", "beta: 0.1\n", "unknown key beta"),
        ("a misspelt section", "samplin:\n  top_p: 1\n", "Did you mean sampling?"),
        (
            "a misspelt key below",
            "train:\n  dpo:\n    bta: 1\n",
            ":3:5 unknown key bta. Did you mean beta?",
        ),
        ("a word for a number", "seed: many\n", "gradus.yaml:1"),
        ("a list for a number", "seed: [1]\n", "gradus.yaml:1"),
        ("a map for a number", "seed:\n  a: 1\n", "gradus.yaml:"),
        ("a negative count", "iterations: -1\n", "gradus.yaml:1"),
        ("a fraction for a count", "iterations: 1.5\n", "gradus.yaml:1"),
        ("a count that overflows", "iterations: 99999999999999\n", "gradus.yaml:1"),
        ("a number for a switch", "train:\n  use_peft: 3\n", "gradus.yaml:2"),
        ("an unknown mode", "evaluate:\n  gate:\n    mode: loose\n", "gradus.yaml:3"),
        ("an unknown loss", "train:\n  dpo:\n    loss_type: best\n", "gradus.yaml:3"),
        ("an unknown readout", "judge:\n  readout: guess\n", "gradus.yaml:2"),
        ("an unknown source", "judge:\n  source: me\n", "gradus.yaml:2"),
        ("an unknown answer to no signal", "pairs:\n  on_no_signal: cry\n", "gradus.yaml:2"),
        ("a key twice", "seed: 1\nseed: 2\n", "gradus.yaml:2"),
        ("a section twice", "judge:\n  samples: 1\njudge:\n  samples: 2\n", "gradus.yaml:3"),
        ("a tab", "judge:\n\tsamples: 1\n", "gradus.yaml:"),
        ("an open list", "train:\n  lora_target_modules: [a\n", "gradus.yaml:"),
        ("an open text", "seed: \"1\n", "gradus.yaml:"),
        ("an unknown anchor", "seed: *x\n", "gradus.yaml:"),
        ("JSON that ends", "{\"seed\": 1", "gradus.yaml:"),
        ("a text", "hello\n", "gradus.yaml:"),
        ("a list", "- 1\n- 2\n", "gradus.yaml:"),
        ("no candidates", "sampling:\n  candidates: 0\n", "gradus.yaml:2 sampling.candidates is 0"),
        ("no judgments", "judge:\n  samples: 0\n", "gradus.yaml:2 judge.samples is 0"),
        ("a cold judge", "judge:\n  temperature: -1\n", "gradus.yaml:2 judge.temperature is -1"),
        ("a hot sampler", "sampling:\n  temperature: 11\n", "allowed: 0 to 10"),
        ("no nucleus", "sampling:\n  top_p: 0\n", "gradus.yaml:2 sampling.top_p is 0"),
        ("a nucleus of everything and more", "judge:\n  top_p: 1.1\n", "at most 1"),
        (
            "no learning rate",
            "train:\n  sft:\n    learning_rate: 0\n",
            "gradus.yaml:3 train.sft.learning_rate",
        ),
        ("an endless learning rate", "train:\n  dpo:\n    learning_rate: .inf\n", "gradus.yaml:3"),
        ("a rate that is none", "train:\n  dpo:\n    learning_rate: .nan\n", "gradus.yaml:3"),
        ("no beta", "train:\n  dpo:\n    beta: 0\n", "gradus.yaml:3 train.dpo.beta is 0"),
        ("more than all smoothing", "train:\n  dpo:\n    label_smoothing: 2\n", "allowed: 0 to 1"),
        ("nothing", "", "gradus.yaml is empty"),
        ("words for people alone", "# seed: 1\n---\n", "gradus.yaml is empty"),
        (
            "more answers than anybody reads",
            "sampling:\n  candidates: 4000000000\n",
            "gradus.yaml:2",
        ),
        ("a gap that is none", "pairs:\n  min_gap: .nan\n", "gradus.yaml:2 pairs.min_gap is NaN"),
        ("no rank", "train:\n  lora_r: 0\n", "gradus.yaml:2 train.lora_r is 0"),
        ("no layers", "train:\n  lora_target_modules: []\n", "gradus.yaml:2"),
        ("more than all length control", "pairs:\n  length_control: 1.5\n", "gradus.yaml:2"),
        ("a rate of more than all", "evaluate:\n  gate:\n    min_win_rate: 50\n", "gradus.yaml:3"),
        ("a margin of more than all", "evaluate:\n  gate:\n    margin: 0.6\n", "gradus.yaml:3"),
        ("more than the whole scale", "judge:\n  forgery_gain_max: 5\n", "gradus.yaml:2"),
        ("a key of 64 KB", &format!("{}: 1\n", "k".repeat(65_536)), "gradus.yaml:1"),
    ]);
    list.push(("bytes that are no text", vec![0xff, 0xfe, b's'], ""));
    list
}

/// A safetensors file of these header bytes and this much data.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 1);
    bytes
}

pub fn weights() -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"F16","shape":[3],"data_offsets":[16,22]}}"#;
    safetensors(header, 22)
}

pub fn bad_weights() -> Vec<Bad> {
    let one = |shape: &str, offsets: &str, data| {
        let header =
            format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#);
        safetensors(&header, data)
    };
    let length = |n: u64| n.to_le_bytes().to_vec();
    let many = (0..30_000)
        .map(|n| format!(r#""t{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#));
    let many = format!("{{{}}}", many.collect::<Vec<_>>().join(","));
    vec![
        ("nothing", Vec::new(), "hold no header"),
        ("no header", length(0), "not a usable safetensors file"),
        ("a header longer than the file", length(100), "would have 100 bytes"),
        ("a header longer than memory", length(u64::MAX), "would have 18446744073709551615 bytes"),
        ("a header that is no text", [length(2), vec![0xff, 0xfe]].concat(), "not a usable"),
        ("an offset below nothing", one("[1]", "[-4,0]", 4), "not a usable"),
        ("offsets in the wrong order", one("[1]", "[4,0]", 4), "not a usable"),
        ("offsets outside", one("[2]", "[0,8]", 4), "not a usable"),
        ("a gap", one("[1]", "[4,8]", 8), "not a usable"),
        ("a byte too many", one("[1]", "[0,4]", 5), "not a usable"),
        ("a byte too few", one("[1]", "[0,4]", 3), "not a usable"),
        ("a shape that overflows", one("[4294967296,4294967296,2]", "[0,4]", 4), "not a usable"),
        ("a shape that does not fit", one("[3]", "[0,4]", 4), "not a usable"),
        (
            "an unknown type",
            safetensors(r#"{"a":{"dtype":"NOTADTYPE","shape":[1],"data_offsets":[0,4]}}"#, 4),
            "not a usable",
        ),
        (
            "a type of no use",
            safetensors(r#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#, 8),
            "a",
        ),
        ("metadata of numbers", safetensors(r#"{"__metadata__":{"a":1}}"#, 0), "not a usable"),
        ("30 000 tensors", safetensors(&many, 0), "30000 tensors"),
    ]
}

pub fn shapes() -> Vec<Bad> {
    let good = include_str!("../../../assets/demo-base/config.json");
    let with = |key: &str, value: &str| {
        let mut json: serde_json::Value = serde_json::from_str(good).unwrap();
        json[key] = serde_json::from_str(value).unwrap();
        json.to_string().into_bytes()
    };
    vec![
        ("nothing", Vec::new(), "JSON"),
        ("a list", b"[]".to_vec(), "model_type"),
        ("another family", with("model_type", "\"gpt2\""), "gpt2"),
        ("no layers", with("num_hidden_layers", "0"), "num_hidden_layers"),
        ("a billion layers", with("num_hidden_layers", "1000000000"), "num_hidden_layers"),
        ("a negative width", with("hidden_size", "-8"), "hidden_size"),
        ("a width of a fraction", with("hidden_size", "1.5"), "hidden_size"),
        ("an endless vocabulary", with("vocab_size", "18446744073709551615"), "vocab_size"),
        ("no heads", with("num_attention_heads", "0"), "num_attention_heads"),
        ("heads that do not divide", with("num_key_value_heads", "3"), "num_key_value_heads"),
    ]
}

pub fn tokenizers() -> Vec<Bad> {
    let bpe = |vocab: &str, merges: &str| {
        format!(r#"{{"version":"1.0","model":{{"type":"BPE","vocab":{vocab},"merges":{merges}}}}}"#)
            .into_bytes()
    };
    vec![
        ("nothing", Vec::new(), ""),
        ("an object", b"{}".to_vec(), ""),
        ("an end", br#"{"version":"1.0","model":{"type":"BPE","vo"#.to_vec(), ""),
        ("an unknown model", br#"{"version":"1.0","model":{"type":"GUESS"}}"#.to_vec(), ""),
        ("a merge of unknown tokens", bpe(r#"{"a":0}"#, r#"["b c"]"#), ""),
        ("a merge of three", bpe(r#"{"a":0,"b":1}"#, r#"["a b c"]"#), ""),
        ("a merge of one", bpe(r#"{"a":0}"#, r#"["a"]"#), ""),
        ("a negative id", bpe(r#"{"a":-1}"#, "[]"), ""),
        ("33 MB", vec![b' '; 33 << 20], "33554432 are allowed"),
    ]
}

/// A GGUF of metadata alone: magic, version, counts, and these entries of 32-bit numbers or texts.
fn gguf_of(tensors: u64, entries: &[(&str, Result<u32, &str>)]) -> Vec<u8> {
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(tensors.to_le_bytes());
    bytes.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        text(&mut bytes, key);
        match value {
            Ok(number) => {
                bytes.extend(4u32.to_le_bytes());
                bytes.extend(number.to_le_bytes());
            }
            Err(value) => {
                bytes.extend(8u32.to_le_bytes());
                text(&mut bytes, value);
            }
        }
    }
    bytes
}

const LLAMA: [(&str, Result<u32, &str>); 6] = [
    ("general.architecture", Err("llama")),
    ("llama.embedding_length", Ok(8)),
    ("llama.block_count", Ok(1)),
    ("llama.feed_forward_length", Ok(16)),
    ("llama.attention.head_count", Ok(2)),
    ("llama.vocab_size", Ok(10)),
];

pub fn gguf() -> Vec<u8> {
    gguf_of(0, &LLAMA)
}

pub fn bad_ggufs() -> Vec<Bad> {
    let mut aligned = LLAMA.to_vec();
    aligned.push(("general.alignment", Ok(0)));
    let mut other = LLAMA.to_vec();
    other[0] = ("general.architecture", Err("mamba"));
    let mut counts = b"GGUF".to_vec();
    counts.extend(3u32.to_le_bytes());
    counts.extend([0xff; 16]);
    vec![
        ("nothing", Vec::new(), "not a usable GGUF"),
        ("magic alone", b"GGUF".to_vec(), "not a usable GGUF"),
        ("another magic", b"GGML\x03\0\0\0".to_vec(), "not a usable GGUF"),
        ("counts beyond everything", counts, "GGUF"),
        ("an alignment of zero", gguf_of(0, &aligned), "broken"),
        ("another family", gguf_of(0, &other), "mamba"),
        ("a tensor that is not there", gguf_of(1, &LLAMA), "GGUF"),
    ]
}

pub fn prompt_files() -> Vec<Bad> {
    let mut list = owned(&[
        ("nothing", "", ""),
        ("blank lines", "\n \n\t\n", ""),
        ("an empty list", "[]", ""),
        ("an open list", "[{\"prompt\": \"a\"}", ""),
        ("an unknown role", "{\"messages\":[{\"role\":\"judge\",\"content\":\"a\"}]}\n", ""),
        ("no known field", "{\"colour\":\"red\"}\n", ""),
        ("a prompt that is a number", "{\"prompt\":1}\n", ""),
        ("half a row", "{\"prompt\":\"a\"}\n{\"prompt\":\n", "2"),
    ]);
    list.push(("bytes that are no text", vec![b'"', 0xff, 0xfe, b'"'], ""));
    list.push(("JSON 10 000 deep", vec![b'['; 10_000], ""));
    list
}

pub fn components() -> Vec<Bad> {
    let whole = gradus::rubric::bundled::DEMO_COMPACT;
    let module = b"\0asm\x01\0\0\0".to_vec();
    vec![
        ("nothing", Vec::new(), ""),
        ("a page", b"<!doctype html><title>404</title>".to_vec(), ""),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), ""),
        ("a core module", module, ""),
        ("half of one", whole[..whole.len() / 2].to_vec(), ""),
        ("its first kilobyte", whole[..1024].to_vec(), ""),
        ("33 MB", vec![0; 33 << 20], ""),
    ]
}
