"""What gpu-bench measures, by torch, TRL and transformers: the same shapes, pairs and token counts
(shapes.json), random weights, one JSON document.

usage: torch_peers.py [--shapes 135M,1B,7B|tiny] [--only dpo,decode] [--batches 1,8,...]
                      [--pairs N,N,...] [--seconds N] [--device cuda|cpu] [--out FILE]

dpo, "torch": a loop by hand over transformers' model: every pair as two whole sequences through
torch's own attention, logits of the completions alone. dpo, "TRL": its DPOTrainer, with PEFT for the
adapter. decode, "transformers": generate, as it comes.

In all of them bf16 computes, and what moves is f32 with f32 moments under a fused AdamW: with all
weights the model is f32 under autocast, with an adapter it is bf16 and the adapter f32. That is
what ours does too. The reference's log-probabilities are given by hand and computed once before the
first step by TRL (`precompute_ref_log_probs`), so that no step has the reference in it; ours takes
them as given. What is not installed is named, and what fails takes nothing else with it."""

import argparse
import gc
import importlib
import json
import math
import os
import statistics
import sys
import tempfile
import time

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", WANDB_DISABLED="true")
HERE = os.path.dirname(os.path.abspath(__file__))
RATE, BETA, DECAY, CLIP, RANK = 1e-6, 0.1, 0.01, 1.0, 16
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Skipped(Exception):
    """Not tried, and why."""


class Report:
    """The document, written again after every line: who is killed has not worked for nothing."""

    def __init__(self, head, seconds, out):
        self.document = {**head, "results": []}
        self.seconds, self.out, self.began = seconds, out, time.perf_counter()

    def measure(self, of, work):
        at = time.perf_counter()
        left = self.seconds - (at - self.began)
        try:
            figures = work() if left > 0 else dict(skipped=f"the {self.seconds} s are over")
        except Skipped as why:
            figures = dict(skipped=str(why))
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            figures = dict(failed=f"{type(error).__name__}: {lines[0][:300]}")
        freed()
        line = {**of, **figures, "took_s": time.perf_counter() - at}
        print(json.dumps(line), file=sys.stderr, flush=True)
        self.document["results"].append(line)
        if self.out:
            with open(self.out, "w") as file:
                json.dump(self.document, file, indent=1)


