"""Golden files for the model room: transformers, torch, TRL and PEFT on tiny random models.

    python tests/golden/scripts/make_lm_goldens.py            # writes tests/golden/lm/
    python tests/golden/scripts/make_lm_goldens.py --check    # compares with what is there

Needs torch, transformers, trl, peft, datasets, safetensors (versions are written into golden.json).
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
import peft
import torch
import transformers
import trl
from datasets import Dataset
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

OUT = Path(__file__).resolve().parents[1] / "lm"
VOCAB = 40
SHAPES = {
    "tied_gqa": dict(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True),
    "untied_mha": dict(num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=False),
    "untied_gqa_theta": dict(
        num_attention_heads=4,
        num_key_value_heads=1,
        tie_word_embeddings=False,
        rope_theta=100000.0,
        rms_norm_eps=1e-6,
    ),
    "llama3_scaled": dict(
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=True,
        rope_scaling=dict(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=16,
        ),
    ),
    "qwen2_bias": dict(
        model_type="qwen2", num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True
    ),
    "qwen3_norms": dict(
        model_type="qwen3",
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        tie_word_embeddings=False,
    ),
    "mistral": dict(
        model_type="mistral",
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        sliding_window=None,
    ),
}
ROWS = [([1, 5, 9, 13], [17, 21, 2]), ([1, 7], [8, 9, 10, 11, 12, 2]), ([1, 30, 3, 31, 3], [4, 2])]
PAIRS = [
    ([1, 5, 9], [11, 12, 2], [13, 14, 15, 16, 2]),
    ([1, 6, 6, 7], [20, 2], [21, 22, 2]),
    ([1, 35], [30, 31, 32, 33, 2], [34, 2]),
    ([1, 8, 9, 10, 11], [12, 13, 2], [12, 14, 2]),
]


def model_of(name):
    torch.manual_seed(sum(map(ord, name)))
    settings = SHAPES[name]
    theta = settings.get("rope_theta", 10000.0)
    scaling = settings.get("rope_scaling", {"rope_type": "default"})
    apart = ("model_type", "rope_theta", "rope_scaling")
    shape = {k: v for k, v in settings.items() if k not in apart}
    config = AutoConfig.for_model(
        settings.get("model_type", "llama"),
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.2,
        attn_implementation="eager",
        rope_parameters={**scaling, "rope_theta": theta},
        **shape,
    )
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        # Norms of one hide a missing gradient or a wrong order of factors.
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.train(), theta


def hf_config(model, theta):
    c = model.config
    keys = [
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "rms_norm_eps",
        "num_attention_heads", "num_key_value_heads", "max_position_embeddings",
        "bos_token_id", "eos_token_id", "tie_word_embeddings",
    ]
    scaling = dict(c.rope_parameters)
    scaling.pop("rope_theta")
    more = {} if scaling["rope_type"] == "default" else {"rope_scaling": scaling}
    if getattr(c, "head_dim", None) not in (None, c.hidden_size // c.num_attention_heads):
        more["head_dim"] = c.head_dim
    found = {k: getattr(c, k) for k in keys}
    return {"model_type": c.model_type, "rope_theta": theta, **found, **more}


def forward(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0]


def summed_logp(model, prompt, response):
    logits = forward(model, prompt + response)
    logps = torch.log_softmax(logits.double(), -1)
    at = range(len(prompt) - 1, len(prompt) + len(response) - 1)
    return sum(logps[i, t] for i, t in zip(at, response))


def sft_loss(model):
    """transformers' own loss on a right-padded batch, -100 outside the responses."""
    longest = max(len(p) + len(r) for p, r in ROWS)
    ids, labels, mask = [], [], []
    for prompt, response in ROWS:
        pad = longest - len(prompt) - len(response)
        ids.append(prompt + response + [0] * pad)
        labels.append([-100] * len(prompt) + response + [-100] * pad)
        mask.append([1] * (longest - pad) + [0] * pad)
    return model(
        input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), labels=torch.tensor(labels)
    ).loss


def tokenizer():
    vocab = {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3} | {f"t{i}": i for i in range(4, VOCAB)}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


def dpo_trainer(model, reference, **settings):
    rows = [{"prompt": "t5", "chosen": "t6", "rejected": "t7"}] * 4
    arguments = DPOConfig(
        output_dir=tempfile.mkdtemp(), beta=0.1, disable_dropout=True, bf16=False, use_cpu=True,
        gradient_checkpointing=False, report_to="none", max_length=None, **settings,
    )
    return DPOTrainer(
        model, reference, args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )


