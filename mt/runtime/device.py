"""Device, precision and CPU threads."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mt.errors import ConfigError, MachineError

if TYPE_CHECKING:
    import torch

from mt.runtime.distributed import SINGLE, World

Precision = Literal["fp32", "bf16", "fp16"]


def pick_device(name: str, world: World = SINGLE) -> torch.device:
    """Return the torch device of a name; each process of a machine has its own CUDA device.

    Raises:
        MachineError: there is no such device.
        ConfigError: one device is named for several processes.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = name.partition(":")[2]
        if index and world.local_size > 1:
            what = f"{name} is one device for the {world.local_size} processes of this machine"
            advice = "set runtime.device=cuda, and each process takes the one of its rank"
            raise ConfigError("CONFIG", "runtime.device", what, advice)
        number = int(index or world.local_rank)
        if number >= seen:
            what = f"cuda:{number} is not there; torch {torch.__version__} sees {seen} CUDA devices"
            raise MachineError("NO-GPU", "runtime.device", what, "set runtime.device=cpu or auto")
        torch.cuda.set_device(number)  # streams, graphs and shards go by the current device
        # cuDNN's attention, torch's first choice on such a card, builds a plan for each new
        # shape in each thread: sentences come in hundreds of shapes.
        torch.backends.cuda.enable_cudnn_sdp(False)
        return torch.device("cuda", number)
    return torch.device(name)


def available_cpus() -> list[int]:
    """List the processors that this process may use; all of the machine where that is unknown."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def physical_cores() -> int:
    """Count the cores for this process; hyper-threads count once where Linux reports them."""
    allowed = available_cpus()
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    try:
        return len({Path(topology.format(cpu)).read_text(encoding="ascii") for cpu in allowed})
    except OSError:
        return len(allowed)


def use_threads(threads: Literal["auto"] | int, world: World = SINGLE) -> int:
    """Set and return torch's number of CPU threads; processes of a machine share its cores."""
    import torch

    count = max(1, physical_cores() // world.local_size) if threads == "auto" else threads
    torch.set_num_threads(count)
    return count


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware (AVX512-BF16, AMX or Arm's)."""
    return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def saturates_int8() -> bool:
    """Whether this is an x86 CPU without VNNI, whose 8-bit products add up in 16 bits."""
    flags = _cpu_flags()
    return "avx2" in flags and not flags & {"avx512_vnni", "avx_vnni"}


def import_ctranslate2() -> Any:
    """Import CTranslate2 so that its products of 8-bit numbers are right on every CPU."""
    choose_int8_library()  # CTranslate2 reads the variable when it is imported
    import ctranslate2

    return ctranslate2


def choose_int8_library() -> None:
    """Let CTranslate2 take MKL's products where those of oneDNN, its choice on AMD, overflow."""
    if saturates_int8():
        os.environ.setdefault("CT2_USE_MKL", "1")


def _cpu_flags() -> set[str]:
    """The features of this processor as Linux names them; empty where they are unknown."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    return set(text.split())


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return a context in which matrix products are taken in `precision`."""
    import torch

    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, types[precision], enabled=precision != "fp32")


def describe_environment() -> str:
    """Describe torch, Python and the device in one line."""
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    return f"torch {torch.__version__}, Python {platform.python_version()}, {device}"