def versions():
    """What is installed, and why the rest is not."""
    found, missing = {}, {}
    for name in ("torch", "transformers", "trl", "peft", "accelerate", "datasets"):
        try:
            found[name] = importlib.import_module(name).__version__
        except Exception as error:
            missing[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return found, missing


def wanted(*names):
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise Skipped(f"{name} is not installed ({error})") from None


def synchronised():
    if a.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def freed():
    gc.collect()
    if a.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak():
    return torch.cuda.max_memory_allocated() if a.device == "cuda" else None


def ids(of, length, vocab):
    """As in work.rs: those of different `of` begin differently."""
    return [4 + (of * 7919 + at * 31) % (vocab - 4) for at in range(length)]


def configuration(shape):
    from transformers import AutoConfig

    settings = dict(shape["config"])
    return AutoConfig.for_model(settings.pop("model_type"), **settings)


def made(shape, dtype):
    """A model with random weights, made where it computes."""
    from transformers import AutoModelForCausalLM

    with torch.device(a.device):
        return AutoModelForCausalLM.from_config(configuration(shape), dtype=dtype)


def must_fit(shape, bytes_each):
    """Full training in f32 wants 16 bytes a number at the least; that is said before it is tried."""
    if a.device != "cuda":
        return
    c = shape["config"]
    head = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    q, kv = c["num_attention_heads"] * head, c["num_key_value_heads"] * head
    layer = c["hidden_size"] * (2 * q + 2 * kv + 3 * c["intermediate_size"])
    tables = (1 if c["tie_word_embeddings"] else 2) * c["vocab_size"] * c["hidden_size"]
    wants = bytes_each * (layer * c["num_hidden_layers"] + tables)
    free = torch.cuda.mem_get_info()[0]
    if wants > free:
        raise Skipped(f"wants {wants / 1e9:.1f} GB, and {free / 1e9:.1f} are free")


def adapter():
    from peft import LoraConfig

    return LoraConfig(
        r=RANK, lora_alpha=32, lora_dropout=0.0, target_modules=MODULES, task_type="CAUSAL_LM"
    )


def of_steps(seconds, losses, work, pairs):
    warm, counted = seconds[: work["warm_steps"]], seconds[work["warm_steps"] :]
    median = statistics.median(counted)
    return dict(
        step_ms=1e3 * median,
        steps_s=counted,
        warm_steps_s=warm,
        tokens_per_s=2 * pairs * (work["prompt"] + work["response"]) / median,
        losses=losses,
        peak_bytes=peak(),
    )


def batch(shape, work, pairs):
    vocab = shape["config"]["vocab_size"]
    lengths = dict(prompt=work["prompt"], chosen=work["response"], rejected=work["response"])
    return {
        part: [ids(3 * n + place, length, vocab) for n in range(pairs)]
        for place, (part, length) in enumerate(lengths.items())
    }


def by_hand(shape, work, pairs, lora):
    if lora:
        wanted("peft")
    must_fit(shape, 2 if lora else 16)
    model = made(shape, torch.bfloat16 if lora else torch.float32).train()
    if lora:
        from peft import get_peft_model

        model = get_peft_model(model, adapter())
    base = model.get_base_model() if lora else model
    moving = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=RATE, weight_decay=DECAY, fused=True)
    rows = batch(shape, work, pairs)
    both = [p + c for half in ("chosen", "rejected") for p, c in zip(rows["prompt"], rows[half])]
    both = torch.tensor(both, device=a.device)
    targets = both[:, work["prompt"] :, None]
    reference = -work["response"] * math.log(shape["config"]["vocab_size"])
    seconds, losses = [], []
    for _ in range(work["warm_steps"] + work["steps"]):
        began = synchronised()
        with torch.autocast(a.device, dtype=torch.bfloat16):
            states = base.model(input_ids=both, use_cache=False).last_hidden_state
            logits = base.lm_head(states[:, work["prompt"] - 1 : -1])
        logps = torch.log_softmax(logits.float(), -1).gather(-1, targets)[..., 0].sum(1)
        gap = logps - reference
        loss = -F.logsigmoid(BETA * (gap[:pairs] - gap[pairs:])).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moving, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(synchronised() - began)
    return of_steps(seconds, losses, work, pairs)


