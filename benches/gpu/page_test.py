"""Tests of page.py on a record of made-up figures: `benches/gpu/run --self-test`."""

import copy
import unittest

import page

LIBTEST = """
running 5 tests
test gpu::tests::a ... ok
test gpu::tests::b ... some words
more of them
ok
test gpu::tests::c ... skipped: the kernels were not compiled for this CPU
ok
test gpu::tests::d ... thread panicked at x:
left: 1, right: 2
FAILED
test gpu::tests::e ... ignored, needs a model
test gpu::tests::g ... no GPU (a reason): the kernels run on the CPU
ok
test gpu::tests::f ... a crash
"""


def dpo(shape, method, step_ms, **more):
    return dict(what="dpo", shape=shape, method=method, pairs=4, prompt=256, response=256,
                step_ms=step_ms, floor_ms=20.0, share_of_floor=20.0 / step_ms, tokens_per_s=40_000.0,
                peak_bytes=24_700_000_000, **more)


PHASES = dict(forward=12.0, head=3.0, backward=22.0, optimiser=8.0)
RECORD = dict(
    when="2026-11-25 10:00 UTC",
    commit="abc1234",
    machine=["driver 580.159.04", "Python 3.12.3"],
    emulated=False,
    gpu="cuda:0 (NVIDIA H100, 80 GiB)",
    no_gpu=None,
    steps=[
        dict(name="devices", verdict="ok", seconds=2.0, limit=30),
        dict(name="gradus-lm-tests", verdict="exit code 101", seconds=9.0, limit=90),
        dict(name="demo", verdict="ran past its 45 s", seconds=45.0, limit=45),
    ],
    tests={"gradus-lm-tests": page.verdicts(LIBTEST)},
    tails={"demo": "line one\nline two"},
    bench=dict(
        device="cuda:0",
        shapes={"1B": {}, "7B": {}},
        results=[
            dict(what="ceilings", memory_gb_per_s=3012.4, product_tflops=701.25),
            dict(what="decode", shape="1B", batch=64, context=512, tokens_per_s=40_000.0, step_ms=1.6,
                 floor_ms=1.2, share_of_floor=0.75, peak_bytes=5_000_000_000),
            dict(what="decode", shape="7B", batch=64, context=512, skipped="93 s are foretold, 20 s are left"),
            dict(what="prefill", shape="1B", prompts=8, tokens=512, tokens_per_s=90_000.0, seconds=0.045,
                 floor_ms=12.0, share_of_floor=0.27, peak_bytes=3_000_000_000),
            dpo("1B", "full", 45.0, phases_ms=PHASES, watched_step_ms=46.0, short_of_memory=[]),
            dpo("1B", "lora", 80.0, phases_ms=PHASES, watched_step_ms=81.0, short_of_memory=["no room"]),
            dict(what="dpo", shape="7B", method="full", pairs=1, prompt=256, response=256,
                 skipped="wants 137.5 GB, and 79.0 are free"),
        ],
    ),
    peers=dict(
        versions=dict(torch="2.11.0", transformers="5.17.0"),
        missing=dict(datasets="ModuleNotFoundError: No module named 'datasets'"),
        results=[
            dict(who="TRL", what="dpo", shape="1B", method="full", pairs=4, step_ms=90.0, peak_bytes=40_000_000_000),
            dict(who="TRL", what="dpo", shape="1B", method="lora", pairs=4, failed="OutOfMemoryError: 2 GiB"),
            dict(who="torch", what="dpo", shape="1B", method="lora", pairs=4, step_ms=64.0, peak_bytes=9e9),
            dict(who="transformers", what="decode", shape="1B", batch=64, context=512, tokens_per_s=4000.0,
                 step_ms=16.0),
        ],
    ),
)


