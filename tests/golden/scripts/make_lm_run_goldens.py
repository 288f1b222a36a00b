"""Makes goldens of whole training runs: what torch, transformers, TRL and PEFT do to a tiny Llama.

    python tests/golden/scripts/make_lm_run_goldens.py [.models/SmolLM2-135M-Instruct.Q4_1.gguf]

Complements make_lm_goldens.py: a model with heads wider than hidden / heads, a large eps and files
exactly as transformers and PEFT save them; weights after runs; an adapter under preference loss;
AdamW on given gradients; every schedule. The model is random and stored, so nothing is downloaded;
with the path of the GGUF, smollm2.json is made too. All is f32 on one CPU thread. Preference losses
and their curve come out of a real `trl.DPOTrainer`; the optimiser is always an explicit
`torch.optim.AdamW` over all parameters, because transformers' Trainer would spare norms the decay.
Needs: torch 2.15, transformers 5.23, trl 1.16, peft 0.21, safetensors, datasets, gguf.

`golden.json` holds numbers; `tensors.safetensors` holds logits.N ([tokens, vocab] of row N),
sft_grad.*, sft_final.* (weights after the SFT curve), dpo_grad.* (policy = sft_final, reference =
the model) and dpo_final.* (after the DPO curve, which begins at sft_final). `adapter/` is the same
for a LoRA adapter on `wide-heads`, with ipo_grad.* and no DPO curve; its tensors have PEFT's file
names.
"""

import copy
import json
import math
import pathlib
import random
import shutil
import sys
import tempfile

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers import optimization as schedules
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import selective_log_softmax

OUT = pathlib.Path(__file__).resolve().parent.parent / "lm_runs"
VOCAB, BOS, EOS, PAD, FIRST_WORD = 48, 0, 1, 2, 3
STEPS = 5
DECAY = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
SFT_RATE, DPO_RATE, LORA_RATE, BETA = 5e-3, 2e-3, 1e-2, 0.1
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# A head_dim that is not hidden / heads; an eps large enough for its place in the norm to show.
SHAPE = {
    "hidden_size": 16, "intermediate_size": 20, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 6, "tie_word_embeddings": False, "rope_theta": 5e5,
    "rms_norm_eps": 1e-2,
}  # fmt: skip


def tiny_model(shape):
    theta = shape["rope_theta"]
    rest = {k: v for k, v in shape.items() if k != "rope_theta"}
    config = LlamaConfig(
        vocab_size=VOCAB, num_hidden_layers=2, max_position_embeddings=64, bos_token_id=BOS,
        eos_token_id=EOS, pad_token_id=PAD, attn_implementation="eager",
        rope_parameters={"rope_type": "default", "rope_theta": theta}, **rest,
    )  # fmt: skip
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for name, p in model.named_parameters():
            # Norms away from 1 and matrices large enough that no part of the network is idle.
            p.copy_(1 + 0.3 * torch.randn_like(p) if p.dim() == 1 else 0.35 * torch.randn_like(p))
    return model.train()


def words(rng, n):
    return [rng.randrange(FIRST_WORD, VOCAB) for _ in range(n)]


def make_rows(rng):
    """Prompt and response of unequal lengths; responses end with EOS."""
    lengths = [(1, 1), (4, 6), (9, 2), (2, 12), (6, 5)]
    return [
        {"prompt": [BOS] + words(rng, p - 1), "response": words(rng, r - 1) + [EOS]}
        for p, r in lengths
    ]


def make_pairs(rng):
    lengths = [(3, 4, 7), (1, 6, 2), (5, 1, 3), (8, 5, 5)]
    return [
        {
            "prompt_ids": [BOS] + words(rng, p - 1),
            "chosen_ids": words(rng, c - 1) + [EOS],
            "rejected_ids": words(rng, r - 1) + [EOS],
        }
        for p, c, r in lengths
    ]


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def response_logp(model, prompt, response):
    """As TRL: shifted, response tokens only, summed."""
    ids = torch.tensor([prompt + response])
    logps = selective_log_softmax(logits_of(model, ids[0].tolist())[None, :-1], ids[:, 1:])
    return logps[0, len(prompt) - 1 :].sum().item()


