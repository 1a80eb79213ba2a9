"""How long preparing takes beside bare SentencePiece encoding, and how much memory.

Prepares pairs of the `demo` source, each time in a fresh cache and process, in turn with bare
SentencePiece encoding of the same lines in the same number of processes (their start and the
reading of the lines not counted). Then compares the peak of unshared memory, children included,
with that of few pairs. Prints Markdown.

    python scripts/bench/preparing.py                          # 1,000,000 pairs against 10,000
    python scripts/bench/preparing.py --pairs 20000 --few 5000 --repeats 1
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import memory

ROOT = Path(__file__).parents[2]
MOST_RATIO, MOST_MEGABYTES = 2.0, 300


def recipe_of(pairs: int, arguments: argparse.Namespace):
    from mt.config import recipe, validation, yaml_reader

    train = {"kind": "demo", "split": "train", "size": pairs, "seed": 1}
    value = {
        "languages": {"source": arguments.source, "target": arguments.target},
        "data": {
            "train": [train], "valid": {**train, "split": "valid", "size": 1000},
            "processes": arguments.processes,
        },
        "vocabulary": {"size": arguments.size, "model": arguments.model},
        "training": {"max_steps": 10_000},
    }  # fmt: skip
    return validation.validate(recipe.Recipe, yaml_reader.Document(value))


# ------------------------------------------------------------------------------- preparing


def prepare_here(pairs: int, arguments: argparse.Namespace) -> None:
    """What the child process does: prepare, and print the report and the folder."""
    from mt.data.prepare import prepare

    prepared = prepare(recipe_of(pairs, arguments), lambda line: None)
    print(json.dumps({"report": prepared.report, "folder": str(prepared.folder)}))


def prepare_apart(pairs: int, cache: str, arguments: argparse.Namespace) -> tuple[dict, float]:
    """The result of preparing in a fresh process, and its peak of unshared memory in MB."""
    environment = {**os.environ, "MT_CACHE": cache, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--child", str(pairs)]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    with memory.Watch(child, memory.unshared) as watch:
        told, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"preparing {pairs} pairs failed ({child.returncode})")
    return json.loads(told), watch.peak


# ------------------------------------------------------------------------------------ bare


def encode_bare(folder: str, part: int, parts: int, ready, start, result) -> None:
    """One process of bare encoding: both sides of its share of the lines, a thousand at a time."""
    import sentencepiece

    from mt.runtime import files

    model = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/vocabulary.model")
    shares = []
    for side in ("source", "target"):
        lines = list(files.read_lines(Path(folder) / f"{side}.txt"))
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
    """Seconds of bare encoding in so many processes, and the tokens."""
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
    begin = time.perf_counter()
    start.set()
    tokens = sum(result.get() for _ in workers)
    seconds = time.perf_counter() - begin
    for worker in workers:
        worker.join()
    return seconds, tokens


def write_lines(folder: str, arguments: argparse.Namespace) -> None:
    """The same lines as text, for bare encoding."""
    from mt.data.pairs import read_pairs

    (corpus,) = recipe_of(arguments.pairs, arguments).data.train
    names = [Path(folder) / f"{side}.txt" for side in ("source", "target")]
    with open(names[0], "w", encoding="utf-8") as a, open(names[1], "w", encoding="utf-8") as b:
        for pair in read_pairs(corpus):
            a.write(f"{pair.source}\n")
            b.write(f"{pair.target}\n")


# ----------------------------------------------------------------------------------- report


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--source", default="en")
    parser.add_argument("--target", default="de")
    parser.add_argument("--size", type=int, default=2000, help="of the vocabulary")
    parser.add_argument("--model", default="unigram", choices=["unigram", "bpe"])
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        prepare_here(arguments.child, arguments)
        return 0
    return measure(arguments)


def measure(arguments: argparse.Namespace) -> int:
    seconds: dict[str, list[float]] = {}
    bare, many, few = [], [], []
    with tempfile.TemporaryDirectory() as lines:
        write_lines(lines, arguments)
        for repeat in range(arguments.repeats):
            print(f"repeat {repeat + 1} of {arguments.repeats}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as cache:
                told, peak = prepare_apart(arguments.pairs, cache, arguments)
                model = Path(told["folder"]) / "vocabulary.model"
                (Path(lines) / model.name).write_bytes(model.read_bytes())
                few.append(prepare_apart(arguments.few, cache, arguments)[1])
            many.append(peak)
            took, tokens = time_bare(lines, arguments.processes)
            bare.append(took)
            for step, value in told["report"]["seconds"].items():
                seconds.setdefault(step, []).append(value)
    ratios = [a / b for a, b in zip(seconds["encoding"], bare, strict=True)]
    more = statistics.median(many) - statistics.median(few)
    print(f"{arguments.pairs:,} pairs, {arguments.processes} processes, {tokens:,} tokens,")
    print(f"{arguments.model}, {arguments.repeats} repeats in turn: median (least to most)\n")
    print("| step | seconds |\n|---|---:|")
    print(f"| reading the source (generation included) | {spread(seconds['reading'])} |")
    print(f"| learning the vocabulary | {spread(seconds['vocabulary'])} |")
    print(f"| encoding and writing | {spread(seconds['encoding'])} |")
    print(f"| bare SentencePiece encoding | {spread(bare)} |\n")
    print("| peak of unshared memory | MB |\n|---|---:|")
    print(f"| {arguments.pairs:,} pairs | {spread(many)} |")
    print(f"| {arguments.few:,} pairs | {spread(few)} |\n")
    fast, small = statistics.median(ratios) <= MOST_RATIO, more < MOST_MEGABYTES
    verdict = {True: "holds", False: "MISSED"}
    print(f"- ratio {spread(ratios)}, at most {MOST_RATIO}: {verdict[fast]}")
    print(f"- {more:.0f} MB more, less than {MOST_MEGABYTES}: {verdict[small]}")
    return 0 if fast and small else 1


if __name__ == "__main__":
    raise SystemExit(main())
