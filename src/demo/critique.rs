//! What a judge writes before it scores: a walk over the answer, one local step per item.
//!
//! Each step is `item key ok|bad`. For a sequence the key is the word that was wanted there, so
//! the judge answers the instruction itself, a word at a time, and then only compares two
//! neighbours; for a set it is the item's category or letter. Past the end of the answer the item
//! is `none`, so a missing item is a step like any other: what the earlier prototype's judges got
//! wrong was items that were not there, which made short answers look good.

use super::grammar::parse;
use super::oracle::{GradedAnswer, grade};

/// Steps written at most.
const STEPS_MAX: usize = 10;

/// The names of the points, in order.
pub const POINTS: [&str; 5] = ["relevant", "useful", "complete", "correct", "clean"];

/// What the judge is asked, in pretraining (without points).
pub fn critic_prompt(task: &str, answer: &str) -> String {
    format!("check : {task} answer : {answer}")
}

/// What the judge is asked in the loop. The rubric plugin `demo-compact` renders the same words.
pub fn judge_prompt(task: &str, answer: &str) -> String {
    format!(
        "give points for relevant , useful , complete , correct , clean . {}",
        critic_prompt(task, answer)
    )
}

fn ok(right: bool) -> &'static str {
    if right { "ok" } else { "bad" }
}

/// The walk and the counts: `cat animals ok ... . 2 of 3 right , 0 wrong , form ok .`
pub fn walk(graded: &GradedAnswer) -> String {
    let mut text = String::new();
    for step in graded.steps.iter().take(STEPS_MAX) {
        text.push_str(&format!("{} {} {} ", step.item, step.key, ok(step.right)));
    }
    let form = ok(graded.points.last().copied().unwrap_or_default());
    let (right, wanted, wrong) = (graded.right, graded.wanted, graded.wrong);
    text.push_str(&format!(". {right} of {wanted} right , {wrong} wrong , form {form} ."));
    text
}

/// The points with their running total, and the score: `relevant yes 1 ... clean no 4 . score : 4`.
/// The total makes each step a local one; without it a quarter of the judges' scores were not the
/// number of their own points.
pub fn verdict(graded: &GradedAnswer) -> String {
    let mut text = String::new();
    let mut total = 0;
    for (name, point) in POINTS.iter().zip(graded.points) {
        total += u32::from(point);
        text.push_str(&format!("{name} {} {total} ", if point { "yes" } else { "no" }));
    }
    format!("{text}. score : {}", graded.score())
}

/// The whole reply of a right judge, or `None` when the task is not of the grammar.
pub fn reply(task: &str, answer: &str) -> Option<String> {
    let graded = grade(&parse(task)?, answer);
    Some(format!("{} {}", walk(&graded), verdict(&graded)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_judge_reply() {
        assert_eq!(
            super::reply("reverse : cat dog red .", "red cat .").unwrap(),
            "red red ok cat dog bad none cat bad . 1 of 3 right , 1 wrong , form ok . \
             relevant yes 1 useful no 1 complete no 1 correct no 1 clean yes 2 . score : 2"
        );
        assert_eq!(
            super::reply("name 2 animals .", "cat , red , cat .").unwrap(),
            "cat animals ok red colors bad cat twice bad . 1 of 2 right , 2 wrong , form ok . \
             relevant yes 1 useful yes 2 complete no 2 correct no 2 clean yes 3 . score : 3"
        );
    }
}
