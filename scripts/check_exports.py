#!/usr/bin/env python3
"""Opens what gradus exports with tools that gradus was not written by.

    scripts/check_exports.py GRADUS [--gguf SMOLLM2.gguf] [--keep FOLDER]

For a tiny random network of every family (and SmolLM2, where its file is given): a run whose one
iteration learns a few answers, then

- transformers opens the exported model and writes the same 24 tokens greedily, with the same
  log-probability; so does PEFT on the base with the exported adapter;
- llama.cpp (xllamacpp) opens the exported GGUF and writes the same tokens greedily at F32;
- the exported model is a base for a new run, whose M0 answers the same;
- datasets opens the pairs that a reduced demo exports, and TRL's DPOTrainer takes a step on them;
- tensorboard reads the demo's metrics: tags, steps and values.

Needs torch, transformers, peft, trl, datasets, tensorboard and xllamacpp. Ends with 1 when anything differs.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

TOKENS = 24
PROMPT = "the river runs to the harbour"
WORDS = "river lantern copper meadow signal harbour violin winter ladder orchard pepper granite".split()
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NUMBERS = {"llama": r"\p{N}{1,3}", "mistral": r"\p{N}{1,3}", "qwen2": r"\p{N}", "qwen3": r"\p{N}"}
# Sums of 24 log-probabilities in f32, each within 2e-5.
LOGP = TOKENS * 2e-5


def tokenizer(folder: Path, numbers: str) -> int:
    """Trains a byte-level BPE as the family has it; gives the number of its tokens."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + numbers
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=384, initial_alphabet=alphabet, show_progress=False)
    text = [" ".join(WORDS[i % 12] for i in range(k, k + 9)) for k in range(40)]
    made.train_from_iterator([*text, "the a of to and user assistant system"], trainer)
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    made.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "chat_template": CHATML,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    return made.get_vocab_size(with_added_tokens=True)


def tiny(folder: Path, family: str) -> Path:
    """A random network of a family as a Hugging Face folder."""
    folder.mkdir(parents=True)
    vocab = tokenizer(folder, NUMBERS[family])
    ends = {"bos_token_id": vocab - 3, "eos_token_id": vocab - 1}
    # Rows that no token has, as real models have them.
    shape = dict(
        vocab_size=(vocab + 31) // 32 * 32, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        tie_word_embeddings=family in ("llama", "qwen2"), **ends,
    )
    if family == "qwen3":
        shape["head_dim"] = 32
    config = transformers.AutoConfig.for_model(family, **shape)
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            spread = 0.3 if weight.dim() > 1 else 0.05
            weight.add_(torch.randn_like(weight) * spread)
    model.generation_config = transformers.GenerationConfig(**ends)
    model.save_pretrained(folder)
    return folder


