#!/usr/bin/env python3
"""Counts, without gradus, how many of a run's judgments hold a score, and compares with its report.

    scripts/count_scores.py DIR [--gradus target/release/gradus]

Reads the log's JSON lines (`gradus log export`) and looks at the judge's words alone, by a rule of its
own: a reply holds a score when a line of the judge's own says `score`, a colon (or `is`, `=`) and one
whole or decimal number from 0 to 5, and every such line says the same. It knows nothing of the
judge's probabilities, so a reply that got a score without such a line shows. Prints both counts, and
every reply on which they differ; exit 1 when they do. For the rubric `additive-five`.
"""

import argparse
import json
import re
import subprocess
import sys

LINE = re.compile(
    r"^[\s*_#\-`\"{(]*(?:(?:total|final|overall|my)\s+)?score[\s*_`\"]*(?:\((?:0\s*-\s*5|out of 5)\)\s*)?"
    r"(?:[:=\uff1a]|\s+is\b)[\s*_`\"<\[(]*([0-9]+(?:\.[0-9]+)?)(?P<rest>.*)$",
    re.IGNORECASE,
)
INSIDE = re.compile(r"(?<![\"'\u201c])\bscore:\s*([0-9]+(?:\.[0-9]+)?)(?:/5)?[\s.!*_]*$", re.IGNORECASE)
# What may stand after a score without taking it back.
AFTER = re.compile(r"^[\s*_`\"\]>)}.!]*(?:/\s*5|out of 5)?[\s*_`\"\]>)}.,!]*(?:[-\u2013,(.].*)?$", re.IGNORECASE)


def score(text):
    """The number that a reply's own lines say, or None."""
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL)
    own = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith(">")]
    found = []
    for at, line in enumerate(own):
        match = LINE.match(line)
        if match:
            found.append(float(match[1]) if AFTER.match(match["rest"]) else None)
        elif at == len(own) - 1 and (inside := INSIDE.search(line)):
            found.append(float(inside[1]))
    same = len(set(found)) == 1 and found[0] is not None and 0 <= found[0] <= 5
    return found[0] if same else None


def records(gradus, folder):
    done = subprocess.run([gradus, "log", "export", folder], check=True, stdout=subprocess.PIPE)
    for line in done.stdout.decode().splitlines():
        yield json.loads(line)


def events(record):
    """The events somewhere in a line of the export."""
    if isinstance(record, dict):
        if "type" in record and isinstance(record["type"], str):
            yield record
        for value in record.values():
            yield from events(value)
    elif isinstance(record, list):
        for value in record:
            yield from events(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--gradus", default="target/release/gradus")
    given = parser.parse_args()
    judgments, without, wrong = 0, 0, []
    for record in records(given.gradus, given.folder):
        for event in events(record):
            if event["type"] != "judgments_recorded":
                continue
            for judgment in event["judgments"]:
                judgments += 1
                ours = score(judgment["text"])
                theirs = judgment["outcome"].get("score")
                without += ours is None
                if (ours is None) != (theirs is None):
                    wrong.append((ours, judgment["outcome"], judgment["text"]))
    done = subprocess.run([given.gradus, "report", given.folder, "--json"], check=True, stdout=subprocess.PIPE)
    rows = json.loads(done.stdout)["iterations"]
    reported = (sum(row["judgments"] for row in rows), sum(row["unscored"] for row in rows))
    print(f"counted: {without} of {judgments} without a score; the report says {reported[1]} of {reported[0]}")
    for ours, theirs, text in wrong:
        print(f"--- counted {ours}, recorded {theirs}:\n{text}")
    sys.exit(0 if (judgments, without) == reported and not wrong else 1)


if __name__ == "__main__":
    main()
