#!/usr/bin/env python3
"""What `gradus eval DIR --suite ifeval` said of recorded answers, held to IFEval's own program.

    pip install --no-deps lm-eval==0.4.13 && pip install nltk immutabledict packaging
    scripts/check_suites.py DIR

Reads every answer under DIR/suites/ifeval-*, asks lm-eval's copy of the program about it, strictly and
loosely, and compares constraint by constraint. Kinds that gradus says are approximate are counted apart:
there nltk's downloaded data or a language detector would decide.
"""
import collections
import importlib.util
import json
import pathlib
import sys
import types

import nltk

HERE = pathlib.Path(__file__).resolve().parent.parent
ROOT = pathlib.Path(importlib.util.find_spec("lm_eval").origin).parent.parent
APPROXIMATE = (
    "change_case:capital_word_frequency", "change_case:english_capital", "change_case:english_lowercase",
    "language:response_language", "length_constraints:number_sentences",
)
for name in ("lm_eval", "lm_eval.tasks", "lm_eval.tasks.ifeval"):
    sys.modules[name] = types.ModuleType(name)
nltk.data.find = lambda *_: None
langdetect = types.ModuleType("langdetect")
langdetect.LangDetectException = type("LangDetectException", (Exception,), {})
langdetect.detect = lambda _: "en"
sys.modules["langdetect"] = langdetect


def load(name):
    spec = importlib.util.spec_from_file_location(f"lm_eval.tasks.ifeval.{name}", ROOT / "lm_eval/tasks/ifeval" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    setattr(sys.modules["lm_eval.tasks.ifeval"], name, module)
    spec.loader.exec_module(module)
    return module


load("instructions_util")
load("instructions")
REGISTRY = load("instructions_registry").INSTRUCTION_DICT


def follows(name, kwargs, prompt, responses):
    checker = REGISTRY[name](name)
    checker.build_description(**{k: v for k, v in kwargs.items() if v})
    arguments = checker.get_instruction_args()
    if arguments and "prompt" in arguments:
        checker.build_description(prompt=prompt)
    return any(r.strip() and bool(checker.check_following(r)) for r in responses)


def loosened(text):
    lines = text.split("\n")
    parts = [text, "\n".join(lines[1:]).strip(), "\n".join(lines[:-1]).strip(), "\n".join(lines[1:-1]).strip()]
    return parts + [part.replace("*", "") for part in parts]


def main():
    rows = [json.loads(line) for line in (HERE / "assets/ifeval/input_data.jsonl").read_text(encoding="utf-8").splitlines()]
    answers, same, differ = 0, collections.Counter(), collections.Counter()
    apart = collections.Counter()
    for path in pathlib.Path(sys.argv[1]).glob("suites/ifeval-*/M*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            row = rows[found["place"]]
            answers += 1
            seen = collections.Counter()
            for name, kwargs in zip(row["instruction_id_list"], row["kwargs"]):
                seen[name] += 1
                ours = name if seen[name] == 1 else f"{name}#{seen[name]}"
                for how, responses in (("strict", [found["text"]]), ("loose", loosened(found["text"]))):
                    # Of a letter that is none (#, !) IFEval's program counts another one, drawn at random.
                    drawn = name == "keywords:letter_frequency" and not kwargs["letter"].isalpha()
                    if name in APPROXIMATE or drawn:
                        apart[name] += 1
                        continue
                    theirs = follows(name, kwargs, row["prompt"], responses)
                    if theirs == found[how][ours]:
                        same[name] += 1
                    else:
                        differ[name] += 1
                        print(f"{name} {kwargs}, {how}: IFEval says {theirs}, gradus {found[how][ours]}: {found['text']!r}")
    print(f"{answers} answers, {sum(same.values())} verdicts the same, {sum(differ.values())} differ, {sum(apart.values())} not compared: of approximate kinds, or drawn at random by IFEval's program")
    sys.exit(1 if differ or not same else 0)


if __name__ == "__main__":
    main()
