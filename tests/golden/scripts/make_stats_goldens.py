"""Golden values of the statistics room from scipy and rouge-score.

    python tests/golden/scripts/make_stats_goldens.py            # needs scipy, rouge-score
    python tests/golden/scripts/make_stats_goldens.py --check    # compares with what is there
"""

import json
import math
import pathlib
import random
import sys
import warnings

from rouge_score import rouge_scorer
from scipy.stats import kendalltau, spearmanr

OUT = pathlib.Path(__file__).resolve().parent.parent / "stats"


def defined(value):
    return None if math.isnan(value) else float(value)


def rank_rows(rng):
    rows = []
    for n in [1, 2, 2, 3, 4, 5, 8, 20] * 12:
        levels = rng.choice([1, 2, 4, 1000])
        x = [float(rng.randrange(levels)) for _ in range(n)]
        y = [float(rng.randrange(levels)) for _ in range(n)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rho = spearmanr(x, y).statistic if n > 1 else math.nan
            tau = kendalltau(x, y, variant="b").statistic if n > 1 else math.nan
        rows.append([x, y, defined(rho), defined(tau)])
    return rows


def rouge_rows(rng):
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    words = ["the", "Cat", "sat,", "on", "a", "MAT!", "2", "dogs", "naïve", "und", "so-called", "x_y"]
    rows = [["", "a", 0.0], ["日本", "日本", 0.0]]
    for _ in range(200):
        a = " ".join(rng.choice(words) for _ in range(rng.randrange(0, 12)))
        b = " ".join(rng.choice(words) for _ in range(rng.randrange(0, 12)))
        rows.append([a, b, scorer.score(a, b)["rougeL"].fmeasure])
    return rows


def same(new, old):
    """Equal up to another version's last bits."""
    if isinstance(new, list):
        return len(new) == len(old) and all(same(a, b) for a, b in zip(new, old))
    if isinstance(new, float) and isinstance(old, float):
        return abs(new - old) <= 1e-12
    return new == old


def main():
    rng = random.Random(11)
    made = {"rank.json": rank_rows(rng), "rouge.json": rouge_rows(rng)}
    OUT.mkdir(parents=True, exist_ok=True)
    for name, rows in made.items():
        if "--check" in sys.argv:
            if not same(rows, json.loads((OUT / name).read_text())):
                sys.exit(f"{name} is not what scipy and rouge-score give now")
            print(f"{name} is as committed")
        else:
            (OUT / name).write_text(json.dumps(rows, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
