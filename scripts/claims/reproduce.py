"""Measures claims one after another, and keeps the values for the page."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from bench.harness import say

from claims import page
from claims.lab import Failed, Lab, Size
from claims.store import Store
from mt.runtime import files
from mt.runtime.lock import lock


def reproduce(
    folder: Path, size: Size, letters: Sequence[str] = (), fresh: bool = False,
    cores: int | None = None,
) -> bool:  # fmt: skip
    """Measure claims; return whether all worked, and print the errors of those that did not.

    Args:
        folder: where measurements and results are kept.
        size: how large the experiments are.
        letters: which claims; all when there are none.
        fresh: delete what was measured before.
        cores: see `Lab`.
    """
    if fresh and folder.exists():
        files.delete(folder)
    done = True
    with lock(files.make_folder(folder) / ".lock"):
        for letter in letters or page.names():
            lab = Lab(Store(folder), size, cores)
            say(f"claim {letter}: {page.claim(letter).TITLE}")
            began = time.monotonic()
            try:
                found = page.claim(letter).measure(lab)
            except Failed as error:
                say(f"claim {letter} could not be measured: {error}")
                done = False
                continue
            result = {
                "size": size, "machine": machine(lab.cores), "cores": max(1, lab.cores),
                "used": lab.used, "found": found,
            }  # fmt: skip
            files.write_json(folder / f"{letter}.json", result)
            say(f"claim {letter} took {time.monotonic() - began:.0f} s")
    return done


def machine(cores: int) -> str:
    """Describe the machine without naming it: cores, processor, memory, torch."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    named = names[0] if names else platform.machine()
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        memory = f", {total / 2**30:.0f} GiB"
    count = f"{cores} cores" if cores != 1 else "1 core"
    kernels = torch.backends.cpu.get_cpu_capability()
    return f"{count} of {named} ({kernels}){memory}, torch {torch.__version__}"
