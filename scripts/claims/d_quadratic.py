"""Claim d: what self-attention costs as sentences grow."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn import functional as F

from claims import timing
from claims.lab import Lab
from claims.store import Task
from claims.verdicts import FAILS, HOLDS, OPEN, Check, Finding, Judgement, Line, Plot, Table, within
from mt.models.modules.attention import attend
from mt.runtime import memory

TITLE = "Self-attention's cost is quadratic, not exponential"
CLAIM = """
Self-attention compares each position with each other one, so that its time and memory grow with
the square of the length (and not exponentially, as is sometimes said). A fused kernel, which never
keeps the whole matrix of weights, needs memory that grows with the length only.
"""
EXPERIMENT = """
Causal self-attention of one sentence, 4 heads of 32, forward and backward, fp32: `mt`'s plain parts
(`mt/attention.py` on a CPU) and torch's fused kernel (what the same function calls on a GPU). Time
in interleaved rounds; memory is how much the peak of a fresh process grows. The exponent is the
slope of a line through the logarithms of the longer half of the lengths; for comparison, how well
a power of the length and an exponential function of it explain all times (R² of the logarithms).
"""
NOTES: tuple[str, ...] = ()
HEADS, WIDTH = 4, 32
KINDS = ("plain", "fused")


def measure(lab: Lab) -> dict[str, Any]:
    lengths = lab.choose([128, 256, 512, 1024, 2048, 4096], [256, 512, 1024, 2048, 4096], [16, 32])
    rounds = lab.choose(7, 5, 2)
    weighed = [length for length in lengths if length >= lab.choose(512, 512, 32)]
    tasks = {
        f"memory of {kind} at {length}": Task("d_quadratic:grown", {"kind": kind, "length": length})
        for kind in KINDS
        for length in weighed
    }
    least = lab.choose(0.1, 0.05, 0.0)
    timed = Task("d_quadratic:times", {"lengths": lengths, "rounds": rounds, "least": least})
    seconds = lab.measure({"time": timed}, alone=True)["time"]
    memory = lab.measure(tasks, alone=True)
    return {
        "lengths": lengths,
        "seconds": seconds,
        "weighed": weighed,
        "bytes": {
            kind: [memory[f"memory of {kind} at {length}"] for length in weighed] for kind in KINDS
        },
    }


# --------------------------------------------------------------------------- measurements


def once(kind: str, length: int, small: bool = False) -> None:
    """One forward and backward pass."""
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
    """Seconds by kind, then by length, then by round."""
    torch.manual_seed(1)
    memory.keep_freed_memory()
    sides = {
        f"{kind} {length}": (lambda kind=kind, length=length: once(kind, length))
        for length in lengths
        for kind in KINDS
    }
    found = timing.interleaved(sides, rounds, least)
    return {kind: [found[f"{kind} {length}"] for length in lengths] for kind in KINDS}


def grown(folder: Path, kind: str, length: int) -> int:
    """Bytes by which a process grows."""
    return timing.peak(once, kind, length)


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Judgement:
    lengths, weighed = found["lengths"], found["weighed"]
    middle = {kind: [median(each) for each in found["seconds"][kind]] for kind in KINDS}
    half = len(lengths) // 2
    power = {kind: exponent(lengths[half:], middle[kind][half:]) for kind in KINDS}
    growth = {kind: exponent(weighed, found["bytes"][kind]) for kind in KINDS}
    fits = {
        name: goodness(xs, [math.log(y) for y in middle["plain"]])
        for name, xs in (("power", [math.log(n) for n in lengths]), ("exponential", lengths))
    }
    steady = max(
        max(rounds) / median(rounds) for kind in KINDS for rounds in found["seconds"][kind][half:]
    )
    calm = Check(f"no round of the longer half above 1.5 times its median ({steady:.2f})",
                 steady < 1.5)  # fmt: skip
    enough = Check(f"{len(lengths)} lengths (at least 5)", len(lengths) >= 5)
    checks = (calm, enough)
    better = fits["power"] > fits["exponential"]
    shape = OPEN if not all(c.met for c in checks) else HOLDS if better else FAILS
    ratio = middle["plain"][-1] / middle["fused"][-1]
    saved = found["bytes"]["plain"][-1] / max(1, found["bytes"]["fused"][-1])
    findings = [
        Finding(
            "the time of plain self-attention grows with the square of the length",
            within(power["plain"], 1.5, 2.5, checks),
            f"Its exponent is {power['plain']:.2f}; 1.5 to 2.5 counts as a square.",
            checks,
        ),
        Finding(
            "and not exponentially", shape,
            f"R² of a power of the length {fits['power']:.3f}, of an exponential function "
            f"{fits['exponential']:.3f}.",
        ),
        Finding(
            "its memory grows with the square of the length",
            within(growth["plain"], 1.5, 2.5, (enough,)),
            f"Its exponent is {growth['plain']:.2f}.",
        ),
        Finding(
            "a fused kernel's memory grows with the length only",
            within(growth["fused"], 0.0, 1.4, (enough,)),
            f"Its exponent is {growth['fused']:.2f}; at {weighed[-1]:,} positions it takes "
            f"1/{saved:.0f} of the plain one's.",
        ),
        Finding(
            "a fused kernel's time is quadratic all the same",
            within(power["fused"], 1.5, 2.5, checks),
            f"Its exponent is {power['fused']:.2f}; at {lengths[-1]:,} positions the plain one "
            f"takes {ratio:.1f} times as long.",
        ),
    ]  # fmt: skip
    rows = [["positions", "plain, ms", "fused, ms", "plain, MB", "fused, MB"]]
    for number, length in enumerate(lengths):
        cells = [f"{length:,}"]
        cells += [timing.told([1000 * s for s in found["seconds"][kind][number]]) for kind in KINDS]
        for kind in KINDS:
            at = weighed.index(length) if length in weighed else None
            cells.append("" if at is None else f"{found['bytes'][kind][at] / 1e6:,.1f}")
        rows.append(cells)
    squares = [middle["plain"][-1] * (n / lengths[-1]) ** 2 for n in lengths]
    plots = [
        Plot(
            "time", "Time of self-attention, forward and backward", "positions", "seconds",
            [
                *(Line(kind, lengths, middle[kind],
                       [min(r) for r in found["seconds"][kind]],
                       [max(r) for r in found["seconds"][kind]]) for kind in KINDS),
                Line("a square, for comparison", lengths, squares),
            ],
            log_x=True, log_y=True,
        ),
        Plot(
            "memory", "Memory of self-attention", "positions", "MB",
            [Line(kind, weighed, [max(b, 4096) / 1e6 for b in found["bytes"][kind]])
             for kind in KINDS],
            log_x=True, log_y=True,
        ),
    ]  # fmt: skip
    return Judgement(findings, [Table("Median over rounds (lowest to highest)", rows)], plots)


def exponent(xs: list[float], ys: list[float]) -> float:
    """The slope of a line through logarithms: the power of x that y grows with."""
    return _line([math.log(x) for x in xs], [math.log(max(y, 1e-12)) for y in ys])[1]


def goodness(xs: list[float], ys: list[float]) -> float:
    """R² of a line through points."""
    constant, slope = _line(xs, ys)
    middle = sum(ys) / len(ys)
    rest = sum((y - constant - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    return 1 - rest / max(sum((y - middle) ** 2 for y in ys), 1e-12)


def _line(xs: list[float], ys: list[float]) -> tuple[float, float]:
    """Constant and slope of the line of least squares."""
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((a - x) ** 2 for a in xs)
    slope = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / max(spread, 1e-12)
    return y - slope * x, slope
