//! What a model wrote where a list was to go on: its items, whatever it numbers them with. A task
//! comes with its input; an answer that the model wrote too is left out.

/// One item of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListItem {
    /// The task, and after an empty line its input where it has one.
    pub text: String,
    /// Whether the bound on tokens may have cut it off.
    pub cut: bool,
}

/// What stands before an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    Number,
    Bullet,
}

const BULLETS: &str = "-*•·●▪◦‣–—・+";
const CIRCLED: &str = "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳";
const HAN_NUMBERS: &str = "一二三四五六七八九十百";
const CLOSERS: &str = ".)]:：、．）】。-–";
/// Words that may stand before an item's number, or instead of it before a colon.
const ITEM_WORDS: [&str; 21] = [
    "task",
    "question",
    "instruction",
    "prompt",
    "problem",
    "exercise",
    "no.",
    "nr.",
    "第",
    "任务",
    "任務",
    "问题",
    "指令",
    "タスク",
    "課題",
    "질문",
    "과제",
    "задача",
    "задание",
    "вопрос",
    "tarea",
];
/// What an answer begins with; a colon follows.
const ANSWER_WORDS: [&str; 36] = [
    "output",
    "answer",
    "response",
    "solution",
    "expected output",
    "sample output",
    "result",
    "example output",
    "completion",
    "输出",
    "答案",
    "回答",
    "答",
    "輸出",
    "出力",
    "解答",
    "ответ",
    "вывод",
    "решение",
    "salida",
    "respuesta",
    "sortie",
    "réponse",
    "ausgabe",
    "antwort",
    "lösung",
    "saída",
    "resposta",
    "risposta",
    "출력",
    "답변",
    "답",
    "정답",
    "الإجابة",
    "الجواب",
    "คำตอบ",
];
/// What a task's input begins with; a colon follows.
const INPUT_WORDS: [&str; 14] = [
    "input",
    "输入",
    "輸入",
    "入力",
    "ввод",
    "вход",
    "входные данные",
    "entrada",
    "entrée",
    "eingabe",
    "입력",
    "المدخل",
    "المدخلات",
    "ข้อมูล",
];
/// An input that is none.
const NO_INPUT: [&str; 9] =
    ["none", "n/a", "na", "no input", "<noinput>", "-", "无", "なし", "нет"];

/// The items of a reply. `cut`: the bound on tokens ended it, so that its last item may lack its
/// end.
pub fn split(reply: &str, cut: bool) -> Vec<ListItem> {
    let numbered = reply.lines().any(|line| matches!(marked(line), Some((Marker::Number, _))));
    let mut items: Vec<OpenItem> = Vec::new();
    for line in reply.lines().map(str::trim) {
        let begins = marked(line).filter(|(marker, _)| !numbered || *marker == Marker::Number);
        match (begins, items.last_mut()) {
            (Some((_, rest)), _) => items.push(OpenItem::begin(rest)),
            (None, Some(last)) => last.go_on(line),
            (None, None) if line.is_empty() => {}
            (None, None) => items.push(OpenItem::begin(line)),
        }
    }
    let last = items.len().saturating_sub(1);
    let finished = items.into_iter().enumerate().filter_map(|(at, draft)| {
        let cut = cut && at == last && !draft.closed;
        Some(ListItem { text: draft.text(), cut }).filter(|item| !item.text.is_empty())
    });
    finished.collect()
}

/// An item whose lines are still read.
#[derive(Default)]
struct OpenItem {
    task: String,
    input: String,
    /// What follows is its input.
    in_input: bool,
    /// What follows is no part of it: an answer, or talk.
    closed: bool,
}

impl OpenItem {
    fn begin(line: &str) -> OpenItem {
        let mut draft = OpenItem::default();
        draft.go_on(after_item_word(line).unwrap_or(line));
        draft
    }

    /// One more line.
    fn go_on(&mut self, line: &str) {
        if self.closed {
            return;
        }
        let line = match label(line, &ANSWER_WORDS) {
            Some((before, _)) => {
                self.closed = true;
                before
            }
            None => line,
        };
        if let Some((before, input)) = label(line, &INPUT_WORDS) {
            self.task_line(before);
            self.in_input = true;
            self.input_line(input);
        } else if self.in_input {
            self.input_line(line);
        } else {
            self.task_line(line);
        }
    }

