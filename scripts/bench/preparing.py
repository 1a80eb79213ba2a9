"""How long preparing takes beside bare SentencePiece encoding, and how much memory.

Prepares pairs of the `demo` source, each time in a fresh cache and process, and then encodes the
same lines with bare SentencePiece in as many processes (their start and the reading of the lines
not counted). Then compares the peak of unshared memory, children included, with that of few pairs.
Prints Markdown.

    python scripts/bench/preparing.py                          # 1,000,000 pairs against 10,000
    python scripts/bench/preparing.py --pairs 20000 --few 5000 --repeats 1
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import harness
from harness import summary

MOST_RATIO, MOST_MEGABYTES = 2.0, 300
SIDES = ("source", "target")


def make_recipe(pairs: int, given: argparse.Namespace) -> Any:
    from mt.config import recipe, validation, yaml_reader

    train = {"kind": "demo", "split": "train", "size": pairs, "seed": 1}
    value = {
        "languages": {"source": given.source, "target": given.target},
        "data": {
            "train": [train], "valid": {**train, "split": "valid", "size": 1000},
            "processes": given.processes,
        },
        "vocabulary": {"size": given.size, "model": given.model},
        "training": {"max_steps": 10_000},
    }  # fmt: skip
    return validation.validate(recipe.Recipe, yaml_reader.Document(value))


def prepare_here(given: argparse.Namespace) -> None:
    """Prepare in this process, a child; print the report and the folder."""
    from mt.data.prepare import prepare

    prepared = prepare(make_recipe(given.child, given), lambda line: None)
    print(json.dumps({"report": prepared.report, "folder": str(prepared.folder)}))


def prepare_apart(pairs: int, cache: str) -> harness.Finished:
    """Prepare in a fresh process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", pairs]
    variables = {"MT_CACHE": cache, "OMP_NUM_THREADS": "1"}
    return harness.run(command, variables, measure=harness.unshared)


# ------------------------------------------------------------------------------------ bare


def encode_bare(folder: str, part: int, parts: int, ready: Any, start: Any, result: Any) -> None:
    """Encode both sides of a share of the lines, a thousand at a time, in one process."""
    import sentencepiece

    from mt.runtime import text_files

    model = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/vocabulary.model")
    shares = []
    for side in SIDES:
        lines = list(text_files.read_lines(Path(folder) / f"{side}.txt"))
        shares.append(lines[len(lines) * part // parts : len(lines) * (part + 1) // parts])
        del lines
    ready.wait()
    start.wait()
    tokens = 0
    for share in shares:
        for first in range(0, len(share), 1000):
            encoded = model.encode(share[first : first + 1000], out_type=int, num_threads=1)
            tokens += sum(map(len, encoded))
    result.put(tokens)


def time_bare(folder: str, processes: int) -> tuple[float, int]:
    """Return the seconds of bare encoding in several processes, and the tokens."""
    context = multiprocessing.get_context("spawn")
    ready, start = context.Barrier(processes + 1), context.Event()
    result = context.SimpleQueue()
    workers = [
        context.Process(target=encode_bare, args=(folder, i, processes, ready, start, result))
        for i in range(processes)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    began = time.perf_counter()
    start.set()
    tokens = sum(result.get() for _ in workers)
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    return seconds, tokens


def write_lines(folder: str, given: argparse.Namespace) -> None:
    """Write the same lines as text, for bare encoding."""
    from mt.data.pairs import read_pairs

    (corpus,) = make_recipe(given.pairs, given).data.train
    names = [Path(folder) / f"{side}.txt" for side in SIDES]
    with open(names[0], "w", encoding="utf-8") as a, open(names[1], "w", encoding="utf-8") as b:
        for pair in read_pairs(corpus):
            a.write(f"{pair.source}\n")
            b.write(f"{pair.target}\n")


# ----------------------------------------------------------------------------------- report


def main() -> int:
    parser = harness.make_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, default=harness.count_cores())
    parser.add_argument("--source", default="en")
    parser.add_argument("--target", default="de")
    parser.add_argument("--size", type=int, default=2000, help="of the vocabulary")
    parser.add_argument("--model", default="unigram", choices=["unigram", "bpe"])
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        prepare_here(given)
        return 0
    return measure(given)


def measure(given: argparse.Namespace) -> int:
    """Measure, print the tables, and return 1 if a limit is exceeded."""
    seconds: dict[str, list[float]] = {}
    bare, many, few = [], [], []
    with tempfile.TemporaryDirectory() as lines:
        write_lines(lines, given)
        for repeat in range(given.repeats):
            harness.say(f"repeat {repeat + 1} of {given.repeats}")
            with tempfile.TemporaryDirectory() as cache:
                prepared = prepare_apart(given.pairs, cache)
                model = Path(prepared.result["folder"]) / "vocabulary.model"
                (Path(lines) / model.name).write_bytes(model.read_bytes())
                few.append(prepare_apart(given.few, cache).peak)
            many.append(prepared.peak)
            took, tokens = time_bare(lines, given.processes)
            bare.append(took)
            for step, value in prepared.result["report"]["seconds"].items():
                seconds.setdefault(step, []).append(value)
    print(f"{given.pairs:,} pairs, {given.processes} processes, {tokens:,} tokens,")
    print(f"{given.model}, {given.repeats} repeats in turn: median (least to most)\n")
    times = {
        "reading the source (generation included)": seconds["reading"],
        "learning the vocabulary": seconds["vocabulary"],
        "encoding and writing": seconds["encoding"], "bare SentencePiece encoding": bare,
    }  # fmt: skip
    peaks = {f"{given.pairs:,} pairs": many, f"{given.few:,} pairs": few}
    for head, sides in (("step | seconds", times), ("peak of unshared memory | MB", peaks)):
        rows = [(name, summary(values, ".2f")) for name, values in sides.items()]
        print(harness.table(head, rows, right=True) + "\n")
    ratios = harness.divide(seconds["encoding"], bare)
    more = median(many) - median(few)
    fast, small = median(ratios) <= MOST_RATIO, more < MOST_MEGABYTES
    verdict = {True: "holds", False: "MISSED"}
    print(f"- ratio {summary(ratios, '.2f')}, at most {MOST_RATIO}: {verdict[fast]}")
    print(f"- {more:.0f} MB more, less than {MOST_MEGABYTES}: {verdict[small]}")
    return 0 if fast and small else 1


if __name__ == "__main__":
    raise SystemExit(main())
