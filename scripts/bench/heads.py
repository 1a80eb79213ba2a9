"""What fewer heads gain: decoding with pruned models beside the whole one, in turn.

    python scripts/bench/heads.py decoding RUN NEW ... --source FILE --reference FILE --rounds 7
    python scripts/bench/heads.py choosing --d-model 256 --heads 4 --chosen 2 1 --rounds 15

`decoding`: every measurement is a process of its own, the models in turn (A B C A B C ...); the
table tells medians and spread of lines a second without loading, and as ratio the median of the
ratios of a round, times as fast as the first model.

`choosing`: what it gains that each sentence has k heads only (model.kind: mixture_of_heads), on
sentences of random pieces and models of random weights, whose speed is that of trained ones:
operations that are executed (counted by torch, of the attentions and of all) and time, for the
encoder, for steps of decoding with beams, and for an update's forward and backward pass. Beside
it stand a model with all heads and one that has only k from the start: what no choice can beat.
All in one process, in turn. Standard output is Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(1, str(Path(__file__).parents[2]))  # mt of this checkout

import torch
from torch.utils.flop_counter import FlopCounterMode

from mt.checkpoints import bundle, checkpoint, run_directory
from mt.config.plugins import plugin
from mt.evaluation import metrics
from mt.models.modules import linear

DECODERS = Path(__file__).with_name("decoders.py")


def decoding(given: argparse.Namespace) -> None:
    """Lines a second and BLEU of each model."""
    speeds: list[list[float]] = [[] for _ in given.models]
    bleu = [0.0 for _ in given.models]
    for _ in range(given.rounds):
        for number, model in enumerate(given.models):
            seconds, lines = translated(model, given)
            speeds[number].append(len(lines) / seconds)
            bleu[number] = bleu_of(lines, given)
    shape = f"{given.workers} x {given.threads} threads, {given.precision}"
    print(f"\nbeam {given.beams}, {shape}, {given.rounds} rounds:\n")
    print("| model | parameters | lines/s, median | lowest to highest | ratio | BLEU |")
    print("|---|---|---|---|---|---|")
    for model, found, score in zip(given.models, speeds, bleu, strict=True):
        ratio = statistics.median(a / b for a, b in zip(found, speeds[0], strict=True))
        print(
            f"| {model.name} | {parameters(model):,} | {statistics.median(found):.1f} "
            f"| {min(found):.1f} to {max(found):.1f} | {ratio:.3f} | {score:.2f} |"
        )


def translated(model: Path, given: argparse.Namespace) -> tuple[float, list[str]]:
    """The seconds of one process without loading, and the translations."""
    out = given.work / "out.txt"
    command = [
        sys.executable, str(DECODERS), "mt", str(model), "--source", str(given.source),
        "--out", str(out), "--beams", str(given.beams), "--workers", str(given.workers),
        "--threads", str(given.threads), "--precision", given.precision,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{model}: {done.stderr[-2000:]}")
    seconds = json.loads(done.stdout.splitlines()[-1])["translate"]
    return seconds, out.read_text(encoding="utf-8").splitlines()


def bleu_of(lines: list[str], given: argparse.Namespace) -> float:
    recipe = bundle.read_any_recipe(given.models[0])
    references = given.reference.read_text(encoding="utf-8").splitlines()
    found = metrics.score_translations(
        lines, [references], recipe.languages.target, recipe.evaluation
    )
    return found["BLEU"]["score"]


def parameters(model: Path) -> int:
    opened = run_directory.open_run(model)
    return sum(tensor.numel() for tensor in checkpoint.load_weights(opened.folder).values())


# ------------------------------------------------------------------------------ choosing


def choosing(given: argparse.Namespace) -> None:
    """Operations and time of k heads a sentence."""
    torch.manual_seed(1)
    torch.set_num_threads(given.threads)
    models = {f"all {given.heads}": _model(given, {})}
    for k in given.chosen:
        width = given.d_model // given.heads
        mixture = {"heads_per_sentence": k}
        models[f"{k} selected"] = _model(given, mixture, "mixture_of_heads")
        models[f"{k} from the start"] = _model(given, {"n_heads": k, "d_head": width})
    source = torch.randint(68, given.vocabulary, (given.sentences, given.length))
    source[:, given.length - given.length // 4 :][: len(source) // 2] = 0
    for name, work in (("encoding", encode), ("decoding", decode), ("training", train)):
        operations = {key: counted(work, model, source, given) for key, model in models.items()}
        packed = None if name == "training" else torch.float32
        for model in models.values():
            linear.pack(model, packed)
        seconds: dict[str, list[float]] = {key: [] for key in models}
        for number in range(given.rounds + 2):
            for key, model in models.items():
                began = time.perf_counter()
                work(model, source, given)
                if number >= 2:  # what is set up at the first use
                    seconds[key].append(time.perf_counter() - began)
        for model in models.values():
            linear.pack(model, None)
        table(name, operations, seconds)


def table(
    name: str, operations: dict[str, tuple[int, int]], seconds: dict[str, list[float]]
) -> None:
    first = next(iter(operations))
    print(f"\n### {name}\n")
    print("| heads | operations of attention | of all | ms, median | lowest to highest | time |")
    print("|---|---|---|---|---|---|")
    for key, found in seconds.items():
        shares = [a / b for a, b in zip(operations[key], operations[first], strict=True)]
        ratio = statistics.median(a / b for a, b in zip(found, seconds[first], strict=True))
        print(
            f"| {key} | {shares[0]:.0%} | {shares[1]:.0%} | {1e3 * statistics.median(found):.2f} "
            f"| {1e3 * min(found):.2f} to {1e3 * max(found):.2f} | {ratio:.2f} |"
        )


def _model(given: argparse.Namespace, more: dict[str, Any], kind: str = "transformer") -> Any:
    module = plugin("models", kind)
    config = module.Config(**{
        "d_model": given.d_model, "n_heads": given.heads, "d_ff": given.d_ff, "norm": "pre",
        "encoder_layers": given.layers, "decoder_layers": given.layers, **more,
    })  # fmt: skip
    size = given.vocabulary
    vocabulary = SimpleNamespace(joint=True, source_size=size, target_size=size)
    return module.build(config, vocabulary).eval()


@torch.inference_mode()
def encode(model: Any, source: torch.Tensor, given: argparse.Namespace) -> None:
    model.encode(source)


@torch.inference_mode()
def decode(model: Any, source: torch.Tensor, given: argparse.Namespace) -> None:
    """As many steps as the source is long, without the projection to the vocabulary."""
    memory = model.encode(source)
    cache = model.start(memory, given.beams, given.length)
    for step in range(given.length):
        tokens = torch.full((len(source) * given.beams, 1), 70 + step)
        model.decode(tokens, memory, cache)


def train(model: Any, source: torch.Tensor, given: argparse.Namespace) -> None:
    model.decode(source, model.encode(source)).pow(2).mean().backward()
    model.zero_grad()


def counted(
    work: Callable[[Any, torch.Tensor, argparse.Namespace], None], model: Any,
    source: torch.Tensor, given: argparse.Namespace,
) -> tuple[int, int]:  # fmt: skip
    """The operations of the attentions and of everything."""
    with FlopCounterMode(display=False) as counter:
        work(model, source, given)
    every = {name: sum(each.values()) for name, each in counter.get_flop_counts().items()}
    whole = every["Global"]
    feed_forward = sum(count for name, count in every.items() if name.endswith(".feed_forward"))
    return whole - feed_forward, whole


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sections = parser.add_subparsers(required=True)
    one = sections.add_parser("decoding")
    one.set_defaults(section=decoding)
    one.add_argument("models", type=Path, nargs="+", help="the whole model's run first")
    one.add_argument("--source", type=Path, required=True)
    one.add_argument("--reference", type=Path, required=True)
    one.add_argument("--beams", type=int, default=5)
    one.add_argument("--workers", type=int, default=1)
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--precision", default="fp32")
    one.add_argument("--rounds", type=int, default=7)
    two = sections.add_parser("choosing")
    two.set_defaults(section=choosing)
    two.add_argument("--d-model", type=int, default=256)
    two.add_argument("--heads", type=int, default=4)
    two.add_argument("--d-ff", type=int, default=1024)
    two.add_argument("--layers", type=int, default=3)
    two.add_argument("--vocabulary", type=int, default=8000)
    two.add_argument("--chosen", type=int, nargs="+", default=[2, 1])
    two.add_argument("--sentences", type=int, default=64)
    two.add_argument("--length", type=int, default=16)
    two.add_argument("--beams", type=int, default=5)
    two.add_argument("--threads", type=int, default=1)
    two.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        given.work = Path(temporary)
        given.section(given)


if __name__ == "__main__":
    main()
