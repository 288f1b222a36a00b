"""What `benches/gpu/run` recorded, as a page for a person; and the verdicts in what tests print.

`render(record)` gives Markdown. A record is what gpu.json holds:

when, commit, machine   of the run; machine is a list of lines
emulated                the kernels ran on the CPU, and figures say nothing
gpu                     what the GPU is, or None
no_gpu                  why there is none
steps                   [{name, verdict, seconds, limit}], verdict "ok" or what went wrong
tests                   {step: {test: verdict}}
bench, peers            the documents of gpu-bench and torch_peers.py, or None
tails                   {step: the end of what a failed step printed}"""

import re

DECODE_SHARE, DECODE_BATCH = 0.5, 64
STEP_SHARE, STEP_SHAPE = 0.4, "1B"

ABOUT = """\
Floors are what the card's own ceilings, measured in the same process, make of the work that no
program can do without. Decoding: bytes are the numbers of the matrices that every row is multiplied
with times 2, and batch times context times the bytes of a token's keys and values. A DPO step: 6
floating-point operations for each number and row (4 where an adapter moves, with the adapter's own),
attention's products over the keys that a row sees, and 28 bytes of the optimiser for each number that
moves. A pair's prompt is counted once, for both completions share its rows, and the head sees
completions alone; a program that computes the prompt twice does more than the floor has. Decoded
tokens are those of steps alone: what a long draw takes beyond a short one. Every sequence has a prompt
of its own. Ratios are our time over theirs; below 1 we are faster. Weights are random; the reference's
log-probabilities are given (TRL computes them before the first step), so no step has them in it."""


def verdicts(text):
    """{test: ok | FAILED | ignored | skipped | emulated | unfinished} of what libtest printed, also
    where the tests' own words stand between a name and its verdict. A test that found no device to
    test, or the emulator where a GPU was wanted, says so and passes: that is not ok here."""
    found, name, instead = {}, None, None
    for line in text.splitlines():
        begins = re.match(r"test (\S+)(?: - should panic)? \.\.\. ?(.*)", line)
        if begins:
            name, line, instead = begins[1], begins[2], None
            found[name] = "unfinished"
        if name is None:
            continue
        for words, verdict in (("skipped: ", "skipped"), ("the kernels run on the CPU", "emulated")):
            instead = verdict if words in line else instead
        ends = re.search(r"(ok|FAILED|ignored)(?:, [^,]*)?$", line.strip())
        if ends:
            found[name] = instead if instead and ends[1] == "ok" else ends[1]
            name = None
    return found


def results(document, **of):
    lines = (document or {}).get("results", [])
    return [line for line in lines if all(line.get(k) == v for k, v in of.items())]


def one(document, **of):
    return next(iter(results(document, **of)), None)


def why(line):
    """Why a line has no figures; None where it has some."""
    if line is None:
        return "not measured"
    if "skipped" in line:
        return f"skipped: {line['skipped']}"
    return f"failed: {line['failed']}" if "failed" in line else None


def number(value, digits=0):
    return "" if value is None else f"{value:,.{digits}f}"


def figure(line, key, digits=0, scale=1.0):
    value = None if line is None else line.get(key)
    return "" if value is None else number(value * scale, digits)


def percent(line, key="share_of_floor"):
    value = None if line is None else line.get(key)
    return "" if value is None else f"{100 * value:.{0 if value >= 0.1 else 1}f} %"


def ratio(ours, theirs, key="step_ms"):
    both = [line.get(key) if line else None for line in (ours, theirs)]
    return "" if None in both else f"{both[0] / both[1]:.2f}"


def gigabytes(line):
    return figure(line, "peak_bytes", 1, 1e-9)


def table(heads, rows, left=1):
    lines = ["| " + " | ".join(heads) + " |"]
    lines.append("| " + " | ".join(["---"] * left + ["---:"] * (len(heads) - left)) + " |")
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def peer(record, who, line):
    keys = ("what", "shape", "method", "pairs", "batch", "context")
    return one(record["peers"], who=who, **{k: line[k] for k in keys if k in line})


