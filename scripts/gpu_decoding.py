"""The decoding half of gpu_check.py: a device against the CPU, frames and graphs against plain.

Models are not trained, but their logits differ by several, so that few pieces tie.
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from bench.harness import table, table_row

from mt.config.plugins import plugin
from mt.data import collate
from mt.data.corpus import Corpus
from mt.decoding.batching import BATCH_TOKENS, length_batches
from mt.decoding.decoders import ModelDecoder, ensemble
from mt.decoding.static_shapes import StaticShapeDecoder, StaticShapeModel
from mt.decoding.torch_searcher import CUDA_BATCH_TOKENS
from mt.decoding.types import Decoder, Request
from mt.models.modules import linear
from mt.runtime.cuda_graphs import CudaGraphs
from mt.special_tokens import END

Found = list[tuple[list[int], float]]
"""For each sentence the best hypothesis and its score."""
SEARCHES = {"greedy": {}, "beam": {"beams": 5}, "diverse": {"beams": 6, "groups": 3},
            "sampling": {"temperature": 0.7}}  # fmt: skip
AGREEING = {"sampling": 0.95}
"""The share of lines that must be equal on two devices, 0.99 by default: where two pieces tie,
rounding decides, and a cumulative distribution has as many ties as pieces."""
SPREAD = 3.0
"""Deviation of the logits of an untrained model."""
TOLERANCE = 1e-3
"""Largest relative error of a score in fp32."""
GRADIENT_TOLERANCE = 5e-3
"""Largest relative error of a gradient in fp32 on two devices: sums are taken in another order, and
a ReLU at its kink then goes the other way (2e-3 between fp32 and fp64 on one CPU)."""
BATCHES = {"cpu": BATCH_TOKENS, "cuda": CUDA_BATCH_TOKENS}
"""Padded source positions times beams of a batch: the engine's defaults."""
HEAD = (
    "model | precision | search | decoder | lines/s | tokens/s | lines/s, first time | "
    "recorded | GiB | equal to plain"
)


@dataclass
class Checks:
    """Comparisons, and whether all of them agreed."""

    failed: bool = False

    def compare(
        self, what: str, found: list[torch.Tensor], expected: list[torch.Tensor],
        most: float = GRADIENT_TOLERANCE,
    ) -> None:  # fmt: skip
        """Print the largest error of a list of tensors, each relative to its own norm."""
        errors = [
            float((a.cpu() - b.cpu()).norm() / b.cpu().norm().clamp(min=1e-12))
            for a, b in zip(found, expected, strict=True)
        ]
        worst = max(e if e == e else float("inf") for e in errors)
        self.report(what, worst <= most, f"relative error {worst:.1e}")

    def report(self, what: str, good: bool, figures: str) -> None:
        self.failed |= not good
        print(table_row((what, figures, "ok" if good else "FAILED")), flush=True)


def make_model(sizes: tuple[Any, ...], device: torch.device, seed: int = 1) -> Any:
    """Return an untrained model whose logits differ by several, and that ends its sentences."""
    width, heads, inner, layers, vocabulary, *_ = sizes
    transformer = plugin("models", "transformer")
    config = transformer.Config(
        d_model=width, n_heads=heads, d_ff=inner, encoder_layers=layers, decoder_layers=layers,
        dropout=0, norm="pre", tie_embeddings="none",
    )  # fmt: skip
    torch.manual_seed(seed)
    vocabulary_sizes = SimpleNamespace(joint=False, source_size=vocabulary, target_size=vocabulary)
    model = transformer.build(config, vocabulary_sizes).eval()
    with torch.no_grad():
        # Logits deviate by SPREAD; sometimes END has the greatest of them.
        model.projection.weight.normal_(std=SPREAD * width**-0.5)
        model.projection.bias[END] = SPREAD * (math.sqrt(2 * math.log(vocabulary)) - 2)
    return model.to(device)


def make_decoders(model: Any, device: torch.device, precision: torch.dtype) -> dict[str, Decoder]:
    """Return the plain decoder and frames without and with graphs; all share the cast weights."""
    linear.pack(model, precision)
    found: dict[str, Decoder] = {"plain": ModelDecoder(model, precision)}
    found["frames"] = StaticShapeDecoder(StaticShapeModel(model, device, None), precision)
    if device.type == "cuda":
        recorder = CudaGraphs(device)
        found["graphs"] = StaticShapeDecoder(StaticShapeModel(model, device, recorder), precision)
    return found