class Check:
    """Counts what differs."""

    def __init__(self, gradus: str) -> None:
        self.gradus, self.bad = gradus, 0

    def says(self, what: str, fine: bool, more: str = "") -> None:
        self.bad += not fine
        print(f"{'ok  ' if fine else 'BAD '} {what} {more}", flush=True)

    def call(self, *arguments: object) -> str:
        done = subprocess.run([self.gradus, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"gradus {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")
        return done.stdout

    def answer(self, run: Path, iteration: int) -> dict:
        """What gradus answers greedily."""
        said = self.call(
            "generate", run, "--iteration", iteration, "--prompt", PROMPT, "--temperature", 0,
            "--top-p", 1, "--max-new-tokens", TOKENS, "--json",
        )
        return json.loads(said)["completions"][0]


def run_of(check: Check, base: Path, run: Path) -> None:
    """A run whose one iteration learns a few answers, with an adapter."""
    prompts, rows = run.with_suffix(".txt"), run.with_suffix(".jsonl")
    pairs = [(a, b) for a in WORDS for b in WORDS if a < b]
    prompts.write_text("\n".join(f"Say something of the {a} and the {b}." for a, b in pairs[:24]))
    taught = [{"prompt": f"What of the {a}?", "completion": f"The {a} and the {b}."} for a, b in pairs[24:48]]
    rows.write_text("\n".join(map(json.dumps, taught)))
    check.call("init", run, "--model", base, "--prompts", prompts, "--preset", "tiny", "--ift", rows)
    path = run / "gradus.yaml"
    path.write_text(path.read_text().replace("learning_rate: 5.5e-6", "learning_rate: 0.001"))
    check.call("run", run, "--iterations", 1)


def greedy(model, ids: list[int]) -> tuple[list[int], float]:
    """The likeliest tokens, one after another, and their log-probability."""
    said, logp = [], 0.0
    with torch.no_grad():
        for _ in range(TOKENS):
            logits = model(torch.tensor([ids + said])).logits[0, -1].float()
            said.append(int(logits.argmax()))
            logp += float(torch.log_softmax(logits.double(), -1)[said[-1]])
            if said[-1] in stops(model):
                break
    return said, logp


def stops(model) -> list[int]:
    ends = model.generation_config.eos_token_id or model.config.eos_token_id
    return ends if isinstance(ends, list) else [ends]


def same(check: Check, what: str, ours: dict, theirs: tuple[list[int], float]) -> None:
    ids, logp = theirs
    fine = ids == ours["token_ids"] and math.isclose(logp, ours["logp"], abs_tol=LOGP)
    check.says(what, fine, f"{len(ids)} tokens, log-probability {logp:.6f}, ours {ours['logp']:.6f}"
               + ("" if ids == ours["token_ids"] else f"\n     {ids}\n     {ours['token_ids']}"))


def check_model(check: Check, name: str, run: Path, out: Path, base: Path | None) -> None:
    from peft import PeftModel

    ours = check.answer(run, 1)
    check.says(f"{name}: training changed the answer's probability", ours["logp"] != check.answer(run, 0)["logp"])
    check.call("export", "model", run, "-o", out / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(out / "model", dtype="auto")
    tokens = transformers.AutoTokenizer.from_pretrained(out / "model")
    turns = [{"role": "user", "content": PROMPT}]
    ids = list(tokens.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"])
    check.says(f"{name}: transformers keeps float32", model.dtype == torch.float32)
    same(check, f"{name}: transformers", ours, greedy(model, ids))
    sharded = ["export", "model", run, "-o", out / "bf16", "--dtype", "bf16"]
    notes = json.loads(check.call(*sharded, "--json"))["notes"]
    half = transformers.AutoModelForCausalLM.from_pretrained(out / "bf16", dtype="auto")
    check.says(f"{name}: bf16 says what is lost", half.dtype == torch.bfloat16 and any("moved" in n for n in notes))

    check.call("export", "adapter", run, "-o", out / "adapter")
    check.call("export", "model", run, "-o", out / "base", "--policy", "base")
    under = transformers.AutoModelForCausalLM.from_pretrained(out / "base", dtype="auto")
    same(check, f"{name}: PEFT", ours, greedy(PeftModel.from_pretrained(under, out / "adapter"), ids))
    if base is not None:
        texts = ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]
        kept = all((out / "model" / t).read_bytes() == (base / t).read_bytes() for t in texts)
        check.says(f"{name}: texts are kept byte for byte", kept)

    again = out / "again"
    check.call("init", again, "--model", out / "model", "--prompts", run.with_suffix(".txt"), "--preset", "tiny")
    first = check.answer(again, 0)
    check.says(f"{name}: a base for a new run", (first["token_ids"], first["logp"]) == (ours["token_ids"], ours["logp"]))


def check_gguf(check: Check, name: str, run: Path, out: Path) -> None:
    import xllamacpp as xlc

    ours = check.answer(run, 1)
    tokens = transformers.AutoTokenizer.from_pretrained(out / "model")
    turns = [{"role": "user", "content": PROMPT}]
    text = tokens.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    count = len(tokens(text, add_special_tokens=False)["input_ids"])
    for dtype in ["f32", "f16", "bf16", "q8_0"]:
        folder = out / f"gguf-{dtype}"
        check.call("export", "gguf", run, "-o", folder, "--dtype", dtype)
        params = xlc.CommonParams()
        params.model.path = str(folder / "model.gguf")
        params.n_ctx, params.n_parallel, params.warmup = 512, 1, False
        params.use_jinja = True
        server = xlc.Server(params)
        asked = {"temperature": 0, "cache_prompt": False, "seed": 1}
        # As text, so that its tokenizer reads what ours reads.
        said = server.handle_completions({**asked, "prompt": text, "max_tokens": TOKENS, "logprobs": 1})
        count_said = said["usage"]["completion_tokens"]
        said = [token["id"] for token in said["choices"][0]["logprobs"]["content"]]
        # And by its own way of reading the template.
        chat = server.handle_chat_completions({**asked, "messages": turns, "max_tokens": 1})
        # It tells of no token that ends in the middle of a character.
        mine = iter(ours["token_ids"])
        equal = sum(any(token == one for one in mine) for token in said)
        expected = min(TOKENS, len(ours["token_ids"]))
        whole = count_said in (expected, expected - 1) and len(said) >= expected // 2
        fine = whole and (equal == len(said) or dtype != "f32")
        check.says(f"{name}: llama.cpp, {dtype}", fine, f"{equal} of {len(said)} tokens in their order, {count_said} in all"
                   + ("" if fine else f"\n     {said}\n     {ours['token_ids']}"))
        read = chat["usage"]["prompt_tokens"]
        check.says(f"{name}: llama.cpp renders the chat alike, {dtype}", read == count, f"{read} and {count} tokens")
        del server
    again = out / "again-gguf"
    check.call("init", again, "--model", out / "gguf-f32/model.gguf", "--prompts", run.with_suffix(".txt"), "--preset", "tiny")
    first = check.answer(again, 0)
    check.says(f"{name}: its GGUF is a base for a new run", (first["token_ids"], first["logp"]) == (ours["token_ids"], ours["logp"]))


def check_metrics(check: Check, run: Path, out: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    check.call("export", "metrics", run, "-o", out)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(out), size_guidance={"scalars": 0})
    events.Reload()
    for tag in ["loss", "learning_rate", "rewards/margins", "logps/chosen"]:
        wanted = [(row["step"], row[tag]) for row in rows if tag in row]
        read = [(event.step, event.value) for event in events.Scalars(f"train/{tag}")]
        fine = len(read) == len(wanted) and all(
            a == c and math.isclose(b, d, rel_tol=1e-6, abs_tol=1e-9) for (a, b), (c, d) in zip(read, wanted))
        check.says(f"tensorboard reads train/{tag}", fine, f"{len(read)} steps")
    ours = sorted(tag for tag in events.Tags()["scalars"] if tag.startswith("gradus/"))
    check.says("tensorboard reads what iterations came to", "gradus/win_rate" in ours, " ".join(ours))


def check_pairs(check: Check, out: Path) -> None:
    import datasets
    from trl import DPOConfig, DPOTrainer

    run = out / "run"
    check.call("demo", "--reduced", "--no-arms", "--dir", run)
    check.call("export", "model", run, "-o", out / "model", "--policy", "M1")
    for form in ["trl", "trl-implicit", "kto", "axolotl", "llama-factory"]:
        folder = out / f"pairs-{form}"
        rows = json.loads(check.call("export", "pairs", run, "-o", folder, "--format", form, "--json"))["rows"]
        loaded = datasets.load_dataset(str(folder), split="train")
        check.says(f"datasets opens {form}", len(loaded) == rows, f"{rows} rows: {loaded.column_names}")
    check_metrics(check, run, out / "metrics")
    model = transformers.AutoModelForCausalLM.from_pretrained(out / "model", dtype="auto")
    tokens = transformers.AutoTokenizer.from_pretrained(out / "model")
    pairs = datasets.load_dataset(str(out / "pairs-trl"), split="train")
    settings = DPOConfig(
        output_dir=str(out / "trl"), max_steps=1, per_device_train_batch_size=2, report_to="none",
        use_cpu=True, logging_steps=1, save_strategy="no",
    )
    trainer = DPOTrainer(model, args=settings, train_dataset=pairs, processing_class=tokens)
    loss = trainer.train().training_loss
    check.says("TRL takes a step on the exported pairs", math.isfinite(loss), f"loss {loss:.4f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("gradus")
    arguments.add_argument("--gguf", type=Path)
    arguments.add_argument("--keep", type=Path)
    arguments.add_argument("--family", action="append")
    given = arguments.parse_args()
    check = Check(given.gradus)
    with tempfile.TemporaryDirectory() as temporary:
        root = given.keep or Path(temporary)
        for family in given.family or NUMBERS:
            base, run, out = tiny(root / family / "base", family), root / family / "run", root / family / "out"
            run_of(check, base, run)
            check_model(check, family, run, out, base)
            check_gguf(check, family, run, out)
        check_pairs(check, root / "demo")
        if given.gguf:
            run, out = root / "smollm2/run", root / "smollm2/out"
            run.parent.mkdir(parents=True)
            run_of(check, given.gguf, run)
            check_model(check, "smollm2", run, out, None)
            check_gguf(check, "smollm2", run, out)
    sys.exit(1 if check.bad else 0)


if __name__ == "__main__":
    main()
