"""Check a GPU against the CPU, then measure it: the one command of all measurements on a device.

    python scripts/gpu_check.py                              # agreement, training, decoding
    python scripts/gpu_check.py --only parts --models base   # attention, products, loss, optimizer
    python scripts/gpu_check.py --only training --models base --ab graphs=yes,no --rounds 3
    python scripts/gpu_check.py --only multi30k start --multi30k FOLDER --bleu 38
    python scripts/gpu_check.py --device cpu --quick         # the same code, tiny, anywhere

It needs torch, numpy, pydantic and yaml; `multi30k` and `start` need what `mt train` needs. FOLDER
has train, val and test_2016_flickr as .en.gz and .de.gz. Standard output is a Markdown report, and
--json writes all figures; each measurement ends after about --seconds. The exit code is 1 when
something does not agree. The parts are in gpu_decoding.py, gpu_parts.py and gpu_start.py.
"""

# ruff: noqa: E402

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

BEGAN = time.perf_counter()
NEEDED = ("torch", "numpy", "pydantic", "yaml")
FOR_TRAINING = ("sentencepiece", "safetensors", "sacrebleu", "datasets", "typer", "rich",
                "tensorboard")  # fmt: skip
sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (1, 0)]


def find_missing(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


if find_missing(NEEDED):
    sys.exit(f"gpu_check needs {', '.join(NEEDED)}; missing: {', '.join(find_missing(NEEDED))}")

import gpu_decoding
import gpu_parts
import gpu_start
import numpy as np
import torch
from bench import harness
from bench.updates import build_optimizer, build_step
from gpu_decoding import Checks, synchronize

from mt.config import schema
from mt.config.plugins import plugin
from mt.data import batch_sampler, collate
from mt.data.bucketing import choose_shapes
from mt.data.corpus import SIDES, Corpus, Writer
from mt.data.gpu_corpus import GpuCorpus
from mt.interfaces import Batch
from mt.runtime.cuda_graphs import CudaGraphs
from mt.runtime.device import Precision, cpu_has_bf16
from mt.runtime.torch_private import num_compilations
from mt.training import losses
from mt.training.ema import MovingAverage
from mt.training.graphed_step import GraphedStep
from mt.training.loop import optimizer_step
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
HALF_TOLERANCE = 0.1
"""Largest relative error of a gradient in bf16, whose numbers have three digits."""


# --------------------------------------------------------------------------------- parts


def make_step(
    sizes: tuple[Any, ...], device: torch.device, dropout: float | None = None,
    kind: str = "transformer", precision: Precision = "fp32",
) -> ModelWithLoss:  # fmt: skip
    """Return model and objective with the same weights on any device."""
    width, heads, inner, layers, vocabulary, usual, _ = sizes
    own = {"d_model": width, "dropout": usual if dropout is None else dropout}
    if kind == "transformer":
        own |= {"n_heads": heads, "d_ff": inner, "norm": "pre"}
        own |= {"encoder_layers": layers, "decoder_layers": layers}
    else:
        own["units"] = 2 * width
    recipe = SimpleNamespace(
        model=plugin("models", kind).Config(kind=kind, **own),
        objective=plugin("objectives", "cross_entropy").Config(),
    )
    vocabulary_sizes = SimpleNamespace(joint=True, source_size=vocabulary, target_size=vocabulary)
    torch.manual_seed(1)
    return build_step(recipe, vocabulary_sizes, precision).to(device)


def make_optimizer(step: ModelWithLoss, kind: str = "adamw") -> torch.optim.Optimizer:
    return build_optimizer(plugin("optimizers", kind).Config(kind=kind, learning_rate=1e-4), step)


def make_corpus(folder: Path, pairs: int, vocabulary: int) -> Corpus:
    """Write pairs of random pieces, as long as news: 27 pieces in the mean, a few above 100."""
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


# ----------------------------------------------------------------------------- agreement


def gradients_of(
    step: ModelWithLoss, batches: list[Batch], run: Callable[..., Any] = accumulate_micro_batch
) -> list[torch.Tensor]:
    """Return the mean loss and all gradients of an update; clear gradients in place before it."""
    for parameter in step.parameters():
        if parameter.grad is not None:
            parameter.grad.zero_()
    scaler = no_scaler(batches[0].source.device)
    loss = accumulate_gradients(step, step.objective, batches, scaler, accumulate=run)
    return [loss.detach().clone(), *(p.grad.detach().clone() for p in step.parameters())]


def check_agreement(sizes: tuple[Any, ...], corpus: Corpus, device: torch.device) -> bool:
    """Check the device against the CPU, graphs against plain runs, and that skipping skips."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    checks, resident = Checks(), GpuCorpus(corpus, device)
    print("\n" + harness.table("agreement | figures | "))
    groups = [np.arange(0, 24), np.arange(24, 60), np.arange(60, 64)]
    cpu, on_cpu = torch.device("cpu"), [collate.collate_pairs(corpus, rows) for rows in groups]
    plain = [resident.collate(rows) for rows in groups]
    longest = int(corpus.source_lengths.max()) + 3, int(corpus.target_lengths.max()) + 5
    filled = [resident.collate(rows, [(40, *longest)]) for rows in groups]
    expected = gradients_of(make_step(sizes, cpu, 0.0), on_cpu)
    there = make_step(sizes, device, 0.0)
    checks.compare("fp32 loss and gradients, CPU and device", gradients_of(there, plain), expected)
    checks.compare("the same, rows and widths filled up", gradients_of(there, filled), expected)
    if device.type == "cuda":
        check_graphs(checks, sizes, filled, device)
    expected = gradients_of(make_step(sizes, cpu, 0.0, "rnn"), on_cpu)
    found = gradients_of(make_step(sizes, device, 0.0, "rnn"), plain)
    checks.compare("rnn: fp32, CPU and device", found, expected)
    # A CPU without bf16 takes minutes for its products.
    half: Precision = "bf16" if device.type == "cuda" or cpu_has_bf16() else "fp32"
    found = gradients_of(make_step(sizes, device, 0.0, "rnn", half), plain)
    checks.compare(f"rnn: {half} on the device, fp32 on the CPU", found, expected, HALF_TOLERANCE)
    for kind in ("adamw", "muon"):
        check_skipping(checks, make_step(sizes, device, 0.0), kind, filled, device)
    torch.backends.cudnn.allow_tf32 = True
    return not checks.failed


def check_graphs(
    checks: Checks, sizes: tuple[Any, ...], batches: list[Batch], device: torch.device
) -> None:
    for dropout in (0.0, 0.1):
        plain, step = make_step(sizes, device, dropout), make_step(sizes, device, dropout)
        graphs = GraphedStep(step, lambda line: print(f"| {line} | | |"), CudaGraphs(device))
        for number in range(3):  # plainly, captured, replayed
            torch.manual_seed(number)
            expected = gradients_of(plain, batches)
            torch.manual_seed(number)
            found = gradients_of(step, batches, graphs)
        same = all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        checks.compare(f"graphs and plain, dropout {dropout} (same bits: {same})", found, expected)
        checks.report("shapes captured", len(graphs.captured) > 0, str(len(graphs.captured)))


def check_skipping(
    checks: Checks, step: ModelWithLoss, kind: str, batches: list[Batch], device: torch.device
) -> None:
    optimizer = make_optimizer(step, kind)
    gradients_of(step, batches)
    step_if_finite(optimizer, torch.tensor(True, device=device))

    def copy_state() -> list[torch.Tensor]:
        state = [v for p in step.parameters() for v in optimizer.state[p].values()]
        return [t.detach().clone() for t in (*step.parameters(), *state)]

    before = copy_state()
    next(step.parameters()).grad.fill_(float("nan"))
    norm = torch.nn.utils.clip_grad_norm_(step.parameters(), 1.0, foreach=True)
    step_if_finite(optimizer, norm.isfinite())
    same = all(torch.equal(a, b) for a, b in zip(before, copy_state(), strict=True))
    checks.report(f"{kind}: an update that is not finite changes nothing", same, "to the bit")


# --------------------------------------------------------------------------------- speed


@dataclass
class Settings:
    """What two measurements in turn may differ in: `--ab NAME=A,B`."""

    compile: bool = False
    graphs: bool = True
    cudnn: bool = False
    """Whether attention may be cuDNN's."""
    chunks: int = losses.DEVICE_CHUNKS
    """Rows of the loss at a time, in multiples of `losses.CHUNK`."""
    micro_tokens: int = 0
    """Padded tokens of a micro-batch; 0: 2.25 times the tokens of an update, 32,768 at most."""

    def apply(self) -> None:
        """Set what is global in this process."""
        torch.backends.cuda.enable_cudnn_sdp(self.cudnn)
        losses.DEVICE_CHUNKS = self.chunks

    def replaced(self, name: str, value: str) -> Settings:
        """Return these settings with one changed; a ValueError for a wrong one."""
        kinds = {field.name: type(field.default) for field in fields(self)}
        if name not in kinds:
            raise ValueError(f"--ab knows {', '.join(kinds)}, not {name!r}")
        if kinds[name] is bool and value not in ("yes", "no"):
            raise ValueError(f"--ab {name} is yes or no, not {value!r}")
        return replace(self, **{name: value == "yes" if kinds[name] is bool else int(value)})


class Loop:
    """The update of `mt train`, from its own parts, on synthetic pairs."""

    def __init__(
        self, sizes: tuple[Any, ...], corpus: Corpus, device: torch.device, slots: int,
        settings: Settings,
    ) -> None:  # fmt: skip
        torch.set_float32_matmul_precision("high")
        self.corpus, self.device, self.slots, self.settings = corpus, device, slots, settings
        self.sizes = sizes
        settings.apply()
        self.shapes = choose_shapes(corpus.source_lengths, corpus.target_lengths, slots)
        self.step = make_step(sizes, device)
        self.step.precision = "bf16" if device.type == "cuda" else "fp32"
        if settings.compile:
            for block in self.step.model.blocks():
                block.compile(dynamic=True)
        graphs = settings.graphs and device.type == "cuda"
        self.run: Any = SimpleNamespace(
            module=self.step, optimizer=make_optimizer(self.step), scaler=no_scaler(device),
            average=MovingAverage(self.step, 0.999),
            graphs=GraphedStep(self.step, print, CudaGraphs(device)) if graphs else None,
            keeps_gradients=graphs,
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

    def run_for(self, seconds: float) -> dict[str, float]:
        """Update for some seconds, twice at least; return figures a second."""
        self.settings.apply()
        synchronize(self.device)
        start, tokens, operations, updates = time.perf_counter(), 0, 0.0, 0
        while updates < 2 or time.perf_counter() - start < seconds:
            rows = self.update()
            tokens += int(self.corpus.target_lengths[rows].sum())
            operations += count_operations(self.sizes, self.corpus, rows)
            updates += 1
            if updates % 10 == 0:
                synchronize(self.device)  # so that the clock is not ahead of the device
        synchronize(self.device)
        took = time.perf_counter() - start
        return {
            "target_tokens_per_second": tokens / took, "ms_per_update": 1000 * took / updates,
            "tflops": operations / took / 1e12,
        }  # fmt: skip

    def update(self) -> np.ndarray:
        """Do one update; return its rows of the corpus."""
        micros, self.number = next(self.updates), self.number + 1
        batches = [self.resident.collate(rows, self.shapes) for rows in micros]
        run = self.run.graphs or accumulate_micro_batch
        compute_gradients(
            self.step, self.step.objective, batches, self.run.scaler, self.number,
            accumulate=run, keep_buffers=self.run.graphs is not None,
        )  # fmt: skip
        optimizer_step(self.run, self.number, 1e-5)
        return np.concatenate(micros)

    def count_graphs(self) -> int:
        """Return how many graphs are captured."""
        return len(self.run.graphs.captured) if self.run.graphs else 0


def measure_decoding(name: str, device: torch.device, given: argparse.Namespace) -> None:
    sizes, lines = given.sizes[name], 20 if given.quick else given.lines
    with tempfile.TemporaryDirectory() as folder:
        sentences = gpu_decoding.read_sentences(make_corpus(Path(folder), lines, sizes[4]), lines)
    gpu_decoding.measure(name, sizes, sentences, device, 1 if given.quick else 2)
    if given.beside:
        try:
            gpu_decoding.measure_ctranslate2(name, sizes, sentences, device)
        except (ImportError, RuntimeError) as error:  # its CUDA libraries may be missing
            print(f"CTranslate2 does not load: {str(error).splitlines()[0][:100]}")


def count_operations(sizes: tuple[Any, ...], corpus: Corpus, rows: np.ndarray) -> float:
    """Count the operations of training on pairs, padding not counted: forward, twice back.

    It is two for each weight and position, and those of attention's two products.
    """
    d, _, f, layers, vocabulary, *_ = sizes
    s = corpus.source_lengths[rows].astype(float)
    t = corpus.target_lengths[rows].astype(float)
    weights = layers * (s * (4 * d * d + 2 * d * f + 2 * d * d) + t * (6 * d * d + 2 * d * f))
    weights += t * vocabulary * d
    attention = layers * 2 * d * (s * s + t * t / 2 + s * t)
    return float(3 * 2 * (weights + attention).sum())


TRAINING_HEAD = (
    "model | setting | parameters | target tokens/s, median | lowest to highest | ratio | "
    "ms an update | share of the measured peak | GiB | seconds to the first update | "
    "compilations, + after warm-up | graphs | waits"
)


def measure_training(
    name: str, sizes: tuple[Any, ...], device: torch.device, given: argparse.Namespace, peak: float
) -> list[dict[str, Any]]:
    """Measure training with each setting of --ab, in turn; return the figures of each."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(Path(folder), 400 if given.quick else 40000, sizes[4])
        prepared = [
            prepare_loop(name, sizes, corpus, device, given, label, settings)
            for label, settings in given.settings.items()
        ]
        seconds = 0 if given.quick else given.seconds / given.rounds
        rounds = [[loop.run_for(seconds) for loop, _ in prepared] for _ in range(given.rounds)]
    rows = []
    for number, (loop, facts) in enumerate(prepared):
        speeds = [each[number]["target_tokens_per_second"] for each in rounds]
        first = [each[0]["target_tokens_per_second"] for each in rounds]
        ratios = [speed / other for speed, other in zip(speeds, first, strict=True)]
        figures = {key: median(each[number][key] for each in rounds) for key in rounds[0][number]}
        facts |= figures | {
            "speeds": speeds,
            "ratio": median(ratios),
            "graphs": loop.count_graphs(),
        }
        facts["late_compilations"] = num_compilations() - facts.pop("all_compilations")
        share = f"{100 * facts['tflops'] / peak:.1f} %" if peak else "-"
        cells = (
            name, facts["setting"], f"{facts['parameters'] / 1e6:.1f} M",
            f"{facts['target_tokens_per_second']:,.0f}",
            f"{min(speeds):,.0f} to {max(speeds):,.0f}", f"{facts['ratio']:.3f}",
            f"{facts['ms_per_update']:.1f}", share, f"{facts['gib']:.2f}",
            f"{facts['first_update']:.1f}",
            f"{facts['compilations']} + {facts['late_compilations']}", facts["graphs"],
            facts["waits"],
        )  # fmt: skip
        print(harness.table_row(cells), flush=True)
        rows.append(facts)
    if given.profile:
        print_kernel_shares(prepared[0][0], device)
    return rows


def prepare_loop(
    name: str, sizes: tuple[Any, ...], corpus: Corpus, device: torch.device,
    given: argparse.Namespace, label: str, settings: Settings,
) -> tuple[Loop, dict[str, Any]]:  # fmt: skip
    """Return a warm loop of one setting, and what its start took."""
    began, compiled_before = time.perf_counter(), num_compilations()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    slots = settings.micro_tokens or min(32768, round(2.25 * sizes[-1]))
    loop = Loop(sizes, corpus, device, 2048 if given.quick else slots, settings)
    loop.update()
    synchronize(device)
    first = time.perf_counter() - began
    warm(loop, 0 if given.quick else given.seconds)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    return loop, {
        "model": name, "setting": label, "first_update": first, "gib": memory,
        "parameters": sum(p.numel() for p in loop.step.parameters()),
        "compilations": num_compilations() - compiled_before,
        "all_compilations": num_compilations(), "waits": hidden_waits(loop, device),
    }  # fmt: skip


KERNELS = {
    "products": ("gemm", "cutlass", "cublas", "nvjet", "::mm", "addmm", "::bmm"),
    "attention": ("fmha", "flash", "attention", "sdpa"),
    "softmax and loss": ("softmax", "reduce", "nll"), "norm": ("norm",),
    "optimizer": ("adam", "multi_tensor", "foreach"), "copies": ("memcpy", "memset", "copy", "cat"),
}  # fmt: skip
"""Parts of the names of kernels; all others are pointwise."""


def print_kernel_shares(loop: Loop, device: torch.device) -> None:
    """Print the share of each class of kernels of one update, and that of the gaps."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities = [ProfilerActivity.CUDA]
    synchronize(device)
    began = time.perf_counter()
    with profile(activities=activities) as found:
        loop.update()
        synchronize(device)
    wall = 1e6 * (time.perf_counter() - began)
    shares: dict[str, float] = dict.fromkeys((*KERNELS, "pointwise"), 0.0)
    for event in found.key_averages():
        name = event.key.lower()
        kind = next(
            (k for k, parts in KERNELS.items() if any(p in name for p in parts)), "pointwise"
        )
        shares[kind] += getattr(event, "self_device_time_total", 0) or event.self_cpu_time_total
    shares["gaps and the profiler"] = max(0.0, wall - sum(shares.values()))
    print("\n" + harness.table("kernels of one update | ms | share"))
    for kind, micros in shares.items():
        print(harness.table_row((kind, f"{micros / 1000:.2f}", f"{100 * micros / wall:.1f} %")))
    print()


def warm(loop: Loop, seconds: float) -> None:
    """Update for some seconds, and on until no new shape was captured for a while."""
    began, captured, since = time.perf_counter(), 0, 0
    while time.perf_counter() - began < seconds or (seconds and since < 2 * len(loop.shapes)):
        loop.update()
        now = loop.count_graphs()
        captured, since = now, since + 1 if now == captured else 0


def hidden_waits(loop: Loop, device: torch.device) -> str:
    """Return whether an update makes the host wait for the device, and torch's message."""
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
    """Train with the real command; return whether validation reached a BLEU, and print when."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "multi30k.yaml"
        path.write_text(RECIPE.format(folder=folder.resolve(), device=device), encoding="utf-8")
        try:
            rows, finished = harness.train(path, Path(place) / "run", stderr=None)
        except harness.CommandError as error:
            print(f"\nMulti30k: `mt train` failed: {error}")
            return False
    found = [(row["valid_bleu"], row["seconds"]) for row in rows if "valid_bleu" in row]
    when = next((f"{s:.0f} s" for bleu, s in found if bleu >= goal), "never")
    best = max(bleu for bleu, _ in found)
    print(
        f"\nMulti30k en-de: BLEU {goal} on the validation set reached after {when}; best "
        f"{best:.2f}; {finished.seconds:.0f} s in all, start and preparation included"
    )
    return best >= goal


# ---------------------------------------------------------------------------------- main


ONLY = ("agreement", "parts", "training", "decoding", "multi30k", "start")


def parse_arguments() -> argparse.Namespace:
    parser = harness.make_parser(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="one tiny model, two updates")
    parser.add_argument("--only", nargs="+", choices=ONLY, help="all but parts and start")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seconds", type=float, default=15, help="of warm-up and of measuring")
    parser.add_argument("--rounds", type=int, default=3, help="of measuring, settings in turn")
    parser.add_argument("--ab", metavar="NAME=A,B", help="two settings to train with, in turn")
    parser.add_argument("--profile", action="store_true", help="kernel shares of an update")
    parser.add_argument("--lines", type=int, default=1000, help="that are decoded")
    parser.add_argument("--beside", action="store_true", help="decode with CTranslate2, too")
    parser.add_argument("--peak", type=float, help="TFLOP/s of bf16; measured if left out")
    parser.add_argument("--multi30k", type=Path, metavar="FOLDER")
    parser.add_argument("--bleu", type=float, default=38, help="goal of --multi30k, on validation")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    given = parser.parse_args()
    given.sizes = QUICK if given.quick else {name: MODELS[name] for name in given.models}
    name, _, values = (given.ab or "").partition("=")
    try:
        given.settings = {
            f"{name}={value}": Settings().replaced(name, value) for value in values.split(",")
        } if given.ab else {"as it is": Settings()}  # fmt: skip
    except ValueError as error:
        parser.error(str(error))
    given.only = given.only or [
        "agreement", "training", "decoding", *(["multi30k"] if given.multi30k else [])
    ]  # fmt: skip
    needs_folder = {"multi30k", "start"}.intersection(given.only)
    if needs_folder and given.multi30k is None:
        parser.error(f"{', '.join(sorted(needs_folder))}: name the corpus by --multi30k FOLDER")
    return given


def check_all(device: torch.device, given: argparse.Namespace) -> bool:
    """Check that decoding and training on the device agree with the CPU."""
    small, middle = (QUICK["tiny"],) * 2 if given.quick else (MODELS["tiny"], MODELS["iwslt"])
    with tempfile.TemporaryDirectory() as folder:
        checks, count = Checks(), 16 if given.quick else 100
        corpus = make_corpus(Path(folder) / "decoding", 400, small[4])
        gpu_decoding.check(checks, small, corpus, count, device)
        corpus = make_corpus(Path(folder) / "training", 400, middle[4])
        return check_agreement(middle, corpus, device) and not checks.failed


def main() -> int:
    given = parse_arguments()
    lacking = find_missing(FOR_TRAINING)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}")
    print(f"missing for --multi30k: {', '.join(lacking) or 'nothing'}")
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device is there; --device cpu --quick runs the same code")
        return 1
    device = torch.device(given.device)
    if device.type == "cuda":
        took = time.perf_counter() - BEGAN
        print(f"{torch.cuda.get_device_name(device)}, imported in {took:.1f} s")
    figures: dict[str, Any] = {"torch": torch.__version__, "device": given.device}
    good = check_all(device, given) if "agreement" in given.only else True
    if "parts" in given.only:
        figures["parts"] = {
            name: gpu_parts.measure(sizes, device, given.quick)
            for name, sizes in given.sizes.items()
        }
    if "training" in given.only:
        peak = given.peak or gpu_parts.measure_peak(device)
        print(f"\nproducts in bf16: {peak:.0f} TFLOP/s\n\n{harness.table(TRAINING_HEAD)}")
        figures["training"] = [
            row for name, sizes in given.sizes.items()
            for row in measure_training(name, sizes, device, given, peak)
        ]  # fmt: skip
    if "decoding" in given.only:
        print("\n" + harness.table(gpu_decoding.HEAD))
        for name in given.sizes:
            measure_decoding(name, device, given)
    for part in ("multi30k", "start"):
        if part in given.only and lacking:
            print(f"\n{part}: skipped, missing {', '.join(lacking)}")
    if "multi30k" in given.only and not lacking:
        good &= train_multi30k(given.multi30k, given.bleu, given.device)
    if "start" in given.only and not lacking:
        recipe = RECIPE.format(folder=given.multi30k.resolve(), device=given.device)
        figures["start"] = gpu_start.measure(recipe, given.quick)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
