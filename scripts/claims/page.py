"""docs/claims.md and its plots, made of the JSON files of the claims and of nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from claims import plots
from claims.lab import FREE
from claims.verdicts import FAILS, HOLDS, OPEN, Check, Finding, Judgement
from mt.runtime import files

HERE = Path(__file__).parent
SIGNS = {HOLDS: "**holds**", FAILS: "**does not hold**", OPEN: "*inconclusive*"}
INTRODUCTION = """\
# Claims, measured

What is told of the Transformer, its parts, its rivals and its costs, put to the test with `mt`
itself: each claim with its experiment, its figures and one of three verdicts. *Holds* and *does
not hold* need every seed, or every round of a timing, to agree; where they differ, where a side did
not train far enough to be compared, or where others used the machine while something was timed, the
verdict is *inconclusive*. The experiments are small on purpose (models of {width} dimensions, the
demo language, synthetic tasks): a verdict is about this size, and about a CPU.

`make claims` measures all of it again and writes this page and its plots; finished measurements
are kept under `runs/claims`, so that a run that was stopped goes on. `make claims QUICK=1` does the
same with smaller experiments, and leaves its page there. One claim: `python scripts/claims b`; the
page alone, from what was measured: `python scripts/claims --page`. Each training is an ordinary
run, with its recipe, under `runs/claims/full/runs`.
"""


def names() -> dict[str, str]:
    """The module of each claim by its letter."""
    return {path.stem[0]: path.stem for path in sorted(HERE.glob("[a-z]_*.py"))}


def claim(letter: str) -> Any:
    """The module of a claim."""
    return importlib.import_module(f"claims.{names()[letter]}")


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """What was measured of each claim, by letter."""
    return {
        letter: files.read_json(folder / f"{letter}.json")
        for letter in names()
        if (folder / f"{letter}.json").exists()
    }


def write(folder: Path, docs: Path) -> Path:
    """Write the page and its plots from the results in a folder; where the page is.

    Args:
        folder: holds `X.json` for each claim that was measured.
        docs: where `claims.md` and `claims/` go.
    """
    known = results(folder)
    drawn = files.make_folder(docs / "claims")
    judged = {
        letter: at_rest(claim(letter).judge(result["found"]), result["used"])
        for letter, result in known.items()
    }
    wanted = {}
    for letter, judgement in judged.items():
        for plot in judgement.plots:
            wanted[f"{letter}_{plot.name}.svg"] = plots.svg(plot)
    for name, text in wanted.items():
        files.write_file(drawn / name, text)
    for old in drawn.glob("*.svg"):
        if old.name not in wanted:
            files.delete(old)
    page = docs / "claims.md"
    files.write_file(page, "\n".join(_lines(known, judged)) + "\n")
    return page


def at_rest(judgement: Judgement, used: dict[str, dict[str, Any]]) -> Judgement:
    """What is left of a judgement when others used the machine while something was timed."""
    timed = [each.get("others", 0.0) for each in used.values() if each["alone"]]
    most = max(timed, default=0.0)
    if most <= FREE:
        return judgement
    check = Check(f"the machine was free while it was timed (others used {most:.0%} of it)", False)
    findings = [
        replace(finding, verdict=OPEN, checks=(*finding.checks, check))
        for finding in judgement.findings
    ]
    return replace(judgement, findings=findings)


def _lines(known: dict[str, dict[str, Any]], judged: dict[str, Judgement]) -> Iterator[str]:
    width = {"full": "64 to 128", "quick": "64 to 96", "micro": "16"}
    sizes = {result["size"] for result in known.values()}
    yield INTRODUCTION.format(width=width[max(sizes, default="full")])
    yield from _machine(known)
    yield "## Verdicts"
    yield ""
    rows = [["", "claim", "verdict"]]
    for letter, judgement in judged.items():
        module = claim(letter)
        rows.append([letter, f"[{module.TITLE}](#{_anchor(letter, module.TITLE)})", ""])
        for finding in judgement.findings:
            rows.append(["", finding.statement, SIGNS[finding.verdict]])
    yield from _table(rows)
    yield from _plan(known)
    for letter, judgement in judged.items():
        yield from _section(letter, judgement)


def _machine(known: dict[str, dict[str, Any]]) -> Iterator[str]:
    machines = {result["machine"] for result in known.values()}
    sizes = {result["size"] for result in known.values()}
    for told in sorted(machines):
        yield f"Measured on: {told}. Size of the experiments: {', '.join(sorted(sizes))}."
    if missing := [letter for letter in names() if letter not in known]:
        yield f"Not measured so far: {', '.join(missing)}."
    yield ""


def _plan(known: dict[str, dict[str, Any]]) -> Iterator[str]:
    """How long each claim took; what several share counts for the first of them."""
    yield "## Time"
    yield ""
    yield "What several claims share counts for the first."
    yield ""
    rows = [["claim", "measurements", "seconds"]]
    seen: set[str] = set()
    total = 0.0
    for letter, result in known.items():
        new = {key: used for key, used in result["used"].items() if key not in seen}
        seen |= set(new)
        seconds = sum(
            used["seconds"] / (1 if used["alone"] else result["cores"]) for used in new.values()
        )
        total += seconds
        rows.append([f"{letter}: {claim(letter).TITLE}", str(len(new)), f"{seconds:,.0f}"])
    yield from _table([*rows, ["all", str(len(seen)), f"{total:,.0f}"]])


def _section(letter: str, judgement: Judgement) -> Iterator[str]:
    module = claim(letter)
    yield f"## {letter}. {module.TITLE}"
    yield ""
    yield from _paragraph("Claim", module.CLAIM)
    yield from _paragraph("Experiment", module.EXPERIMENT)
    yield f"**Outcome.** As a whole: {SIGNS[judgement.verdict]}."
    yield ""
    for finding in judgement.findings:
        yield from _finding(finding)
    yield ""
    for plot in judgement.plots:
        yield f"![{plot.title}](claims/{letter}_{plot.name}.svg)"
        yield ""
    for table in judgement.tables:
        yield f"{table.title}:"
        yield ""
        yield from _table(table.rows)
    for note in [*judgement.notes, *module.NOTES]:
        yield note
        yield ""
    yield f"Again: `python scripts/claims {letter}`"
    yield ""


def _paragraph(name: str, text: str) -> Iterable[str]:
    first, *rest = text.strip().splitlines()
    return [f"**{name}.** {first}", *rest, ""]


def _finding(finding: Finding) -> Iterator[str]:
    yield f"- {finding.statement}: {SIGNS[finding.verdict]}. {finding.outcome}"
    for check in finding.checks:
        yield f"  - comparable: {check.told}: {'yes' if check.met else '**no**'}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *body = rows
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in body:
        yield f"| {' | '.join(row)} |"
    yield ""


def _anchor(letter: str, title: str) -> str:
    kept = "".join(c for c in f"{letter}. {title}".lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")