    fn input_line(&mut self, line: &str) {
        // An empty line ends an input that has begun.
        self.closed |= line.is_empty() && !self.input.is_empty();
        if !self.closed || !line.is_empty() {
            self.input.push_str(line);
            self.input.push('\n');
        }
    }

    fn task_line(&mut self, line: &str) {
        let asks_for_more = self.task.ends_with([':', '：']);
        if self.task.is_empty() {
            self.task.push_str(line);
        } else if line.is_empty() {
            self.closed |= !asks_for_more;
        } else if asks_for_more {
            self.in_input = true;
            self.input_line(line);
        } else if self.task.ends_with(is_end) {
            // A task is a line; what follows a whole one is talk about it, or its answer.
            self.closed = true;
        } else {
            self.task.push(' ');
            self.task.push_str(line);
        }
    }

    fn text(&self) -> String {
        let task = tidy(&self.task);
        let input = self.input.trim();
        let none = NO_INPUT.contains(&input.trim_end_matches('.').to_lowercase().as_str());
        match input.is_empty() || none {
            true => task,
            false => format!("{task}\n\n{input}"),
        }
    }
}

/// What ends a sentence, in any of the scripts that have such a mark.
pub(super) fn is_end(c: char) -> bool {
    ".?!…。？！؟۔।".contains(c)
}

/// One line, without marks of emphasis and quotation marks around all of it.
fn tidy(text: &str) -> String {
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for mark in ["**", "__", "`"] {
        if text.matches(mark).count() % 2 == 1 || text.starts_with(mark) && text.ends_with(mark) {
            text = text.replace(mark, "");
        }
    }
    const PAIRS: [(char, char); 7] =
        [('"', '"'), ('\'', '\''), ('“', '”'), ('«', '»'), ('„', '“'), ('「', '」'), ('『', '』')];
    let mut rest = text.trim();
    for (open, close) in PAIRS {
        let inner = rest.strip_prefix(open).and_then(|inner| inner.strip_suffix(close));
        if let Some(inner) = inner.filter(|inner| !inner.contains([open, close])) {
            rest = inner.trim();
        }
    }
    rest.to_owned()
}

/// Where one of the words stands as a label (`Output:`), at the front or after a space, the end of
/// a sentence or a mark of emphasis: what is before, and what after.
fn label<'t>(line: &'t str, words: &[&str]) -> Option<(&'t str, &'t str)> {
    line.match_indices([':', '：']).find_map(|(at, colon)| {
        let before = line.get(..at)?.trim_end_matches(['*', '_']).trim_end();
        let word = words.iter().find_map(|word| {
            let start = before.len().checked_sub(word.len())?;
            let is = before.get(start..)?.to_lowercase() == *word;
            let edge = before.get(..start)?.chars().next_back();
            let stands = edge.is_none_or(|c| c.is_whitespace() || is_end(c) || "*_#(;".contains(c));
            (is && stands).then_some(start)
        });
        let after = line.get(at + colon.len()..)?.trim_start_matches(['*', '_']).trim();
        let before = before.get(..word?)?.trim_end_matches(['*', '_', '#', '(']).trim_end();
        Some((before, after))
    })
}

/// What follows `Task:`.
fn after_item_word(line: &str) -> Option<&str> {
    let (before, after) = line.split_once([':', '：'])?;
    let word = before.trim_matches(['*', '_', '#', ' ']).to_lowercase();
    let is = ITEM_WORDS.contains(&word.as_str()) || word == "new task";
    is.then(|| after.trim_start_matches(['*', '_']).trim())
}

/// A line that begins an item: with what, and the rest. Numbers of numbers (`3. 3. Write`) are one.
fn marked(line: &str) -> Option<(Marker, &str)> {
    let line = line.trim();
    // The marks of a heading.
    let heading = line.trim_start_matches('#');
    let line = if apart(heading) { heading.trim_start() } else { line };
    let (mut marker, mut rest) = one_marker(line)?;
    while let Some((again, after)) = one_marker(rest) {
        if again == Marker::Number {
            marker = Marker::Number;
        }
        rest = after;
    }
    Some((marker, rest))
}

