"""What IFEval's own program (lm-eval's copy of it) says of some responses, for every constraint that
the verifier knows and that needs no downloaded data.

    pip install --no-deps lm-eval==0.4.13 && pip install nltk immutabledict packaging
    python tests/golden/scripts/make_ifeval_golden.py            # writes rubrics/ifeval.jsonl
    python tests/golden/scripts/make_ifeval_golden.py --check    # compares with what is there
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import nltk

OUT = Path(__file__).resolve().parent.parent / "rubrics/ifeval.jsonl"
# Found and not imported: the package itself wants torch.
ROOT = Path(importlib.util.find_spec("lm_eval").origin).parent.parent

for name in ("lm_eval", "lm_eval.tasks", "lm_eval.tasks.ifeval"):
    sys.modules[name] = types.ModuleType(name)
# Nothing is to be downloaded: what needs nltk's data is not among the constraints.
nltk.data.find = lambda *_: None
langdetect = types.ModuleType("langdetect")
langdetect.LangDetectException = type("LangDetectException", (Exception,), {})
langdetect.detect = lambda _: "en"  # the verifier does not ask for the language
sys.modules["langdetect"] = langdetect


def load(name):
    path = ROOT / "lm_eval/tasks/ifeval" / f"{name}.py"
    full = f"lm_eval.tasks.ifeval.{name}"
    spec = importlib.util.spec_from_file_location(full, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    setattr(sys.modules["lm_eval.tasks.ifeval"], name, module)
    spec.loader.exec_module(module)
    return module


load("instructions_util")
instructions = load("instructions")
REGISTRY = load("instructions_registry").INSTRUCTION_DICT

RESPONSES = [
    "An apple.",
    "Apples and a pear, I would say.",
    "PINEAPPLE is GOOD FOR YOU!",
    "it isn't good, it's bad: badly put.",
    "* a\n* b\n",
    "- a\n-b\n *c\n** d\n--\n",
    "*\n* x",
    "a\n***\nb\n***\nc",
    "***\na\n***\nb",
    "a\n***\n***\nb",
    "one ****** two",
    "******\none\n******\ntwo\n******",
    "same ****** same",
    "one ****** ****** two",
    "<<On fruit>>\nAn apple.",
    "<< >> and no title",
    "<<>>",
    "x << a >> y >>",
    "<<two\nlines>>",
    '{"a": [1, 2, {"b": null}]}',
    '```json\n{"a": 1}\n```',
    "{a: 1}",
    "[1, 2",
    '"all of it in quotation marks"',
    '"only the beginning',
    '"',
    "Dear [name] of [place], on [date].",
    "[] and [\n] and [[x]]",
    "Bye.\np.s. call me",
    "Bye. P. S. it is not at the beginning of a line",
    "P.P.S a third time",
    "p.p. s. and so on",
    "No afterword. Ps none.",
    "all small, 1 two",
    "123 !?",
    "So it goes. THE END.",
    'So it goes. the end."',
    "The end. No.",
    "Name a fruit. An apple.",
    "name A FRUIT. Well: a pear, a plum and an apple; apple apple.",
    "word " * 60,
    "snake_case counts-as two, don't it?",
    "é, ü and ß are letters: Äpfel",
    "see me e e E",
    "*one* and **two** and * * and *three",
    "* a *b* c*\n**d*\n***e***",
    "*a\nb* **",
    "SECTION 1\nA.\nSECTION 2\nB.\nSECTION3 C. section 4",
    "Day one, Day 2,\nDay\n3",
    "My answer is no. Or: My answer is maybe.",
    "my answer is no.",
    "First, this.\n\n'Then' that.\n\n\n\nThen so",
    "Then it was.\n\nthen, again",
    "\n\nThen?\n\n",
]

CONSTRAINTS = [
    ("keywords:existence", "apple", {"keywords": ["apple"]}),
    ("keywords:existence", "apple, pear", {"keywords": ["apple", "pear"]}),
    ("keywords:forbidden_words", "bad", {"forbidden_words": ["bad"]}),
    ("keywords:forbidden_words", "don, apple", {"forbidden_words": ["don", "apple"]}),
    *[
        ("keywords:frequency", f"apple {relation} {n}",
         {"keyword": "apple", "frequency": n, "relation": relation})
        for relation in ("at least", "less than") for n in (1, 3)
    ],
    *[
        ("keywords:letter_frequency", f"e {relation} {n}",
         {"letter": "e", "let_frequency": n, "let_relation": relation})
        for relation in ("at least", "less than") for n in (1, 4)
    ],
    *[
        ("length_constraints:number_words", f"{relation} {n}",
         {"num_words": n, "relation": relation})
        for relation in ("at least", "less than") for n in (4, 6, 60)
    ],
    *[("length_constraints:number_paragraphs", str(n), {"num_paragraphs": n}) for n in (1, 2, 3)],
    *[("detectable_format:number_bullet_lists", str(n), {"num_bullets": n}) for n in (1, 2, 4)],
    *[
        ("detectable_content:number_placeholders", str(n), {"num_placeholders": n})
        for n in (1, 2, 3)
    ],
    ("detectable_content:postscript", "P.S.", {"postscript_marker": "P.S."}),
    ("detectable_content:postscript", "P.P.S", {"postscript_marker": "P.P.S"}),
    ("detectable_format:json_format", "", {}),
    ("detectable_format:title", "", {}),
    ("change_case:english_lowercase", "", {}),
    ("change_case:english_capital", "", {}),
    ("punctuation:no_comma", "", {}),
    ("startend:end_checker", "The end.", {"end_phrase": "The end."}),
    ("startend:quotation", "", {}),
    ("combination:two_responses", "", {}),
    *[
        ("detectable_format:number_highlighted_sections", str(n), {"num_highlights": n})
        for n in (1, 2, 3)
    ],
    *[
        ("detectable_format:multiple_sections", f"{word} {n}",
         {"section_spliter": word, "num_sections": n})
        for word in ("SECTION", "Day") for n in (1, 2, 3)
    ],
    ("detectable_format:constrained_response", "", {}),
    *[
        ("length_constraints:nth_paragraph_first_word", f"{nth} of {n} then",
         {"nth_paragraph": nth, "num_paragraphs": n, "first_word": "then"})
        for nth, n in ((1, 1), (1, 2), (2, 2), (2, 3), (3, 3))
    ],
    ("combination:repeat_prompt", "Name a fruit.", {"prompt_to_repeat": "Name a fruit."}),
]



def verdicts():
    for name, value, arguments in CONSTRAINTS:
        for response in RESPONSES:
            instruction = REGISTRY[name](name)
            instruction.build_description(**arguments)
            # As in IFEval, which asks for a response that is not blank.
            holds = bool(response.strip() and instruction.check_following(response))
            line = {"name": name, "value": value, "response": response, "holds": holds}
            yield json.dumps(line, ensure_ascii=False) + "\n"


def main():
    text = "".join(verdicts())
    if "--check" not in sys.argv:
        OUT.write_text(text)
    elif OUT.read_text() != text:
        sys.exit("ifeval.jsonl is not what IFEval's program says now")
    else:
        print("ifeval.jsonl is as committed")


if __name__ == "__main__":
    main()
