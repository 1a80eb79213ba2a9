"""Claim d: what self-attention costs as sentences grow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from bench.harness import fit_line, summary, time_in_turn
from torch.nn import functional as F

from claims.growth import peak_growth
from claims.lab import Lab
from claims.store import Task
from claims.verdicts import (
    FAILS,
    HOLDS,
    OPEN,
    Check,
    Finding,
    Line,
    Part,
    Plot,
    Table,
    band,
    within,
)
from mt.models.modules.attention import attend
from mt.runtime import memory

TITLE = "Self-attention's cost is quadratic, not exponential"
CLAIM = """
Self-attention compares each position with each other one, so that its time and memory grow with the
square of the length (and not exponentially, as is sometimes said). A fused kernel, which never
keeps the whole matrix of weights, needs memory that grows with the length only.
"""
EXPERIMENT = """
Causal self-attention of one sentence, 4 heads of 32, forward and backward, fp32: `mt`'s plain parts
(`mt/attention.py` on a CPU) and torch's fused kernel (which the same function calls on a GPU). Time
in interleaved rounds; memory is how much the peak of a fresh process grows. The exponent is the
slope of a line through the logarithms of the longer half of the lengths; for comparison, how well a
power of the length and an exponential function of it explain all times (R² of the logarithms).
"""
HEADS, WIDTH = 4, 32
KINDS = ("plain", "fused")


def measure(lab: Lab) -> dict[str, Any]:
    lengths = lab.choose([128, 256, 512, 1024, 2048, 4096], [256, 512, 1024, 2048, 4096], [16, 32])
    weighed = [length for length in lengths if length >= lab.choose(512, 512, 32)]
    timed = Task("d_quadratic:times", {
        "lengths": lengths, "rounds": lab.choose(7, 5, 2), "least": lab.choose(0.1, 0.05, 0.0),
    })  # fmt: skip
    return {
        "lengths": lengths,
        "weighed": weighed,
        "seconds": lab.measure({"time": timed}, alone=True)["time"],
        "bytes": lab.measure_grid(
            KINDS, weighed,
            lambda kind, length: Task("d_quadratic:grown", {"kind": kind, "length": length}),
            alone=True,
        ),
    }  # fmt: skip


# --------------------------------------------------------------------------- measurements


def attend_once(kind: str, length: int, small: bool = False) -> None:
    """Do one forward and backward pass."""
    shape = (1, HEADS, 16 if small else length, WIDTH)
    query, key, value = (torch.randn(shape, requires_grad=True) for _ in range(3))
    if kind == "plain":
        mixed = attend(query, key, value, causal=True)
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    mixed.sum().backward()


def times(
    folder: Path, lengths: list[int], rounds: int, least: float
) -> dict[str, list[list[float]]]:
    """Measure the seconds by kind, then by length, then by round."""
    torch.manual_seed(1)
    memory.keep_freed_memory()
    sides = {f"{kind} {n}": partial(attend_once, kind, n) for n in lengths for kind in KINDS}
    found = time_in_turn(sides, rounds, least=least)
    return {kind: [found[f"{kind} {length}"] for length in lengths] for kind in KINDS}


def grown(folder: Path, kind: str, length: int) -> int:
    """Measure the bytes by which a process grows."""
    return peak_growth(attend_once, kind, length)


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Iterator[Part]:
    lengths, weighed, seconds, grown = (
        found[key] for key in ("lengths", "weighed", "seconds", "bytes")
    )
    middle = {kind: [median(each) for each in seconds[kind]] for kind in KINDS}
    yield from judge_growth(lengths, weighed, seconds, middle, grown)
    rows = []
    for number, length in enumerate(lengths):
        cells = [summary([1000 * s for s in seconds[kind][number]]) for kind in KINDS]
        for kind in KINDS:
            at = weighed.index(length) if length in weighed else None
            cells.append("" if at is None else f"{grown[kind][at] / 1e6:,.1f}")
        rows.append((f"{length:,}", *cells))
    head = ["positions", "plain, ms", "fused, ms", "plain, MB", "fused, MB"]
    yield Table("Median over rounds (lowest to highest)", head, rows)
    squares = [middle["plain"][-1] * (n / lengths[-1]) ** 2 for n in lengths]
    yield Plot(
        "time", "Time of self-attention, forward and backward", "positions", "seconds",
        [*(band(kind, lengths, seconds[kind], median) for kind in KINDS),
         Line("a square, for comparison", lengths, squares)],
        log_x=True, log_y=True,
    )  # fmt: skip
    yield Plot(
        "memory", "Memory of self-attention", "positions", "MB",
        [Line(kind, weighed, [max(b, 4096) / 1e6 for b in grown[kind]]) for kind in KINDS],
        log_x=True, log_y=True,
    )  # fmt: skip


def judge_growth(
    lengths: list[int], weighed: list[int], seconds: dict[str, list[list[float]]],
    middle: dict[str, list[float]], grown: dict[str, list[float]],
) -> Iterator[Finding]:  # fmt: skip
    half = len(lengths) // 2
    power = {kind: exponent(lengths[half:], middle[kind][half:]) for kind in KINDS}
    growth = {kind: exponent(weighed, grown[kind]) for kind in KINDS}
    logarithms = [math.log(y) for y in middle["plain"]]
    fits = [goodness([math.log(n) for n in lengths], logarithms), goodness(lengths, logarithms)]
    steady = max(max(each) / median(each) for kind in KINDS for each in seconds[kind][half:])
    calm = Check(
        f"no round of the longer half above 1.5 times its median ({steady:.2f})", steady < 1.5
    )
    enough = Check(f"{len(lengths)} lengths (at least 5)", len(lengths) >= 5)
    shape = HOLDS if fits[0] > fits[1] else FAILS
    ratio = middle["plain"][-1] / middle["fused"][-1]
    saved = grown["plain"][-1] / max(1, grown["fused"][-1])
    yield Finding(
        "the time of plain self-attention grows with the square of the length",
        within(power["plain"], 1.5, 2.5, (calm, enough)),
        f"Its exponent is {power['plain']:.2f}; 1.5 to 2.5 counts as a square.", (calm, enough),
    )  # fmt: skip
    yield Finding(
        "and not exponentially", shape if calm.met and enough.met else OPEN,
        f"R² of a power of the length {fits[0]:.3f}, of an exponential function {fits[1]:.3f}.",
    )  # fmt: skip
    yield Finding(
        "its memory grows with the square of the length",
        within(growth["plain"], 1.5, 2.5, (enough,)), f"Its exponent is {growth['plain']:.2f}.",
    )  # fmt: skip
    yield Finding(
        "a fused kernel's memory grows with the length only",
        within(growth["fused"], 0.0, 1.4, (enough,)),
        f"Its exponent is {growth['fused']:.2f}; at {weighed[-1]:,} positions it takes "
        f"1/{saved:.0f} of the plain one's.",
    )
    yield Finding(
        "a fused kernel's time is quadratic all the same",
        within(power["fused"], 1.5, 2.5, (calm, enough)),
        f"Its exponent is {power['fused']:.2f}; at {lengths[-1]:,} positions the plain one "
        f"takes {ratio:.1f} times as long.",
    )


def exponent(xs: list[float], ys: list[float]) -> float:
    """Return the power of x that y grows with: the slope of a line through logarithms."""
    return fit_line([math.log(x) for x in xs], [math.log(max(y, 1e-12)) for y in ys])[1]


def goodness(xs: list[float], ys: list[float]) -> float:
    """Return R² of a line through points."""
    return fit_line(xs, ys)[2]
