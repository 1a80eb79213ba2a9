"""Decoding measured: speed beside CTranslate2 and transformers, start-up, exports, memory.

    python scripts/bench/decoding.py RUN --source FILE --reference FILE --rounds 5
    python scripts/bench/decoding.py RUN --source FILE --reference FILE --sections exports,startup

RUN is a run directory; the exports are made from it into --work (a temporary folder if left out).

| section | what |
|---|---|
| speed | mt's native engine, CTranslate2 float32 in a bare loop, transformers: beam 5 and greedy |
| ctranslate2 | mt on an int8 CTranslate2 folder beside a bare loop around the same folder |
| startup | one short sentence, whole process: `mt translate` on the run and on the folder |
| exports | forced scores, greedy and beam output of the exports against the run, int8 BLEU |
| laws | lines that change with batches, order, processes or bits, and against the plain search |
| memory | resident memory while --lines lines go through `mt translate` |

Every measurement is a process of its own, all of a section in turn (A B C ... A B C ...); tables
tell medians and spread, ratios are medians of the ratios of a round. `lines/s` is without import
and loading, `whole` is the process from its start to its end. Standard output is Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).parents[2]))  # mt of this checkout

import memory
import plain_search

from mt.checkpoints import bundle, run_directory
from mt.config.plugins import plugin
from mt.data.pairs import Pair
from mt.decoding.translate import open_engine
from mt.decoding.types import Engine, EngineOptions
from mt.evaluation import metrics
from mt.special_tokens import END

ROOT = Path(__file__).parents[2]
SECTIONS = ("speed", "ctranslate2", "startup", "exports", "laws", "memory")
WHERE = {**os.environ, "PYTHONPATH": str(ROOT)}
MT = [sys.executable, "-m", "mt"]
WARM = 0.2
"""The share of the lines after which memory should not grow any more."""


@dataclass
class System:
    """Something that translates, and what a round each has shown."""

    name: str
    program: str
    model: Path
    settings: tuple[str, ...] = ()
    speeds: list[float] = field(default_factory=list)
    """Lines a second without loading."""
    wholes: list[float] = field(default_factory=list)
    """Seconds of the process."""
    peaks: list[float] = field(default_factory=list)
    """Most megabytes of the process, of whichever processes it began not counted."""
    bleu: float = 0.0

    def measure(self, given: argparse.Namespace, beams: int) -> None:
        """One process."""
        out = given.work / "out.txt"
        command = [
            sys.executable, str(Path(__file__).with_name("decoders.py")), self.program,
            str(self.model), "--source", str(given.source), "--out", str(out),
            "--beams", str(beams), *self.settings,
        ]  # fmt: skip
        began = time.perf_counter()
        done = subprocess.run(command, env=WHERE, capture_output=True, text=True, check=False)
        self.wholes.append(time.perf_counter() - began)
        if done.returncode:
            raise SystemExit(f"{self.name}: {done.stderr[-2000:]}")
        told = json.loads(done.stdout.splitlines()[-1])
        seconds = told["translate"]
        self.peaks.append(told["peak"] / 1e6)
        lines = out.read_text(encoding="utf-8").splitlines()
        self.speeds.append(len(lines) / seconds)
        self.bleu = bleu_of(lines, given)


def bleu_of(lines: Sequence[str], given: argparse.Namespace) -> float:
    found = metrics.score_translations(
        lines, [given.references], given.recipe.languages.target, given.recipe.evaluation
    )
    return found["BLEU"]["score"]


def layout(workers: int, threads: int) -> tuple[str, ...]:
    return ("--workers", str(workers), "--threads", str(threads))


def in_turn(systems: Sequence[System], given: argparse.Namespace, beams: int) -> None:
    """Measure them, in turn; the table, with ratios to the fastest bare loop."""
    systems = [each for each in systems if not any(word in each.name for word in given.without)]
    for _ in range(given.rounds):
        for system in systems:
            system.measure(given, beams)
    best = max(
        (s for s in systems if s.program == "bare"), key=lambda s: statistics.median(s.speeds)
    )
    print(f"\n{'greedy' if beams == 1 else f'beam {beams}'}, {given.rounds} rounds:\n")
    print("| | lines/s, median | lowest to highest | ratio | whole, s | ratio | BLEU |")
    print("|---|---|---|---|---|---|---|")
    for each in systems:
        speed = ratio(each.speeds, best.speeds)
        whole = ratio(best.wholes, each.wholes)
        print(
            f"| {each.name} | {statistics.median(each.speeds):.1f} | {spread(each.speeds)} "
            f"| {speed:.2f} | {statistics.median(each.wholes):.2f} | {whole:.2f} "
            f"| {each.bleu:.2f} |"
        )
    print(f"\nratios: times as fast as {best.name}")


def ratio(these: Sequence[float], those: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


def spread(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"


def exported(given: argparse.Namespace, kind: str, quantization: str | None = None) -> Path:
    """An export of the run, made when it is not there yet."""
    path: Path = given.work / (kind if quantization is None else f"{kind}-{quantization}")
    if not path.exists():
        more = [] if quantization is None else ["--quantization", quantization]
        sample = ["--sample", str(given.source)]
        command = [*MT, "export", str(given.run), "--to", kind, "-o", str(path), *more, *sample]
        done = subprocess.run(command, env=WHERE, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        sys.stderr.write(done.stdout)
    return path


# ------------------------------------------------------------------------------ sections


def speed(given: argparse.Namespace) -> None:
    """mt beside CTranslate2 float32 and transformers."""
    theirs, other = exported(given, "ctranslate2"), exported(given, "huggingface")
    cores = given.cores
    shapes = [(1, cores), (cores, 1)]
    for beams in (given.beams, 1):
        systems = []
        for workers, threads in shapes:
            name, shape = f"{workers} x {threads}", layout(workers, threads)
            systems += [
                System(f"mt fp32, {name}", "mt", given.run, (*shape, "--precision", "fp32")),
                System(f"mt auto, {name}", "mt", given.run, (*shape, "--precision", "auto")),
                System(f"CTranslate2 float32, {name}", "bare", theirs, shape),
            ]
        shape = layout(1, cores)
        systems.append(System("transformers generate", "huggingface", other, shape))
        in_turn(systems, given, beams)


def ctranslate2(given: argparse.Namespace) -> None:
    """mt on a CTranslate2 folder beside a bare loop."""
    theirs = exported(given, "ctranslate2", "int8")
    systems = []
    for workers, threads in ((1, given.cores), (given.cores, 1)):
        name, shape = f"{workers} x {threads}", layout(workers, threads)
        systems += [
            System(f"mt on int8, {name}", "mt", theirs, shape),
            System(f"bare loop on int8, {name}", "bare", theirs, shape),
        ]
    in_turn(systems, given, given.beams)


def startup(given: argparse.Namespace) -> None:
    """One short sentence, whole process."""
    names = {"native": given.run, "CTranslate2 int8": exported(given, "ctranslate2", "int8")}
    commands = {name: [*MT, "translate", str(model)] for name, model in names.items()}
    commands["python -c 'import torch'"] = [sys.executable, "-c", "import torch"]
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(given.rounds + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            done = subprocess.run(command, env=WHERE, input=b"A man sleeps.\n", check=True,
                                  capture_output=True)  # fmt: skip
            assert done.stdout or "import" in name
            found[name].append(time.perf_counter() - began)
    print("\n| one short sentence | seconds, median | lowest to highest |\n|---|---|---|")
    for name, values in found.items():
        warm = values[1:]  # the first has read everything from the disk
        print(f"| {name} | {statistics.median(warm):.2f} | {min(warm):.2f} to {max(warm):.2f} |")


def exports(given: argparse.Namespace) -> None:
    """Forced scores and outputs of each export against the run."""
    opened = run_directory.open_run(given.run)
    ours = open_engine(given.run, EngineOptions(device="cpu", precision="fp32"))
    open_theirs = plugin("exporters", "huggingface").open
    engines: dict[str, Engine] = {
        "CTranslate2 float32": open_engine(exported(given, "ctranslate2"), EngineOptions()),
        "CTranslate2 int8": open_engine(exported(given, "ctranslate2", "int8"), EngineOptions()),
        "transformers": open_theirs(exported(given, "huggingface"), opened),
    }
    pairs = [Pair(a, b, "", "", "test") for a, b in zip(given.lines, given.references, strict=True)]
    settings = [
        EngineOptions(search=each)
        for each in ({"kind": "greedy"}, {"kind": "beam", "beams": given.beams})
    ]
    expected = [list(ours.translate(given.lines, each)) for each in settings]
    forced = [each.log_probability for each in ours.score(pairs)]
    print("\n| export | forced scores, largest relative difference | greedy lines equal ", end="")
    print(f"| beam {given.beams} lines equal | BLEU | BLEU of the run |\n|---|---|---|---|---|---|")
    notes = []
    for name, engine in engines.items():
        scores = [each.log_probability for each in engine.score(pairs)]
        apart = max(abs(a - b) / abs(a) for a, b in zip(forced, scores, strict=True))
        found = [[each.text for each in engine.translate(given.lines, one)] for one in settings]
        equal = [
            [a.text == b for a, b in zip(mine, theirs, strict=True)]
            for mine, theirs in zip(expected, found, strict=True)
        ]
        bleu = bleu_of(found[1], given), bleu_of([each.text for each in expected[1]], given)
        counts = " | ".join(f"{sum(each)} of {len(each)}" for each in equal)
        print(f"| {name} | {apart:.1e} | {counts} | {bleu[0]:.2f} | {bleu[1]:.2f} |")
        if "int8" not in name:
            notes += differing(name, engine, equal, expected, found, given)
    print("".join(f"\n- {note}" for note in notes) or "\nNo line differs in float32.")


def differing(
    name: str, engine: Engine, equal: Any, expected: Any, found: Any, given: argparse.Namespace
) -> list[str]:
    """Each line that differs, with what both engines think of both translations."""
    notes = []
    for kind, flags, mine, theirs in zip(("greedy", "beam"), equal, expected, found, strict=True):
        for number, same in enumerate(flags):
            if same:
                continue
            texts = mine[number].text, theirs[number]
            pairs = [Pair(given.lines[number], text, "", "", "test") for text in texts]
            told = [f"{each.log_probability:.5f}" for each in engine.score(pairs)]
            notes.append(f"{name}, {kind}, line {number + 1}: {texts[0]} ({told[0]}) / "
                         f"{texts[1]} ({told[1]})")  # fmt: skip
    return notes


def laws(given: argparse.Namespace) -> None:
    """What should change no translation, and how many it changes; BLEU where it may."""
    one = EngineOptions(device="cpu", precision="fp32", threads=1)
    native = open_engine(given.run, one)
    batch = {"device": "cpu", "precision": "fp32"}
    print("\n| beam / greedy | lines that differ from fp32 | BLEU |\n|---|---|---|")
    for search in ({"kind": "beam", "beams": given.beams}, {"kind": "greedy"}):
        settings = EngineOptions(search=search, **batch)
        expected = texts(native, given.lines, settings)
        several = open_engine(given.run, EngineOptions(processes=2, **batch))
        small = EngineOptions(search=search, batch_tokens=300, **batch)
        fewer = open_engine(given.run, EngineOptions(device="cpu", threads=1))
        found = {
            "fp32": expected,
            "in batches of a few sentences": texts(native, given.lines, small),
            "in reverse order": texts(native, given.lines[::-1], settings)[::-1],
            "by two processes": texts(several, given.lines, settings),
            "--precision auto": texts(fewer, given.lines, settings),
        }
        for name, lines in found.items():
            apart = sum(a != b for a, b in zip(expected, lines, strict=True))
            print(f"| {search['kind']}, {name} | {apart} | {bleu_of(lines, given):.2f} |")
        plain = [plainly(native, line, search) for line in given.lines[: given.plain]]
        told = zip(expected, plain, strict=False)
        apart = [number for number, (a, b) in enumerate(told, start=1) if a != b]
        print(
            f"| {search['kind']}, the plain search, first {given.plain} | {len(apart)} {apart} | |"
        )


def texts(engine: Engine, lines: Sequence[str], options: EngineOptions) -> list[str]:
    return [each.text for each in engine.translate(lines, options)]


def plainly(engine: Any, line: str, search: dict[str, Any]) -> str:
    """A line by the plain search: no cache, no batch, no packed weights."""
    ids = engine.vocabulary.encode_source([line])[0]
    config = engine.profile.search
    longest = int(config.max_length_ratio * len(ids)) + config.max_length_extra + 1
    follow = plain_search.next_token(engine.searcher.models[0].eval(), [*ids, END])
    if search["kind"] == "greedy":
        found = plain_search.greedy(follow, longest)
    else:
        found = plain_search.beam(follow, search["beams"], longest)
    return str(engine.vocabulary.decode_target([found[0][1]])[0])


def flat(given: argparse.Namespace) -> None:
    """Resident memory of `mt translate` over many lines."""
    many = given.work / "many.txt"
    repeated = (given.lines * (given.many // len(given.lines) + 1))[: given.many]
    many.write_text("".join(f"{line}\n" for line in repeated), encoding="utf-8")
    models = {"native": given.run, "CTranslate2 int8": exported(given, "ctranslate2", "int8")}
    print(
        f"\n| {given.many} lines | after {WARM:.0%}, MB | most afterwards, MB | growth, MB ", end=""
    )
    print("| lines/s |\n|---|---|---|---|---|")
    for name, model in models.items():
        out, seconds, samples = given.work / "many.out", 0.0, list[tuple[float, float]]()
        began = time.perf_counter()
        with many.open("rb") as stream, out.open("wb") as sink:
            command = [*MT, "translate", str(model), "--set", "search.beams=2"]
            child = subprocess.Popen(command, env=WHERE, stdin=stream, stdout=sink)
            looking = threading.Thread(target=sample, args=(child, out, many, samples))
            looking.start()
            child.wait()
            looking.join()
        seconds = time.perf_counter() - began
        assert child.returncode == 0
        assert out.read_bytes().count(b"\n") == given.many
        warm = [size for done, size in samples if done >= WARM]
        first, most = warm[0], max(warm)
        print(f"| {name} | {first:.1f} | {most:.1f} | {most - first:.1f} "
              f"| {given.many / seconds:.0f} |")  # fmt: skip


def sample(
    child: subprocess.Popen[bytes], out: Path, many: Path, samples: list[tuple[float, float]]
) -> None:
    """(share done, MB resident) a few times a second; the share is of bytes written."""
    size = many.stat().st_size
    while child.poll() is None:
        megabytes = sum(map(memory.resident, memory.tree(child.pid))) / 1024
        if megabytes:
            samples.append((out.stat().st_size / size, megabytes))
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--sections", default=",".join(SECTIONS), help=", ".join(SECTIONS))
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="WORD",
        help="leave out what has this in its name, say transformers",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--lines", type=int, default=100_000, dest="many", help="of memory")
    parser.add_argument("--plain", type=int, default=200, help="lines by the plain search")
    parser.add_argument("--work", type=Path, help="where exports are made and kept")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    wanted = given.sections.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are: {', '.join(SECTIONS)}")
    given.recipe = bundle.read_any_recipe(given.run)
    given.lines = given.source.read_text(encoding="utf-8").splitlines()
    given.references = given.reference.read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as temporary:
        given.work = given.work or Path(temporary)
        given.work.mkdir(parents=True, exist_ok=True)
        every = (speed, ctranslate2, startup, exports, laws, flat)
        sections = dict(zip(SECTIONS, every, strict=True))
        for name in wanted:
            print(f"\n## {name}")
            sections[name](given)
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
