"""Drawing and judging of the peers, on the CPU: transformers' generate in f32, or llama.cpp at f16.

usage: generate.py transformers|llama MODEL IDS.json draw|judge|first [--rounds N] [--threads N]
Prints one line of JSON: seconds of every round, drawn tokens, peak memory.

draw: 8 prompts of 96 tokens, 4 candidates each, 64 tokens. judge: 32 completions of 150 tokens
after a rubric of 400, 3 samples each, 48 tokens; transformers reads the rubric for every one of
them, llama.cpp once for all. first: from the start of the process to one token."""

import time

began = time.perf_counter()

import argparse
import json
import os
import resource

parser = argparse.ArgumentParser()
parser.add_argument("who", choices=["transformers", "llama"])
parser.add_argument("model")
parser.add_argument("ids")
parser.add_argument("task", choices=["draw", "judge", "first"])
parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--threads", type=int, default=2)
a = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(a.threads)
os.environ["HF_HUB_OFFLINE"] = "1"
with open(a.ids) as file:
    ids = json.load(file)
TEMPERATURE, TOP_P = 0.7, 0.9


def transformers():
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32).eval()

    def draw(prompts, n):
        prompts = torch.tensor(prompts)
        model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            temperature=TEMPERATURE,
            top_p=TOP_P,
            top_k=0,
            pad_token_id=2,
            min_new_tokens=n,
            max_new_tokens=n,
        )

    return draw


def llama():
    """Its server, asked by as many threads as there are prompts, all slots at once. Candidates of
    one prompt are one request (`n`), so that it reads the prompt once."""
    from collections import Counter
    from concurrent.futures import ThreadPoolExecutor

    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = a.model
    parameters.n_parallel = 32
    parameters.n_ctx = 32 * 768
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = a.threads
    parameters.warmup = False
    parameters.fit_params = False
    parameters.ctx_shift = False
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)

    def draw(prompts, n):
        def ask(item):
            prompt, count = item
            answer = server.handle_completions(
                dict(
                    prompt=list(prompt),
                    n=count,
                    n_predict=n,
                    ignore_eos=True,
                    temperature=TEMPERATURE,
                    top_p=TOP_P,
                    top_k=0,
                    min_p=0.0,
                    cache_prompt=True,
                    samplers=["temperature", "top_p"],
                )
            )
            if isinstance(answer, str):
                answer = json.loads(answer)
            ends = [choice["finish_reason"] for choice in answer["choices"]]
            assert ends == ["length"] * count, str(answer)[:400]

        asked = list(Counter(map(tuple, prompts)).items())
        with ThreadPoolExecutor(len(asked)) as pool:
            list(pool.map(ask, asked))

    return draw


draw = transformers() if a.who == "transformers" else llama()
if a.task == "first":
    draw([ids["gen_prompts"][0][:8]], 1)
    seconds, tokens = [time.perf_counter() - began], 1
else:
    if a.task == "draw":
        prompts = [p for p in ids["gen_prompts"] for _ in range(4)]
        n = 64
    else:
        prompts = [ids["judge_prefix"] + tail for tail in ids["judge_tails"] for _ in range(3)]
        n = 48
    seconds = []
    for _ in range(a.rounds):
        at = time.perf_counter()
        draw(prompts, n)
        seconds.append(time.perf_counter() - at)
    tokens = len(prompts) * n
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(dict(seconds=seconds, tokens=tokens, rss_mb=peak)))
