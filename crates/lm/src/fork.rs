//! WHERE TEXTS PART: a reply goes on in one of several ways, and a model's probabilities are asked
//! for at the token where these ways part. That is not where their characters part: a tokenizer may
//! join a space, a colon or several digits to what follows. So the text so far and every
//! continuation are encoded together, and what they share is context.
//!
//! What was drawn stays as it was drawn: the context is the drawn ids as far as they go.

use super::error::LmError;
use super::tokenizer::TextTokenizer;
use super::vocabulary::Vocabulary;

/// Tokens of the prompt that a continuation is encoded behind, so that the first word of a reply is
/// spelled as the model would spell it there.
const TAIL_TOKENS: usize = 48;

/// Who spells: untrusted text to ids and back, special tokens neither made nor shown.
pub trait Spelling {
    /// Ids of a text.
    ///
    /// # Errors
    /// The tokenizer refuses.
    fn ids(&self, text: &str) -> Result<Vec<u32>, LmError>;

    /// Text of ids.
    ///
    /// # Errors
    /// The tokenizer refuses.
    fn text(&self, ids: &[u32]) -> Result<String, LmError>;
}

impl Spelling for TextTokenizer {
    fn ids(&self, text: &str) -> Result<Vec<u32>, LmError> {
        self.encode_plain(text)
    }

    fn text(&self, ids: &[u32]) -> Result<String, LmError> {
        self.decode(ids)
    }
}

impl Spelling for dyn Vocabulary + '_ {
    fn ids(&self, text: &str) -> Result<Vec<u32>, LmError> {
        self.encode_text(text)
    }

    fn text(&self, ids: &[u32]) -> Result<String, LmError> {
        self.decode(ids)
    }
}

/// A place at which a reply goes on in one of several ways.
#[derive(Clone, Debug, PartialEq)]
pub struct Fork {
    /// What was read until there: prompt and reply.
    pub context: Vec<u32>,
    /// The ways, as the model would write them; none is empty.
    pub choices: Vec<Vec<u32>>,
}

/// A reply in the making.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// Ids of the prompt, the model's turn opened.
    pub prompt: &'a [u32],
    /// Ids that were drawn after it.
    pub reply: &'a [u32],
    /// The reply's text up to the place. It begins with the text of `reply` or of a part of it, and
    /// may go on where that ends.
    pub text: &'a str,
}

/// Length of the text of `ids`, bytes; none when it is not a beginning of `text`.
fn reach<S: Spelling + ?Sized>(
    spelling: &S,
    ids: &[u32],
    text: &str,
) -> Result<Option<usize>, LmError> {
    let decoded = spelling.text(ids)?;
    Ok(text.starts_with(&decoded).then_some(decoded.len()))
}

/// How many of `ids` have a text of exactly `bytes` bytes, which `text` begins with; of several
/// counts the most. Lengths grow with the count, so it is looked for by halves.
fn boundary<S: Spelling + ?Sized>(
    spelling: &S,
    ids: &[u32],
    text: &str,
    bytes: usize,
) -> Result<Option<usize>, LmError> {
    let (mut low, mut high) = (0, ids.len());
    while low < high {
        let middle = (low + high).div_ceil(2);
        let length = spelling.text(ids.get(..middle).unwrap_or_default())?.len();
        (low, high) = if length <= bytes { (middle, high) } else { (low, middle - 1) };
    }
    let found = reach(spelling, ids.get(..low).unwrap_or_default(), text)?;
    Ok((found == Some(bytes)).then_some(low))
}

/// The text of the prompt's last tokens, as far back as a special token.
fn tail<S: Spelling + ?Sized>(spelling: &S, prompt: &[u32]) -> Result<String, LmError> {
    let mut from = prompt.len();
    while from > prompt.len().saturating_sub(TAIL_TOKENS) {
        // A special token has no text.
        let before = prompt.get(from - 1..from).unwrap_or_default();
        if spelling.text(before)?.is_empty() {
            break;
        }
        from -= 1;
    }
    let text = spelling.text(prompt.get(from..).unwrap_or_default())?;
    // The first token may be the rest of a character.
    Ok(text.trim_start_matches('\u{fffd}').to_owned())
}

