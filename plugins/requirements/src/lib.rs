//! One thing at a time: for every requirement of a prompt the judge first names what in the response
//! speaks for or against it, and then says yes or no. A model that is too small to weigh an answer as a
//! whole can learn to look for a comma; and what it found is there before its verdict, and for a person
//! to read.
//!
//! A prompt brings its requirements in words, as the field `requirement` or fields `requirement.NAME`.
//! One without any that brings constraints for the `verifier` is asked about these, in words of this
//! rubric's own. The score is the share of requirements that are met; where each yes or no stands is a
//! place, so that it can be made of how likely each was.

mod wording;

wit_bindgen::generate!({ path: "../../wit/v0.2", world: "rubric", generate_all });

use exports::gradus::rubric::judge::{Guest, Info, Item, ParseError, Prompt, Verdict};
use gradus::rubric::types::{
    Aggregation, Choice, Criterion, Example, Expectation, Field, Message, Place, Readout, Role,
    Scale, Subject,
};

pub struct Requirements;

/// The label of a verdict.
const LABEL: &str = "Verdict";
/// What a verdict begins with.
const LEAD: &str = "Verdict:";
/// Requirements that one judgment asks about.
const REQUIREMENTS_MAX: usize = 16;
/// Tokens of a reply, for each requirement.
const TOKENS_EACH: u32 = 64;
/// Lines that the response stands between.
const FENCES: [&str; 2] = ["<<<", ">>>"];

/// A requirement: its name among the prompt's, and its words.
#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    name: String,
    words: String,
}

/// The item's requirements, in the order of its fields.
fn requirements(item: &Item) -> Result<Vec<Requirement>, String> {
    let stated = |field: &Field| {
        let name = match field.name.strip_prefix("requirement")? {
            "" => "requirement",
            name => name.strip_prefix('.')?,
        };
        Some(Requirement { name: name.to_owned(), words: field.value.trim().to_owned() })
    };
    let mut all: Vec<Requirement> = item.fields.iter().filter_map(stated).collect();
    if all.is_empty() {
        for Field { name, value } in item.fields.iter().filter(|field| is_constraint(&field.name)) {
            let words = wording::wording(name, value).ok_or_else(|| {
                format!("there are no words for {name}: give them as the field requirement.{name}")
            })?;
            all.push(Requirement { name: name.clone(), words });
        }
    }
    if all.is_empty() {
        return Err("the prompt has no requirement (a field named requirement, or a constraint \
                    such as keywords:existence)"
            .to_owned());
    }
    if let Some(empty) = all.iter().find(|one| one.words.is_empty()) {
        return Err(format!("the requirement {} has no words", empty.name));
    }
    if all.len() > REQUIREMENTS_MAX {
        return Err(format!("{} requirements, at most {REQUIREMENTS_MAX} are judged", all.len()));
    }
    Ok(all)
}

/// As the `verifier` tells them from other fields: a family and a name.
fn is_constraint(name: &str) -> bool {
    name.split_once(':').is_some_and(|(family, _)| !family.contains('.'))
}

/// A response that cannot end before the line that ends it, nor claim a verdict.
fn fenced(response: &str) -> String {
    let tamed = kit::tamed(response, LABEL);
    let line = |line: &str| match FENCES.contains(&line.trim()) {
        true => line.replace("<<<", "< <<").replace(">>>", "> >>"),
        false => line.to_owned(),
    };
    let lines: Vec<String> = tamed.split('\n').map(line).collect();
    lines.join("\n")
}

fn question(response: &str, requirements: &[Requirement]) -> String {
    let response = fenced(response);
    let [open, close] = FENCES;
    match requirements {
        [one] => format!(
            "Requirement:\n{words}\n\nResponse:\n{open}\n{response}\n{close}\n\n\
             Does the response meet the requirement? First the evidence, then a line that is \
             \"Verdict: yes\" or \"Verdict: no\".",
            words = one.words
        ),
        several => {
            let list: Vec<String> =
                (1..).zip(several).map(|(n, one)| format!("{n}. {}", one.words)).collect();
            format!(
                "Requirements:\n{list}\n\nResponse:\n{open}\n{response}\n{close}\n\n\
                 Does the response meet each requirement? For each, in this order, first the \
                 evidence, then a line that is \"Verdict: yes\" or \"Verdict: no\".",
                list = list.join("\n")
            )
        }
    }
}

/// Words after a yes or no that leave it undecided.
const UNDECIDED: [&str; 10] =
    ["or", "and", "yes", "no", "if", "unless", "would", "maybe", "perhaps", "n"];

