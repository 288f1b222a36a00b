//! Chat templates: the Jinja that comes with a model, rendered as transformers does it. Knows no
//! token ids.

use super::chat::Message;
use super::error::LmError;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, context};

/// The day that `strftime_now` tells. Fixed, because the ids of a prompt must not depend on the
/// day; it is the day that Llama 3's own template falls back to.
const TODAY: [(&str, &str); 8] = [
    ("%d", "26"),
    ("%b", "Jul"),
    ("%Y", "2024"),
    ("%B", "July"),
    ("%m", "07"),
    ("%A", "Friday"),
    ("%H", "00"),
    ("%M", "00"),
];

/// The ChatML template, which most small chat models use.
pub const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' \
    + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Whether the rendered chat ends by opening the model's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationPrompt {
    /// The model is to answer next.
    Open,
    /// The chat ends with its last turn.
    Closed,
}

/// Instructions of one rendering: a template comes with a model, from anyone, and may loop. The
/// longest chats take some thousands.
const FUEL_MAX: u64 = 2_000_000;

/// A chat template, compiled.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles a template. `bos` and `eos` are the texts a template may write; empty where the
    /// model has none.
    ///
    /// # Errors
    /// [`LmError::Template`] with the line.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate, LmError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|e| LmError::Template(e.to_string()))?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL_MAX));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| -> String {
            TODAY.iter().fold(format, |text, (code, value)| text.replace(code, value))
        });
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned("chat", without_generation_tags(source))
            .map_err(|e| LmError::Template(format!("does not compile: {e}")))?;
        let (source, bos, eos) = (source.to_owned(), bos.to_owned(), eos.to_owned());
        Ok(ChatTemplate { source, environment, bos, eos })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a chat.
    ///
    /// # Errors
    /// [`LmError::Template`]: the template refused the turns, in its own words.
    pub fn render(&self, messages: &[Message], end: GenerationPrompt) -> Result<String, LmError> {
        let template =
            self.environment.get_template("chat").map_err(|e| LmError::Template(e.to_string()))?;
        let turn =
            |m: &Message| context! { role => m.role.as_str(), content => m.content.as_str() };
        let turns: Vec<Value> = messages.iter().map(turn).collect();
        template
            .render(context! {
                messages => turns,
                add_generation_prompt => end == GenerationPrompt::Open,
                bos_token => self.bos.as_str(),
                eos_token => self.eos.as_str(),
                tools => Value::from(()),
            })
            .map_err(|e| LmError::Template(e.to_string()))
    }
}

/// `{% generation %}` marks the model's words for training in transformers; it renders nothing. A
/// condition that always holds takes its place, so that dashes and line ends keep their meaning.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        let Some((body, after)) = tag.split_once("%}") else { break };
        let inner = body.trim_matches(['-', '+']).trim();
        let tag = format!("{{%{body}%}}");
        text.push_str(before);
        match inner {
            "generation" => text.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => text.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => text.push_str(&tag),
        }
        rest = after;
    }
    text + rest
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`: no HTML escapes. Its other
/// options (sort_keys, separators) are accepted and ignored: maps are sorted here anyway.
fn to_json(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    if indent.is_some_and(|i| i > 16) {
        return Err(refused("tojson: indent must be at most 16".into()));
    }
    let mut out = String::new();
    write_json(value, indent, 0, &mut out)?;
    Ok(Value::from_safe_string(out))
}

fn refused(why: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}

fn write_json(
    value: &Value,
    indent: Option<usize>,
    depth: usize,
    out: &mut String,
) -> Result<(), Error> {
    if depth > 32 {
        return Err(refused("tojson: nested more than 32 deep".into()));
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<(String, Value)> =
                value.try_iter()?.map(|item| (String::new(), item)).collect();
            write_items(items, ['[', ']'], indent, depth, out)?;
        }
        ValueKind::Map => {
            let mut items = Vec::new();
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                items.push((format!("{}: ", quoted(&key.to_string())), item));
            }
            write_items(items, ['{', '}'], indent, depth, out)?;
        }
        _ => out.push_str(&quoted(&value.to_string())),
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn write_items(
    items: Vec<(String, Value)>,
    brackets: [char; 2],
    indent: Option<usize>,
    depth: usize,
    out: &mut String,
) -> Result<(), Error> {
    let line = |depth: usize| match indent {
        Some(width) => format!("\n{}", " ".repeat(width * depth)),
        None => String::new(),
    };
    let count = items.len();
    out.push(brackets[0]);
    for (index, (key, item)) in items.into_iter().enumerate() {
        out.push_str(match (index, indent) {
            (0, _) => "",
            (_, Some(_)) => ",",
            (_, None) => ", ",
        });
        out.push_str(&line(depth + 1));
        out.push_str(&key);
        write_json(&item, indent, depth + 1, out)?;
    }
    if count > 0 {
        out.push_str(&line(depth));
    }
    out.push(brackets[1]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, content: &str) -> Result<String, LmError> {
        ChatTemplate::new(source, "<s>", "</s>")?
            .render(&[Message::user(content)], GenerationPrompt::Open)
    }

    #[test]
    fn templates_render_as_in_transformers() {
        // Expected texts: jinja2 3.1 with trim_blocks, lstrip_blocks and loopcontrols.
        let turns = "{{ bos_token }}\n{% for m in messages %}\n    {% if m.role == 'user' %}\n\
                     [{{ m['content'].strip() }}]\n    {% endif %}\n{% endfor %}\nend\n";
        assert_eq!(render(turns, "  a{{b}}<&> ").unwrap(), "<s>\n[a{{b}}<&>]\nend");
        let json = "{{ messages[0].content | tojson }} {{ {'a': [1, 2]} | tojson }}";
        assert_eq!(render(json, "<b>\"é'&").unwrap(), "\"<b>\\\"é'&\" {\"a\": [1, 2]}");
        let generation = "a {%- generation -%} {{ messages[0].content }} {%- endgeneration %} b";
        assert_eq!(render(generation, "x").unwrap(), "ax b");
        let control = "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}\
                       {% endfor %} {{ strftime_now('%d %b %Y') }} \
                       {{ messages[0].content.split('|')[0] }}";
        assert_eq!(render(control, "p|q").unwrap(), "01 26 Jul 2024 p");
    }

    #[test]
    fn a_template_can_refuse() {
        let error = render("{{ raise_exception('roles must alternate') }}", "x").unwrap_err();
        assert!(error.to_string().contains("roles must alternate"), "{error}");
        assert!(render("{% for %}", "x").is_err());
    }

    #[test]
    fn chatml_is_chatml() {
        assert_eq!(
            render(CHATML, "hi").unwrap(),
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        );
    }
}
