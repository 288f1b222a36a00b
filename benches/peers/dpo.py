"""A DPO step of the peers, f32 on the CPU: TRL's DPOTrainer (with PEFT where asked), or a loop
written by hand around torch in which the pair shares its prompt's row.

usage: dpo.py trl|torch MODEL_FOLDER IDS.json [--steps N] [--lora] [--threads N]
Prints one line of JSON: seconds, loss and gradient norm of every step, peak memory."""

import argparse
import json
import os
import resource
import time

parser = argparse.ArgumentParser()
parser.add_argument("who", choices=["trl", "torch"])
parser.add_argument("model")
parser.add_argument("ids")
parser.add_argument("--steps", type=int, default=4)
parser.add_argument("--lora", action="store_true")
parser.add_argument("--threads", type=int, default=2)
a = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(a.threads)
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

torch.set_num_threads(a.threads)
torch.manual_seed(0)
with open(a.ids) as file:
    ids = json.load(file)
RATE, BETA, DECAY = 1e-5, 0.1, 0.01


def load():
    return AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)


def adapter():
    from peft import LoraConfig

    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return LoraConfig(
        r=16, lora_alpha=32, lora_dropout=0.0, target_modules=layers, task_type="CAUSAL_LM"
    )


def show(seconds, losses, norms):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(dict(step_s=seconds, loss=losses, grad_norm=norms, rss_mb=peak)))


def trl():
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    # The rows are token ids already.
    DPOTrainer._prepare_dataset = lambda self, rows, *x, **k: rows
    keys = dict(prompt_ids="prompt", chosen_ids="chosen", rejected_ids="rejected")
    rows = Dataset.from_dict({theirs: ids[ours] for theirs, ours in keys.items()})
    settings = DPOConfig(
        output_dir="/tmp/gradus-trl-out",
        per_device_train_batch_size=len(ids["prompt"]),
        max_steps=a.steps,
        num_train_epochs=a.steps,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        warmup_steps=0,
        beta=BETA,
        max_length=None,
        bf16=False,
        use_cpu=True,
        report_to=[],
        logging_steps=1,
        save_strategy="no",
        gradient_checkpointing=False,
        precompute_ref_log_probs=True,
        weight_decay=DECAY,
        max_grad_norm=0.0,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    seconds, logged = [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *x, **k):
            self.began = time.perf_counter()

        def on_step_end(self, *x, **k):
            seconds.append(time.perf_counter() - self.began)

        def on_log(self, args, state, control, logs=None, **k):
            if "loss" in logs:
                logged.append(logs)

    trainer = DPOTrainer(
        model=load(),
        args=settings,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(a.model),
        callbacks=[Clock()],
        peft_config=adapter() if a.lora else None,
    )
    trainer.train()
    show(seconds, [float(l["loss"]) for l in logged], [float(l["grad_norm"]) for l in logged])


def by_hand():
    model = load().train()
    if a.lora:
        from peft import get_peft_model

        model = get_peft_model(model, adapter())
    base = model.get_base_model() if a.lora else model
    prompt, chosen, rejected = (torch.tensor(ids[k]) for k in ("prompt", "chosen", "rejected"))
    n, length, response = len(prompt), prompt.shape[1], chosen.shape[1]
    # One row per pair; the rejected half sees the prompt but not the chosen one.
    packed = torch.cat([prompt, chosen, rejected], 1)
    ends = torch.arange(length, length + response)
    positions = torch.cat([torch.arange(length + response), ends])[None].expand(n, -1)
    seen = torch.ones(packed.shape[1], packed.shape[1], dtype=torch.bool).tril()
    seen[length + response :, length : length + response] = False
    mask = torch.zeros_like(seen, dtype=torch.float32).masked_fill(~seen, float("-inf"))
    mask = mask[None, None].expand(n, -1, -1, -1)

    def logps():
        h = base.model(
            input_ids=packed, position_ids=positions, attention_mask=mask, use_cache=False
        ).last_hidden_state
        of_chosen = h[:, length - 1 : length + response - 1]
        of_rejected = torch.cat([h[:, length - 1 : length], h[:, length + response : -1]], 1)
        logits = F.linear(torch.cat([of_chosen, of_rejected]), base.lm_head.weight)
        targets = torch.cat([chosen, rejected])[..., None]
        return torch.log_softmax(logits, -1).gather(-1, targets)[..., 0].sum(1)

    with torch.no_grad():
        reference = logps()
    moving = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=RATE, weight_decay=DECAY, fused=True)
    seconds, losses, norms = [], [], []
    for _ in range(a.steps):
        began = time.perf_counter()
        gap = logps() - reference
        loss = -F.logsigmoid(BETA * (gap[:n] - gap[n:])).mean()
        loss.backward()
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in moving]).item())
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
        losses.append(loss.item())
    show(seconds, losses, norms)


trl() if a.who == "trl" else by_hand()
