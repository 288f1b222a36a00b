//! The vocabulary. A word's id is its place in [`all`]; the letter `a` and the word `a` are one.

/// Special tokens, ids 0 to 6.
pub const SPECIALS: [&str; 7] = ["<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<bot>", "<task>"];
/// Words that mean nothing in an answer.
pub const FILLERS: [&str; 6] = ["well", "sure", "um", "thanks", "okay", "maybe"];
/// The largest number.
pub const NUMBER_MAX: usize = 30;

/// A category and its members.
pub struct Category {
    /// Its name, in the plural.
    pub name: &'static str,
    /// Its members.
    pub members: [&'static str; 8],
}

/// All categories.
pub const CATEGORIES: [Category; 8] = [
    Category {
        name: "animals",
        members: ["cat", "dog", "cow", "horse", "sheep", "goat", "lion", "bear"],
    },
    Category {
        name: "fruits",
        members: ["apple", "pear", "plum", "peach", "grape", "lemon", "mango", "melon"],
    },
    Category {
        name: "colors",
        members: ["red", "blue", "green", "yellow", "pink", "black", "white", "brown"],
    },
    Category {
        name: "tools",
        members: ["hammer", "saw", "drill", "axe", "pliers", "rake", "shovel", "wrench"],
    },
    Category {
        name: "clothes",
        members: ["hat", "coat", "shirt", "shoe", "sock", "belt", "glove", "scarf"],
    },
    Category {
        name: "jobs",
        members: ["baker", "nurse", "pilot", "farmer", "teacher", "doctor", "driver", "singer"],
    },
    Category {
        name: "cities",
        members: ["paris", "rome", "london", "berlin", "tokyo", "madrid", "cairo", "lima"],
    },
    Category {
        name: "sports",
        members: ["tennis", "golf", "soccer", "rugby", "boxing", "hockey", "cricket", "skiing"],
    },
];

const FUNCTION_WORDS: &str = "name list give me that start starts with and reverse sort keep the \
    only find word words not in say times count from to down continue more each twice remove \
    replace add plus is what take first last of check review answer question points for relevant \
    useful complete correct clean right wrong form ok bad yes no score comes after before it a \
    one has none";

/// The category of a word.
pub fn category_of(word: &str) -> Option<&'static Category> {
    CATEGORIES.iter().find(|c| c.members.contains(&word))
}

/// The category with a name.
pub fn category(name: &str) -> Option<&'static Category> {
    CATEGORIES.iter().find(|c| c.name == name)
}

/// Every member of every category, in order.
pub fn members() -> Vec<&'static str> {
    CATEGORIES.iter().flat_map(|c| c.members).collect()
}

/// A number's word.
pub fn number(n: usize) -> String {
    n.to_string()
}

/// The whole vocabulary, in id order, without repeats.
pub fn all() -> Vec<String> {
    let mut words: Vec<String> = SPECIALS.iter().map(|w| (*w).to_owned()).collect();
    words.extend([".", ",", ":", ";", "?"].map(str::to_owned));
    words.extend((0..=NUMBER_MAX).map(number));
    words.extend(('a'..='z').map(String::from));
    words.extend(CATEGORIES.iter().map(|c| c.name.to_owned()));
    words.extend(members().iter().map(|w| (*w).to_owned()));
    words.extend(FILLERS.map(str::to_owned));
    words.extend(FUNCTION_WORDS.split_whitespace().map(str::to_owned));
    let mut unique: Vec<String> = Vec::with_capacity(words.len());
    for word in words {
        if !unique.contains(&word) {
            unique.push(word);
        }
    }
    unique
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_vocabulary_is_small_and_every_member_has_one_category() {
        let all = super::all();
        assert!(all.len() <= 256, "{}", all.len());
        assert_eq!(all[0], "<pad>");
        assert_eq!(super::members().len(), 64);
        for word in super::members() {
            let homes = super::CATEGORIES.iter().filter(|c| c.members.contains(&word)).count();
            assert_eq!(homes, 1, "{word}");
        }
    }
}