def share_bar(what, line, least):
    name = f"{what}: at least {100 * least:.0f} % of the floor"
    reason = why(line)
    share = None if reason else line.get("share_of_floor")
    if share is None:
        return [name, reason or "no floor", "not measured"]
    return [name, percent(line), "met" if share >= least else "missed"]


def bars(record):
    """[what is asked for, what was found, met | missed | not measured]"""
    bench, found = record["bench"], []
    shapes = list((bench or {}).get("shapes", {})) or [STEP_SHAPE]
    for shape in shapes:
        line = one(bench, what="decode", shape=shape, batch=DECODE_BATCH)
        found.append(share_bar(f"decode, {shape}, batch {DECODE_BATCH}", line, DECODE_SHARE))
    for method in ("full", "lora"):
        line = one(bench, what="dpo", shape=STEP_SHAPE, method=method)
        found.append(share_bar(f"DPO step, {STEP_SHAPE}, {method}", line, STEP_SHARE))
    for line in results(bench, what="dpo"):
        name = f"DPO step, {line['shape']}, {line['method']}: not slower than TRL"
        theirs = peer(record, "TRL", line)
        reason = why(line) or (f"TRL {why(theirs)}" if why(theirs) else None)
        if reason:
            found.append([name, reason, "not measured"])
        else:
            met = line["step_ms"] <= theirs["step_ms"]
            found.append([name, f"{ratio(line, theirs)} of its time", "met" if met else "missed"])
    return found


def steps_part(record):
    rows = []
    for step in record["steps"]:
        tests = record["tests"].get(step["name"])
        verdict = step["verdict"]
        if tests is not None:
            counts = {}
            for of_test in tests.values():
                counts[of_test] = counts.get(of_test, 0) + 1
            told = ", ".join(f"{n} {of_test}" for of_test, n in sorted(counts.items()))
            verdict = f"{verdict}; tests: {told or 'none'}"
        rows.append([step["name"], verdict, number(step["seconds"], 1)])
    lines = ["## What ran", "", *table(["step", "verdict", "seconds"], rows, 2), ""]
    for name, tests in record["tests"].items():
        bad = [f"`{test}` {of}" for test, of in tests.items() if of not in ("ok", "ignored")]
        if bad:
            lines += [f"{name}: " + ", ".join(bad) + ".", ""]
    for name, tail in record["tails"].items():
        lines += [f"The end of what {name} printed:", "", "```text", *tail.splitlines(), "```", ""]
    return lines


def ceilings_part(bench):
    line = one(bench, what="ceilings")
    if why(line):
        return ["## Ceilings", "", f"{why(line)}; so there are no floors.", ""]
    return [
        "## Ceilings", "",
        f"Copies within the card's memory: {figure(line, 'memory_gb_per_s')} GB/s (read and written). "
        f"A product of bf16 matrices: {figure(line, 'product_tflops', 1)} TFLOP/s.", "",
    ]


def decode_part(record):
    heads = ["shape", "batch", "tokens/s", "step, ms", "floor, ms", "of the floor",
             "transformers, tokens/s", "ratio", "peak, GB"]
    rows = []
    for line in results(record["bench"], what="decode"):
        theirs = peer(record, "transformers", line)
        rows.append([
            line["shape"], str(line["batch"]), figure(line, "tokens_per_s"),
            figure(line, "step_ms", 2), figure(line, "floor_ms", 2), percent(line),
            figure(theirs, "tokens_per_s"), ratio(line, theirs), gigabytes(line),
        ])
    contexts = {line["context"] for line in results(record["bench"], what="decode")}
    title = f"## Decoding, context {' and '.join(map(str, sorted(contexts)))}"
    return [title, "", *table(heads, rows), ""] if rows else []


def prefill_part(record):
    heads = ["shape", "prompts", "tokens/s", "seconds", "floor, ms", "of the floor", "peak, GB"]
    rows = [
        [line["shape"], f"{line['prompts']} x {line['tokens']}", figure(line, "tokens_per_s"),
         figure(line, "seconds", 3), figure(line, "floor_ms", 1), percent(line), gigabytes(line)]
        for line in results(record["bench"], what="prefill")
    ]
    return ["## Reading prompts", "", *table(heads, rows), ""] if rows else []


