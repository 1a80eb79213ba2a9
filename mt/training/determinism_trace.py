"""Bit-exact traces of training, and the first difference of two.

RUN/trace.jsonl has a line for each update: its position, a hash of its batch, and loss, gradient
norm and rate as `float.hex` writes them, which loses no bit. A resume drops the lines of updates
that run again, so a run that was stopped has the trace of one that was not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.errors import DataError
from mt.runtime import files
from mt.training.reporter import Reporter, truncate_log

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mt.interfaces import Batch

FILE_NAME = "trace.jsonl"
WEIGHTS_EVERY = 50
"""Updates between two hashes of all weights, which read every byte of them."""
HEX = {"loss": "loss", "norm": "gradient norm", "rate": "learning rate"}
FIELDS = {
    "epoch": "epoch", "window": "window", "update": "update", "data": "data", **HEX,
    "weights": "weights",
}  # fmt: skip
"""The fields of a line and their names in words, causes before their effects."""

# ------------------------------------------------------------------------------- writing


class TraceWriter:
    """Writes the trace of a run; a disk that refuses it causes one warning and ends no training.

    It drops the lines of a run directory's trace that came after `step`.
    """

    def __init__(self, run: Path, step: int, report: Reporter) -> None:
        self.path, self.report = run / FILE_NAME, report
        report.attempt(FILE_NAME, lambda: truncate_log(self.path, step))

    def note(
        self, step: int, place: tuple[int, int, int], batches: Iterable[Batch],
        loss: Tensor | float, norm: Tensor | float, rate: float,
        module: nn.Module | None,
    ) -> None:  # fmt: skip
        """Write an update at (epoch, window, update); waits for the device to have finished it."""
        line: dict[str, Any] = {"step": step}
        line |= zip(("epoch", "window", "update"), place, strict=True)
        line["data"] = digest_tensors(t for b in batches for t in (b.rows, b.source, b.target))[:16]
        line |= {"loss": float(loss).hex(), "norm": float(norm).hex(), "rate": rate.hex()}
        if module is not None and step % WEIGHTS_EVERY == 0:
            line["weights"] = weights_digest(module)
        self._append(line)

    def end(self, step: int, module: nn.Module) -> None:
        """Write the hash of the weights after the last update."""
        self._append({"step": step, "weights": weights_digest(module)})

    def _append(self, line: dict[str, Any]) -> None:
        self.report.attempt(FILE_NAME, lambda: files.append_line(self.path, json.dumps(line)))


def weights_digest(module: nn.Module) -> str:
    """Hash the bytes of all parameters, in the order of their names."""
    return digest_tensors(parameter for _, parameter in sorted(module.named_parameters()))


def digest_tensors(tensors: Iterable[Tensor]) -> str:
    """Return the sha256 of the bytes of tensors, one after the other."""
    import torch

    digest = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ----------------------------------------------------------------------------- comparing


@dataclass(frozen=True)
class Difference:
    """Where two traces first differ."""

    step: int
    what: str
    """One of `FIELDS` in words, or `length`: one of them has no such step."""
    values: tuple[str, str]
    """As written; a float also in decimal."""


def first_difference(one: dict[int, Any], other: dict[int, Any]) -> Difference | None:
    """Find the first difference of two traces; weights are compared where both have their hash."""
    for step in sorted(one.keys() | other.keys()):
        if step not in one or step not in other:
            first, second = ("traced" if step in t else "not traced" for t in (one, other))
            return Difference(step, "length", (first, second))
        for key, words in FIELDS.items():
            values = [trace[step].get(key) for trace in (one, other)]
            if values[0] != values[1] and not (key == "weights" and None in values):
                first, second = (format_value(key, value) for value in values)
                return Difference(step, words, (first, second))
    return None


def summarize_equal(one: dict[int, Any], other: dict[int, Any]) -> str:
    """Say how much was compared and is equal."""
    both = [step for step in one if "weights" in one[step] and "weights" in other[step]]
    weights = f"weights at {len(both)} of them" if both else "weights never"
    return f"equal: {len(one):,} updates compared, {weights}"


def format_value(key: str, value: Any) -> str:
    """Format a value; a float also in decimal."""
    return f"{value} ({float.fromhex(value)!r})" if key in HEX and value else str(value)


def read_trace(path: Path) -> dict[int, Any]:
    """Read the fields of each step from a run or a file; a DataError names a damaged line."""
    file = path / FILE_NAME if path.is_dir() else path
    try:
        raw = file.read_bytes()
    except OSError as error:
        what = f"no trace there ({error.strerror or error})"
        advice = "give a run that was trained with `mt train --trace`, or its trace.jsonl"
        raise DataError("TRACE-NONE", file, what, advice) from None
    lines = raw.split(b"\n")[:-1]
    if not lines:
        raise DataError("TRACE-NONE", file, "it is empty", "train with `mt train --trace`")
    trace: dict[int, Any] = {}
    for number, line in enumerate(lines, start=1):
        fields = _parse_line(line)
        if fields is None:
            advice = "restore the file, or make the run again with --trace"
            raise DataError("TRACE-DAMAGED", f"{file}:{number}", "not a line of a trace", advice)
        trace.setdefault(fields["step"], {}).update(fields)
    return trace


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a line; None when it is damaged."""
    try:
        fields: dict[str, Any] = json.loads(line)
        for key in HEX.keys() & fields.keys():
            float.fromhex(fields[key])
        sound = type(fields["step"]) is int and fields.keys() <= {"step", *FIELDS}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    return fields if sound else None
