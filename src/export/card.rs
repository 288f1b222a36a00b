//! The model card: what the model is, what the run measured of it, and what nobody measured.

use super::RunExport;
use super::manifest::Manifest;
use crate::report::{Report, iterations_table, rubrics_table};
use crate::runtime::PolicyRow;
use serde_json::json;

/// What a card says.
pub(super) struct Card<'a> {
    run: String,
    policy: &'a PolicyRow,
    policy_id: String,
    base: Option<String>,
    /// The base's weights, as the run's log knows them.
    base_hash: String,
    report: Report,
    /// Rubrics that judged, with their hashes.
    rubrics: Vec<String>,
    seed: String,
    notes: Vec<String>,
}

impl<'a> Card<'a> {
    pub fn of(
        run: &RunExport,
        policy: &'a PolicyRow,
        base: Option<String>,
        manifest: &Manifest,
    ) -> Card<'a> {
        let panel = run.view.panel.iter().flat_map(|panel| panel.members());
        Card {
            run: run.name(),
            policy,
            policy_id: policy.policy.id().to_string(),
            base,
            base_hash: run.view.base.as_ref().map(|b| b.weights.to_string()).unwrap_or_default(),
            report: Report::of(&run.view),
            rubrics: panel.map(|member| member.rubric.to_string()).collect(),
            seed: run
                .view
                .seed
                .iter()
                .flat_map(|seed| seed.0)
                .map(|b| format!("{b:02x}"))
                .collect(),
            notes: manifest.notes.clone(),
        }
    }

    fn front_matter(&self, library: &str) -> String {
        let mut lines = vec!["---".to_owned()];
        if let Some(base) = &self.base {
            // JSON strings are YAML strings.
            lines.push(format!("base_model: {}", json!(base)));
        }
        lines.push(format!("library_name: {library}"));
        lines.push("pipeline_tag: text-generation".to_owned());
        lines.push("tags: [gradus, self-rewarding, dpo]".to_owned());
        lines.push("---".to_owned());
        lines.join("\n")
    }

    /// What the run says of the policy that is exported.
    fn standing(&self) -> String {
        let PolicyRow { name, acts, rejected, .. } = self.policy;
        match (rejected, acts) {
            (Some(reason), _) => format!("The run rejected {name}: {reason}."),
            (None, true) => format!("{name} is the policy that acts in the run."),
            (None, false) => format!("{name} is not the policy that acts in the run."),
        }
    }

    fn body(&self, title: &str, use_it: &str) -> String {
        let base = self.base.as_deref().unwrap_or("a base whose files do not say its name");
        let mut text = format!(
            "# {title}\n\nMade from {base} by [gradus](https://github.com/gradus-lm/gradus) in the run \
             `{}`: the model answered prompts, judged its own answers, and was trained on which it \
             found better. {}\n\n{use_it}\n",
            self.run,
            self.standing(),
        );
        if !self.notes.is_empty() {
            text += "\n## To know\n\n";
            text.extend(self.notes.iter().map(|note| format!("- {note}\n")));
        }
        let tables = (iterations_table(&self.report), rubrics_table(&self.report));
        text += &format!(
            "\n## What the run measured\n\n```text\n{}\n{}\n```\n\n`W/T/L` are wins, ties and losses on \
             held-out prompts, counted by the referee that the table names. The judge that chose the \
             training pairs is a model itself: a gain by its own word is not one by yours.\n",
            tables.0.trim_end(),
            tables.1.trim_end(),
        );
        text += &format!(
            "\n## Where it is from\n\n| what | |\n| --- | --- |\n| policy | {} `{}` |\n| base weights | \
             `{}` |\n| rubrics | {} |\n| seed | `{}` |\n| records of the log | {} |\n\n`gradus.json` has \
             every file with its SHA-256.\n\n## What was not tested\n\nNothing beyond the table above: no \
             other language, no safety, no facts, no long contexts. The licence is that of the base.\n",
            self.policy.name,
            self.policy_id,
            self.base_hash,
            self.rubrics.join(", "),
            self.seed,
            self.report.records,
        );
        text
    }
}

/// `README.md` of a whole model.
pub(super) fn model_card(card: &Card<'_>) -> String {
    let title = format!("{} {}", card.run, card.policy.name);
    let use_it = match card.notes.is_empty() {
        true => "Open it as any model of its family.",
        false => "Open it as any model of its family; read first what is to know.",
    };
    format!("{}\n\n{}", card.front_matter("transformers"), card.body(&title, use_it))
}

/// `README.md` of an adapter.
pub(super) fn adapter_card(card: &Card<'_>) -> String {
    let title = format!("{} {}, adapter", card.run, card.policy.name);
    let use_it = "A LoRA adapter: `PeftModel.from_pretrained(base, FOLDER)`, on the base and on no other \
                  model.";
    format!("{}\n\n{}", card.front_matter("peft"), card.body(&title, use_it))
}
