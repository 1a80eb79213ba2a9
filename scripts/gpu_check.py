"""Checks a GPU against the CPU, then measures decoding and training on it.

    python scripts/gpu_check.py                             # agreement, then speed
    python scripts/gpu_check.py --only decoding             # or --only training
    python scripts/gpu_check.py --multi30k FOLDER --bleu 38  # and a training against the clock
    python scripts/gpu_check.py --device cpu --quick        # the same code, tiny, anywhere

It needs torch, numpy, pydantic and yaml; only --multi30k needs what `mt train` needs. FOLDER has
train, val and test_2016_flickr as .en.gz and .de.gz. Standard output is a Markdown report; the exit
code is 1 when something does not agree. What it does of decoding is in gpu_decoding.py.
"""

# ruff: noqa: E402, E501

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

BEGAN = time.perf_counter()
NEEDED = ("torch", "numpy", "pydantic", "yaml")
FOR_TRAINING = ("sentencepiece", "safetensors", "sacrebleu", "datasets", "typer", "rich",
                "tensorboard")  # fmt: skip
sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (1, 0)]


def missing(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


if missing(NEEDED):
    sys.exit(f"gpu_check needs {', '.join(NEEDED)}; missing: {', '.join(missing(NEEDED))}")

import gpu_decoding
import numpy as np
import torch

from mt.config import schema
from mt.config.plugins import plugin
from mt.data import batch_sampler, collate
from mt.data.bucketing import choose_shapes
from mt.data.corpus import SIDES, Corpus, Writer
from mt.data.gpu_corpus import GpuCorpus
from mt.interfaces import Batch
from mt.runtime.device import Precision
from mt.runtime.torch_private import num_compilations
from mt.training import loop as train
from mt.training.ema import MovingAverage
from mt.training.graphed_step import GraphedStep
from mt.training.step import (
    ModelWithLoss,
    accumulate_gradients,
    accumulate_micro_batch,
    compute_gradients,
    step_if_finite,
)

# d_model, heads, d_ff, layers, vocabulary, dropout, tokens of an update
MODELS = {
    "tiny": (192, 4, 768, 2, 2000, 0.1, 4096),
    "iwslt": (512, 4, 1024, 6, 10000, 0.3, 16384),
    "base": (512, 8, 2048, 6, 37000, 0.1, 25000),
    "big": (1024, 16, 4096, 6, 37000, 0.3, 25000),
}
QUICK = {"tiny": (32, 2, 64, 1, 500, 0.1, 512)}
TOLERANCE = 5e-3
"""Largest relative error of fp32 on two devices: sums are taken in another order, and a ReLU at its
kink then goes the other way (2e-3 between fp32 and fp64 on one CPU)."""
HALF_TOLERANCE = 0.1
"""Largest relative error of a gradient in bf16, whose numbers have three digits."""


# --------------------------------------------------------------------------------- parts


def made(
    sizes: tuple[Any, ...], device: torch.device, dropout: float | None = None,
    kind: str = "transformer", precision: Precision = "fp32",
) -> ModelWithLoss:  # fmt: skip
    """Model and objective with the same weights on any device."""
    width, heads, inner, layers, vocabulary, usual, _ = sizes
    own = {"d_model": width, "dropout": usual if dropout is None else dropout}
    if kind == "transformer":
        own |= {"n_heads": heads, "d_ff": inner, "norm": "pre"}
        own |= {"encoder_layers": layers, "decoder_layers": layers}
    models = plugin("models", kind)
    known = SimpleNamespace(joint=True, source_size=vocabulary, target_size=vocabulary)
    torch.manual_seed(1)
    model = models.build(models.Config(**own), known)
    module = plugin("objectives", "cross_entropy")
    step = ModelWithLoss(model, module.build(module.Config(), model, known, None), precision)
    return step.to(device)


def made_optimizer(step: ModelWithLoss, kind: str = "adamw") -> torch.optim.Optimizer:
    module = plugin("optimizers", kind)
    return module.build(module.Config(learning_rate=1e-4), list(step.named_parameters()))


def made_corpus(folder: Path, pairs: int, vocabulary: int) -> Corpus:
    """Pairs of random pieces, as long as those of news: 27 pieces in the mean, a few above 100."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(1)
    base = generator.lognormal(3.1, 0.6, pairs)
    sides, lengths = {}, {}
    for side in SIDES:
        n = np.clip(base * generator.lognormal(0, 0.15, pairs), 1, 127).astype(np.int32) + 1
        ids = generator.integers(68, vocabulary, int(n.sum())).astype(np.uint16)
        ids[np.cumsum(n) - 1] = 3
        sides[side], lengths[side] = ids.tobytes(), n.tobytes()
    with Writer(folder, "train", "uint16", "synthetic") as writer:
        writer.append(sides, lengths)
    return Corpus.open(folder, "train")


def no_scaler(device: torch.device) -> torch.amp.GradScaler:
    return torch.amp.GradScaler(device.type, enabled=False)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ----------------------------------------------------------------------------- agreement


@dataclass
class Checks:
    """What was compared, and whether all of it agreed."""

    failed: bool = False

    def error(
        self, what: str, found: list[torch.Tensor], expected: list[torch.Tensor],
        most: float = TOLERANCE,
    ) -> None:  # fmt: skip
        """Print the largest error of a list of tensors, each relative to its own norm."""
        errors = [
            float((a.cpu() - b.cpu()).norm() / b.cpu().norm().clamp(min=1e-12))
            for a, b in zip(found, expected, strict=True)
        ]
        worst = max(e if e == e else float("inf") for e in errors)
        self.say(what, worst <= most, f"relative error {worst:.1e}")

    def say(self, what: str, good: bool, figures: str) -> None:
        self.failed |= not good
        print(f"| {what} | {figures} | {'ok' if good else 'FAILED'} |", flush=True)


def gradient(
    step: ModelWithLoss, batches: list[Batch], run: Callable[..., Any]
) -> list[torch.Tensor]:
    """The mean loss and all gradients of an update, gradients cleared in place."""
    for parameter in step.parameters():
        if parameter.grad is not None:
            parameter.grad.zero_()
    scaler = no_scaler(batches[0].source.device)
    loss = accumulate_gradients(step, step.objective, batches, scaler, accumulate=run)
    return [loss.detach().clone(), *(p.grad.detach().clone() for p in step.parameters())]


def check_agreement(sizes: tuple[Any, ...], corpus: Corpus, device: torch.device) -> bool:
    """Whether the device agrees with the CPU, graphs with plain runs, and skipping skips."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    checks, resident = Checks(), GpuCorpus(corpus, device)
    print("\n| agreement | figures | |\n|---|---|---|")
    groups = [np.arange(0, 24), np.arange(24, 60), np.arange(60, 64)]
    here, there = made(sizes, torch.device("cpu"), 0.0), made(sizes, device, 0.0)
    expected = gradient(
        here, [collate.collate_pairs(corpus, rows) for rows in groups], accumulate_micro_batch
    )
    plain = [resident.collate(rows) for rows in groups]
    checks.error("fp32 loss and gradients, CPU and device", gradient(there, plain, accumulate_micro_batch),
                 expected)  # fmt: skip
    longest = int(corpus.source_lengths.max()) + 3, int(corpus.target_lengths.max()) + 5
    filled = [resident.collate(rows, [(40, *longest)]) for rows in groups]
    checks.error("the same, rows and widths filled up", gradient(there, filled, accumulate_micro_batch),
                 expected)  # fmt: skip
    if device.type == "cuda":
        check_graphs(checks, sizes, filled, device)
    here, there = (made(sizes, place, 0.0, "rnn") for place in (torch.device("cpu"), device))
    expected = gradient(
        here, [collate.collate_pairs(corpus, rows) for rows in groups], accumulate_micro_batch
    )
    checks.error(
        "rnn: fp32, CPU and device", gradient(there, plain, accumulate_micro_batch), expected
    )
    halves = made(sizes, device, 0.0, "rnn", "bf16")
    found = gradient(halves, plain, accumulate_micro_batch)
    checks.error("rnn: bf16 on the device, fp32 on the CPU", found, expected, HALF_TOLERANCE)
    for kind in ("adamw", "muon"):
        check_skipping(checks, made(sizes, device, 0.0), kind, filled, device)
    torch.backends.cudnn.allow_tf32 = True
    return not checks.failed


def check_graphs(
    checks: Checks, sizes: tuple[Any, ...], batches: list[Batch], device: torch.device
) -> None:
    for dropout in (0.0, 0.1):
        plain, step = made(sizes, device, dropout), made(sizes, device, dropout)
        graphs = GraphedStep(step, lambda line: print(f"| {line} | | |"))
        for number in range(3):  # plainly, captured, replayed
            torch.manual_seed(number)
            expected = gradient(plain, batches, accumulate_micro_batch)
            torch.manual_seed(number)
            found = gradient(step, batches, graphs)
        same = all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        checks.error(f"graphs and plain, dropout {dropout} (same bits: {same})", found, expected)
        checks.say("shapes captured", len(graphs.captured) > 0, str(len(graphs.captured)))


def check_skipping(
    checks: Checks, step: ModelWithLoss, kind: str, batches: list[Batch], device: torch.device
) -> None:
    optimizer = made_optimizer(step, kind)
    gradient(step, batches, accumulate_micro_batch)
    step_if_finite(optimizer, torch.tensor(True, device=device))

    def held() -> list[torch.Tensor]:
        state = [v for p in step.parameters() for v in optimizer.state[p].values()]
        return [t.detach().clone() for t in (*step.parameters(), *state)]

    before = held()
    next(step.parameters()).grad.fill_(float("nan"))
    norm = torch.nn.utils.clip_grad_norm_(step.parameters(), 1.0, foreach=True)
    step_if_finite(optimizer, norm.isfinite())
    same = all(torch.equal(a, b) for a, b in zip(before, held(), strict=True))
    checks.say(f"{kind}: an update that is not finite changes nothing", same, "to the bit")


# --------------------------------------------------------------------------------- speed


class Loop:
    """The update of `mt train`, from its own parts, on synthetic pairs."""

    def __init__(
        self, sizes: tuple[Any, ...], corpus: Corpus, device: torch.device, slots: int
    ) -> None:
        torch.set_float32_matmul_precision("high")
        self.corpus, self.device, self.slots = corpus, device, slots
        self.shapes = choose_shapes(corpus.source_lengths, corpus.target_lengths, slots)
        self.step = made(sizes, device)
        self.step.precision = "bf16" if device.type == "cuda" else "fp32"
        if device.type == "cuda":
            for block in self.step.model.blocks():
                block.compile(dynamic=True)
        self.session: Any = SimpleNamespace(
            step=self.step, optimizer=made_optimizer(self.step), scaler=no_scaler(device),
            average=MovingAverage(self.step, 0.999),
            graphs=GraphedStep(self.step, print) if device.type == "cuda" else None,
            recipe=SimpleNamespace(training=SimpleNamespace(clip=1.0)),
        )  # fmt: skip
        self.resident, self.number = GpuCorpus(corpus, device), 0
        config = schema.BatchingConfig(tokens=sizes[-1])
        self.updates: Iterator[Any] = iter(self._forever(config))

    def _forever(self, config: schema.BatchingConfig) -> Iterator[list[np.ndarray]]:
        epoch = 0
        while True:
            source, target = self.corpus.source_lengths, self.corpus.target_lengths
            plan = batch_sampler.EpochPlan(
                source, target, config, self.slots, 1, epoch, self.shapes
            )
            for window in range(len(plan.windows)):
                yield from plan.updates(window)
            epoch += 1

    def update(self) -> np.ndarray:
        """One update; the rows that it took."""
        micros, self.number = next(self.updates), self.number + 1
        batches = [self.resident.collate(rows, self.shapes) for rows in micros]
        run = self.session.graphs or accumulate_micro_batch
        compute_gradients(
            self.step, self.step.objective, batches, self.session.scaler, self.number,
            accumulate=run, keep_buffers=self.session.graphs is not None,
        )  # fmt: skip
        train.optimizer_step(self.session, self.number, 1e-5)
        return np.concatenate(micros)


def measure_decoding(name: str, device: torch.device, given: argparse.Namespace) -> None:
    sizes, lines = (QUICK if given.quick else MODELS)[name], 20 if given.quick else given.lines
    with tempfile.TemporaryDirectory() as folder:
        sentences = gpu_decoding.sentences_of(made_corpus(Path(folder), lines, sizes[4]), lines)
    gpu_decoding.measure(name, sizes, sentences, device, 1 if given.quick else 2)


def needed_operations(sizes: tuple[Any, ...], corpus: Corpus, rows: np.ndarray) -> float:
    """Floating-point operations of training on pairs, padding not counted: forward, twice back.

    Two for each weight and position, and those of attention's two products.
    """
    d, _, f, layers, vocabulary, *_ = sizes
    s = corpus.source_lengths[rows].astype(float)
    t = corpus.target_lengths[rows].astype(float)
    weights = layers * (s * (4 * d * d + 2 * d * f + 2 * d * d) + t * (6 * d * d + 2 * d * f))
    weights += t * vocabulary * d
    attention = layers * 2 * d * (s * s + t * t / 2 + s * t)
    return float(3 * 2 * (weights + attention).sum())


def measure(
    name: str, sizes: tuple[Any, ...], device: torch.device, given: argparse.Namespace
) -> None:
    began, compiled_before = time.perf_counter(), num_compilations()
    slots = 2048 if given.quick else min(32768, round(2.25 * sizes[-1]))
    with tempfile.TemporaryDirectory() as folder:
        corpus = made_corpus(Path(folder), 400 if given.quick else 40000, sizes[4])
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        loop = Loop(sizes, corpus, device, slots)
        loop.update()
        synchronise(device)
        first = time.perf_counter() - began
        warm(loop, 0 if given.quick else given.seconds)
        waits = hidden_waits(loop, device)
        synchronise(device)
        compiled, start = num_compilations(), time.perf_counter()
        tokens, operations, updates = 0, 0.0, 0
        while updates < 2 or (not given.quick and time.perf_counter() - start < given.seconds):
            rows = loop.update()
            tokens += int(corpus.target_lengths[rows].sum())
            operations += needed_operations(sizes, corpus, rows)
            updates += 1
            if updates % 10 == 0:
                synchronise(device)  # as a report does
        synchronise(device)
        seconds = time.perf_counter() - start
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    share = operations / seconds / (given.peak * 1e12)
    graphs = len(loop.session.graphs.captured) if loop.session.graphs else 0
    print(
        f"| {name} | {sum(p.numel() for p in loop.step.parameters()) / 1e6:.1f} M | "
        f"{tokens / seconds:,.0f} | {1000 * seconds / updates:.1f} | {100 * share:.2f} % | "
        f"{memory:.2f} | {first:.1f} | {compiled - compiled_before} + {num_compilations() - compiled} "
        f"| {graphs} | {waits} |",
        flush=True,
    )


def warm(loop: Loop, seconds: float) -> None:
    """Update for so long, and on until no new shape was captured for a while."""
    began, captured, since = time.perf_counter(), 0, 0
    while time.perf_counter() - began < seconds or (seconds and since < 2 * len(loop.shapes)):
        loop.update()
        now = len(loop.session.graphs.captured) if loop.session.graphs else 0
        captured, since = now, since + 1 if now == captured else 0


def hidden_waits(loop: Loop, device: torch.device) -> str:
    """Whether an update makes the host wait for the device; what torch says about the first."""
    if device.type != "cuda":
        return "-"
    torch.cuda.set_sync_debug_mode("error")
    try:
        loop.update()
    except RuntimeError as error:
        return f"yes: {str(error).splitlines()[0][:60]}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "no"


# ------------------------------------------------------------------------------ Multi30k

RECIPE = """
languages: {{source: en, target: de}}
data:
  train: [{{kind: text, source: {folder}/train.en.gz, target: {folder}/train.de.gz}}]
  valid: {{kind: text, source: {folder}/val.en.gz, target: {folder}/val.de.gz}}
vocabulary: {{size: 8000}}
model: {{kind: transformer, d_model: 256, n_heads: 4, d_ff: 1024, encoder_layers: 3,
  decoder_layers: 3, dropout: 0.2, norm: pre}}
optimizer: {{kind: adamw, learning_rate: 1.5e-3}}
schedule: {{kind: linear, warmup_steps: 200}}
batching: {{tokens: 4096}}
training: {{max_epochs: 20, ema: 0.995, validate_every: 250, save_every: 1000, max_minutes: 9}}
runtime: {{device: {device}}}
"""


def train_multi30k(folder: Path, goal: float, device: str) -> bool:
    """Train with the real command; whether, and when, validation reached the BLEU asked for."""
    with tempfile.TemporaryDirectory() as place:
        path, run = Path(place) / "multi30k.yaml", Path(place) / "run"
        path.write_text(RECIPE.format(folder=folder.resolve(), device=device), encoding="utf-8")
        command = [sys.executable, "-m", "mt", "train", str(path), "--run", str(run)]
        began = time.perf_counter()
        code = subprocess.run(command, cwd=Path(__file__).resolve().parents[1]).returncode
        took = time.perf_counter() - began
        if code:
            print(f"\nMulti30k: `mt train` ended with exit code {code}")
            return False
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [(line["valid_bleu"], line["seconds"]) for line in lines if "valid_bleu" in line]
    when = next((f"{s:.0f} s" for bleu, s in found if bleu >= goal), "never")
    best = max(bleu for bleu, _ in found)
    print(
        f"\nMulti30k en-de: BLEU {goal} on the validation set reached after {when}; best "
        f"{best:.2f}; {took:.0f} s in all, start and preparation included"
    )
    return best >= goal


# ---------------------------------------------------------------------------------- main


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="one tiny model, two updates")
    parser.add_argument("--only", choices=["training", "decoding"])
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seconds", type=float, default=15, help="of warm-up and of measuring")
    parser.add_argument("--lines", type=int, default=1000, help="that are decoded")
    parser.add_argument("--peak", type=float, default=989, help="TFLOP/s; bf16 of an H200: 989")
    parser.add_argument("--multi30k", type=Path, metavar="FOLDER")
    parser.add_argument("--bleu", type=float, default=38, help="goal of --multi30k, on validation")
    return parser.parse_args()