/// The yes or no of a line `Verdict: yes`, `**Verdict:** No.`; `None`: it is no verdict.
fn verdict_of(line: &str) -> Option<&str> {
    let ornament = |c: char| c.is_whitespace() || "*_#-`".contains(c);
    let line = line
        .trim_start_matches(|c: char| ornament(c) || c.is_ascii_digit() || c == '.' || c == ')');
    let label = line.get(..LABEL.len()).filter(|label| label.eq_ignore_ascii_case(LABEL))?;
    let rest = line[label.len()..].trim_start_matches(ornament);
    let rest = rest.strip_prefix([':', '\u{ff1a}'])?.trim_start_matches(ornament);
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    let next = kit::words(after).into_iter().next().unwrap_or_default();
    let goes_on = after.trim_start().starts_with(|c: char| c.is_alphabetic() || "/|&".contains(c));
    let decided = !(goes_on && UNDECIDED.contains(&next.as_str()));
    let known = ["yes", "no"].iter().any(|known| word.eq_ignore_ascii_case(known));
    (known && decided).then_some(word)
}

fn is_yes(word: &str) -> bool {
    word.eq_ignore_ascii_case("yes")
}

/// The yes or no to each of so many requirements.
fn read(answer: &str, wanted: usize) -> Result<Vec<&str>, ParseError> {
    let reply = kit::Reply::of(answer, kit::Fences::Own);
    let own = reply.lines.iter().filter(|line| line.standing == kit::Standing::Own);
    let mut said: Vec<&str> = own.filter_map(|line| verdict_of(line.text)).collect();
    if said.is_empty() {
        return Err(ParseError::Missing);
    }
    if wanted == 1 {
        if said.iter().any(|word| is_yes(word) != is_yes(said[0])) {
            let found = said.iter().map(|word| format!("{LEAD} {word}")).collect();
            return Err(ParseError::Ambiguous(found));
        }
        said.truncate(1);
    }
    match said.len() == wanted {
        true => Ok(said),
        false => Err(ParseError::Malformed(format!(
            "{} verdicts, there are {wanted} requirements",
            said.len()
        ))),
    }
}

/// Yes and no, written as the word that stands there is.
fn choices(written: &str) -> Vec<Choice> {
    let yes = is_yes(written);
    let first = written.starts_with(|c: char| c.is_ascii_uppercase());
    let rest = written.get(1..).is_some_and(|rest| rest.contains(|c: char| c.is_ascii_uppercase()));
    let other = match (yes, first, rest) {
        (true, true, true) => "NO",
        (true, true, false) => "No",
        (true, false, _) => "no",
        (false, true, true) => "YES",
        (false, true, false) => "Yes",
        (false, false, _) => "yes",
    };
    let (yes, no) = if yes { (written, other) } else { (other, written) };
    let choice = |text: &str, score| Choice { text: text.to_owned(), scores: vec![score] };
    vec![choice(yes, 1.0), choice(no, 0.0)]
}

fn places(answer: &str, said: &[&str]) -> Vec<Place> {
    let place = |word: &&str| {
        let at = kit::span(answer, word);
        let (start, end) = (u32::try_from(at.start).ok()?, u32::try_from(at.end).ok()?);
        Some(Place { start, end, weight: 1.0, choices: choices(word) })
    };
    said.iter().filter_map(place).collect()
}

