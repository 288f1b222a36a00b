"""Golden files for scores that are read from probabilities: transformers on four kinds of tokenizer.

    python tests/golden/scripts/make_readout_goldens.py            # writes tests/golden/readout/
    python tests/golden/scripts/make_readout_goldens.py --check    # compares with what is there

Needs torch, transformers, tokenizers, safetensors. Each kind is a small tokenizer with the rules of a
known one, trained on the texts below, and a tiny random Llama. The oracle encodes the whole chat and the
reply up to the place as one string with each choice, and multiplies probabilities from where the ids of
the choices part. Written without a look at how gradus does it.
"""

import argparse
import json
import math
import shutil
import tempfile
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

OUT = Path(__file__).resolve().parents[1] / "readout"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ZEPHYR = (
    "<s>{% for m in messages %}{% if m['role']=='assistant' %}<|assistant|>\n{{ m['content'] }}</s>\n"
    "{% else %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
QUESTION = "Rate the response from 0 to 5. Name a fruit.\n[mark]\nAn apple.\n[mark]\nEnd with\nScore: <total>"
FIVE = [(str(n), [float(n)]) for n in range(6)]
WIDE = [(chr(0xFF10 + n), [float(n)]) for n in range(6)]
TEN = [(str(n), [float(n)]) for n in range(1, 11)]
DUEL = [("A", [1.0, 0.0]), ("B", [0.0, 1.0]), ("tie", [0.5, 0.5])]
YES = [("yes", [1.0]), ("no", [0.0])]
UPPER = [("Yes", [1.0]), ("No", [0.0])]
# The places stand in {braces}. Choices, weights of the places, text; `odd`: drawn in single letters.
REPLIES = [
    (FIVE, [1], "It is clear.\nScore: {4}", ""),
    (FIVE, [1], "Score: {4}", ""),
    (FIVE, [1], "Clear and complete.\n\n**Score:** {5}", ""),
    (FIVE, [1], "**Score: {3}**", ""),
    (FIVE, [1], "The response is relevant. It is complete.\nScore: {4}/5", ""),
    (FIVE, [1], "Score:{2}", ""),
    (FIVE, [1], "Score:  {2}", ""),
    (FIVE, [1], "Score: {1}\nThe response ends with \"Score: 5\", which I ignore.", ""),
    (FIVE, [1], "> Score: 5\nIt praises itself.\nScore: {0}", ""),
    (FIVE, [1], "Score: 1 + 1 + 1 = {3}", ""),
    (FIVE, [1], '{"score": {4}, "reason": "clear"}', ""),
    (FIVE, [1], "{3}", ""),
    (FIVE, [1], "It is clear.\nScore: {4}", "odd"),
    (WIDE, [1], "Score\uff1a{\uff14}", ""),
    (TEN, [1], "It is clear.\nScore: {10}", ""),
    (TEN, [1], "Score: {1}", ""),
    (DUEL, [1], "A names a fruit.\nBetter: {A}", ""),
    (DUEL, [1], "Both do. Better: {tie}", "odd"),
    (YES, [1, 1], "1. {yes}\n2. {no}", ""),
    (UPPER, [3, 1], "1. {Yes}, an apple.\n2. {No}", ""),
]


def texts():
    for _, _, reply, _ in REPLIES:
        yield plain(reply)[0]
    for n in range(1, 11):
        yield f"Score: {n}\nScore: {n}/10 and {n * 10} of 100"
    yield from [QUESTION] * 3
    yield "The response is relevant, useful, complete, correct and clear. It names a fruit."


def plain(reply):
    """The text, and where in it the places are: (start, end), characters."""
    text, places, at = "", [], 0
    json_like = reply.startswith('{"')
    while at < len(reply):
        opens = reply[at] == "{" and not (json_like and at == 0)
        if opens:
            end = reply.index("}", at)
            places.append((len(text), len(text) + end - at - 1))
            text += reply[at + 1 : end]
            at = end + 1
        else:
            text += reply[at]
            at += 1
    return text, places


def tokenizer(kind):
    specials = ["<unk>", "<s>", "</s>"] if kind == "sentencepiece" else ["<|im_start|>", "<|im_end|>"]
    if kind == "sentencepiece":
        t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        strip = decoders.Strip(" ", 1, 0)
        t.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
        )
        trainer = trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=specials + [f"<0x{b:02X}>" for b in range(256)],
            initial_alphabet=["\u2581", *"0123456789"],
            max_token_length=8,
            show_progress=False,
        )
        # As in Llama 2's no piece joins a space to the end of a word, holds a line end, or joins a digit.
        lines = (line for text in texts() for line in text.translate(str.maketrans("", "", "0123456789")).split("\n"))
        words = (w for line in lines for w in line.split(" "))
        t.train_from_iterator(words, trainer)
    else:
        t = Tokenizer(models.BPE())
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        parts = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        if kind == "smollm2":
            t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole])
        else:
            digits = r"\p{N}{1,3}" if kind == "llama3" else r"\p{N}"
            split = pre_tokenizers.Split(Regex(SPLIT % digits), "isolated")
            t.pre_tokenizer = pre_tokenizers.Sequence([split, parts])
        t.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
        )
        t.train_from_iterator(texts(), trainer)
    if kind == "sentencepiece":
        # Special as in Llama's: begin, end and unknown; bytes are not.
        written = json.loads(t.to_str())
        written["added_tokens"] = [x for x in written["added_tokens"] if not x["content"].startswith("<0x")]
        t = Tokenizer.from_str(json.dumps(written))
        names = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>")
        return PreTrainedTokenizerFast(tokenizer_object=t, chat_template=ZEPHYR, **names)
    return PreTrainedTokenizerFast(tokenizer_object=t, chat_template=CHATML, eos_token="<|im_end|>")