def tokenizer(vocab):
    """TRL wants one; the rows are ids already, so a few words do."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{n}": n for n in range(min(vocab, 16))}
    plain = Tokenizer(models.WordLevel(words, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="w2", eos_token="w1", unk_token="w0")


def trl_settings(work, pairs, folder):
    from trl import DPOConfig

    steps = work["warm_steps"] + work["steps"]
    return DPOConfig(
        output_dir=folder,
        per_device_train_batch_size=pairs,
        max_steps=steps,
        num_train_epochs=steps,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        warmup_steps=0,
        beta=BETA,
        max_length=None,
        bf16=True,
        use_cpu=a.device == "cpu",
        report_to=[],
        logging_steps=1,
        save_strategy="no",
        gradient_checkpointing=False,
        precompute_ref_log_probs=True,
        weight_decay=DECAY,
        max_grad_norm=CLIP,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def by_trl(shape, work, pairs, lora):
    wanted("trl", "datasets", *(["peft"] if lora else []))
    # It keeps the reference beside the policy while it computes what the reference says.
    must_fit(shape, 2 if lora else 20)
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOTrainer

    DPOTrainer._prepare_dataset = lambda self, rows, *x, **k: rows
    seconds, losses = [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *x, **k):
            self.began = synchronised()

        def on_step_end(self, *x, **k):
            seconds.append(synchronised() - self.began)

        def on_log(self, args, state, control, logs=None, **k):
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    rows = batch(shape, work, pairs)
    rows = {f"{part}_ids": values for part, values in rows.items()}
    with tempfile.TemporaryDirectory() as folder:
        trainer = DPOTrainer(
            model=made(shape, torch.bfloat16 if lora else torch.float32),
            args=trl_settings(work, pairs, folder),
            train_dataset=Dataset.from_dict(rows),
            processing_class=tokenizer(shape["config"]["vocab_size"]),
            callbacks=[Clock()],
            peft_config=adapter() if lora else None,
        )
        freed()
        trainer.train()
    return of_steps(seconds, losses, work, pairs)


def decoded(model, work, size, vocab):
    """Seconds of a step: what more tokens take beside fewer, the best of two."""
    few, many = work["peer_tokens"]
    length = max(work["context"] - (few + many) // 2, 1)
    prompts = torch.tensor([ids(n, length, vocab) for n in range(size)], device=a.device)

    def draw(tokens):
        began = synchronised()
        model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            temperature=0.7,
            top_p=0.9,
            top_k=0,
            pad_token_id=0,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
        )
        return synchronised() - began

    with torch.inference_mode():
        draw(few)
        took = {n: min(draw(n) for _ in range(2)) for n in (few, many)}
    step = (took[many] - took[few]) / (many - few)
    if step <= 0:
        raise RuntimeError(f"{many} tokens took no longer than {few}: {took}")
    return dict(tokens_per_s=size / step, step_ms=1e3 * step, draw_s=took, peak_bytes=peak())


def decode(shape, name, work, report):
    try:
        model, why = made(shape, torch.bfloat16).eval(), None
    except Exception as error:
        model, why = None, error
    for size in a.batches or work["batches"]:

        def figures():
            if why is not None:
                raise why
            return decoded(model, work, size, shape["config"]["vocab_size"])

        of = dict(who="transformers", what="decode", shape=name, batch=size)
        report.measure({**of, "context": work["context"]}, figures)


def main():
    with open(os.path.join(HERE, "shapes.json")) as file:
        known = json.load(file)
    names = ["tiny", "tiny-untied"] if a.shapes == ["tiny"] else a.shapes
    found, missing = versions()
    device = torch.cuda.get_device_name() if a.device == "cuda" else "cpu"
    report = Report(dict(device=device, versions=found, missing=missing), a.seconds, a.out)
    for index, name in enumerate(names):
        shape = known["shapes"][name]
        work, pairs = known["works"][shape["work"]], (a.pairs or {}).get(index, shape["pairs"])
        for who, train in (("torch", by_hand), ("TRL", by_trl)):
            for method in ("full", "lora"):
                if "dpo" in a.only:
                    of = dict(who=who, what="dpo", shape=name, method=method, pairs=pairs)
                    report.measure(of, lambda: train(shape, work, pairs, method == "lora"))
    for name in names:
        shape = known["shapes"][name]
        if "decode" in a.only:
            decode(shape, name, known["works"][shape["work"]], report)
            freed()
    print(json.dumps(report.document))


def listed(text):
    return [part for part in text.split(",") if part]


parser = argparse.ArgumentParser()
parser.add_argument("--shapes", type=listed, default=["135M", "1B", "7B"])
parser.add_argument("--only", type=listed, default=["dpo", "decode"])
parser.add_argument("--batches", type=lambda text: [int(n) for n in listed(text)])
parser.add_argument("--pairs", type=lambda text: dict(enumerate(int(n) for n in listed(text))))
parser.add_argument("--seconds", type=int, default=600)
parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
parser.add_argument("--out")
a = parser.parse_args()

try:
    import torch
    import torch.nn.functional as F
    import transformers  # noqa: F401
except ImportError as error:
    document = dict(missing={error.name or "torch": str(error)}, versions={}, results=[])
    if a.out:
        with open(a.out, "w") as file:
            json.dump(document, file)
    print(json.dumps(document))
    # Nothing failed: there is nobody to compare with, and the document says so.
    print(f"torch_peers: {error}", file=sys.stderr)
    sys.exit()
torch.manual_seed(0)
main()