fn one_marker(line: &str) -> Option<(Marker, &str)> {
    number(line).map(|rest| (Marker::Number, rest)).or_else(|| {
        let rest = line.strip_prefix(|c| BULLETS.contains(c))?;
        let apart = rest.starts_with(char::is_whitespace) || line.starts_with(['•', '●', '・']);
        (apart && !rest.trim().is_empty()).then(|| (Marker::Bullet, rest.trim_start()))
    })
}

/// What follows a number that begins an item: `9.`, `9)`, `(9)`, `**9.**`, `9:`, `#9`, `九、`, `９．`,
/// `Task 9:`, `①`. Not a decimal (`3.5`), a time (`9:30`) or a number that belongs to the text.
fn number(line: &str) -> Option<&str> {
    let line = line.trim_start_matches(['*', '_']);
    if let Some(rest) = line.strip_prefix(|c| CIRCLED.contains(c)) {
        return Some(rest.trim_start());
    }
    let (word, line) = match line.strip_prefix('#').or_else(|| without_item_word(line)) {
        Some(rest) => (true, rest.trim_start().trim_start_matches('#')),
        None => (false, line),
    };
    let (open, line) = match line.strip_prefix(['(', '（', '[', '【']) {
        Some(rest) => (true, rest.trim_start()),
        None => (false, line),
    };
    let han = line.starts_with(|c| HAN_NUMBERS.contains(c));
    let is_digit = |c: char| if han { HAN_NUMBERS.contains(c) } else { is_decimal(c) };
    let rest = line.trim_start_matches(is_digit);
    let digits = line.chars().count() - rest.chars().count();
    if !(1..=3).contains(&digits) {
        return None;
    }
    let rest = rest.trim_start_matches(['*', '_', '个', '题', '題']).trim_start();
    let closed = rest.trim_start_matches(|c| CLOSERS.contains(c));
    // A full stop or a colon inside a number, and the hyphen of `3-day`.
    let inside = closed.starts_with(is_decimal) || (rest.starts_with(['-', '–']) && !apart(closed));
    let ends = match (closed.len() < rest.len(), open, word, han) {
        (true, true, ..) => rest.starts_with([')', '）', ']', '】']),
        (true, false, false, true) => rest.starts_with(['、', '.', '．', ')', '）']),
        (true, ..) => !inside || word,
        (false, open, word, _) => word && !open && (rest.is_empty() || apart_from(line, rest)),
    };
    ends.then(|| closed.trim_start_matches(['*', '_']).trim_start())
}

fn is_decimal(c: char) -> bool {
    c.is_ascii_digit() || ('０'..='９').contains(&c) || ('٠'..='٩').contains(&c)
}

fn apart(rest: &str) -> bool {
    rest.starts_with(char::is_whitespace)
}

/// Whether something lies between the end of a number and what follows it.
fn apart_from(line: &str, rest: &str) -> bool {
    let before = line.get(..line.len() - rest.len());
    before.is_some_and(|before| before.ends_with(char::is_whitespace))
}

