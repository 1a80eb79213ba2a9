"""The machine a run works on: device, precision, threads, and (one for now) the processes."""

from __future__ import annotations

import os
import platform
import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from mt.config import Section
from mt.errors import MachineError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]


class Config(Section):
    """What a run works on."""

    device: str = "auto"
    """`auto` (a CUDA device when there is one), `cpu`, `cuda` or `cuda:N`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of matrix products; weights and sums stay fp32. `auto`: bf16 where it is measured to win."""
    threads: Literal["auto"] | int = Field("auto")
    """CPU threads; `auto`: one for each physical core."""
    compile: Literal["auto"] | bool = "auto"
    """Compile the blocks with torch.compile; `auto`: on CUDA only."""
    sharding: Literal["none"] = "none"
    """How several processes share a model; one process only, so far."""

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise ValueError(f"unknown device {device!r}; one of auto, cpu, cuda, cuda:N")
        return device

    @field_validator("threads")
    @classmethod
    def _some_threads(cls, threads: int | str) -> int | str:
        if isinstance(threads, int) and not 1 <= threads <= 1024:
            raise ValueError(f"should be auto or 1 to 1024, got {threads}")
        return threads


def pick_device(name: str) -> torch.device:
    """The torch device of that name.

    Raises:
        MachineError: it is not there; says what torch sees.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
        number = int(name.partition(":")[2] or 0)
        if number >= seen:
            what = f"{name} is not there; torch {torch.__version__} sees {seen} CUDA devices"
            raise MachineError("NO-GPU", "runtime.device", what, "set runtime.device=cpu or auto")
        return torch.device("cuda", number)
    return torch.device(name)


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads counted once where Linux tells."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not allowed:
        return os.cpu_count() or 1
    siblings = set()
    for cpu in allowed:
        try:
            path = f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
            with open(path, encoding="ascii") as stream:
                siblings.add(stream.read())
        except OSError:
            return len(allowed)
    return len(siblings)


def use_threads(threads: Literal["auto"] | int) -> int:
    """Set and return torch's number of CPU threads."""
    import torch

    count = physical_cores() if threads == "auto" else threads
    torch.set_num_threads(count)
    return count


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware (AVX512-BF16, AMX or Arm's)."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as stream:
            flags = stream.read()
    except OSError:
        return False
    return any(f" {flag}" in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """A context in which matrix products are taken in `precision`."""
    import torch

    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, types[precision], enabled=precision != "fp32")


def describe() -> str:
    """One line: what torch this is and what it sees."""
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    return f"torch {torch.__version__}, Python {platform.python_version()}, {device}"
