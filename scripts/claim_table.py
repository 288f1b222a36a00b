#!/usr/bin/env python3
"""The table of scripts/claim, from what gradus eval found; by itself, for a check by other code.

    scripts/claim_table.py DIR            the table, as Markdown; DIR/table.json beside it
    scripts/claim_table.py --ranked DIR   M1's answers as ranked ones: what met its requirement before what did not

Paired differences are over prompts: the mean of four answers to each, and Student's t.
"""
import json
import math
import pathlib
import sys

UNSEEN = ("startend:quotation", "change_case:english_lowercase")
# Met by an answer that is merely shorter.
BY_SHORTNESS = ("length_constraints:number_sentences", "punctuation:no_comma", "keywords:forbidden_words")


def t_quantile(n):
    """97.5 % of Student's t: exact enough for n over 30."""
    z, f = 1.959964, n - 1
    return z + (z**3 + z) / (4 * f) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * f * f)


def interval(values):
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return mean, float("nan"), float("nan")
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    half = t_quantile(n) * sd / math.sqrt(n)
    return mean, mean - half, mean + half


def policies(folder, arm):
    """Name of a policy to its rows."""
    found = {}
    for path in sorted((folder / arm / "suites").glob("verifier-*/M*.jsonl")):
        found[path.name.split("-")[0]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return found


def met(rows, keep=lambda row: True):
    """Prompt to the share of its requirements met, over its answers."""
    values = {}
    for row in rows:
        if keep(row):
            values.setdefault(row["prompt"], []).append(sum(row["strict"].values()) / len(row["strict"]))
    return {prompt: sum(all_) / len(all_) for prompt, all_ in values.items()}


def difference(ours, theirs):
    both = sorted(set(ours) & set(theirs))
    mean, low, high = interval([ours[p] - theirs[p] for p in both])
    win = sum(ours[p] > theirs[p] for p in both)
    lose = sum(ours[p] < theirs[p] for p in both)
    return {"points": 100 * mean, "low": 100 * low, "high": 100 * high, "win": win, "tie": len(both) - win - lose, "lose": lose}


def shown(d):
    return f"{d['points']:+.1f} [{d['low']:+.1f}, {d['high']:+.1f}], {d['win']}/{d['tie']}/{d['lose']}"


def kind(row):
    return next(iter(row["strict"]))


def ranked(folder):
    asked = [json.loads(line) for line in (folder / "prompts/test.jsonl").read_text(encoding="utf-8").splitlines()]
    answers = {}
    for row in policies(folder, "self")["M1"]:
        answers.setdefault(row["place"], []).append(row)
    for place, some in sorted(answers.items()):
        good = lambda row: all(row["strict"].values())
        some = [row for row in some if row["text"].strip()]
        if len({good(row) for row in some}) == 2:
            found = [{"text": row["text"], "rank": 0} if good(row) else {"text": row["text"], "rank": 1, "kind": kind(row)} for row in some]
            print(json.dumps({"prompt": asked[place]["prompt"], "fields": asked[place]["fields"], "answers": found}, ensure_ascii=False))


def line(name, rows):
    mean, low, high = interval(list(met(rows).values()))
    tokens = sum(row["tokens"] for row in rows) / len(rows)
    ended = sum(row["ended"] for row in rows) / len(rows)
    nats = sum(row["base_logp"] for row in rows) / max(1, sum(row["base_tokens"] for row in rows))
    part = lambda keep: 100 * sum(met(rows, keep).values()) / max(1, len(met(rows, keep)))
    unseen, short = part(lambda r: kind(r) in UNSEEN), part(lambda r: kind(r) in BY_SHORTNESS)
    return f"| {name} | {100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}] | {unseen:.1f} | {short:.1f} | {tokens:.0f} | {100 * ended:.0f} % | {nats:.2f} |"


def table(folder):
    arms = {arm: policies(folder, arm) for arm in ("self", "permuted", "program") if (folder / f"{arm}.json").exists()}
    print("| model | requirements met, 95 % | unseen kinds | kinds that shorter answers meet | tokens | ended | nats a token under the base |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    out = {}
    for arm, found in arms.items():
        for name in sorted(found, key=lambda n: (n != "M0", n)):
            if arm == "self" or name not in ("M0", "M1"):
                print(line(name if arm == "self" else f"{name} {arm}", found[name]))
    print("\n| difference | points, 95 %; better, same, worse prompts |\n| --- | --- |")
    values = {(arm, name): met(rows) for arm, found in arms.items() for name, rows in found.items()}
    wanted = [(("self", "M1"), ("self", "M0")), (("self", "M2"), ("self", "M1")), (("self", "M3"), ("self", "M2")), (("self", "M3"), ("self", "M1"))]
    wanted += [(("self", name), (arm, name)) for name in ("M2", "M3") for arm in ("permuted", "program")]
    for ours, theirs in wanted:
        if ours in values and theirs in values:
            d = difference(values[ours], values[theirs])
            out[f"{ours[0]} {ours[1]} - {theirs[0]} {theirs[1]}"] = d
            print(f"| {ours[0]} {ours[1]} - {theirs[0]} {theirs[1]} | {shown(d)} |")
    if (folder / "judge.json").exists():
        judge = json.loads((folder / "judge.json").read_text())
        print("\n| judge | pairwise accuracy within a prompt | pairs | with a score |\n| --- | --- | --- | --- |")
        for one in judge["policies"]:
            print(f"| {one['policy']} | {one['pairwise_accuracy']:.3f} | {one['pairs']} | {one['scored']} of {one['answers']} |")
        kinds = sorted({k for one in judge["policies"] for k in one["kinds"]})
        print("\n| kind | pairs | " + " | ".join(one["policy"] for one in judge["policies"]) + " |\n| --- | --- |" + " --- |" * len(judge["policies"]))
        for k in kinds:
            cells = [one["kinds"].get(k, [float("nan"), 0]) for one in judge["policies"]]
            print(f"| {k} | {cells[0][1]} | " + " | ".join(f"{c[0]:.3f}" for c in cells) + " |")
    if "self" in arms:
        names = [n for n in ("M0", "M1", "M2", "M3") if n in arms["self"]]
        kinds = sorted({kind(row) for row in arms["self"][names[0]]})
        print("\n| met, %, by kind | " + " | ".join(names) + " |\n| --- |" + " --- |" * len(names))
        for k in kinds:
            cells = [met(arms["self"][n], lambda r: kind(r) == k) for n in names]
            print(f"| {k}{' (unseen)' if k in UNSEEN else ''} | " + " | ".join(f"{100 * sum(c.values()) / max(1, len(c)):.0f}" for c in cells) + " |")
    (folder / "table.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--ranked":
        ranked(pathlib.Path(sys.argv[2]))
    elif len(sys.argv) == 2:
        table(pathlib.Path(sys.argv[1]))
    else:
        sys.exit(__doc__)