def dpo_batch(pairs):
    rows = [{"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, c, r in pairs]
    return DataCollatorForPreference(pad_token_id=0)(rows)


def grads(model):
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def metrics(trainer):
    found = {k: v[-1] for k, v in trainer._metrics["train"].items() if k.startswith(("rew", "logps"))}
    trainer._metrics["train"].clear()
    return {k: float(v) for k, v in found.items()}


def reference_of(model):
    """The start, moved a little: rewards that are zero would prove nothing."""
    torch.manual_seed(5)
    reference = AutoModelForCausalLM.from_config(model.config).float()
    reference.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return reference.eval()


def curve(model, reference):
    """Five steps: TRL's loss, torch's AdamW, clipping, transformers' cosine."""
    trainer = dpo_trainer(model, reference)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.999), weight_decay=0.01)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, 1, 6)
    losses, norms, rates = [], [], []
    for step in range(5):
        batch = dpo_batch([PAIRS[step % 4], PAIRS[(step + 1) % 4]])
        loss = trainer._compute_loss(model, batch, False)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return {"losses": losses, "norms": norms, "learning_rates": rates}


def schedules():
    def values(make):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = make(optimizer)
        found = []
        for _ in range(20):
            found.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        return found

    return {
        "cosine": values(lambda o: transformers.get_cosine_schedule_with_warmup(o, 4, 20)),
        "linear": values(lambda o: transformers.get_linear_schedule_with_warmup(o, 4, 20)),
        "constant": values(lambda o: transformers.get_constant_schedule_with_warmup(o, 4)),
    }


def lora(name, folder):
    model, _ = model_of(name)
    torch.manual_seed(9)
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=modules, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, settings)
    with torch.no_grad():
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_B" in parameter_name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    sft = sft_loss(adapted)
    sft.backward()
    found = {n.replace(".default", ""): g for n, g in grads(adapted).items()}
    save_file(found, folder / "lora_grads.safetensors")
    with tempfile.TemporaryDirectory() as saved:
        adapted.save_pretrained(saved)
        save_file(load_file(Path(saved) / "adapter_model.safetensors"), folder / "lora.safetensors")
    prompt, response = ROWS[0]
    logits = forward(adapted, prompt + response)[-1].tolist()
    return {"r": 4, "alpha": 8, "last_logits": logits, "sft_loss": float(sft.detach())}


def golden(name, folder):
    folder.mkdir(parents=True, exist_ok=True)
    model, theta = model_of(name)
    tied = model.config.tie_word_embeddings
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    assert ("lm_head.weight" in weights) != tied
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hf_config(model, theta), indent=1) + "\n")
    reference = reference_of(model)
    with torch.no_grad():
        rows = [
            {
                "prompt": p, "response": r,
                "logits": forward(model, p + r).tolist(),
                "logp": float(summed_logp(model, p, r)),
            }
            for p, r in ROWS
        ]
        pairs = [
            {
                "prompt": p, "chosen": c, "rejected": r,
                "reference_chosen": float(summed_logp(reference, p, c)),
                "reference_rejected": float(summed_logp(reference, p, r)),
            }
            for p, c, r in PAIRS
        ]
    loss = sft_loss(model)
    loss.backward()
    save_file(grads(model), folder / "sft_grads.safetensors")
    found = {"rows": rows, "pairs": pairs, "sft_loss": float(loss.detach()), "dpo": {}}
    for kind in ["sigmoid", "hinge", "ipo"]:
        trainer = dpo_trainer(model, reference, loss_type=[kind])
        dpo = trainer._compute_loss(model, dpo_batch(PAIRS), False)
        dpo.backward()
        of_kind = grads(model)
        if kind == "sigmoid":
            save_file(of_kind, folder / "dpo_grads.safetensors")
        found["dpo"][kind] = {"loss": float(dpo.detach()), **metrics(trainer)}
    found["lora"] = lora(name, folder)
    found["curve"] = curve(model, reference)
    found["versions"] = {m.__name__: m.__version__ for m in (torch, transformers, trl, peft)}
    (folder / "golden.json").write_text(json.dumps(found) + "\n")


def differs(new, old, path=""):
    """Where two parsed goldens differ by more than another machine's rounding."""
    if isinstance(new, dict):
        return [d for k in new if k != "versions" for d in differs(new[k], old[k], f"{path}/{k}")]
    if isinstance(new, list):
        return [d for i, (a, b) in enumerate(zip(new, old)) for d in differs(a, b, f"{path}/{i}")]
    if isinstance(new, (int, float)):
        return [] if abs(new - old) <= 1e-4 * max(1.0, abs(old)) else [f"{path}: {new} was {old}"]
    return [] if new == old else [path]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    out = Path(tempfile.mkdtemp()) if check else OUT
    for name in SHAPES:
        golden(name, out / name)
    (out / "schedules.json").write_text(json.dumps(schedules()) + "\n")
    if check:
        files = [f"{name}/golden.json" for name in SHAPES] + ["schedules.json"]
        found = [
            f"{f}{d}"
            for f in files
            for d in differs(json.loads((out / f).read_text()), json.loads((OUT / f).read_text()))
        ]
        print("\n".join(found) or "goldens are as committed")
        raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
