"""Training speed of mt beside a plain torch.nn.Transformer loop, or beside other toolkits.

    python scripts/bench/training.py configs/demo.yaml --updates 8 --rounds 5
    python scripts/bench/training.py --peers all --data FOLDER --rounds 3

Without `--peers`: in this process, the model of the recipe, dropout wherever torch's has it
(attention weights, feed-forward, residuals, embeddings), the same micro-batches in the same order.

With `--peers`: real commands in processes of their own, in turn (A B C ... A B C ...), each toolkit
in an environment of its own in `.bench` or `$MT_BENCH`, installed when it is not there yet
(`--install`: only that; about 1.5 GB). FOLDER holds train.LANGUAGE and val.LANGUAGE; without it
the `demo` source is written out. All train on the same pieces with the same sizes (`peers/`). A
toolkit that cannot be installed or run is left out, and why is told. The first round tries each
precision that a toolkit has on a CPU, the later ones go on with the faster.

What counts are real target tokens a second; padding is not counted. Standard output is Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

sys.path.insert(1, str(Path(__file__).parents[2]))  # mt of this checkout

import peers
import torch
from peers import environments, pieces, processes
from peers.programs.plain_train import Plain
from torch import nn

from mt.config import recipe, schema
from mt.config.plugins import plugin
from mt.data import batch_sampler, collate
from mt.data.cache import PreparedData
from mt.data.prepare import prepare
from mt.interfaces import Batch, Objective
from mt.runtime import device
from mt.training.autotune import MAX_CPU_TOKENS
from mt.training.step import ModelWithLoss, accumulate_gradients

# --------------------------------------------------------------------------- in this process


class PlainLoop:
    """The plain side."""

    def __init__(self, settings: recipe.Recipe, prepared: PreparedData) -> None:
        size = prepared.vocabulary.target_size
        self.model = Plain(settings.model, size, cast(Any, settings.model).dropout)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-4, (0.9, 0.98), 1e-9)

    def update(self, batches: list[Batch]) -> None:
        tokens = sum(int(batch.target_lengths.sum()) for batch in batches)
        for batch in batches:
            (self.model(batch) / tokens).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class OurLoop:
    """mt's side: the parts of mt/train.py's update."""

    def __init__(
        self, settings: recipe.Recipe, prepared: PreparedData, precision: schema.Precision
    ) -> None:
        dropout = cast(Any, settings.model).dropout
        everywhere = {"attention_dropout": dropout, "activation_dropout": dropout}
        config = settings.model.model_copy(update=everywhere)
        model = plugin("models", config.kind).build(config, prepared.vocabulary)
        kind = settings.objective.kind
        objective = plugin("objectives", kind).build(
            settings.objective, model, prepared.vocabulary, None
        )
        self.step = ModelWithLoss(model, objective, precision)
        kind = settings.optimizer.kind
        self.optimizer = plugin("optimizers", kind).build(
            settings.optimizer, list(self.step.named_parameters())
        )
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)

    def update(self, batches: list[Batch]) -> None:
        accumulate_gradients(self.step, cast(Objective, self.step.objective), batches, self.scaler)
        nn.utils.clip_grad_norm_(self.step.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()


def compare_here(given: argparse.Namespace) -> None:
    """Time the sides in turn and print the table."""
    settings, _ = recipe.load(given.config, given.sets)
    threads = device.use_threads(settings.runtime.threads)
    torch.manual_seed(1)
    prepared = prepare(settings, lambda line: None)
    sides: dict[str, Any] = {
        "plain torch.nn.Transformer, fp32": PlainLoop(settings, prepared),
        "mt, fp32": OurLoop(settings, prepared, "fp32"),
        "mt, bf16": OurLoop(settings, prepared, "bf16"),
    }
    micro = settings.batching.micro_tokens
    corpus = prepared.train
    epoch = batch_sampler.EpochPlan(
        corpus.source_lengths, corpus.target_lengths, settings.batching,
        MAX_CPU_TOKENS if micro == "auto" else micro, 1, 0,
    )  # fmt: skip
    some = epoch.updates(0)[: given.updates]
    updates = [[collate.collate_pairs(corpus, m) for m in u] for u in some]
    tokens = sum(int(batch.target_lengths.sum()) for update in updates for batch in update)
    for side in sides.values():
        side.update(updates[0])  # warm-up
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(given.rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            for batches in updates:
                side.update(batches)
            speeds[name].append(tokens / (time.perf_counter() - began))
    print_table(speeds, threads, tokens / len(updates))


def print_table(speeds: dict[str, list[float]], threads: int, tokens: float) -> None:
    first = next(iter(speeds.values()))
    print(f"{threads} threads, torch {torch.__version__}, {tokens:.0f} target tokens an update\n")
    print("| side | target tokens/s, median | lowest to highest | ratio to plain, median |")
    print("|---|---|---|---|")
    for name, found in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(found, first, strict=True))
        print(f"| {name} | {statistics.median(found):,.0f} | {spread(found)} | {ratio:.2f} |")


def spread(values: list[float]) -> str:
    return f"{min(values):,.0f} to {max(values):,.0f}"


# --------------------------------------------------------------------- beside other toolkits

Rows = dict[tuple[str, str], list[processes.Measured]]
"""What each toolkit in each precision showed, a value a round."""


def compare_apart(given: argparse.Namespace) -> int:
    """Install and measure the toolkits, and print the table; 1 if one cannot be installed."""
    chosen = [peers.every()[name] for name in chosen_names(given.peers)]
    left_out: dict[str, str] = {}
    ready = [peer for peer in chosen if installed(peer, left_out)]
    rows: Rows = {}
    if not given.install:
        folder = pieces_of(given)
        for number in range(given.rounds):
            measure_round(ready, rows, left_out, folder, given, number)
        print_peers(rows, given)
        if given.json:
            write_json(given.json, rows, left_out, given)
    for name, reason in left_out.items():
        print(f"\nLeft out: {name}: {reason}")
    return 1 if left_out and given.install else 0


def chosen_names(given: str) -> list[str]:
    """The names in a list with commas, mt first; `all` is all."""
    known = peers.every()
    asked = list(known) if given == "all" else ["mt", *given.split(",")]
    if unknown := [name for name in asked if name not in known]:
        raise SystemExit(f"no toolkit {unknown[0]}; there are {', '.join(known)}")
    return list(dict.fromkeys(asked))


def installed(peer: peers.Peer, left_out: dict[str, str]) -> bool:
    try:
        environments.install(peer)
    except environments.NoPeer as error:
        left_out[peer.version] = str(error)
        return False
    return True


def pieces_of(given: argparse.Namespace) -> Path:
    """The folder of the pieces to train on."""
    size = given.pieces or (8000 if given.data else 1000)
    if given.data:
        return pieces.cut(pieces.folder_pairs(given.data, given.source, given.target), size)
    return pieces.cut(pieces.demo_pairs(given.source, given.target), size)


def measure_round(
    ready: list[peers.Peer], rows: Rows, left_out: dict[str, str], folder: Path,
    given: argparse.Namespace, number: int,
) -> None:  # fmt: skip
    """One training of each toolkit; in the first round one in each precision."""
    for peer in ready:
        for precision in peer.precisions if number == 0 else going_on(peer, rows):
            name = peers.row_name(peer, precision)
            print(f"round {number + 1} of {given.rounds}: {name}", end=" ", file=sys.stderr)
            sys.stderr.flush()
            try:
                found = processes.measure(
                    peer, precision, folder, given.warm_up, given.updates, given.threads
                )
            except environments.NoPeer as error:
                left_out[name] = str(error)
                rows.pop((peer.name, precision), None)
                print(f"failed: {error}", file=sys.stderr)
                continue
            rows.setdefault((peer.name, precision), []).append(found)
            speed, memory = found.tokens_per_second, found.peak_megabytes
            told = f"{speed:,.0f} tokens/s, {memory:,.0f} MB, {found.seconds:.0f} s"
            print(told, file=sys.stderr)


def going_on(peer: peers.Peer, rows: Rows) -> list[str]:
    """The precisions of a toolkit to measure again: all that work, or the fastest."""
    worked = [precision for precision in peer.precisions if (peer.name, precision) in rows]
    if peer.keeps_all or not worked:
        return worked
    return [max(worked, key=lambda p: rows[peer.name, p][0].tokens_per_second)]


def reference(rows: Rows) -> list[processes.Measured]:
    """mt as it trains by itself: in the precision that is faster."""
    ours = [found for (name, _), found in rows.items() if name == "mt"]
    if not ours:
        raise SystemExit("mt itself could not be measured")
    return max(ours, key=speed_of)


def speed_of(found: list[processes.Measured]) -> float:
    return statistics.median(one.tokens_per_second for one in found)


def print_peers(rows: Rows, given: argparse.Namespace) -> None:
    """The fastest first; ratios are medians over rounds."""
    ours = reference(rows)
    known = peers.every()
    print(f"{given.threads} threads, torch {torch.__version__}, {given.rounds} rounds in turn,")
    print(f"{given.updates} updates after {given.warm_up} of warm-up; memory is the peak of the")
    print("resident memory of the whole process tree of so short a run\n")
    print("| toolkit | target tokens/s, median | lowest to highest | its speed / mt's | "
          "tokens an update | peak RSS, MB | rounds |")  # fmt: skip
    print("|---|---:|---:|---:|---:|---:|---:|")
    for (name, precision), found in sorted(rows.items(), key=lambda row: -speed_of(row[1])):
        speeds = [one.tokens_per_second for one in found]
        pairs = zip(speeds, ours, strict=False)  # one that was given up has fewer rounds
        ratio = statistics.median(speed / one.tokens_per_second for speed, one in pairs)
        tokens = statistics.median(one.tokens_per_update for one in found)
        memory = max(one.peak_megabytes for one in found)
        print(f"| {peers.row_name(known[name], precision)} | {speed_of(found):,.0f} | "
              f"{spread(speeds)} | {ratio:.2f} | {tokens:,.0f} | {memory:,.0f} | "
              f"{len(found)} |")  # fmt: skip


def write_json(path: Path, rows: Rows, left_out: dict[str, str], given: argparse.Namespace) -> None:
    value = {
        "torch": torch.__version__, "threads": given.threads, "updates": given.updates,
        "warm_up": given.warm_up, "data": str(given.data or "demo"), "left_out": left_out,
        "rows": [
            {"toolkit": peers.every()[name].version, "precision": precision,
             "rounds": [asdict(one) for one in found]}
            for (name, precision), found in rows.items()
        ],
    }  # fmt: skip
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, nargs="?", default=Path("configs/demo.yaml"))
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE")
    parser.add_argument("--updates", type=int, default=8, help="measured updates a round")
    parser.add_argument("--rounds", type=int, default=5)
    apart = parser.add_argument_group("beside other toolkits")
    apart.add_argument("--peers", metavar="all|NAME,NAME", help=", ".join(peers.every()))
    apart.add_argument("--install", action="store_true", help="only install them")
    apart.add_argument("--data", type=Path, metavar="FOLDER", help="train.LANGUAGE, val.LANGUAGE")
    apart.add_argument("--source", default="en", metavar="LANGUAGE")
    apart.add_argument("--target", default="de", metavar="LANGUAGE")
    apart.add_argument("--pieces", type=int, help="8000, or 1000 for the demo")
    apart.add_argument("--warm-up", type=int, default=3, help="updates before those that count")
    apart.add_argument("--threads", type=int, default=2)
    apart.add_argument("--json", type=Path, metavar="FILE", help="also write every measurement")
    given = parser.parse_args()
    if given.install and not given.peers:
        given.peers = "all"
    if given.peers:
        return compare_apart(given)
    compare_here(given)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
