"""Golden values of the statistics room from scipy and rouge-score.

    python tests/golden/scripts/make_stats_goldens.py    # needs scipy, rouge-score
"""

import json
import math
import pathlib
import random
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


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = random.Random(11)
    (OUT / "rank.json").write_text(json.dumps(rank_rows(rng)) + "\n")
    (OUT / "rouge.json").write_text(json.dumps(rouge_rows(rng), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