/// What follows `Task`, where a number does.
fn without_item_word(line: &str) -> Option<&str> {
    ITEM_WORDS.iter().find_map(|word| {
        let front = line.get(..word.len())?;
        let rest = line.get(word.len()..)?.trim_start();
        let numbered = rest
            .trim_start_matches('#')
            .starts_with(|c: char| is_decimal(c) || (*word == "第" && HAN_NUMBERS.contains(c)));
        (front.to_lowercase() == *word && numbered).then_some(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(reply: &str) -> Vec<String> {
        split(reply, false).into_iter().map(|item| item.text).collect()
    }

    #[test]
    fn every_common_numbering() {
        for form in [
            "{}. ",
            "{}.",
            "{}) ",
            "({}) ",
            "**{}.** ",
            "**{}**. ",
            "{}: ",
            "#{} ",
            "#{}: ",
            "Task {}: ",
            "Task {}. ",
            "### Task {}: ",
            "**Task {}:** ",
            "Question {}: ",
            "[{}] ",
            "{} . ",
            "No. {}: ",
            "{}、",
            "第{}个：",
            "（{}）",
            "{} - ",
            "{}. {}. ",
        ] {
            let line = |n: u32, task: &str| form.replace("{}", &n.to_string()) + task;
            let whole = [line(9, "Name a red fruit."), line(10, "Say why the sky is blue?")];
            assert_eq!(
                texts(&whole.join("\n")),
                ["Name a red fruit.", "Say why the sky is blue?"],
                "{form}"
            );
            let open = format!(" Name a red fruit.\n{}", line(10, "Say why"));
            assert_eq!(texts(&open), ["Name a red fruit.", "Say why"], "{form}");
        }
        for reply in [
            "- Name a fruit.\n- Say why",
            "* Name a fruit.\n* Say why",
            "• Name a fruit.\n•Say why",
            "九、Name a fruit.\n十、Say why",
            "９．Name a fruit.\n１０．Say why",
            "①Name a fruit.\n② Say why",
            "**9. Name a fruit.**\n**10. Say why**",
            "9. **Name a fruit.**\n10. \"Say why\"",
            "9. Task: Name a fruit.\n10. **Instruction:** Say why",
            "9. Name\na fruit.\n\n\n10. Say why",
            "٩. Name a fruit.\n١٠. Say why",
        ] {
            assert_eq!(texts(reply), ["Name a fruit.", "Say why"], "{reply}");
        }
    }

    #[test]
    fn numbers_that_belong_to_the_text() {
        for line in [
            "3.5 km are how many miles?",
            "9:30 is when it begins, what is the time?",
            "3-day plans are what?",
            "9 apples and 3 pears are how many?",
            "1969. was what year of the war?",
            "一个苹果是什么颜色？",
            "-5 plus 3 is what?",
        ] {
            assert_eq!(texts(line), [line]);
        }
        assert_eq!(
            texts("How many miles are\n3.5 km?\n10. Next one"),
            ["How many miles are 3.5 km?", "Next one"]
        );
    }

    #[test]
    fn answers_go_and_inputs_stay() {
        for (reply, task) in [
            ("Add 2 and 3.\nOutput: 5\n10. ", "Add 2 and 3."),
            ("Add 2 and 3. Output: 5", "Add 2 and 3."),
            ("Add 2 and 3. **Answer:** 5", "Add 2 and 3."),
            ("Add 2 and 3.\n\nThe answer is 5.", "Add 2 and 3."),
            ("What is 2+3?\n5", "What is 2+3?"),
            ("Translate it. Input: good day Output: guten Tag", "Translate it.\n\ngood day"),
            ("Translate it.\nInput: good day\nOutput: guten Tag", "Translate it.\n\ngood day"),
            ("Translate it.\nInput: <noinput>\nOutput: guten Tag", "Translate it."),
            ("Name a fruit.\nInput:\nOutput: apple", "Name a fruit."),
            ("Translate this:\n\"good day\"\n\nGuten Tag", "Translate this:\n\n\"good day\""),
            ("把它翻译成英文。输入：你好 输出：hello", "把它翻译成英文。\n\n你好"),
            ("Назови столицу России.\nОтвет: Москва", "Назови столицу России."),
        ] {
            assert_eq!(texts(reply), [task], "{reply}");
        }
        let bullets = "Sort these words:\n- pear\n- apple\n10. Next one";
        assert_eq!(texts(bullets), ["Sort these words:\n\n- pear\n- apple", "Next one"]);
    }

    #[test]
    fn the_last_item_of_a_draw_that_was_cut_is_marked() {
        let cut: Vec<bool> = split("One.\n10. Two.\n11. Thr", true).iter().map(|i| i.cut).collect();
        assert_eq!(cut, [false, false, true]);
        assert!(split("One.\n10. Two.\n11. Thr", false).iter().all(|item| !item.cut));
        // What was cut off is the answer, and that goes.
        assert!(!split("One two.\nOutput: and so", true)[0].cut);
        assert!(split("", true).is_empty() && split("\n9.\n", true).is_empty());
    }
}
