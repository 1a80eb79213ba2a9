"""Measurements that were finished, each in a JSON file under the hash of what it depends on.

A measurement is a function of JSON values to a JSON value, so what it depends on is its name, its
arguments and the version of torch. A program that was killed finds here what was finished.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mt.runtime import files

Values = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A measurement to make: `module:function` of this package, and its arguments."""

    function: str
    arguments: Values = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The hash of what the measurement depends on."""
        told = [self.function, self.arguments, torch.__version__]
        text = json.dumps(told, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def run(self, folder: Path) -> Any:
        """Make the measurement; the function is given the folder where runs are kept, too."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(f"claims.{module}"), name)(folder, **self.arguments)


class Store:
    """The measurements in a folder.

    Args:
        folder: `measurements/` is in it, and whatever else the measurements keep (runs, caches).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = files.make_folder(folder)

    def path(self, task: Task) -> Path:
        """Where a measurement lies, or will lie."""
        name = task.function.replace(":", "-")
        return self.folder / "measurements" / f"{name}-{task.key}.json"

    def found(self, task: Task) -> Values | None:
        """`value` and `seconds` of a finished measurement; None: it is still to be made."""
        try:
            return files.read_json(self.path(task))
        except (OSError, ValueError):  # not there, or of a machine that lost its power
            return None

    def forget(self, task: Task) -> None:
        """Delete a measurement, so that it is made anew."""
        files.delete(self.path(task))

    def make(self, task: Task) -> Values:
        """The measurement, made and kept unless it was finished before."""
        known = self.found(task)
        if known is not None:
            return known
        began, busy = time.monotonic(), _others()
        value = task.run(self.folder)
        seconds = time.monotonic() - began
        made = {
            "function": task.function, "arguments": task.arguments, "value": value,
            "seconds": round(seconds, 3),
            "others": round(max(0.0, _others() - busy) / seconds / (os.cpu_count() or 1), 3),
        }  # fmt: skip
        files.make_folder(self.path(task).parent)
        files.write_json(self.path(task), made)
        return made


def _others() -> float:
    """Seconds of all processors that went to others than this process and its children; or 0."""
    try:
        _, user, nice, system, _, _, *rest = Path("/proc/stat").read_text().splitlines()[0].split()
    except (OSError, ValueError):  # no Linux
        return 0.0
    ticks = sum(int(each) for each in (user, nice, system, *rest[:3]))  # and a hypervisor's share
    return ticks / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])