def main() -> int:
    given = parsed()
    lacking = missing(FOR_TRAINING)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}")
    print(f"missing for --multi30k: {', '.join(lacking) or 'nothing'}")
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device is there; --device cpu --quick runs the same code")
        return 1
    device = torch.device(given.device)
    if device.type == "cuda":
        print(f"{torch.cuda.get_device_name(device)}, imported in {seconds_since(BEGAN)}")
    sizes = QUICK["tiny"] if given.quick else MODELS["iwslt"]
    good = True
    with tempfile.TemporaryDirectory() as folder:
        if given.only != "training":
            checks, count = Checks(), 16 if given.quick else 100
            small = (QUICK if given.quick else MODELS)["tiny"]
            corpus = made_corpus(Path(folder) / "decoding", 400, small[4])
            gpu_decoding.check(checks, small, corpus, count, device)
            good &= not checks.failed
        if given.only != "decoding":
            corpus = made_corpus(Path(folder) / "training", 400, sizes[4])
            good &= check_agreement(sizes, corpus, device)
    names = list(QUICK) if given.quick else given.models
    if given.only != "training":
        print(gpu_decoding.HEADER)
        for name in names:
            measure_decoding(name, device, given)
    if given.only == "decoding":
        return 0 if good else 1
    print(
        "\n| model | parameters | target tokens/s | ms an update | share of peak | GiB | "
        "seconds to the first update | compilations, + after warm-up | graphs | waits |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for name in names:
        measure(name, (QUICK if given.quick else MODELS)[name], device, given)
    if given.multi30k and lacking:
        print(f"\nMulti30k: skipped, missing {', '.join(lacking)}")
    elif given.multi30k:
        good &= train_multi30k(given.multi30k, given.bleu, given.device)
    return 0 if good else 1


def seconds_since(began: float) -> str:
    return f"{time.perf_counter() - began:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
