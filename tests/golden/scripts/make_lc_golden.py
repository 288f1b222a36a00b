"""Length-controlled win rates: what scikit-learn's logistic regression says of preferences and lengths, and
what alpaca_eval's own fit says of them (its `length_controlled_minimal`, arXiv 2404.04475).

    pip install scikit-learn patsy pandas && pip install --no-deps alpaca_eval==0.6.6
    python tests/golden/scripts/make_lc_golden.py            # writes stats/length_controlled.json
    python tests/golden/scripts/make_lc_golden.py --check
"""

import importlib.util
import json
import pathlib
import random
import sys
import types
import warnings

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

OUT = pathlib.Path(__file__).resolve().parent.parent / "stats/length_controlled.json"
warnings.simplefilter("ignore")


def theirs():
    """alpaca_eval's module by itself: its package wants clients of model providers."""
    root = pathlib.Path(importlib.util.find_spec("alpaca_eval").origin).parent
    for name in ("alpaca_eval", "alpaca_eval.metrics", "alpaca_eval.constants", "alpaca_eval.types", "alpaca_eval.utils",
                 "alpaca_eval.metrics.winrate", "huggingface_hub"):
        sys.modules[name] = types.ModuleType(name)
    package = sys.modules["alpaca_eval"]
    for part in ("constants", "types", "utils"):
        setattr(package, part, sys.modules[f"alpaca_eval.{part}"])
    sys.modules["alpaca_eval.types"].AnyLoadableDF = object
    sys.modules["alpaca_eval.metrics.winrate"].get_winrate = None
    sys.modules["huggingface_hub"].hf_hub_download = None
    spec = importlib.util.spec_from_file_location("alpaca_eval.metrics.glm_winrate", root / "metrics/glm_winrate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def features(lengths):
    delta = pd.Series(lengths, dtype=float)
    spread = delta.std()
    return np.tanh(delta / spread) if spread > 0 else delta * 0


def ours(preferences, lengths):
    """Ridge of C = 100, as alpaca_eval has it without cross-validation."""
    x = np.column_stack([features(lengths), np.ones(len(lengths))])
    y = np.array(preferences)
    model = LogisticRegression(penalty="l2", C=100, fit_intercept=False, tol=1e-12, max_iter=10000, solver="newton-cholesky")
    model.fit(np.vstack([x, x]), np.r_[np.ones(len(y)), np.zeros(len(y))], sample_weight=np.r_[y, 1 - y])
    return float(1 / (1 + np.exp(-model.coef_[0][1])))


def alpaca(module, preferences, lengths):
    frame = pd.DataFrame({"length": features(lengths), "one": 1.0, "preference": preferences})
    model = module.fit_LogisticRegressionCV(frame, "preference", is_ytrue_proba=True, n_splits=5)
    return float(1 / (1 + np.exp(-model.coef_[0][1])))


def rows(rng, module):
    for n, bias, by_length in [(40, 0.0, 0.0), (80, 0.5, 0.0), (120, 0.0, 2.0), (200, -0.5, 1.0), (253, 0.3, -1.5), (805, 0.2, 1.0), (64, 3.0, 0.0), (30, 0.0, 5.0)]:
        lengths = [rng.randint(-200, 400) for _ in range(n)]
        lean = [bias + by_length * np.tanh(d / 150) for d in lengths]
        preferences = [rng.choices([0.5, float(rng.random() < 1 / (1 + np.exp(-z)))], [1, 4])[0] for z in lean]
        yield [preferences, lengths, ours(preferences, lengths), alpaca(module, preferences, lengths)]


def main():
    found = list(rows(random.Random(5), theirs()))
    if "--check" not in sys.argv:
        OUT.write_text("[\n" + ",\n".join(json.dumps(row) for row in found) + "\n]\n")
        return
    for there, now in zip(json.loads(OUT.read_text()), found, strict=True):
        if there[:2] != now[:2] or abs(there[2] - now[2]) > 1e-6:
            sys.exit("length_controlled.json is not what scikit-learn says now")
    print("length_controlled.json is as committed")


if __name__ == "__main__":
    main()