def read_sentences(corpus: Corpus, count: int) -> list[np.ndarray]:
    return [corpus.source(row) for row in range(count)]


def translate(
    decoder: Decoder, kind: str, sentences: list[np.ndarray], device: torch.device
) -> Found:
    """Return the best hypothesis of each sentence and its score, batched as the engine batches."""
    module = plugin("search", kind)
    config = module.Config(**SEARCHES[kind])
    search, found = module.build(config), {}
    budget = max(1, BATCHES[device.type] // getattr(config, "beams", 1))
    with torch.inference_mode():
        for rows in length_batches([len(each) for each in sentences], budget):
            source = torch.from_numpy(collate.pad_rows([sentences[row] for row in rows])).to(device)
            limits = torch.tensor([round(1.5 * len(sentences[row])) + 20 for row in rows])
            request = Request(source, limits.to(device), seeds=rows)
            best = search(decoder, request)
            each = zip(best.tokens[:, 0].tolist(), best.scores[:, 0].tolist(), strict=True)
            found.update(zip(rows, each, strict=True))
    return [([token for token in found[row][0] if token], found[row][1]) for row in sorted(found)]


def compare(checks: Checks, what: str, found: Found, expected: Found, least: float = 0.99) -> None:
    """Report how many translations are equal, and how far their scores differ."""
    equal = [a[0] == b[0] for a, b in zip(found, expected, strict=True)]
    apart = [abs(a[1] - b[1]) / max(1.0, abs(b[1])) for a, b in zip(found, expected, strict=True)]
    worst = max((gap for gap, same in zip(apart, equal, strict=True) if same), default=0.0)
    share, different = sum(equal) / len(equal), len({tuple(tokens) for tokens, _ in expected})
    good = share >= least and worst <= TOLERANCE and different > len(equal) // 4
    checks.report(
        what, good, f"{100 * share:.1f} % of {len(equal)} lines equal, scores within {worst:.1e}"
    )


def check(
    checks: Checks, sizes: tuple[Any, ...], corpus: Corpus, count: int, device: torch.device
) -> None:
    """Check searches on the device against the CPU, and frames and graphs against plain."""
    torch.set_float32_matmul_precision("highest")
    sentences, cpu = read_sentences(corpus, count), torch.device("cpu")
    print("\n" + table("decoding, fp32 | figures | "))
    model = make_model(sizes, device)
    on_cpu, ours = ModelDecoder(make_model(sizes, cpu)), make_decoders(model, device, torch.float32)
    *others, last = ours
    for kind in SEARCHES:
        least = AGREEING.get(kind, 0.99)
        expected = translate(on_cpu, kind, sentences, cpu)
        plain = translate(ours["plain"], kind, sentences, device)
        compare(checks, f"{kind}: CPU and device", plain, expected, least)
        for name in (*others[1:], last):
            found = translate(ours[name], kind, sentences, device)
            compare(checks, f"{kind}: plain and {name}", found, plain, least)
            again = translate(ours[name], kind, sentences, device)
            checks.report(f"{kind}: {name} once more", again == found, "the same bits")
    members = [ours, make_decoders(make_model(sizes, device, seed=2), device, torch.float32)]
    plain, found = (
        translate(ensemble([each[name] for each in members]), "beam", sentences, device)
        for name in ("plain", last)
    )
    compare(checks, f"an ensemble: plain and {last}", found, plain)
    if device.type == "cuda":
        recorded = len(ours[last].static.graphs.captured)
        checks.report("steps recorded", recorded > 0, str(recorded))
        check_waits(checks, ours[last], device)


def check_waits(checks: Checks, decoder: Any, device: torch.device) -> None:
    """Check that a replayed step, its candidates and a reordering do not make the host wait."""
    source = torch.full((8, 12), 70, device=device)
    limits, own = torch.full((8,), 15, device=device), torch.arange(5, device=device).expand(8, 5)
    what = "a step, its candidates and a reordering do not wait"
    with torch.inference_mode():
        state = decoder.start(source, 5, limits)
        for number in range(10):
            # Everything is recorded by the fifth step.
            torch.cuda.set_sync_debug_mode("error" if number > 5 else "default")
            try:
                logits = decoder.step(state, own + 70)
                decoder.top_k(state, logits, 5)
                decoder.reorder(state, own.flip(1))
            except RuntimeError as error:
                return checks.report(what, False, str(error).splitlines()[0][:60])
            finally:
                torch.cuda.set_sync_debug_mode("default")
    checks.report(what, True, "")


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_translation(
    decoder: Decoder, kind: str, sentences: list[np.ndarray], device: torch.device, times: int
) -> tuple[Found, list[float]]:
    """Return the translations, and the seconds of each time."""
    found, seconds = [], []
    for _ in range(times):
        synchronize(device)
        began = time.perf_counter()
        found = translate(decoder, kind, sentences, device)
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return found, seconds


def measure(
    name: str, sizes: tuple[Any, ...], sentences: list[np.ndarray], device: torch.device, times: int
) -> None:
    """Measure lines a second of greedy and beam search, plainly, in frames and by graphs."""
    torch.set_float32_matmul_precision("high")
    cuda, lines, model = device.type == "cuda", len(sentences), make_model(sizes, device)
    for precision in (torch.bfloat16, torch.float32) if cuda else (torch.float32,):
        for kind in ("greedy", "beam"):
            plain: Found = []
            for which, decoder in make_decoders(model, device, precision).items():
                if cuda:
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats(device)
                found, seconds = time_translation(decoder, kind, sentences, device, times)
                plain = plain or found
                gib = torch.cuda.max_memory_allocated(device) / 2**30 if cuda else 0.0
                tokens = sum(len(ids) for ids, _ in found)
                same = sum(a[0] == b[0] for a, b in zip(found, plain, strict=True)) / lines
                static = getattr(decoder, "static", None)
                recorded = len(static.graphs.captured) if static else 0
                print(table_row((
                    name, str(precision)[6:], kind, which, f"{lines / min(seconds):,.0f}",
                    f"{tokens / min(seconds):,.0f}", f"{lines / seconds[0]:,.0f}", recorded,
                    f"{gib:.2f}", f"{100 * same:.1f} %",
                )), flush=True)  # fmt: skip


def measure_ctranslate2(
    name: str, sizes: tuple[Any, ...], sentences: list[np.ndarray], device: torch.device,
    budgets: tuple[int, ...] = (4096, 16384, 65536),
) -> None:  # fmt: skip
    """Measure CTranslate2 with the same weights, beam 5; a line for each size of a batch."""
    import ctranslate2

    exporter = plugin("exporters", "ctranslate2")
    model, cuda = make_model(sizes, torch.device("cpu")), device.type == "cuda"
    width, heads, inner, layers, vocabulary, *_ = sizes
    section = plugin("models", "transformer").Config(
        d_model=width, n_heads=heads, d_ff=inner, encoder_layers=layers, decoder_layers=layers,
        norm="pre", tie_embeddings="none",
    )  # fmt: skip
    spec = exporter.specification(model, section, 1024)
    pieces = ["<pad>", "<unk>", "<s>", "</s>", *(f"w{n}" for n in range(4, vocabulary))]
    spec.register_source_vocabulary(pieces)
    spec.register_target_vocabulary(pieces)
    spec.validate()
    words = [[pieces[n] for n in sentence] for sentence in sentences]
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        translator = ctranslate2.Translator(
            folder, device=device.type, compute_type="float16" if cuda else "float32"
        )
        for budget in budgets:
            seconds = []
            for _ in range(2):
                began = time.perf_counter()
                found = translator.translate_batch(
                    words, beam_size=5, max_batch_size=budget, batch_type="tokens",
                    max_decoding_length=200,
                )  # fmt: skip
                seconds.append(time.perf_counter() - began)
            tokens = sum(len(each.hypotheses[0]) for each in found)
            lines = len(words)
            print(table_row((
                name, "float16" if cuda else "float32", "beam", f"CTranslate2, {budget} a batch",
                f"{lines / min(seconds):,.0f}", f"{tokens / min(seconds):,.0f}",
                f"{lines / seconds[0]:,.0f}", "-", "-", "-",
            )), flush=True)  # fmt: skip