def dpo_part(record):
    heads = ["shape", "method", "pairs", "step, ms", "floor, ms", "of the floor", "tokens/s", "TRL, ms",
             "ratio", "torch by hand, ms", "ratio", "peak, GB", "TRL's", "torch's"]
    rows = []
    lines = results(record["bench"], what="dpo")
    for line in lines:
        trl, torch = (peer(record, who, line) for who in ("TRL", "torch"))
        rows.append([
            line["shape"], line["method"], str(line["pairs"]), figure(line, "step_ms", 1),
            figure(line, "floor_ms", 1), percent(line), figure(line, "tokens_per_s"),
            figure(trl, "step_ms", 1), ratio(line, trl), figure(torch, "step_ms", 1),
            ratio(line, torch), gigabytes(line), gigabytes(trl), gigabytes(torch),
        ])
    if not rows:
        return []
    both = {(line["prompt"], line["response"]) for line in lines}
    told = " and ".join(f"{p} + 2 x {r}" for p, r in sorted(both))
    text = f"A pair is {told} tokens; tokens/s count its prompt twice, as TRL does."
    return ["## DPO steps", "", text, "", *table(heads, rows, 2), "", *phases_part(lines)]


def phases_part(lines):
    names = ["forward", "head", "backward", "optimiser"]
    heads = ["shape", "method", *[f"{name}, ms" for name in names], "step so, ms", "without waits, ms"]
    rows = [
        [line["shape"], line["method"], *[figure(line["phases_ms"], name, 1) for name in names],
         figure(line, "watched_step_ms", 1), figure(line, "step_ms", 1)]
        for line in lines if line.get("phases_ms")
    ]
    if not rows:
        return []
    text = "Where a step's time goes. The head is its logits, the loss and the way back through it. Each part is " \
           "waited for here, and the waits cost: see the last two columns."
    return [text, "", *table(heads, rows, 2), ""]


def left_out_part(record):
    lines = []
    for name, document in (("gpu-bench", record["bench"]), ("peers", record["peers"])):
        for line in results(document):
            if why(line):
                keys = ("who", "what", "shape", "method", "batch", "prompts")
                of = " ".join(str(line[k]) for k in keys if k in line)
                lines.append(f"- {name}, {of}: {why(line)}")
            for reason in line.get("short_of_memory", []):
                lines.append(f"- {line['shape']} {line['method']} was taken in parts: {reason}")
    missing = (record["peers"] or {}).get("missing", {})
    lines += [f"- Python has no {name}: {reason}" for name, reason in missing.items()]
    return ["## Left out, and why", "", *lines, ""] if lines else []


def head_part(record):
    lines = ["# On a GPU: tests and figures", ""]
    if record["emulated"]:
        lines += ["**Emulated**: the kernels ran on this machine's CPU, on toy shapes. That there are "
                  "figures says that the harness works; what they are says nothing.", ""]
    elif record["gpu"]:
        lines += [f"{record['gpu']}.", ""]
    else:
        lines += [f"**There was no GPU here**: {record['no_gpu']}. Nothing was measured.", ""]
    versions = (record["peers"] or {}).get("versions", {})
    facts = [record["when"], f"commit {record['commit']}", *record["machine"]]
    facts += [f"{name} {version}" for name, version in versions.items()]
    return lines + ["; ".join(facts) + ". `benches/gpu/run` made this file.", ""]


def render(record):
    lines = head_part(record)
    if record["gpu"] and not record["emulated"]:
        lines += ["## Bars", "", *table(["bar", "found", ""], bars(record), 3), ""]
    lines += steps_part(record)
    if record["bench"]:
        lines += ceilings_part(record["bench"]) + decode_part(record) + prefill_part(record)
        lines += dpo_part(record)
    lines += left_out_part(record)
    if record["bench"]:
        lines += ["## How it is counted", "", ABOUT, ""]
    return "\n".join(lines)
