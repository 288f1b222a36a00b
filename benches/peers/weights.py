"""One model for all: SmolLM2-135M-Instruct dequantised from its GGUF, as f32 safetensors for
transformers, TRL, PEFT and ourselves, and as an f16 GGUF for llama.cpp; and one file of token ids.

usage: weights.py GGUF OUT_FOLDER"""

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM


def safetensors(source, out):
    folder, name = os.path.split(source)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    settings = read.config.to_dict()
    for key in ("quantization_config", "_model_name_or_path"):
        settings.pop(key, None)
    settings.update(rms_norm_eps=1e-5, architectures=["LlamaForCausalLM"])
    model = LlamaForCausalLM(LlamaConfig(**settings)).float()
    model.load_state_dict(read.state_dict(), strict=False)
    model.tie_weights()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def half_gguf(source, out):
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        value = field.contents()
        if field.name == "general.file_type":
            value = 1  # mostly f16
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, kind, sub_type=inner)
    for tensor in reader.tensors:
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        numbers = numbers.reshape([int(n) for n in reversed(tensor.shape)])
        kind = np.float32 if numbers.ndim == 1 else np.float16
        writer.add_tensor(tensor.name, np.ascontiguousarray(numbers.astype(kind)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ids(out):
    stream = torch.Generator().manual_seed(1234)

    def draw(*shape):
        return torch.randint(100, 49000, shape, generator=stream, dtype=torch.int64).tolist()

    data = dict(
        prompt=draw(4, 96),
        chosen=draw(4, 96),
        rejected=draw(4, 96),
        gen_prompts=draw(8, 96),
        judge_prefix=draw(400),
        judge_tails=draw(32, 150),
    )
    with open(out, "w") as file:
        json.dump(data, file)


if __name__ == "__main__":
    source, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(os.path.join(folder, "hf", "model.safetensors")):
        safetensors(source, os.path.join(folder, "hf"))
    if not os.path.exists(os.path.join(folder, "f16.gguf")):
        half_gguf(source, os.path.join(folder, "f16.gguf"))
    ids(os.path.join(folder, "ids.json"))
