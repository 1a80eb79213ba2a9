"""Decoding: speed beside CTranslate2 and transformers, start-up, exports, memory.

    python scripts/bench/decoding.py RUN --source FILE --reference FILE --rounds 5
    python scripts/bench/decoding.py RUN --source FILE --reference FILE --sections exports,startup
    python scripts/bench/decoding.py RUN --source FILE --reference FILE --sections models --other N

RUN is a run directory; the exports are made from it into --work (a temporary folder if left out).

| section | what |
|---|---|
| speed | mt's native engine, CTranslate2 float32 in a bare loop, transformers: beam 5 and greedy |
| ctranslate2 | mt on an int8 CTranslate2 folder beside a bare loop around the same folder |
| weights | size, memory, speed and BLEU of the run and of exports with each type of weights |
| models | the same of the run and of other runs (--other), such as pruned ones; one thread |
| startup | one short sentence, whole process: `mt translate` on the run and on the folder |
| exports | forced scores, greedy and beam output of the exports against the run, int8 BLEU |
| laws | lines that change with batches, order, processes or bits, and against the plain search |
| memory | resident memory while --lines lines go through `mt translate` |

Every measurement is a process of its own, all of a section in turn; tables show medians and spread,
ratios are medians of the ratios of a round. `lines/s` is without import and loading, `whole` is the
process from its start to its end. Standard output is Markdown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import harness
import plain_search
from harness import MT, ratio, spread

from mt.checkpoints import run_directory
from mt.config.plugins import plugin
from mt.data.pairs import Pair
from mt.decoding.translate import open_engine
from mt.decoding.types import Engine, EngineOptions
from mt.evaluation import compare
from mt.special_tokens import END

WEIGHTS = ("float32", "int8", "int8_float32", "bfloat16")
"""Types of the weights of CTranslate2 folders."""
WARM = 0.2
"""The share of the lines after which memory should not grow any more."""


@dataclass
class System:
    """A translator, and what it showed in each round."""

    name: str
    program: str
    """See decoders.py."""
    model: Path
    settings: Sequence[str] = ()
    speeds: list[float] = field(default_factory=list)
    """Lines a second, loading not counted."""
    seconds: list[float] = field(default_factory=list)
    """Of the whole process."""
    peaks: list[float] = field(default_factory=list)
    """Most MB of the process; processes below it are not counted."""
    bleu: float = 0.0

    def measure(self, given: argparse.Namespace, beams: int) -> None:
        """Translate the source once, in a process of its own."""
        out = given.work / "out.txt"
        finished = harness.run([
            sys.executable, Path(__file__).with_name("decoders.py"), self.program, self.model,
            "--source", given.source, "--out", out, "--beams", beams, *self.settings,
        ])  # fmt: skip
        lines = harness.read_lines(out)
        self.speeds.append(len(lines) / finished.result["translate"])
        self.seconds.append(finished.seconds)
        self.peaks.append(finished.result["peak"] / 1e6)
        self.bleu = harness.bleu(lines, given.reference, given.run)


def layout(workers: int, threads: int) -> tuple[str, ...]:
    """Return the options of decoders.py for processes and threads."""
    return ("--workers", str(workers), "--threads", str(threads))


def measure_in_turn(systems: Sequence[System], given: argparse.Namespace, beams: int) -> None:
    """Measure the systems and print what follows: the search and the rounds."""
    harness.run_in_turn(
        {str(i): partial(each.measure, given, beams) for i, each in enumerate(systems)},
        given.rounds,
    )
    print(f"\n{'greedy' if beams == 1 else f'beam {beams}'}, {given.rounds} rounds", end="")


def compare_speed(systems: Sequence[System], given: argparse.Namespace, beams: int) -> None:
    """Measure the systems and print the table, with ratios to the fastest bare loop."""
    systems = [each for each in systems if not any(word in each.name for word in given.without)]
    measure_in_turn(systems, given, beams)
    best = max((s for s in systems if s.program == "bare"), key=lambda s: median(s.speeds))
    head = " | lines/s, median | lowest to highest | ratio | whole, s | ratio | BLEU"
    rows = [
        (each.name, f"{median(each.speeds):.1f}", spread(each.speeds, ".1f"),
         f"{ratio(each.speeds, best.speeds):.2f}", f"{median(each.seconds):.2f}",
         f"{ratio(best.seconds, each.seconds):.2f}", f"{each.bleu:.2f}")
        for each in systems
    ]  # fmt: skip
    print(f":\n\n{harness.table(head, rows)}\n\nratios: times as fast as {best.name}")


def compare_sizes(systems: Sequence[System], given: argparse.Namespace, beams: int) -> None:
    """Measure the systems and print the table with sizes, and with ratios to the first."""
    measure_in_turn(systems, given, beams)
    head = " | weights, MB | peak memory, MB | lines/s, median | lowest to highest | ratio | BLEU"
    rows = [
        (each.name, f"{compare.weight_bytes(each.model) / 1e6:.1f}", f"{median(each.peaks):.0f}",
         f"{median(each.speeds):.1f}", spread(each.speeds, ".1f"),
         f"{ratio(each.speeds, systems[0].speeds):.2f}", f"{each.bleu:.2f}")
        for each in systems
    ]  # fmt: skip
    print(f":\n\n{harness.table(head, rows)}")


def export(given: argparse.Namespace, kind: str, quantization: str | None = None) -> Path:
    """Return an export of the run, made when it is not there yet."""
    path: Path = given.work / (kind if quantization is None else f"{kind}-{quantization}")
    if not path.exists():
        more = [] if quantization is None else ["--quantization", quantization]
        command = [*MT, "export", given.run, "--to", kind, "-o", path, *more]
        for line in harness.run([*command, "--sample", given.source]).lines:
            harness.say(line.text)
    return path


# ------------------------------------------------------------------------------ sections


def measure_speed(given: argparse.Namespace) -> None:
    """Compare mt with CTranslate2 float32 and transformers."""
    folder, other = export(given, "ctranslate2"), export(given, "huggingface")
    cores = given.cores
    for beams in (given.beams, 1):
        systems = []
        for workers, threads in ((1, cores), (cores, 1)):
            name, shape = f"{workers} x {threads}", layout(workers, threads)
            systems += [
                System(f"mt fp32, {name}", "mt", given.run, (*shape, "--precision", "fp32")),
                System(f"mt auto, {name}", "mt", given.run, (*shape, "--precision", "auto")),
                System(f"CTranslate2 float32, {name}", "bare", folder, shape),
            ]
        systems.append(System("transformers generate", "huggingface", other, layout(1, cores)))
        compare_speed(systems, given, beams)


def measure_ctranslate2(given: argparse.Namespace) -> None:
    """Compare mt on a CTranslate2 folder with a bare loop."""
    folder = export(given, "ctranslate2", "int8")
    systems = []
    for workers, threads in ((1, given.cores), (given.cores, 1)):
        name, shape = f"{workers} x {threads}", layout(workers, threads)
        systems += [
            System(f"mt on int8, {name}", "mt", folder, shape),
            System(f"bare loop on int8, {name}", "bare", folder, shape),
        ]
    compare_speed(systems, given, given.beams)


def measure_weights(given: argparse.Namespace) -> None:
    """Compare types of weights, in one process of all cores."""
    shape = layout(1, given.cores)
    for beams in (given.beams, 1):
        systems = [
            System(f"mt {precision}", "mt", given.run, (*shape, "--precision", precision))
            for precision in ("fp32", "bf16")
        ]
        for weights in WEIGHTS:
            folder = export(given, "ctranslate2", None if weights == "float32" else weights)
            systems.append(System(f"CTranslate2 {weights}", "mt", folder, shape))
        compare_sizes(systems, given, beams)


def measure_models(given: argparse.Namespace) -> None:
    """Compare the run with others, in one process of one thread."""
    if not given.other:
        print("\nleft out: --other names no run")
        return
    for precision in ("fp32", "bf16"):
        settings = (*layout(1, 1), "--precision", precision)
        models = (given.run, *given.other)
        systems = [System(f"{each.name}, {precision}", "mt", each, settings) for each in models]
        compare_sizes(systems, given, given.beams)


def measure_startup(given: argparse.Namespace) -> None:
    """Time whole processes that translate one short sentence."""
    models = {"native": given.run, "CTranslate2 int8": export(given, "ctranslate2", "int8")}
    commands = {name: [*MT, "translate", model] for name, model in models.items()}
    commands["python -c 'import torch'"] = [sys.executable, "-c", "import torch; print()"]

    def translate(command: Sequence[object]) -> float:
        finished = harness.run(command, given="A man sleeps.\n")
        assert finished.lines
        return finished.seconds

    sides = {name: partial(translate, command) for name, command in commands.items()}
    found = harness.run_in_turn(sides, given.rounds + 1)
    rows = [
        (name, f"{median(values):.2f}", spread(values, ".2f"))
        for name, (_, *values) in found.items()  # the first has read everything from the disk
    ]
    print("\n" + harness.table("one short sentence | seconds, median | lowest to highest", rows))


def compare_exports(given: argparse.Namespace) -> None:
    """Compare forced scores and outputs of each export with the run's."""
    opened = run_directory.open_run(given.run)
    ours = open_engine(given.run, EngineOptions(device="cpu", precision="fp32"))
    open_transformers = plugin("exporters", "huggingface").open
    engines: dict[str, Engine] = {
        "CTranslate2 float32": open_engine(export(given, "ctranslate2"), EngineOptions()),
        "CTranslate2 int8": open_engine(export(given, "ctranslate2", "int8"), EngineOptions()),
        "transformers": open_transformers(export(given, "huggingface"), opened),
    }
    pairs = [Pair(a, b, "", "", "test") for a, b in zip(given.lines, given.references, strict=True)]
    searches = {
        search["kind"]: EngineOptions(search=search)
        for search in ({"kind": "greedy"}, {"kind": "beam", "beams": given.beams})
    }
    expected = {kind: translate(ours, given.lines, each) for kind, each in searches.items()}
    forced = [each.log_probability for each in ours.score(pairs)]
    expected_bleu = harness.bleu(expected["beam"], given.reference, given.run)
    rows, notes = [], list[str]()
    for name, engine in engines.items():
        scores = [each.log_probability for each in engine.score(pairs)]
        error = max(abs(a - b) / abs(a) for a, b in zip(forced, scores, strict=True))
        found = {kind: translate(engine, given.lines, each) for kind, each in searches.items()}
        counts = []
        for kind, lines in found.items():
            differing = different(expected[kind], lines)
            counts.append(f"{len(lines) - len(differing)} of {len(lines)}")
            if "int8" not in name:
                notes += [
                    f"{name}, {kind}, line {n}: "
                    + describe_line(engine, given.lines[n - 1], expected[kind][n - 1], lines[n - 1])
                    for n in differing
                ]
        score = harness.bleu(found["beam"], given.reference, given.run)
        rows.append((name, f"{error:.1e}", *counts, f"{score:.2f}", f"{expected_bleu:.2f}"))
    head = (
        "export | forced scores, largest relative difference | greedy lines equal | "
        f"beam {given.beams} lines equal | BLEU | BLEU of the run"
    )
    print("\n" + harness.table(head, rows))
    print("".join(f"\n- {note}" for note in notes) or "\nNo line differs in float32.")


