"""Training speed of mt beside a plain torch.nn.Transformer loop, or beside other toolkits.

    python scripts/bench/training.py configs/demo.yaml --updates 8 --rounds 5
    python scripts/bench/training.py --peers all --data FOLDER --rounds 3

    python scripts/bench/training.py --busy 2 --updates 60

Without `--peers`: in this process, the model of the recipe, dropout wherever torch's has it
(attention weights, feed-forward, residuals, embeddings), the same micro-batches in the same order.

With `--peers`: real commands in processes of their own, in turn, each toolkit in an environment of
its own in `.bench` or `$MT_BENCH`, installed when it is not there yet (`--install`: only that;
about 1.5 GB). FOLDER holds train.LANGUAGE and val.LANGUAGE; without it the `demo` source is written
out. All train on the same pieces with the same sizes (`peers/`). A toolkit that cannot be installed
or run is left out, and the reason is printed. The first round tries each precision that a toolkit
has on a CPU, the later ones continue with the faster.

With `--busy N`, N other processes compute all the time, and mt is timed without and with the watch
that lets its threads sleep beside them (`mt/runtime/cpu_contention.py`).

The speed is in target tokens a second without padding. Standard output is Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast

import harness
import peers
import torch
from peers import environments, pieces, processes
from peers.programs.plain_train import PlainUpdates
from updates import Updates, first_updates

from mt.config import recipe
from mt.data.prepare import prepare
from mt.interfaces import Batch
from mt.runtime import device
from mt.runtime.cpu_contention import CpuContention
from mt.training.autotune import MAX_CPU_TOKENS

# --------------------------------------------------------------------------- in this process


def compare_here(given: argparse.Namespace) -> None:
    """Time mt and the plain loop in turn and print the table."""
    settings, _ = recipe.load(given.config, given.sets)
    threads = device.use_threads(settings.runtime.threads)
    prepared = prepare(settings, lambda line: None)
    corpus, vocabulary = prepared.train, prepared.vocabulary
    dropout = cast(Any, settings.model).dropout
    everywhere = {"attention_dropout": dropout, "activation_dropout": dropout}
    ours = settings.model_copy(update={"model": settings.model.model_copy(update=everywhere)})
    sides: dict[str, Any] = {
        "plain torch.nn.Transformer, fp32": PlainUpdates(
            settings.model, vocabulary.target_size, dropout
        ),
        "mt, fp32": Updates(ours, vocabulary, "fp32"),
        "mt, bf16": Updates(ours, vocabulary, "bf16"),
    }
    slots = MAX_CPU_TOKENS if (micro := settings.batching.micro_tokens) == "auto" else micro
    updates = first_updates(corpus, settings.batching, slots, given.updates)
    tokens = sum(int(batch.target_lengths.sum()) for update in updates for batch in update)

    def train(update: Any, some: list[list[Batch]]) -> None:
        for batches in some:
            update(batches)

    def train_watched(update: Any, some: list[list[Batch]]) -> None:
        with contextlib.closing(CpuContention(threads, lambda line: None)):
            train(update, some)

    for side in sides.values():
        train(side, updates[:1])
    timed = {name: partial(train, side, updates) for name, side in sides.items()}
    watched = {f"{name}, watched": side for name, side in sides.items() if name.startswith("mt")}
    if given.busy is not None:
        timed |= {name: partial(train_watched, side, updates) for name, side in watched.items()}
    with busy_processes(given.busy or 0):
        seconds = harness.time_in_turn(timed, given.rounds, warm_up=0)
    speeds = {name: [tokens / each for each in values] for name, values in seconds.items()}
    first = next(iter(speeds.values()))
    rows = [
        (name, f"{median(each):,.0f}", harness.spread(each), f"{harness.ratio(each, first):.2f}")
        for name, each in speeds.items()
    ]
    print(f"{threads} threads, torch {torch.__version__}, "
          f"{tokens / len(updates):.0f} target tokens an update\n")  # fmt: skip
    head = "side | target tokens/s, median | lowest to highest | ratio to plain, median"
    print(harness.table(head, rows))


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Let so many other processes compute."""
    command = [sys.executable, "-c", "while True: sum(range(1000))"]
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen(command)
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


# --------------------------------------------------------------------- beside other toolkits

Rows = dict[tuple[str, str], list[processes.Measured]]
"""The measurements of each toolkit in each precision, one for each round."""


def compare_apart(given: argparse.Namespace) -> int:
    """Install and measure the toolkits, and print the table; 1 if one cannot be installed."""
    chosen = [peers.load()[name] for name in read_names(given.peers)]
    left_out: dict[str, str] = {}
    ready = [peer for peer in chosen if install(peer, left_out)]
    rows: Rows = {}
    if not given.install:
        folder = make_pieces(given)
        for number in range(given.rounds):
            measure_round(ready, rows, left_out, folder, given, number)
        print_peers(rows, given)
    for name, reason in left_out.items():
        print(f"\nLeft out: {name}: {reason}")
    return 1 if left_out and given.install else 0


