"""Golden values of the statistics room from scipy, statsmodels and rouge-score.

    python tests/golden/scripts/make_stats_goldens.py   # needs scipy, statsmodels, rouge-score
    python tests/golden/scripts/make_stats_goldens.py --check    # compares with what is there
"""

import json
import math
import pathlib
import random
import sys
import warnings

from rouge_score import rouge_scorer
from scipy import stats
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import kendalltau, spearmanr
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

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


def mean_rows(rng):
    rows = []
    for n in [2, 3, 4, 5, 8, 16, 31, 32, 64, 256] * 4:
        values = [round(rng.gauss(3.0, 1.2), 3) for _ in range(n)]
        mean = sum(values) / n
        low, high = stats.t.interval(0.95, n - 1, mean, stats.sem(values))
        rows.append([values, mean, float(low), float(high)])
    return rows


def most_likely(wins, ties, losses, d):
    """The share q of losses, and q + d of wins, under which what was seen is most likely."""
    low, high = max(0.0, -d), (1.0 - d) / 2.0
    ends = [low, high]

    def unlikely(q):
        terms = [(wins, q + d), (losses, q), (ties, 1.0 - 2.0 * q - d)]
        if any(n and share < 1e-300 for n, share in terms):
            return math.inf
        return -sum(n * math.log(share) for n, share in terms if n)

    if high > low:
        inside = minimize_scalar(unlikely, bounds=(low, high), method="bounded",
                                 options={"xatol": 1e-14}).x
        # A golden search sees a minimum to half of the digits; the slope, to all of them.
        def slope(q):
            parts = [(wins, q + d, 1.0), (losses, q, 1.0), (ties, 1.0 - 2.0 * q - d, -2.0)]
            return sum(n * sign / max(share, 1e-300) for n, share, sign in parts if n)

        tiny = (high - low) * 1e-13
        a, b = low + tiny, high - tiny
        if slope(a) > 0.0 > slope(b):
            inside = brentq(slope, a, b, xtol=1e-16)
        ends.append(float(inside))
    return min(ends, key=unlikely)


def tango(wins, ties, losses):
    """The score interval of a paired difference (Tango 1998), as a win rate: from the likelihood
    itself, without the closed form of its maximum."""
    n, z = wins + ties + losses, stats.norm.ppf(0.975)
    found = (wins - losses) / n

    def away(d, sign):
        q = most_likely(wins, ties, losses, d)
        return wins - losses - n * d + sign * z * math.sqrt(max(n * (2.0 * q + d * (1.0 - d)), 0.0))

    def bound(limit, sign):
        # A little inside of both ends, where gap and spread may vanish together.
        near, far = found + math.copysign(1e-9, limit), limit - math.copysign(1e-9, limit)
        if abs(found - limit) < 1e-9 or away(near, sign) * away(far, sign) > 0.0:
            return limit
        return brentq(away, near, far, args=(sign,), xtol=1e-13)

    return [0.5 + bound(-1.0, -1.0) / 2.0, 0.5 + bound(1.0, 1.0) / 2.0]


def share_rows(rng):
    counts = [(0, 1), (1, 1), (0, 4), (4, 4), (1, 6), (58, 60), (0, 7200), (94, 7200)]
    for _ in range(60):
        n = rng.randrange(1, 400)
        counts.append((rng.randrange(0, n + 1), n))
    wilson = [[k, n, *map(float, proportion_confint(k, n, 0.05, "wilson"))] for k, n in counts]
    splits = [(0, 0), (1, 0), (5, 0), (6, 0), (8, 2), (5, 5), (60, 40), (0, 10), (700, 600)]
    splits += [(rng.randrange(0, 200), rng.randrange(0, 200)) for _ in range(60)]
    sign = []
    for wins, losses in splits:
        p = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
        paired = float(mcnemar([[0, wins], [losses, 0]], exact=True).pvalue)
        assert abs(p - paired) < 1e-9, "the sign test is the exact McNemar test"
        sign.append([wins, losses, p])
    seen = [(1, 0, 5), (0, 4, 0), (1, 0, 0), (0, 0, 1), (0, 1, 0), (12, 36, 2), (68, 322, 10),
            (5, 0, 0), (0, 0, 400), (200, 0, 200), (0, 6, 10), (3, 0, 0), (7, 1, 0)]
    for _ in range(120):
        top = rng.choice([3, 10, 60, 400])
        split = tuple(rng.randrange(0, top) for _ in range(3))
        if sum(split):
            seen.append(split)
    return {"wilson": wilson, "sign": sign, "win_rate": [[*s, *tango(*s)] for s in seen]}


def same(new, old):
    """Equal up to another version's last bits."""
    if isinstance(new, dict):
        return new.keys() == old.keys() and all(same(new[k], old[k]) for k in new)
    if isinstance(new, list):
        return len(new) == len(old) and all(same(a, b) for a, b in zip(new, old))
    if isinstance(new, float) and isinstance(old, float):
        return abs(new - old) <= 1e-12
    return new == old


def main():
    rng = random.Random(11)
    made = {"rank.json": rank_rows(rng), "rouge.json": rouge_rows(rng)}
    made |= {"means.json": mean_rows(rng), "shares.json": share_rows(rng)}
    OUT.mkdir(parents=True, exist_ok=True)
    for name, rows in made.items():
        if "--check" in sys.argv:
            if not same(rows, json.loads((OUT / name).read_text())):
                sys.exit(f"{name} is not what the libraries give now")
            print(f"{name} is as committed")
        else:
            (OUT / name).write_text(json.dumps(rows, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