def describe_line(engine: Engine, source: str, *translations: str) -> str:
    """Return translations of a line, each with its log-probability by an engine."""
    scores = engine.score([Pair(source, text, "", "", "test") for text in translations])
    pairs = zip(translations, scores, strict=True)
    return " / ".join(f"{text} ({score.log_probability:.5f})" for text, score in pairs)


def translate(engine: Engine, lines: Sequence[str], options: EngineOptions) -> list[str]:
    return [each.text for each in engine.translate(lines, options)]


def different(these: Sequence[str], those: Sequence[str]) -> list[int]:
    """Return the numbers of the lines that differ, from 1."""
    pairs = enumerate(zip(these, those, strict=False), start=1)
    return [number for number, (a, b) in pairs if a != b]


def check_laws(given: argparse.Namespace) -> None:
    """Count the lines that change where none should; BLEU where some may."""
    batch = {"device": "cpu", "precision": "fp32"}
    native = open_engine(given.run, EngineOptions(threads=1, **batch))
    rows: list[tuple[object, ...]] = []
    for search in ({"kind": "beam", "beams": given.beams}, {"kind": "greedy"}):
        settings = EngineOptions(search=search, **batch)
        expected = translate(native, given.lines, settings)
        several = open_engine(given.run, EngineOptions(processes=2, **batch))
        small = EngineOptions(search=search, batch_tokens=300, **batch)
        automatic = open_engine(given.run, EngineOptions(device="cpu", threads=1))
        found = {
            "fp32": expected,
            "in batches of a few sentences": translate(native, given.lines, small),
            "in reverse order": translate(native, given.lines[::-1], settings)[::-1],
            "by two processes": translate(several, given.lines, settings),
            "--precision auto": translate(automatic, given.lines, settings),
        }
        for name, lines in found.items():
            score = harness.bleu(lines, given.reference, given.run)
            count = len(different(expected, lines))
            rows.append((f"{search['kind']}, {name}", count, f"{score:.2f}"))
        plain = [search_plainly(native, line, search) for line in given.lines[: given.plain]]
        apart = different(expected, plain)
        name = f"{search['kind']}, the plain search, first {given.plain}"
        rows.append((name, f"{len(apart)} {apart}", ""))
    print("\n" + harness.table("beam / greedy | lines that differ from fp32 | BLEU", rows))


