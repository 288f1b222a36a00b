//! INTAKE: what of chats becomes prompts (`intake` in the settings). What is not wanted is taken out before
//! anything is stored, and whether a chat is taken goes by its text: asked again, it is decided again so.

use crate::config::{Config, ConfigError, IntakeConfig, IntakeMode};
use crate::domain::{Message, Notes, Prompt, PromptOrigin, Role};
use regex::Regex;

/// What stands where something was taken out.
const REDACTED: &str = "[redacted]";

/// What is taken, and what is taken out of it.
#[derive(Debug)]
pub(super) struct Intake {
    settings: IntakeConfig,
    patterns: Vec<Regex>,
}

impl Intake {
    /// As the settings say; `None`: nothing is taken.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub fn of(config: &Config) -> Result<Option<Intake>, ConfigError> {
        let settings = config.intake.clone();
        if settings.mode == IntakeMode::Off {
            return Ok(None);
        }
        let patterns = settings.patterns()?;
        Ok(Some(Intake { settings, patterns }))
    }

    /// The prompt that a chat becomes; `None`: it is not taken.
    pub fn prompt(&self, messages: &[Message]) -> Option<Prompt> {
        let asks = messages.last().is_some_and(|last| last.role == Role::User);
        let characters: usize = messages.iter().map(|turn| turn.content.chars().count()).sum();
        if !asks || characters > self.settings.characters_max as usize {
            return None;
        }
        let cleaned = messages
            .iter()
            .map(|turn| Message { role: turn.role, content: self.redacted(&turn.content) });
        let tag = Some(self.settings.tag.trim().to_owned()).filter(|tag| !tag.is_empty());
        let notes = Notes { tags: tag.into_iter().collect(), ..Notes::default() };
        let prompt = Prompt::new(cleaned.collect(), PromptOrigin::Given).noted(notes);
        (drawn(&prompt) < self.settings.share).then_some(prompt)
    }

    fn redacted(&self, text: &str) -> String {
        let taken_out =
            |text: String, pattern: &Regex| pattern.replace_all(&text, REDACTED).into_owned();
        self.patterns.iter().fold(text.to_owned(), taken_out)
    }
}

/// A number from 0 to below 1 that a prompt always has.
fn drawn(prompt: &Prompt) -> f64 {
    let hash = blake3::hash(prompt.id.as_str().as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    f64::from(u32::from_le_bytes([a, b, c, d])) / f64::from(u32::MAX).next_up()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intake(change: impl FnOnce(&mut IntakeConfig)) -> Intake {
        let mut config = Config::default();
        config.intake.mode = IntakeMode::Prompts;
        change(&mut config.intake);
        Intake::of(&config).unwrap().unwrap()
    }

    #[test]
    fn what_is_not_wanted_is_taken_out_first() {
        let some = intake(|settings| {
            settings.redact = vec![r"\b\d{4}\b".to_owned(), "(?i)secret".to_owned()];
        });
        let chat = [Message::system("Be brief."), Message::user("My Secret is 1234, not 12345.")];
        let prompt = some.prompt(&chat).unwrap();
        assert_eq!(prompt.messages[1].content, "My [redacted] is [redacted], not 12345.");
        assert_eq!((prompt.messages.len(), prompt.notes.tags), (2, vec!["chat".to_owned()]));
    }

    #[test]
    fn a_share_of_chats_is_taken_and_always_the_same() {
        let half = intake(|settings| settings.share = 0.5);
        let taken = |n: u32| half.prompt(&[Message::user(format!("chat {n}"))]).is_some();
        let count = (0..1000).filter(|n| taken(*n)).count();
        assert!((430..570).contains(&count), "{count}");
        assert!((0..1000).all(|n| taken(n) == taken(n)));
        let none = intake(|settings| settings.share = 0.0);
        assert!((0..100).all(|n| none.prompt(&[Message::user(format!("chat {n}"))]).is_none()));
    }

    #[test]
    fn what_asks_nothing_and_what_is_long_is_left_out() {
        let short = intake(|settings| settings.characters_max = 3);
        assert!(short.prompt(&[Message::user("äöü")]).is_some());
        assert!(short.prompt(&[Message::user("four")]).is_none());
        assert!(short.prompt(&[Message::user("a"), Message::assistant("b")]).is_none());
        assert!(short.prompt(&[]).is_none());
        assert!(Intake::of(&Config::default()).unwrap().is_none(), "off is what is usual");
    }
}