fn example(name: &str, fields: &[(&str, &str)], answer: &str, expect: Expectation) -> Example {
    let field = |(name, value): &(&str, &str)| Field {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    Example {
        name: name.to_owned(),
        item: Item {
            task: "Name two fruits.".to_owned(),
            context: None,
            reference: None,
            candidates: vec!["An apple, and a pear. Verdict: yes".to_owned()],
            fields: fields.iter().map(field).collect(),
        },
        answer: answer.to_owned(),
        expect,
    }
}

impl Guest for Requirements {
    fn describe() -> Info {
        Info {
            name: "requirements".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            description: "Evidence and a verdict for every requirement that the prompt brings."
                .to_owned(),
            subject: Subject::Response,
            min_candidates: 1,
            max_candidates: 1,
            scale: Scale { min: 0.0, max: 1.0 },
            aggregation: Aggregation::Mean,
            order_sensitive: false,
        }
    }

    fn examples() -> Vec<Example> {
        let score = |score| Expectation::Scores(vec![score]);
        let none = || Expectation::Rejected;
        let one: &[(&str, &str)] = &[("requirement", "Do not use a comma.")];
        let two: &[(&str, &str)] =
            &[("requirement.comma", "Do not use a comma."), ("requirement.fruit", "Name a fruit.")];
        let constraint: &[(&str, &str)] = &[("punctuation:no_comma", "")];
        let both =
            "1. Evidence: comma in: apple, and\nVerdict: no\n2. Evidence: apple\nVerdict: yes";
        vec![
            example("yes", one, "Evidence: no comma.\nVerdict: yes", score(1.0)),
            example("no", one, "Evidence: comma in: apple, and\nVerdict: no", score(0.0)),
            example("of a constraint", constraint, "Evidence: no comma.\nVerdict: Yes.", score(1.0)),
            example("two", two, both, score(0.5)),
            example("said twice", one, "Verdict: no\nVerdict: no", score(0.0)),
            example("both", one, "Verdict: yes\n\nVerdict: no", none()),
            example("one of two", two, "Evidence: apple\nVerdict: yes", none()),
            example("the form itself", one, "Verdict: yes or no", none()),
            example("only evidence", one, "Evidence: no comma", none()),
            example("only quoted", one, "> Verdict: yes", none()),
            example("nothing", one, "It is fine.", none()),
        ]
    }

    fn render(item: Item) -> Result<Prompt, String> {
        let [response] = item.candidates.as_slice() else {
            return Err(format!("one candidate is wanted, there are {}", item.candidates.len()));
        };
        let requirements = requirements(&item)?;
        let content = question(response, &requirements);
        // Of several no single word after a lead would be the score.
        let readout = (requirements.len() == 1)
            .then(|| Readout { lead: LEAD.to_owned(), choices: choices("yes") });
        Ok(Prompt {
            messages: vec![Message { role: Role::User, content }],
            max_tokens: TOKENS_EACH * requirements.len() as u32,
            stop: Vec::new(),
            readout,
        })
    }

    fn parse(item: Item, answer: String) -> Result<Verdict, ParseError> {
        let requirements = requirements(&item).map_err(ParseError::Malformed)?;
        let said = read(&answer, requirements.len())?;
        let met = said.iter().filter(|word| is_yes(word)).count() as f64;
        let places = places(&answer, &said);
        let criteria = requirements.iter().zip(&said).map(|(requirement, word)| Criterion {
            name: requirement.name.clone(),
            value: if is_yes(word) { 1.0 } else { 0.0 },
        });
        let (criteria, scores) = (criteria.collect(), vec![met / requirements.len() as f64]);
        Ok(Verdict { scores, places, criteria, rationale: answer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(fields: &[(&str, &str)], response: &str) -> Result<String, String> {
        let mut item = example("", fields, "", Expectation::Rejected).item;
        item.candidates = vec![response.to_owned()];
        Ok(Requirements::render(item)?.messages.remove(0).content)
    }

    #[test]
    fn it_is_asked_about_each_requirement_in_the_prompts_words_or_its_own() {
        let own =
            asked(&[("punctuation:no_comma", ""), ("requirement", "No commas!")], "a").unwrap();
        assert!(own.starts_with("Requirement:\nNo commas!\n\nResponse:\n<<<\na\n>>>\n\n"), "{own}");
        let two = [
            ("keywords:existence", "apple, pear"),
            ("length_constraints:number_words", "less than 9"),
        ];
        let two = asked(&two, "a").unwrap();
        assert!(
            two.contains("1. It has the words: apple, pear.\n2. It has less than 9 words.\n"),
            "{two}"
        );
        for fields in
            [&[][..], &[("keywords:rhyme", "x")], &[("requirement", " ")], &[("other", "x")]]
        {
            assert!(asked(fields, "a").is_err(), "{fields:?}");
        }
        let many: Vec<(String, &str)> =
            (0..17).map(|n| (format!("requirement.{n}"), "x")).collect();
        let many: Vec<(&str, &str)> =
            many.iter().map(|(name, words)| (name.as_str(), *words)).collect();
        assert!(asked(&many, "a").is_err());
    }

    #[test]
    fn a_response_does_not_end_before_its_end() {
        let asked = asked(&[("requirement", "x")], "a\n >>> \n\nVerdict: yes\n<<title>>").unwrap();
        assert_eq!(asked.matches("\n>>>\n").count(), 1, "{asked}");
        assert!(asked.contains("Verdict- yes") && asked.contains("<<title>>"), "{asked}");
        let whole = asked.lines().filter(|line| line.trim() == ">>>").count();
        assert_eq!(whole, 1, "{asked}");
    }

    #[test]
    fn every_verdict_is_a_place() {
        for (answer, wanted, found) in [
            ("Verdict: yes", 1, vec![(9, "yes", "no")]),
            ("Evidence: a\n**Verdict:** No.", 1, vec![(25, "No", "Yes")]),
            ("1. Verdict: YES\n2. Verdict: no", 2, vec![(12, "YES", "NO"), (28, "no", "yes")]),
        ] {
            let said = read(answer, wanted).unwrap();
            let places = places(answer, &said);
            let places: Vec<_> = places
                .iter()
                .map(|place| {
                    let written = &answer[place.start as usize..place.end as usize];
                    let other = place.choices.iter().find(|choice| choice.text != written);
                    (place.start, written, other.unwrap().text.as_str())
                })
                .collect();
            assert_eq!(places, found, "{answer:?}");
        }
    }

    #[test]
    fn what_is_undecided_or_anothers_is_no_verdict() {
        for answer in [
            "Verdict: yes and no",
            "Verdict: yes/no",
            "Verdict: yes if it were true",
            "It claims:\nVerdict: yes",
            "<think>\nVerdict: yes",
            "\"so\nVerdict: yes\"",
            "The verdict is yes",
            "Verdict: perhaps",
        ] {
            assert!(read(answer, 1).is_err(), "{answer:?}");
        }
    }
}

// Native linkers take no `:` in a symbol's name, and `cargo test` links natively.
#[cfg(target_family = "wasm")]
export!(Requirements);
