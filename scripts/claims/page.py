"""docs/claims.md and its plots, made from the JSON files of the claims alone."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.harness import table

from claims import plots
from claims.lab import FREE
from claims.verdicts import FAILS, HOLDS, OPEN, Check, Finding, Judgement, Plot, Table
from mt.runtime import files, model_files

HERE = Path(__file__).parent
Results = dict[str, dict[str, Any]]
"""The measurements of each claim, by letter."""
SIGNS = {HOLDS: "**holds**", FAILS: "**does not hold**", OPEN: "*inconclusive*"}
WIDTHS = {"full": "64 to 128", "quick": "64 to 96", "micro": "16"}
INTRODUCTION = """\
# Claims, measured

Common claims about the Transformer, its parts, its rivals and its costs, tested with `mt` itself:
each claim with its experiment, its figures and one of three verdicts. *Holds* and *does not hold*
need every seed, or every round of a timing, to agree. The verdict is *inconclusive* where they
differ, where a side did not train far enough to be compared, or where others used the machine
during a timing. The experiments are small on purpose (models of {width} dimensions, the demo
language, synthetic tasks): a verdict is about this size, and about a CPU.

`make claims` measures all of it again and writes this page and its plots; finished measurements
are kept under `runs/claims`, so that a stopped run can continue. `make claims QUICK=1` does the
same with smaller experiments, and writes its page there. One claim: `python scripts/claims b`; the
page alone, from finished measurements: `python scripts/claims --page`. Each training is an ordinary
run, with its recipe, under `runs/claims/full/runs`."""


def names() -> dict[str, str]:
    """Return the module of each claim by its letter."""
    return {path.stem[0]: path.stem for path in sorted(HERE.glob("[a-z]_*.py"))}


def claim(letter: str) -> Any:
    """Return the module of a claim."""
    return importlib.import_module(f"claims.{names()[letter]}")


def read_results(folder: Path) -> Results:
    """Return the measurements in a folder."""
    paths = {letter: folder / f"{letter}.json" for letter in names()}
    return {letter: model_files.read_json(path) for letter, path in paths.items() if path.exists()}


def write(folder: Path, docs: Path) -> Path:
    """Write the page and its plots from the results in a folder; return the path of the page.

    Args:
        folder: has `X.json` for each claim that was measured.
        docs: where `claims.md` and `claims/` go.
    """
    results = read_results(folder)
    drawn = files.make_folder(docs / "claims")
    judgements = {
        letter: doubt_timings(judge(letter, result["found"]), result["used"])
        for letter, result in results.items()
    }
    wanted = {
        f"{letter}_{plot.name}.svg": plots.svg(plot)
        for letter, judgement in judgements.items()
        for plot in judgement.plots
    }
    for name, text in wanted.items():
        files.write_file(drawn / name, text)
    for old in drawn.glob("*.svg"):
        if old.name not in wanted:
            files.delete(old)
    page = docs / "claims.md"
    files.write_file(page, "\n\n".join(_blocks(results, judgements)) + "\n")
    return page


def judge(letter: str, found: dict[str, Any]) -> Judgement:
    """Return the findings, tables and plots that follow from a claim's measurements."""
    parts = list(claim(letter).judge(found))
    return Judgement(*(
        [part for part in parts if isinstance(part, kind)] for kind in (Finding, Table, Plot)
    ))  # fmt: skip


def doubt_timings(judgement: Judgement, used: dict[str, dict[str, Any]]) -> Judgement:
    """Make all findings inconclusive if others used the machine during a timing."""
    timed = [each.get("others", 0.0) for each in used.values() if each["alone"]]
    most = max(timed, default=0.0)
    if most <= FREE:
        return judgement
    check = Check(f"the machine was free during the timing (others used {most:.0%} of it)", False)
    return replace(judgement, findings=[
        replace(finding, verdict=OPEN, checks=(*finding.checks, check))
        for finding in judgement.findings
    ])  # fmt: skip


def _blocks(results: Results, judgements: dict[str, Judgement]) -> Iterator[str]:
    """Yield the blocks of the page, which blank lines separate."""
    sizes = sorted({result["size"] for result in results.values()})
    yield INTRODUCTION.format(width=WIDTHS[max(sizes, default="full")])
    lines = [
        f"Measured on: {machine}. Size of the experiments: {', '.join(sizes)}."
        for machine in sorted({result["machine"] for result in results.values()})
    ]
    if missing := [letter for letter in names() if letter not in results]:
        lines.append(f"Not measured so far: {', '.join(missing)}.")
    yield "\n".join(lines)
    rows = []
    for letter, judgement in judgements.items():
        title = claim(letter).TITLE
        rows.append((letter, f"[{title}](#{_anchor(letter, title)})", ""))
        rows += [("", each.statement, SIGNS[each.verdict]) for each in judgement.findings]
    yield "## Verdicts\n\n" + table(["", "claim", "verdict"], rows)
    yield "## Time\n\nMeasurements that several claims share count for the first."
    yield table(["claim", "measurements", "seconds"], _count_time(results))
    for letter, judgement in judgements.items():
        yield from _section(letter, judgement)


def _count_time(results: Results) -> Iterator[tuple[str, ...]]:
    """Yield how many measurements each claim made, and their seconds."""
    seen: set[str] = set()
    total = 0.0
    for letter, result in results.items():
        new = {key: used for key, used in result["used"].items() if key not in seen}
        seen |= set(new)
        seconds = sum(
            used["seconds"] / (1 if used["alone"] else result["cores"]) for used in new.values()
        )
        total += seconds
        yield f"{letter}: {claim(letter).TITLE}", str(len(new)), f"{seconds:,.0f}"
    yield "all", str(len(seen)), f"{total:,.0f}"


def _section(letter: str, judgement: Judgement) -> Iterator[str]:
    module = claim(letter)
    yield f"## {letter}. {module.TITLE}"
    yield f"**Claim.** {module.CLAIM.strip()}"
    yield f"**Experiment.** {module.EXPERIMENT.strip()}"
    yield f"**Outcome.** As a whole: {SIGNS[judgement.verdict]}."
    yield "\n".join(line for finding in judgement.findings for line in _finding(finding))
    for plot in judgement.plots:
        yield f"![{plot.title}](claims/{letter}_{plot.name}.svg)"
    for each in judgement.tables:
        yield f"{each.title}:\n\n{table(each.head, each.rows)}"
    yield from getattr(module, "NOTES", ())
    yield f"Again: `python scripts/claims {letter}`"


def _finding(finding: Finding) -> Iterator[str]:
    yield f"- {finding.statement}: {SIGNS[finding.verdict]}. {finding.outcome}"
    for check in finding.checks:
        yield f"  - comparable: {check.text}: {'yes' if check.met else '**no**'}"


def _anchor(letter: str, title: str) -> str:
    kept = "".join(c for c in f"{letter}. {title}".lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")