class Page(unittest.TestCase):
    def test_verdicts_are_found_between_words(self):
        found = page.verdicts(LIBTEST)
        expected = ["ok", "ok", "skipped", "FAILED", "ignored", "unfinished", "emulated"]
        self.assertEqual([found[f"gpu::tests::{name}"] for name in "abcdefg"], expected)

    def test_bars(self):
        found = {name: (said, verdict) for name, said, verdict in page.bars(RECORD)}
        floor = "at least 50 % of the floor"
        self.assertEqual(found[f"decode, 1B, batch 64: {floor}"], ("75 %", "met"))
        skipped = found[f"decode, 7B, batch 64: {floor}"]
        self.assertEqual(skipped, ("skipped: 93 s are foretold, 20 s are left", "not measured"))
        self.assertEqual(found["DPO step, 1B, full: at least 40 % of the floor"], ("44 %", "met"))
        self.assertEqual(found["DPO step, 1B, lora: at least 40 % of the floor"], ("25 %", "missed"))
        trl = "not slower than TRL"
        self.assertEqual(found[f"DPO step, 1B, full: {trl}"], ("0.50 of its time", "met"))
        self.assertEqual(found[f"DPO step, 1B, lora: {trl}"][1], "not measured")
        self.assertIn("OutOfMemoryError", found[f"DPO step, 1B, lora: {trl}"][0])
        self.assertEqual(found[f"DPO step, 7B, full: {trl}"][0], "skipped: wants 137.5 GB, and 79.0 are free")

    def test_a_slower_step_misses_its_bar(self):
        record = copy.deepcopy(RECORD)
        record["peers"]["results"][0]["step_ms"] = 30.0
        found = {name: verdict for name, _, verdict in page.bars(record)}
        self.assertEqual(found["DPO step, 1B, full: not slower than TRL"], "missed")

    def test_every_figure_is_on_the_page(self):
        text = page.render(RECORD)
        for line in (
            "| 1B | 64 | 40,000 | 1.60 | 1.20 | 75 % | 4,000 | 0.10 | 5.0 |",
            "| 1B | 8 x 512 | 90,000 | 0.045 | 12.0 | 27 % | 3.0 |",
            "| 1B | full | 4 | 45.0 | 20.0 | 44 % | 40,000 | 90.0 | 0.50 |  |  | 24.7 | 40.0 |  |",
            "| 1B | lora | 4 | 80.0 | 20.0 | 25 % | 40,000 |  |  | 64.0 | 1.25 | 24.7 |  | 9.0 |",
            "| 7B | full | 1 |  |  |  |  |  |  |  |  |  |  |  |",
            "| 1B | full | 12.0 | 3.0 | 22.0 | 8.0 | 46.0 | 45.0 |",
            "| demo | ran past its 45 s | 45.0 |",
            "- gpu-bench, dpo 7B full: skipped: wants 137.5 GB, and 79.0 are free",
            "- peers, TRL dpo 1B lora: failed: OutOfMemoryError: 2 GiB",
            "- 1B lora was taken in parts: no room",
            "- Python has no datasets: ModuleNotFoundError: No module named 'datasets'",
            "gradus-lm-tests: `gpu::tests::c` skipped, `gpu::tests::d` FAILED, "
            "`gpu::tests::g` emulated, `gpu::tests::f` unfinished.",
            "cuda:0 (NVIDIA H100, 80 GiB).",
        ):
            self.assertIn(f"\n{line}\n", f"\n{text}\n")
        self.assertIn("3,012 GB/s", text)
        self.assertIn("701.2 TFLOP/s", text)
        self.assertIn("torch 2.11.0", text)
        self.assertIn("```text\nline one\nline two\n```", text)

    def test_without_a_gpu_the_page_says_so(self):
        record = dict(RECORD, gpu=None, no_gpu="libcuda.so.1 is not here", bench=None, peers=None)
        text = page.render(record)
        self.assertIn("**There was no GPU here**: libcuda.so.1 is not here. Nothing was measured.", text)
        self.assertNotIn("## Bars", text)
        self.assertNotIn("## How", text)

    def test_emulated_figures_meet_no_bar(self):
        text = page.render(dict(RECORD, emulated=True))
        self.assertIn("**Emulated**", text)
        self.assertNotIn("met", text.split())

    def test_a_document_that_is_missing_or_broken_off_is_no_obstacle(self):
        for bench in (None, dict(results=[]), dict(results=[dict(what="ceilings", failed="no")])):
            text = page.render(dict(RECORD, bench=bench, peers=None))
            self.assertIn("## Bars", text)
            self.assertIn("not measured", text)