def read_names(given: str) -> list[str]:
    """Return the names in a list with commas, mt first; `all` is all."""
    known = peers.load()
    wanted = list(known) if given == "all" else ["mt", *given.split(",")]
    if unknown := [name for name in wanted if name not in known]:
        raise SystemExit(f"no toolkit {unknown[0]}; there are {', '.join(known)}")
    return list(dict.fromkeys(wanted))


def install(peer: peers.Peer, left_out: dict[str, str]) -> bool:
    """Install a toolkit; note the reason and return False if it cannot be."""
    try:
        environments.install(peer)
    except environments.NoPeer as error:
        left_out[peer.version] = str(error)
        return False
    return True


def make_pieces(given: argparse.Namespace) -> Path:
    """Return the folder of the pieces to train on."""
    size = given.pieces or (8000 if given.data else 1000)
    if given.data:
        return pieces.segment(pieces.folder_pairs(given.data, given.source, given.target), size)
    return pieces.segment(pieces.demo_pairs(given.source, given.target), size)


def measure_round(
    ready: list[peers.Peer], rows: Rows, left_out: dict[str, str], folder: Path,
    given: argparse.Namespace, number: int,
) -> None:  # fmt: skip
    """Train once with each toolkit; in the first round once in each precision."""
    for peer in ready:
        for precision in peer.precisions if number == 0 else remaining_precisions(peer, rows):
            name = peers.row_name(peer, precision)
            harness.say(f"round {number + 1} of {given.rounds}: {name}", end=" ")
            try:
                found = processes.measure(
                    peer, precision, folder, given.warm_up, given.updates, given.threads
                )
            except environments.NoPeer as error:
                left_out[name] = str(error)
                rows.pop((peer.name, precision), None)
                harness.say(f"failed: {error}")
                continue
            rows.setdefault((peer.name, precision), []).append(found)
            harness.say(f"{found.tokens_per_second:,.0f} tokens/s, {found.peak_megabytes:,.0f} MB, "
                        f"{found.seconds:.0f} s")  # fmt: skip


def remaining_precisions(peer: peers.Peer, rows: Rows) -> list[str]:
    """Return the precisions of a toolkit to measure again: all that work, or the fastest."""
    worked = [precision for precision in peer.precisions if (peer.name, precision) in rows]
    if peer.keeps_all or not worked:
        return worked
    return [max(worked, key=lambda p: rows[peer.name, p][0].tokens_per_second)]


def speeds_of(found: list[processes.Measured]) -> list[float]:
    return [one.tokens_per_second for one in found]


def print_peers(rows: Rows, given: argparse.Namespace) -> None:
    """Print the table, the fastest first; ratios are medians over rounds."""
    ours = [speeds_of(found) for (name, _), found in rows.items() if name == "mt"]
    if not ours:
        raise SystemExit("mt itself could not be measured")
    reference = max(ours, key=median)  # mt trains in the precision that is faster
    print(f"{given.threads} threads, torch {torch.__version__}, {given.rounds} rounds in turn,")
    print(f"{given.updates} updates after {given.warm_up} of warm-up; memory is the peak of the")
    print("resident memory of the whole process tree of so short a run\n")
    ordered = sorted(rows.items(), key=lambda row: -median(speeds_of(row[1])))
    cells = [
        (
            peers.row_name(peers.load()[name], precision), f"{median(speeds_of(found)):,.0f}",
            harness.spread(speeds_of(found)), f"{harness.ratio(speeds_of(found), reference):.2f}",
            f"{median(one.tokens_per_update for one in found):,.0f}",
            f"{max(one.peak_megabytes for one in found):,.0f}", len(found),
        )
        for (name, precision), found in ordered
    ]  # fmt: skip
    head = (
        "toolkit | target tokens/s, median | lowest to highest | its speed / mt's | "
        "tokens an update | peak RSS, MB | rounds"
    )
    print(harness.table(head, cells, right=True))


def main() -> int:
    parser = harness.make_parser(__doc__, recipe=True)
    parser.add_argument("--updates", type=int, default=8, help="measured updates a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", type=int, metavar="N", help="beside N busy processes")
    apart = parser.add_argument_group("beside other toolkits")
    apart.add_argument("--peers", metavar="all|NAME,NAME", help=", ".join(peers.load()))
    apart.add_argument("--install", action="store_true", help="only install them")
    apart.add_argument("--data", type=Path, metavar="FOLDER", help="train.LANGUAGE, val.LANGUAGE")
    apart.add_argument("--source", default="en", metavar="LANGUAGE")
    apart.add_argument("--target", default="de", metavar="LANGUAGE")
    apart.add_argument("--pieces", type=int, help="8000, or 1000 for the demo")
    apart.add_argument("--warm-up", type=int, default=3, help="updates before those that count")
    apart.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if given.install and not given.peers:
        given.peers = "all"
    if given.peers:
        return compare_apart(given)
    compare_here(given)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
