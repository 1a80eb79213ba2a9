"""What measurements say of a claim: holds, does not hold, or inconclusive; and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["holds", "does not hold", "inconclusive"]
HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold"
OPEN: Verdict = "inconclusive"


@dataclass(frozen=True)
class Check:
    """A condition without which two sides cannot be compared, and whether it was met."""

    told: str
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
    """A table of the page; the first row of `rows` is its head."""

    title: str
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Line:
    """One line of a plot."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    """The lowest of several seeds or rounds at each x, and with `high` a band."""
    high: Sequence[float] = ()


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


@dataclass(frozen=True)
class Judgement:
    """All that a page says of a claim besides its fixed texts."""

    findings: Sequence[Finding]
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def verdict(self) -> Verdict:
        """That of the claim as a whole: as good as its weakest statement."""
        verdicts = [finding.verdict for finding in self.findings]
        return FAILS if FAILS in verdicts else OPEN if OPEN in verdicts else HOLDS


def larger(
    one: Sequence[float], other: Sequence[float], margin: float, checks: Iterable[Check] = ()
) -> Verdict:
    """Whether `one` is larger than `other` by more than `margin`, seed by seed or round by round.

    It holds if it does for every seed, does not hold if for none, else it is inconclusive; and so
    it is, whatever the figures, where a check is not met.
    """
    if not all(check.met for check in checks) or not one or len(one) != len(other):
        return OPEN
    above = [a - b > margin for a, b in zip(one, other, strict=True)]
    return HOLDS if all(above) else OPEN if any(above) else FAILS


def within(value: float, low: float, high: float, checks: Iterable[Check] = ()) -> Verdict:
    """Whether a value lies between two others; inconclusive where a check is not met."""
    if not all(check.met for check in checks):
        return OPEN
    return HOLDS if low <= value <= high else FAILS


def compared(
    statement: str, one: Sequence[float], other: Sequence[float], margin: float, outcome: str,
    checks: Sequence[Check] = (),
) -> Finding:  # fmt: skip
    """The finding that `one` is larger than `other` by more than `margin`; see `larger`."""
    return Finding(statement, larger(one, other, margin, checks), outcome, checks)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """`mean (lowest to highest)`, or the one value."""
    middle = f"{mean(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
