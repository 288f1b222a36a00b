"""Runs ourselves and the peers in turn on the same weights and ids, and writes what they took.

usage: run.py OURS MODEL_FOLDER OUT.md [--rounds N] [--only TASK]

MODEL_FOLDER is what weights.py made; OURS is the program built from ours.rs. Every program runs
for itself, one after another, so that none warms memory or caches for the next; a task is done
ROUNDS times by all of them before the next task. Beside OUT.md stands OUT.json with every figure."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
parser = argparse.ArgumentParser()
parser.add_argument("ours")
parser.add_argument("folder")
parser.add_argument("out")
parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--only")
a = parser.parse_args()
HF, F16, IDS = (os.path.join(a.folder, name) for name in ("hf", "f16.gguf", "ids.json"))
PYTHON = sys.executable


def ours(task, *options):
    return [a.ours, task, HF, IDS, *options]


def dpo(who, *options):
    return [PYTHON, f"{HERE}/dpo.py", who, HF, IDS, "--steps", "4", *options]


def generate(who, task, *options):
    model = F16 if who == "llama" else HF
    return [PYTHON, f"{HERE}/generate.py", who, model, IDS, task, *options]


TASKS = {
    "DPO step, all weights": {
        "gradus": ours("dpo", "steps=4"),
        "gradus, checkpointing": ours("dpo", "steps=4", "checkpointing=1"),
        "TRL": dpo("trl"),
        "torch by hand": dpo("torch"),
    },
    "DPO step, LoRA r = 16": {
        "gradus": ours("dpo", "steps=4", "lora=1"),
        "TRL + PEFT": dpo("trl", "--lora"),
        "torch + PEFT by hand": dpo("torch", "--lora"),
    },
    "draw 8 x 4 x 64 after 96": {
        "gradus": ours("draw"),
        "gradus, 8 bits": ours("draw", "bits=8"),
        "transformers": generate("transformers", "draw"),
        "llama.cpp, f16": generate("llama", "draw"),
    },
    "judge 32 x 3 after 400 + 150": {
        "gradus": ours("judge", "rounds=1"),
        "transformers, nothing shared": generate("transformers", "judge", "--rounds", "1"),
        "llama.cpp, f16": generate("llama", "judge", "--rounds", "1"),
    },
    "draw 32 after 32, one answer each": {
        "gradus": ours("many", "prompts=100", "rounds=1"),
        "gradus, 2,000 prompts": ours("many", "prompts=2000", "rounds=1"),
    },
    "start to first token": {
        "gradus": ours("first"),
        "transformers": generate("transformers", "first"),
        "llama.cpp, f16": generate("llama", "first"),
    },
}


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return json.loads(lines[-1])


def seconds(figures):
    """The first step or round of a process touches its memory for the first time."""
    if "first_token_s" in figures:
        return [figures["first_token_s"]]
    taken = figures.get("step_s") or figures["seconds"]
    return taken[1:] or taken


def machine():
    with open("/proc/cpuinfo") as file:
        model = next(l.split(":")[1].strip() for l in file if l.startswith("model name"))
    return f"{model}, {os.cpu_count()} threads, {platform.system()} {platform.release()}"


def table(task, results):
    lines = [f"## {task}", "", "| who | seconds (median) | ratio | tokens/s | peak MB |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    median = {who: statistics.median(s for f in all for s in seconds(f)) for who, all in results.items()}
    for who, all in results.items():
        tokens = all[0].get("tokens")
        rate = f"{tokens / median[who]:.0f}" if tokens else ""
        peak = max(f["rss_mb"] for f in all)
        # By token, where one does more of the same.
        work = results["gradus"][0].get("tokens", 1) / (tokens or 1)
        ratio = median["gradus"] / median[who] / work
        lines.append(f"| {who} | {median[who]:.2f} | {ratio:.2f} | {rate} | {peak:.0f} |")
    for f in results["gradus"][:1]:
        if "ceiling_gflops" in f:
            rate = f["step_gflop"] / median["gradus"]
            ceiling = statistics.median(f["ceiling_gflops"] for f in results["gradus"])
            share = 100 * rate / ceiling
            lines += ["", f"{f['step_gflop']:.0f} GFLOP a step: {rate:.0f} GFLOP/s, {share:.0f} % of "
                      f"a product of 1536 cubed in the same process ({ceiling:.0f})."]
    return lines + [""]


def main():
    report = {"machine": machine(), "tasks": {}}
    lines = ["# The model layer beside its peers", "", f"{report['machine']}. SmolLM2-135M-Instruct, f32 "
             "(llama.cpp: f16), 2 threads each, the same token ids, one program after another. The "
             "ratio is our time over theirs; below 1 we are faster. `just bench-peers` makes this file.", ""]
    for task, commands in TASKS.items():
        if a.only and a.only not in task:
            continue
        results = {who: [] for who in commands}
        for _ in range(a.rounds):
            for who, command in commands.items():
                results[who].append(run(command))
                print(task, who, results[who][-1], flush=True)
        report["tasks"][task] = results
        lines += table(task, results)
        with open(a.out, "w") as file:
            file.write("\n".join(lines))
        with open(os.path.splitext(a.out)[0] + ".json", "w") as file:
            json.dump(report, file, indent=1)


main()