/// Ids of a text as the model would write it right after `prompt`: a tokenizer may join its beginning
/// to what stands before, or mark the beginning of every text that it is given alone.
///
/// # Errors
/// [`LmError::Tokenizer`].
pub fn continuation<S: Spelling + ?Sized>(
    spelling: &S,
    prompt: &[u32],
    text: &str,
) -> Result<Vec<u32>, LmError> {
    let tail = tail(spelling, prompt)?;
    let both = format!("{tail}{text}");
    let ids = spelling.ids(&both)?;
    match boundary(spelling, &ids, &both, tail.len())? {
        Some(n) => Ok(ids.get(n..).unwrap_or_default().to_vec()),
        // One token holds the prompt's end and the text's beginning; the prompt stays as it is.
        None => spelling.ids(text),
    }
}

/// How many ids all of `spelled` begin with, as far as their text does not go beyond `text`.
fn shared<S: Spelling + ?Sized>(
    spelling: &S,
    spelled: &[Vec<u32>],
    text: &str,
) -> Result<usize, LmError> {
    let Some((first, others)) = spelled.split_first() else { return Ok(0) };
    let same = |at: &usize| others.iter().all(|ids| ids.get(*at) == first.get(*at));
    let mut n = (0..first.len()).take_while(same).count();
    while n > 0 && reach(spelling, first.get(..n).unwrap_or_default(), text)?.is_none() {
        n -= 1;
    }
    Ok(n)
}

/// Where the continuations of a reply part, and how each is spelled from there; `None` when the
/// vocabulary cannot spell one of them or they do not differ.
///
/// # Errors
/// [`LmError::Tokenizer`].
pub fn fork<S: Spelling + ?Sized>(
    spelling: &S,
    written: Written<'_>,
    choices: &[String],
) -> Result<Option<Fork>, LmError> {
    let tail = tail(spelling, written.prompt)?;
    let before = format!("{tail}{}", written.text);
    let mut spelled = Vec::with_capacity(choices.len());
    for choice in choices {
        let text = format!("{before}{choice}");
        let ids = spelling.ids(&text)?;
        if !spelling.text(&ids)?.ends_with(choice.as_str()) {
            return Ok(None);
        }
        spelled.push(ids);
    }
    let n = shared(spelling, &spelled, &before)?;
    let first = spelled.first().map(Vec::as_slice).unwrap_or_default();
    let common = first.get(..n).unwrap_or_default();
    let rest = |ids: &Vec<u32>| ids.get(n..).unwrap_or_default().to_vec();
    let choices: Vec<Vec<u32>> = spelled.iter().map(rest).collect();
    let differ = |ids: &Vec<u32>| choices.iter().filter(|other| *other == ids).count() == 1;
    if !choices.iter().all(|ids| !ids.is_empty() && differ(ids)) {
        return Ok(None);
    }
    let context = context(spelling, written, &tail, common)?;
    Ok(context.map(|context| Fork { context, choices }))
}

/// The prompt, the drawn ids as far as they agree in text with `common`, and what `common` has
/// beyond them. `None` when that would need another prompt: the first character of the reply is one
/// token with the last of the prompt.
fn context<S: Spelling + ?Sized>(
    spelling: &S,
    written: Written<'_>,
    tail: &str,
    common: &[u32],
) -> Result<Option<Vec<u32>>, LmError> {
    let Written { prompt, reply, text } = written;
    for n in (0..=common.len()).rev() {
        let spelled = spelling.text(common.get(..n).unwrap_or_default())?;
        let Some(bytes) = spelled.len().checked_sub(tail.len()) else { break };
        if let Some(drawn) = boundary(spelling, reply, text, bytes)? {
            let parts = [prompt, reply.get(..drawn).unwrap_or_default()];
            let beyond = common.get(n..).unwrap_or_default();
            return Ok(Some([parts[0], parts[1], beyond].concat()));
        }
    }
    Ok(None)
}

/// Log-probabilities of exactly each choice, from those of their ids: of two of which one begins the
/// other, the shorter is what goes on as anything but the longer (` 1` is not the beginning of
/// ` 10`).
pub fn exclusive(logps: &[f64], choices: &[Vec<u32>]) -> Vec<f64> {
    let begins =
        |short: &Vec<u32>, long: &Vec<u32>| short.len() < long.len() && long.starts_with(short);
    let mut exact: Vec<f64> = logps.iter().map(|logp| logp.exp()).collect();
    for (long, logp) in choices.iter().zip(logps) {
        let shorter = choices.iter().enumerate().filter(|(_, short)| begins(short, long));
        if let Some((at, _)) = shorter.max_by_key(|(_, short)| short.len())
            && let Some(left) = exact.get_mut(at)
        {
            *left -= logp.exp();
        }
    }
    exact.into_iter().map(|p| if p > 0.0 { p.ln() } else { f64::NEG_INFINITY }).collect()
}
