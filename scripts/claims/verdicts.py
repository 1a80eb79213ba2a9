"""The parts of a claim's page: findings with a verdict each, tables and plots, all plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from bench.harness import summary

Verdict = Literal["holds", "does not hold", "inconclusive"]
HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold"
OPEN: Verdict = "inconclusive"


@dataclass(frozen=True)
class Check:
    """A condition without which two sides cannot be compared, and whether it was met."""

    text: str
    met: bool


@dataclass(frozen=True)
class Finding:
    """One statement of a claim with its verdict."""

    statement: str
    verdict: Verdict
    outcome: str
    """The figures that decided."""
    checks: Sequence[Check] = ()


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Line:
    """One line of a plot."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    """The lowest of several seeds or rounds at each x, and with `high` a band."""
    high: Sequence[float] = ()


def band(
    name: str, x: Sequence[float], values: Iterable[Sequence[float]],
    middle: Callable[[Any], float] = fmean,
) -> Line:  # fmt: skip
    """Return the line of the mean of several seeds or rounds at each x, with their range."""
    values = list(values)
    return Line(name, x, *([of(each) for each in values] for of in (middle, min, max)))


@dataclass(frozen=True)
class Plot:
    """A plot of the page; `name` becomes that of its file."""

    name: str
    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    log_x: bool = False
    log_y: bool = False


Part = Finding | Table | Plot


@dataclass(frozen=True)
class Judgement:
    """What the page shows of a claim besides its fixed texts."""

    findings: Sequence[Finding]
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()

    @property
    def verdict(self) -> Verdict:
        """The verdict of the claim as a whole: that of its weakest statement."""
        verdicts = [finding.verdict for finding in self.findings]
        return FAILS if FAILS in verdicts else OPEN if OPEN in verdicts else HOLDS


def larger(
    one: Sequence[float], other: Sequence[float], margin: float, checks: Iterable[Check] = ()
) -> Verdict:
    """Return whether `one` is larger than `other` by more than `margin`, seed by seed.

    It holds if it does for every seed (or round), does not hold if for none; else, and whatever the
    figures where a check is not met, it is inconclusive.
    """
    if not all(check.met for check in checks) or not one or len(one) != len(other):
        return OPEN
    above = [a - b > margin for a, b in zip(one, other, strict=True)]
    return HOLDS if all(above) else OPEN if any(above) else FAILS


def within(value: float, low: float, high: float, checks: Iterable[Check] = ()) -> Verdict:
    """Return whether a value is between two others; inconclusive where a check is not met."""
    if not all(check.met for check in checks):
        return OPEN
    return HOLDS if low <= value <= high else FAILS


def find_larger(
    statement: str, one: Sequence[float], other: Sequence[float] | float, margin: float,
    outcome: str, *checks: Check,
) -> Finding:  # fmt: skip
    """Return the finding that `one` is larger than `other` by more than `margin`; see `larger`."""
    others = other if isinstance(other, Sequence) else [other] * len(one)
    return Finding(statement, larger(one, others, margin, checks), outcome, checks)


def check_bleu(name: str, value: float, least: float = 20) -> Check:
    """Return the check that a model translates well enough to be compared."""
    return Check(f"{name} reached {least:g} BLEU ({value:.1f})", value >= least)


def over_seeds(values: Sequence[float], digits: int = 1) -> str:
    """Return `mean (lowest to highest)` over seeds, or the one value."""
    return summary(values, f",.{digits}f", fmean)


def name_seeds(seeds: Sequence[int]) -> str:
    """Return the words for what a table shows of its seeds."""
    return f"mean of {len(seeds)} seeds (lowest to highest)" if len(seeds) > 1 else "one seed"


def bleu_of(runs: Iterable[dict[str, Any]]) -> list[float]:
    """Return the test BLEU of runs."""
    return [run["test"]["test"] for run in runs]


def collect(runs: Iterable[dict[str, Any]], key: str) -> list[Any]:
    """Return one value of each run."""
    return [run[key] for run in runs]


def by_step(runs: Iterable[dict[str, Any]], key: str) -> list[tuple[float, ...]]:
    """Return the values of all runs at each step."""
    return list(zip(*collect(runs, key), strict=True))
