"""Finished measurements, each in a JSON file under the hash of what it depends on.

A measurement is a function from JSON values to a JSON value. It depends on its name, its arguments
and the version of torch; so a renamed function is measured again. A killed program finds its
finished measurements here.
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

from mt.errors import ModelError
from mt.runtime import files, model_files

Values = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A measurement to make: `module:function` of this package, and its arguments."""

    function: str
    arguments: Values = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The hash of everything that the measurement depends on."""
        parts = [self.function, self.arguments, torch.__version__]
        text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def run(self, folder: Path) -> Any:
        """Make the measurement; the function gets the folder of the runs, too."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(f"claims.{module}"), name)(folder, **self.arguments)


class Store:
    """The measurements in a folder.

    Args:
        folder: has `measurements/`, and the runs and caches of the measurements.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = files.make_folder(folder)

    def path(self, task: Task) -> Path:
        """Return the path of a measurement, finished or not."""
        name = task.function.replace(":", "-")
        return self.folder / "measurements" / f"{name}-{task.key}.json"

    def found(self, task: Task) -> Values | None:
        """Return a finished measurement (`value`, `seconds`, ...), or None."""
        try:
            return model_files.read_json(self.path(task))
        except ModelError:  # missing, or cut off by a power failure
            return None

    def forget(self, task: Task) -> None:
        """Delete a measurement, so that it is made again."""
        files.delete(self.path(task))

    def make(self, task: Task) -> Values:
        """Return the measurement; make and keep it unless it is finished."""
        if (finished := self.found(task)) is not None:
            return finished
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
    """Return the processor seconds of all but this process and its children; 0 if unknown."""
    try:
        _, user, nice, system, _, _, *rest = Path("/proc/stat").read_text().splitlines()[0].split()
    except (OSError, ValueError):  # no Linux
        return 0.0
    ticks = sum(int(each) for each in (user, nice, system, *rest[:3]))  # and a hypervisor's share
    return ticks / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])