def search_plainly(engine: Any, line: str, search: Mapping[str, Any]) -> str:
    """Translate a line by the plain search: no cache, no batch, no packed weights."""
    ids = engine.vocabulary.encode_source([line])[0]
    config = engine.profile.search
    longest = int(config.max_length_ratio * len(ids)) + config.max_length_extra + 1
    follow = plain_search.next_token(engine.searcher.models[0].eval(), [*ids, END])
    if search["kind"] == "greedy":
        found = plain_search.greedy(follow, longest)
    else:
        found = plain_search.beam(follow, search["beams"], longest)
    return str(engine.vocabulary.decode_target([found[0][1]])[0])


def measure_memory(given: argparse.Namespace) -> None:
    """Measure the resident memory of `mt translate` over many lines."""
    many, out = given.work / "many.txt", given.work / "many.out"
    repeated = (given.lines * (given.many // len(given.lines) + 1))[: given.many]
    many.write_text("".join(f"{line}\n" for line in repeated), encoding="utf-8")
    size = many.stat().st_size
    models = {"native": given.run, "CTranslate2 int8": export(given, "ctranslate2", "int8")}
    rows = []
    for name, model in models.items():
        with many.open("rb") as stream, out.open("wb") as sink:
            finished = harness.run(
                [*MT, "translate", model, "--set", "search.beams=2"], stdin=stream, stdout=sink,
                measure=harness.resident, every=0.2, mark=lambda: out.stat().st_size / size,
            )  # fmt: skip
        assert out.read_bytes().count(b"\n") == given.many
        warm = [megabytes for done, megabytes in finished.samples if megabytes and done >= WARM]
        figures = (warm[0], max(warm), max(warm) - warm[0])
        speed = given.many / finished.seconds
        rows.append((name, *(f"{value:.1f}" for value in figures), f"{speed:.0f}"))
    head = f"{given.many} lines | after {WARM:.0%}, MB | most afterwards, MB | growth, MB | lines/s"
    print("\n" + harness.table(head, rows))


SECTIONS = {
    "speed": measure_speed, "ctranslate2": measure_ctranslate2, "weights": measure_weights,
    "models": measure_models, "startup": measure_startup, "exports": compare_exports,
    "laws": check_laws, "memory": measure_memory,
}  # fmt: skip


def main() -> None:
    parser = harness.make_parser(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="where exports are made and kept")
    parser.add_argument("--cores", type=int, default=harness.count_cores())
    parser.add_argument("--sections", default=",".join(SECTIONS), help=", ".join(SECTIONS))
    parser.add_argument(
        "--without", action="append", default=[], metavar="WORD",
        help="leave out what has this in its name, say transformers",
    )  # fmt: skip
    parser.add_argument("--other", type=Path, nargs="+", default=[], help="runs, for models")
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--lines", type=int, default=100_000, dest="many", help="of memory")
    parser.add_argument("--plain", type=int, default=200, help="lines by the plain search")
    given = parser.parse_args()
    wanted = given.sections.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are: {', '.join(SECTIONS)}")
    given.lines = harness.read_lines(given.source)
    given.references = harness.read_lines(given.reference)
    with tempfile.TemporaryDirectory() as temporary:
        given.work = given.work or Path(temporary)
        given.work.mkdir(parents=True, exist_ok=True)
        for name in wanted:
            print(f"\n## {name}")
            SECTIONS[name](given)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
