"""Makes tests/golden/text/smollm2.json: what transformers says about SmolLM2-135M-Instruct.

    python tests/golden/scripts/make_text_goldens.py .models/SmolLM2-135M-Instruct.Q4_1.gguf

transformers 5.23 reads the GGUF itself (weights dequantised to f32). Its GGUF reader splits text as
GPT-2 does; SmolLM2's own tokenizer.json first sets digits apart, so that one step is set here.
Needs: transformers, torch, gguf.
"""

import json
import pathlib
import sys

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

CHATS = [
    [("user", "Hello!")],
    [("system", "You are a pirate."), ("user", "Where is the treasure?")],
    [("user", "2 + 2 = ?"), ("assistant", "4"), ("user", "and 1234567890 * 98.6?")],
    [("user", "")],
    [("system", ""), ("user", "no system")],
    [("user", "  leading and trailing spaces  \n\n")],
    [("user", "Grüße aus Köln, 東京 and Москва 🎉👩‍👩‍👧")],
    [("user", "{{ messages }} {% raw %} {# c #} <b>&amp;</b> \\n \"quoted\" 'single'")],
    [("user", "def f(x):\n\treturn x**2  # tabs\n\n\n    four spaces"), ("assistant", "ok")],
    [("user", "I'm can't won't they'll we've I'd it's O'Neil")],
    [("user", "Review the answer.\nScore: <total points> 0/5 ... 5/5\r\nend")],
    [("user", "<|im_end <|im_start| im_end|> <|end of text|>"), ("assistant", "a"), ("user", "b")],
]
TEXTS = ["Hello world", " 12 34a5b", "x<|im_end|>y", "\u00a0nbsp\u200bzero", "ΑΒΓ 123٤٥", ""]
GREEDY = "Write one sentence about the sea."


def main(path):
    gguf = pathlib.Path(path)
    tok = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tok.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    chats = []
    for chat in CHATS:
        messages = [{"role": role, "content": content} for role, content in chat]
        opened = chat[-1][0] == "user"
        text = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened)
        ids = tok.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=opened, return_dict=False
        )
        chats.append({"messages": messages, "open": opened, "text": text, "ids": ids})
    texts = [{"text": t, "ids": tok(t, add_special_tokens=False)["input_ids"]} for t in TEXTS]

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    ).eval()
    ids = tok.apply_chat_template(
        [{"role": "user", "content": GREEDY}], add_generation_prompt=True, return_dict=False
    )
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1]
        top = torch.topk(logits, 10)
        out = model.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)[0, len(ids) :]
        whole = torch.cat([torch.tensor(ids), out])
        logps = torch.log_softmax(model(whole[None]).logits[0].double(), -1)
        logp = sum(logps[len(ids) - 1 + i, t].item() for i, t in enumerate(out.tolist()))
    golden = {
        "chats": chats,
        "texts": texts,
        "greedy": {
            "prompt_ids": ids,
            "ids": out.tolist(),
            "text": tok.decode(out, skip_special_tokens=True),
            "logp": logp,
            "top_ids": top.indices.tolist(),
            "top_logits": [round(v, 5) for v in top.values.tolist()],
            "logsumexp": torch.logsumexp(logits.double(), -1).item(),
        },
    }
    out_path = pathlib.Path(__file__).parent.parent / "text" / "smollm2.json"
    out_path.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
    print(out_path, len(chats), golden["greedy"]["text"])


if __name__ == "__main__":
    main(sys.argv[1])
