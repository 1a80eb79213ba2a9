"""Score a model on a test set whose lines are changed into what users type.

    python scripts/robustness.py RUN [--on TEST] [--seed N] [--set search.KEY=VALUE] [--json]

Each variant changes every source line in one way: capitals, title case, lower case, no end mark,
typing errors, two lines joined to one, or something at its end that a translation must keep: a
number, an address, a placeholder, a word in a script that the model does not know. BLEU and chrF2
compare lower-cased text, so that the answer to a shout may be in the usual case; the reference
gets the same end as its source, and an end mark does not count where the source has none.
`kept` is the share of lines in which what must be kept is there once, letter for letter, and
`repeated` that of translations with something five times in a row that their references have not.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mt.checkpoints.bundle import read_any_recipe  # noqa: E402
from mt.cli.options import engine_options  # noqa: E402
from mt.config.schema import EvaluationConfig  # noqa: E402
from mt.data.augmentation import END_MARKS, make_typos, title_case  # noqa: E402
from mt.decoding.translate import open_engine  # noqa: E402
from mt.decoding.types import EngineOptions  # noqa: E402
from mt.errors import MtError  # noqa: E402
from mt.evaluation import evaluate, scoring  # noqa: E402
from mt.evaluation.output_figures import output_figures  # noqa: E402

Change = Callable[[str, random.Random], str]
SOURCE_CHANGES: dict[str, Change] = {
    "as it is": lambda line, draw: line,
    "capitals": lambda line, draw: line.upper(),
    "title case": lambda line, draw: title_case(line),
    "lower case": lambda line, draw: line.lower(),
    "no end mark": lambda line, draw: line.rstrip(END_MARKS) or line,
    "typing errors": make_typos,
}
"""Changes of a source line; but for the end mark the reference stays."""
PLACEHOLDERS = ("{{{}}}", "%({})s", "<{}>", "__{}__")
ENDS: dict[str, Callable[[random.Random], str]] = {
    "number": lambda draw: f"{draw.randrange(1000, 100_000)}",
    "address": lambda draw: f"https://{word(draw)}.org/{word(draw)}?id={draw.randrange(100)}",
    "placeholder": lambda draw: draw.choice(PLACEHOLDERS).format(word(draw)),
    "unknown script": lambda draw: "".join(chr(draw.randrange(0x1200, 0x1240)) for _ in range(4)),
}
"""What is added to both sides of a pair."""
TWO = "two lines in one"


@dataclass(frozen=True)
class Row:
    """A variant in the table."""

    variant: str
    bleu: float
    chrf: float
    kept: float | None
    """Share of lines; None where nothing was added."""
    repeated: float


def word(draw: random.Random) -> str:
    """Return five letters that are no word."""
    return "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=5))


def vary(
    variant: str, sources: list[str], references: list[str], seed: int
) -> tuple[list[str], list[str], list[str]]:
    """Return the changed sources and references, and what each translation must keep."""
    if variant == TWO:
        joined = [
            [" ".join(pair) for pair in zip(lines[::2], lines[1::2], strict=False)]
            for lines in (sources, references)
        ]
        return joined[0], joined[1], []
    draws = [random.Random(f"{seed} {variant} {number}") for number in range(len(sources))]
    if variant in ENDS:
        ends = [ENDS[variant](draw) for draw in draws]
        longer = [
            [f"{line} {end}" for line, end in zip(lines, ends, strict=True)]
            for lines in (sources, references)
        ]
        return longer[0], longer[1], ends
    change = SOURCE_CHANGES[variant]
    changed = [change(line, draw) for line, draw in zip(sources, draws, strict=True)]
    if variant == "no end mark":
        references = [line.rstrip(END_MARKS) or line for line in references]
    return changed, references, []


def measure(run: Path, test: str | None, seed: int, options: EngineOptions) -> list[Row]:
    """Return the row of each variant of a test set, by default of the first of the recipe."""
    recipe = read_any_recipe(run)
    name = test or next(iter(recipe.data.test), None)
    if name not in recipe.data.test:
        raise SystemExit(f"--on {name}: the recipe has {', '.join(recipe.data.test) or 'no tests'}")
    config = recipe.data.test[name]
    sources, (references,) = evaluate.read_test_set(config)
    target = config.direction.target
    options = replace(options, low_latency=False)
    engine = open_engine(run, options)
    lower = EvaluationConfig(tokenize=recipe.evaluation.tokenize, lowercase=True)
    rows = []
    for variant in (*SOURCE_CHANGES, *([TWO] if len(sources) > 1 else []), *ENDS):
        changed, wanted, ends = vary(variant, sources, references, seed)
        lines = evaluate.translate_texts(engine, options, changed, target)
        if variant == "no end mark":  # with or without one, a translation is right
            lines = [line.rstrip(END_MARKS) for line in lines]
        bleu, chrf = scoring.bleu_and_chrf(lines, wanted, target, lower)
        kept = sum(a.count(b) == 1 for a, b in zip(lines, ends, strict=True)) if ends else None
        repeated = output_figures(changed, lines, wanted)["repeated"]
        share = None if kept is None else kept / len(ends)
        rows.append(Row(variant, round(bleu, 2), round(chrf, 2), share, repeated))
    return rows


def format_table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    lines = ["| input | BLEU | chrF2 | kept | repeated |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        kept = "" if row.kept is None else f"{row.kept:.1%}"
        cells = [row.variant, f"{row.bleu:.2f}", f"{row.chrf:.2f}", kept, f"{row.repeated:.1%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="robustness", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("run", type=Path, help="a run, a bundle or an exported folder")
    parser.add_argument("--on", metavar="TEST", help="a test set of the recipe; the first one")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn (1)")
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--set", action="append", metavar="KEY=VALUE", help="replace a search.* value of the run"
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    try:
        options = engine_options(given.set, None, None, threads=given.threads)
        rows = measure(given.run, given.on, given.seed, options)
    except MtError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps([asdict(row) for row in rows]) if given.json else format_table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