def sft_batch(rows):
    """Right-padded, prompts and padding masked out of the labels."""
    width = max(len(r["prompt"]) + len(r["response"]) for r in rows)
    ids, mask, labels = [], [], []
    for row in rows:
        p, r = row["prompt"], row["response"]
        pad = width - len(p) - len(r)
        ids.append(p + r + [PAD] * pad)
        mask.append([1] * (len(p) + len(r)) + [0] * pad)
        labels.append([-100] * len(p) + r + [-100] * pad)
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(labels),
    }


def moving(model):
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def gradients(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    # A copy each: nothing stored may alias what a later backward writes.
    return {n: p.grad.detach().clone().contiguous() for n, p in moving(model).items()}


def values(model):
    return {n: p.detach().clone().contiguous() for n, p in moving(model).items()}


def with_prefix(prefix, tensors):
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def sft_curve(model, batch, rate):
    """Five steps of AdamW with clipping and transformers' cosine with one warm-up step."""
    optimizer = torch.optim.AdamW(moving(model).values(), lr=rate, **DECAY)
    schedule = schedules.get_cosine_schedule_with_warmup(optimizer, 1, STEPS)
    steps = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(moving(model).values(), 1.0)
        rate_now = optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
        steps.append({"loss": loss.item(), "grad_norm": norm.item(), "learning_rate": rate_now})
    after = model(**batch).loss.item()
    return {"learning_rate": rate, "warmup_steps": 1, "steps": steps, "after": after}


def word_tokenizer():
    """`w07` is id 7: lets TRL's own data path see exactly our ids."""
    names = {f"w{i:02}": i for i in range(VOCAB)}
    tok = Tokenizer(models.WordLevel(names, unk_token="w02"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="w01", pad_token="w02")


class RecordingTrainer(DPOTrainer):
    """TRL's trainer; remembers the loss of each step, unrounded."""

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.losses = getattr(self, "losses", []) + [loss.item()]
        return loss


def dpo_trainer(model, reference, pairs, folder, loss_type="sigmoid", optimizers=(None, None)):
    text = lambda ids: " " + " ".join(f"w{i:02}" for i in ids)  # noqa: E731
    data = [{k.removesuffix("_ids"): text(v) for k, v in pair.items()} for pair in pairs]
    args = DPOConfig(
        output_dir=folder, loss_type=[loss_type], beta=BETA, disable_dropout=True, bf16=False,
        gradient_checkpointing=False, report_to="none", max_length=None, use_cpu=True,
        per_device_train_batch_size=len(pairs), max_steps=STEPS, max_grad_norm=1.0,
        save_strategy="no", logging_steps=1, disable_tqdm=True,
    )  # fmt: skip
    trainer = RecordingTrainer(
        model=model, ref_model=reference, args=args, train_dataset=Dataset.from_list(data),
        processing_class=word_tokenizer(), optimizers=optimizers,
    )  # fmt: skip
    seen = sorted(map(str, ({k: r[k] for k in pairs[0]} for r in trainer.train_dataset)))
    assert seen == sorted(map(str, pairs)), "TRL's data path changed the ids"
    return trainer


def dpo_figures(trainer):
    one = lambda key: trainer._metrics["train"][key][-1]  # noqa: E731
    return {
        "rewards_chosen": one("rewards/chosen"),
        "rewards_rejected": one("rewards/rejected"),
        "rewards_margin": one("rewards/margins"),
        "rewards_accuracy": one("rewards/accuracies"),
        "logps_chosen": one("logps/chosen"),
        "logps_rejected": one("logps/rejected"),
    }


def dpo_case(policy, reference, pairs, loss_types):
    """Losses of a fixed policy against a fixed reference, with gradients by loss type."""
    batch = DataCollatorForPreference(pad_token_id=PAD)(pairs)
    golden, grads = {}, {}
    for loss_type in loss_types:
        with tempfile.TemporaryDirectory() as folder:
            trainer = dpo_trainer(
                copy.deepcopy(policy), copy.deepcopy(reference), pairs, folder, loss_type
            )
            trainer.model.train()
            loss = trainer._compute_loss(trainer.model, dict(batch), False)
            grads[loss_type] = gradients(trainer.model, loss)
            golden[loss_type] = {"loss": loss.item(), **dpo_figures(trainer)}
    return golden, grads


def dpo_curve(start, pairs):
    """`DPOTrainer.train()`: five full-batch steps from `start`, which is also the reference."""
    model = copy.deepcopy(start)
    optimizer = torch.optim.AdamW(moving(model).values(), lr=DPO_RATE, **DECAY)
    schedule = schedules.get_linear_schedule_with_warmup(optimizer, 0, STEPS)
    with tempfile.TemporaryDirectory() as folder:
        trainer = dpo_trainer(
            model, copy.deepcopy(start), pairs, folder, optimizers=(optimizer, schedule)
        )
        trainer.train()
    rows = [row for row in trainer.state.log_history if "grad_norm" in row]
    assert len(rows) == len(trainer.losses) == STEPS
    steps = [
        {
            "loss": loss,
            "grad_norm": float(row["grad_norm"]),
            "learning_rate": DPO_RATE * (1 - i / STEPS),
            "rewards_margin": row["rewards/margins"],
        }
        for i, (loss, row) in enumerate(zip(trainer.losses, rows))
    ]
    return {"learning_rate": DPO_RATE, "warmup_steps": 0, "steps": steps}, values(trainer.model)


def write(folder, golden, tensors):
    text = json.dumps(golden)
    (folder / "golden.json").write_text(text + "\n")
    save_file({k: v.float() for k, v in tensors.items()}, folder / "tensors.safetensors")


def supervised(model, rows, rate):
    """What all cases share: logits, log-probabilities, the SFT loss, its gradients, its curve."""
    tensors = {}
    golden = {"rows": rows}
    for n, row in enumerate(rows):
        tensors[f"logits.{n}"] = logits_of(model, row["prompt"] + row["response"])
        row["logp"] = response_logp(model, row["prompt"], row["response"])
    batch = sft_batch(rows)
    loss = model(**batch).loss
    golden["sft_loss"] = loss.item()
    tensors |= with_prefix("sft_grad", gradients(model, loss))
    trained = copy.deepcopy(model)
    golden["sft_curve"] = sft_curve(trained, batch, rate)
    tensors |= with_prefix("sft_final", values(trained))
    return golden, tensors, trained


def make_model(rng):
    folder = OUT / "wide-heads"
    folder.mkdir(parents=True)
    model = tiny_model(SHAPE)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    golden, tensors, trained = supervised(model, make_rows(rng), SFT_RATE)
    pairs = make_pairs(rng)
    for pair in pairs:
        for side in ["chosen", "rejected"]:
            pair_ids = (pair["prompt_ids"], pair[f"{side}_ids"])
            golden.setdefault("reference_" + side, []).append(response_logp(model, *pair_ids))
    golden["pairs"], golden["beta"] = pairs, BETA
    golden["dpo"], grads = dpo_case(trained, model, pairs, ["sigmoid", "ipo", "hinge"])
    tensors |= with_prefix("dpo_grad", grads["sigmoid"])
    golden["dpo_curve"], final = dpo_curve(trained, pairs)
    tensors |= with_prefix("dpo_final", final)
    write(folder, golden, tensors)
    return model


def peft_file_names(tensors):
    """PEFT keeps the adapter's name in memory (`.default`), not in its file."""
    return {name.replace(".default", ""): tensor for name, tensor in tensors.items()}


def make_adapter(base, rng):
    folder = OUT / "adapter"
    settings = LoraConfig(
        r=4, lora_alpha=8, target_modules=MODULES, lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    model = get_peft_model(copy.deepcopy(base), settings).train()
    with torch.no_grad():
        for name, p in moving(model).items():
            # A fresh B is zero and would hide errors in A.
            p.copy_((0.2 if "lora_B" in name else 0.3) * torch.randn_like(p))
    model.peft_config["default"].base_model_name_or_path = "wide-heads"
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    # PEFT writes the set of modules in any order; sorted, the same run gives the same file.
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"].sort()
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    golden, tensors, trained = supervised(model, make_rows(rng), LORA_RATE)
    pairs = make_pairs(rng)
    golden["pairs"], golden["beta"] = pairs, BETA
    # The base is the reference, as for a fresh adapter.
    golden["dpo"], grads = dpo_case(trained, base, pairs, ["sigmoid", "ipo"])
    tensors |= with_prefix("dpo_grad", grads["sigmoid"])
    tensors |= with_prefix("ipo_grad", grads["ipo"])
    write(folder, golden, peft_file_names(tensors))


def adamw_case():
    """20 steps on given gradients of very different size; some near eps, some zero."""
    rng = random.Random(5)
    start = [round(rng.uniform(-2, 2), 3) for _ in range(8)]
    sizes = [1.0, 30.0, 1e-3, 1e-6, 1e-8, 3e-9, 0.0, 0.1]
    grads = [[float(torch.tensor(s * rng.gauss(0, 1))) for s in sizes] for _ in range(20)]
    p = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.AdamW([p], lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    steps = []
    for grad in grads:
        p.grad = torch.tensor(grad)
        norm = torch.nn.utils.clip_grad_norm_([p], 25.0).item()
        optimizer.step()
        steps.append({"grad": grad, "norm": norm, "values": p.detach().tolist()})
    return {
        "learning_rate": 1e-2, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1,
        "max_grad_norm": 25.0, "start": p.new_tensor(start).tolist(), "steps": steps,
    }  # fmt: skip


def rates(make, total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    schedule = make(optimizer)
    found = []
    for _ in range(total + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def schedule_cases():
    cases = []
    for warmup, total in [(0, 10), (1, 5), (3, 12), (10, 40), (4, 4)]:
        decay_steps = (total - warmup) // 4
        makers = {
            ("constant", 0.0): lambda o: schedules.get_constant_schedule_with_warmup(o, warmup),
            ("linear", 0.0): lambda o: schedules.get_linear_schedule_with_warmup(o, warmup, total),
            ("cosine", 0.0): lambda o: schedules.get_cosine_schedule_with_warmup(o, warmup, total),
            ("cosine", 0.1): lambda o: schedules.get_cosine_with_min_lr_schedule_with_warmup(
                o, warmup, total, min_lr_rate=0.1
            ),
        }
        if (total - warmup) % 4 == 0 and total > warmup:
            # With a last ratio, transformers' warm-up begins at it; ours always begins at 0.
            makers["warmup_stable_decay", 0.0] = lambda o: schedules.get_wsd_schedule(
                o, warmup, decay_steps, total, decay_type="linear"
            )
        for (kind, final_ratio), make in makers.items():
            cases.append(
                {
                    "schedule": kind, "warmup_steps": warmup, "steps_total": total,
                    "final_ratio": final_ratio, "rates": rates(make, total),
                }
            )  # fmt: skip
    return {"learning_rate": 3e-4, "cases": cases}


TEXTS = [
    ("The sea is", " wide and blue, and 3 ships sail on it."),
    ("def add(a, b):\n", "    return a + b\n"),
]


def make_smollm2(path):
    gguf = pathlib.Path(path)
    tok = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    ).eval()
    rows = []
    for prompt, response in TEXTS:
        prompt = tok(prompt, add_special_tokens=False)["input_ids"]
        response = tok(response, add_special_tokens=False)["input_ids"]
        top = torch.topk(logits_of(model, prompt + response)[-1], 5)
        rows.append(
            {
                "prompt": prompt, "response": response,
                "logp": response_logp(model, prompt, response),
                "top_ids": top.indices.tolist(), "top_logits": top.values.tolist(),
            }
        )  # fmt: skip
    (OUT / "smollm2.json").write_text(json.dumps({"rows": rows}) + "\n")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(2401)
    rng = random.Random(10020)
    keep = OUT / "smollm2.json"
    kept = keep.read_text() if keep.exists() else None
    shutil.rmtree(OUT, ignore_errors=True)
    make_adapter(make_model(rng), rng)
    (OUT / "optimizer.json").write_text(
        json.dumps({"adamw": adamw_case(), "schedules": schedule_cases()}) + "\n"
    )
    if kept:
        keep.write_text(kept)
    if len(sys.argv) > 1:
        make_smollm2(sys.argv[1])
    size = sum(f.stat().st_size for f in OUT.rglob("*") if f.is_file())
    print(f"{OUT}: {math.ceil(size / 1024)} KiB")


if __name__ == "__main__":
    main()
