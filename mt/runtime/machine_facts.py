"""Facts of the machine and of the installation, for `mt doctor`."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from mt.errors import MtError
from mt.runtime import device, files, memory

PURPOSES = {
    "data": "identification of languages, mojibake, gettext files (mt data clean, kind: po)",
    "japanese": "BLEU of Japanese",
    "korean": "BLEU of Korean",
    "mbr": "search.kind: mbr",
    "moses": "tokenised BLEU as in papers (--tokenize moses)",
    "ctranslate2": "export to CTranslate2, and translation by it",
    "huggingface": "export to transformers, verified",
    "plot": "pictures of attention, plots of benchmarks",
}
"""What each extra of the package is for."""
NEEDED = ("torch", "numpy", "sentencepiece", "sacrebleu", "datasets", "safetensors")
"""Packages whose versions matter in a report of a fault."""


def list_facts() -> Iterator[tuple[str, str]]:
    """Yield (name, value) of the versions, the devices, memory, disk and the extras."""
    yield "mt", _version("mt")
    yield "Python", f"{platform.python_version()}, {sys.platform}, {platform.machine()}"
    for name in NEEDED:
        yield name, _version(name)
    yield from _device_facts()
    free = memory.available_bytes()
    yield "memory", "unknown" if free is None else f"{free / 1e9:.1f} GB free"
    yield "disk here", f"{files.free_bytes(Path.cwd()) / 1e9:.1f} GB free"
    yield from _cache_facts()
    offline = [name for name in ("MT_OFFLINE", "HF_HUB_OFFLINE") if os.environ.get(name)]
    yield "network", f"forbidden by {' and '.join(offline)}" if offline else "allowed"
    for name, packages in sorted(extras().items()):
        missing = [package for package in packages if _version(package) == "not installed"]
        state = f"pip install 'mt[{name}]'" if missing else "installed"
        yield f"extra {name}", f"{state}; for {PURPOSES[name]}"


def extras() -> dict[str, list[str]]:
    """Return the packages of each extra; none where mt is not installed as a package."""
    return {name: found for name in PURPOSES if (found := _packages("mt", name))}


def _packages(package: str, extra: str) -> list[str]:
    """Return the packages of an extra of a package, those of the extras that it names included."""
    try:
        requirements = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return []
    found: list[str] = []
    for requirement in requirements:
        pattern = rf"([\w.-]+)(?:\[(\w+)\])?.*;.*extra == [\"']{extra}[\"'].*"
        match = re.fullmatch(pattern, requirement)
        if match is not None:
            found += _packages(match[1], match[2]) if match[2] else [match[1]]
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _device_facts() -> Iterator[tuple[str, str]]:
    import torch

    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found = torch.cuda.get_device_properties(number)
        yield f"cuda:{number}", f"{found.name}, {found.total_memory / 1e9:.0f} GB"
    cores, processors = device.physical_cores(), len(device.available_cpus())
    bf16 = "bf16" if device.cpu_has_bf16() else "no bf16"
    yield "cpu", f"{cores} cores, {processors} processors for this process, {bf16}"
    yield "device", f"{device.pick_device('auto').type} is what runtime.device: auto takes"


def _cache_facts() -> Iterator[tuple[str, str]]:
    folder = files.cache_folder()
    try:
        files.make_folder(folder)
        state = f"{files.free_bytes(folder) / 1e9:.1f} GB free"
        state += "" if os.access(folder, os.W_OK) else ", not writable: set MT_CACHE"
    except MtError as error:
        state = f"{error.problems[0][1]}: set MT_CACHE"
    yield "cache", f"{folder}, {state}"
