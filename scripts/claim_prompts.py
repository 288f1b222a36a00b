#!/usr/bin/env python3
"""Prompts for scripts/claim: a request with one requirement that a program can check.

    scripts/claim_prompts.py --seed 1 --out FOLDER

Writes eft.jsonl (prompts for seed data), train.jsonl (the loop's) and test.jsonl (never trained on). They
are split by request, so no request is in two of them. Two kinds of requirement, UNSEEN, are in train and
test and never in eft: what the model makes of them nobody taught it. The requests are
examples/data/claim-base-prompts.jsonl (Open Assistant and self-instruct, Apache-2.0).
"""
import argparse
import json
import pathlib
import random

HERE = pathlib.Path(__file__).resolve().parent.parent
REQUESTS = HERE / "examples/data/claim-base-prompts.jsonl"
WORDS = "because people time help good first work water world life learn number example important today".split()
UNSEEN = ("startend:quotation", "change_case:english_lowercase")


def counted(rng, low, high):
    return rng.randint(low, high)


def bullets(rng):
    n = counted(rng, 2, 5)
    return str(n), f'Give exactly {n} bullet points, each on a line that starts with "* ".'


def fewer_words(rng):
    n = rng.choice([20, 30, 40, 60])
    return f"less than {n}", f"Use fewer than {n} words."


def more_words(rng):
    n = rng.choice([40, 50, 60])
    return f"at least {n}", f"Use at least {n} words."


def keywords(rng):
    a, b = rng.sample(WORDS, 2)
    return f"{a}, {b}", f"Work in these words: {a}, {b}"


def forbidden(rng):
    word = rng.choice("the and is you of".split())
    return word, f"Never use this word: {word}"


def blanks(rng):
    n = counted(rng, 1, 3)
    return f"at least {n}", f"Put in {n} or more blanks in square brackets, like [name]."


def sentences(rng):
    n = counted(rng, 2, 4)
    return f"less than {n}", f"Use fewer than {n} sentences."


def ending(rng):
    text = rng.choice(["Is there anything else I can do?", "That is all I know."])
    return text, f"End with exactly this sentence and nothing after it: {text}"


def fixed(value, *wordings):
    return lambda rng: (value, rng.choice(wordings))


# The name that the verifier knows, and how a value and its words are drawn.
KINDS = [
    ("punctuation:no_comma", fixed("", "Do not use a comma anywhere.", "Leave out all commas.")),
    ("detectable_format:number_bullet_lists", bullets),
    ("length_constraints:number_words", fewer_words),
    ("length_constraints:number_words", more_words),
    ("keywords:existence", keywords),
    ("keywords:forbidden_words", forbidden),
    ("detectable_content:number_placeholders", blanks),
    ("detectable_format:title", fixed("", "Start with a title in double angle brackets, like <<my title>>.")),
    ("detectable_content:postscript", fixed("P.S.", "At the end add a postscript that begins with P.S.")),
    ("length_constraints:number_sentences", sentences),
    ("startend:end_checker", ending),
    ("startend:quotation", fixed("", "Put your whole answer between double quotation marks.")),
    ("change_case:english_lowercase", fixed("", "Write everything in small letters.", "No capital letters at all, please.")),
]


def prompt(request, kind, draw, rng):
    value, words = draw(rng)
    text = request + ("\n\n" if "\n" in request else " ") + words
    return {"prompt": text, "fields": {kind: value, "requirement": words}}


def rows(requests, kinds, count, rng):
    """So many prompts, the kinds in turns, each request as often as another."""
    found, seen = [], set()
    while len(found) < count:
        order = rng.sample(requests, len(requests))
        for request in order:
            kind, draw = kinds[len(found) % len(kinds)]
            row = prompt(request, kind, draw, rng)
            if row["prompt"] not in seen and len(found) < count:
                seen.add(row["prompt"])
                found.append(row)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--eft", type=int, default=600)
    parser.add_argument("--train", type=int, default=512)
    parser.add_argument("--test", type=int, default=256)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    requests = [json.loads(line)["prompt"] for line in REQUESTS.read_text(encoding="utf-8").splitlines()]
    rng.shuffle(requests)
    half, rest = len(requests) * 2 // 5, len(requests) * 3 // 10
    parts = {"eft": requests[:half], "train": requests[half : half + rest], "test": requests[half + rest :]}
    known = [(kind, draw) for kind, draw in KINDS if kind not in UNSEEN]
    asked.out.mkdir(parents=True, exist_ok=True)
    for part, count in (("eft", asked.eft), ("train", asked.train), ("test", asked.test)):
        kinds = known if part == "eft" else KINDS
        lines = [json.dumps(row, ensure_ascii=False) for row in rows(parts[part], kinds, count, rng)]
        (asked.out / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{part}: {count} prompts of {len(parts[part])} requests")


if __name__ == "__main__":
    main()
