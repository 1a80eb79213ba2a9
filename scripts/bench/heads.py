"""What k heads for each sentence gain (model.kind: mixture_of_heads).

    python scripts/bench/heads.py --d-model 256 --heads 4 --chosen 2 1 --rounds 15

On sentences of random pieces and models of random weights, whose speed is that of trained ones:
operations that are executed (counted by torch, of the attentions and of all) and time, for the
encoder, for steps of decoding with beams, and for an update's forward and backward pass. Beside it
are a model with all heads and one that has only k from the start, which is the limit for any
choice. All in one process, in turn. Standard output is Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median
from types import SimpleNamespace
from typing import Any

import harness
import torch
from torch.utils.flop_counter import FlopCounterMode

from mt.config.plugins import plugin
from mt.models.modules import linear

Work = Callable[[Any, torch.Tensor, argparse.Namespace], None]


def compare_heads(given: argparse.Namespace) -> None:
    """Compare operations and time of k heads for each sentence."""
    torch.manual_seed(1)
    torch.set_num_threads(given.threads)
    first = f"all {given.heads}"
    models = {first: build_model(given, {})}
    for k in given.chosen:
        width = given.d_model // given.heads
        mixture = {"heads_per_sentence": k}
        models[f"{k} selected"] = build_model(given, mixture, "mixture_of_heads")
        models[f"{k} from the start"] = build_model(given, {"n_heads": k, "d_head": width})
    source = torch.randint(68, given.vocabulary, (given.sentences, given.length))
    source[:, given.length - given.length // 4 :][: len(source) // 2] = 0
    for name, work in (("encoding", encode), ("decoding", decode), ("training", train)):
        operations = {
            key: count_operations(work, model, source, given) for key, model in models.items()
        }
        for model in models.values():
            linear.pack(model, None if name == "training" else torch.float32)
        sides = {key: partial(work, model, source, given) for key, model in models.items()}
        seconds = harness.time_in_turn(sides, given.rounds, warm_up=2)
        for model in models.values():
            linear.pack(model, None)
        rows = []
        for key, found in seconds.items():
            shares = harness.divide(operations[key], operations[first])
            milliseconds = [1e3 * each for each in found]
            rows.append((
                key, *(f"{share:.0%}" for share in shares), f"{median(milliseconds):.2f}",
                harness.spread(milliseconds, ".2f"), f"{harness.ratio(found, seconds[first]):.2f}",
            ))  # fmt: skip
        head = "heads | operations of attention | of all | ms, median | lowest to highest | time"
        print(f"\n### {name}\n\n{harness.table(head, rows)}")


def build_model(given: argparse.Namespace, more: dict[str, Any], kind: str = "transformer") -> Any:
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
    """Decode as many steps as the source is long, without the projection to the vocabulary."""
    memory = model.encode(source)
    cache = model.start(memory, given.beams, given.length)
    for step in range(given.length):
        tokens = torch.full((len(source) * given.beams, 1), 70 + step)
        model.decode(tokens, memory, cache)


def train(model: Any, source: torch.Tensor, given: argparse.Namespace) -> None:
    model.decode(source, model.encode(source)).pow(2).mean().backward()
    model.zero_grad()


def count_operations(
    work: Work, model: Any, source: torch.Tensor, given: argparse.Namespace
) -> tuple[int, int]:
    """Return the operations of the attentions and of everything."""
    with FlopCounterMode(display=False) as counter:
        work(model, source, given)
    counts = {name: sum(each.values()) for name, each in counter.get_flop_counts().items()}
    total = counts["Global"]
    feed_forward = sum(count for name, count in counts.items() if name.endswith(".feed_forward"))
    return total - feed_forward, total


def main() -> None:
    parser = harness.make_parser(__doc__)
    parser.add_argument("--chosen", type=int, nargs="+", default=[2, 1])
    sizes = {"d-model": 256, "heads": 4, "d-ff": 1024, "layers": 3, "vocabulary": 8000,
             "sentences": 64, "length": 16, "rounds": 15, "beams": 5, "threads": 1}  # fmt: skip
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    compare_heads(parser.parse_args())


if __name__ == "__main__":
    main()