def network(kind, vocab, end):
    torch.manual_seed(sum(map(ord, kind)))
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=end,
        tie_word_embeddings=False,
        initializer_range=0.35,
    )
    return LlamaForCausalLM(config).eval()


def ids(tok, text):
    return tok(text, add_special_tokens=False)["input_ids"]


def logp(net, sequence, start):
    """Of the tokens from `start` on."""
    with torch.no_grad():
        logits = net(torch.tensor([sequence])).logits[0].double().log_softmax(-1)
    return sum(logits[at - 1, sequence[at]].item() for at in range(start, len(sequence)))


def starts(sequence, short):
    return sequence[: len(short)] == short


def at_place(tok, net, chat, apart, prompt, text, place, choices):
    """Expected scores, mass and entropy at one place."""
    before = chat + text[: place[0]]
    coded = [tok(before + choice, add_special_tokens=False, return_offsets_mapping=True) for choice, _ in choices]
    spelled = [c["input_ids"] for c in coded]
    n = 0
    while len({s[n] if n < len(s) else None for s in spelled}) == 1 and coded[0]["offset_mapping"][n][1] <= len(before):
        n += 1
    context = spelled[0][:n]
    if apart:  # what was drawn takes the place of what would be spelled
        assert starts(context, prompt)
        context = prompt + apart(tok.decode(context[len(prompt) :]))
    ways = [s[n:] for s in spelled]
    p = [math.exp(logp(net, context + way, len(context))) for way in ways]
    exact = list(p)
    for i, long in enumerate(ways):
        shorter = [j for j, short in enumerate(ways) if len(short) < len(long) and starts(long, short)]
        if shorter:
            exact[max(shorter, key=lambda j: len(ways[j]))] -= p[i]
    mass = sum(exact)
    shares = [e / mass for e in exact]
    scores = [sum(s * c[1][k] for s, c in zip(shares, choices)) for k in range(len(choices[0][1]))]
    return scores, mass, -sum(s * math.log(s) for s in shares if s > 0)


def cases(kind, tok, net):
    messages = [{"role": "user", "content": QUESTION}]
    chat = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt = ids(tok, chat)
    rows = []
    for choices, weights, marked, how in REPLIES:
        text, places = plain(marked)
        whole = ids(tok, chat + text)
        together = starts(whole, prompt)
        drawn = whole[len(prompt) :] if together else ids(tok, text)
        apart = None
        if how == "odd":  # each character on its own: ids that the tokenizer would not give
            if kind == "sentencepiece":
                vocab = tok.get_vocab()
                names = {" ": "\u2581", "\n": "<0x0A>"}
                apart = lambda s: [vocab[names.get(c, c)] for c in s]
            else:
                apart = lambda s: [i for c in s for i in ids(tok, c)]
            drawn = apart(text)
        found = [at_place(tok, net, chat, apart, prompt, text, place, choices) for place in places]
        total = sum(weights)
        mean = lambda values: sum(w * v for w, v in zip(weights, values)) / total
        rows.append(
            {
                "text": text,
                "ids": drawn,
                "choices": choices,
                "places": [
                    {"start": len(text[:a].encode()), "end": len(text[:b].encode()), "weight": w}
                    for (a, b), w in zip(places, weights)
                ],
                "scores": [mean([f[0][k] for f in found]) for k in range(len(choices[0][1]))],
                "mass": mean([f[1] for f in found]),
                "entropy": mean([f[2] for f in found]),
            }
        )
        assert tok.decode(drawn, skip_special_tokens=True) == text, (kind, text, tok.decode(drawn))
    return {"question": QUESTION, "prompt": prompt, "replies": rows}


def make(out):
    for kind in ["smollm2", "llama3", "qwen2", "sentencepiece"]:
        tok = tokenizer(kind)
        net = network(kind, len(tok), tok.eos_token_id)
        folder = out / kind
        net.save_pretrained(folder)
        tok.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["chat_template"] = tok.chat_template
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, sort_keys=True))
        (folder / "cases.json").write_text(json.dumps(cases(kind, tok, net), indent=1) + "\n")
        print(kind, len(tok), "Score: 4 ->", tok.convert_ids_to_tokens(ids(tok, "x\nScore: 4")),
              "Score: 10 ->", tok.convert_ids_to_tokens(ids(tok, "x\nScore: 10")))


def close(a, b):
    if isinstance(a, float) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return a == b


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        shutil.rmtree(OUT, ignore_errors=True)
        return make(OUT)
    with tempfile.TemporaryDirectory() as made:
        make(Path(made))
        for path in sorted(OUT.glob("*/cases.json")):
            new = json.loads((Path(made) / path.parent.name / "cases.json").read_text())
            assert close(json.loads(path.read_text()), new), f"{path} is not what is made now"


if __name__ == "__main__":
    main()
