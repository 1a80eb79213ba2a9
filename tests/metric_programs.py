"""A program that scores lines, for metrics of `kind: command`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

FAKE = """
import json, os, sys, time

how, log = sys.argv[1], open(sys.argv[2], "a")
print("started", file=log, flush=True)
print("a word \\x1b[1m to the user", file=sys.stderr, flush=True)
if how == "silent": time.sleep(60)
print("no json" if how == "no version" else json.dumps({"version": "fake 1|0"}), flush=True)
if how == "deaf": time.sleep(60)
if how == "child":
    pid = os.fork()
    if pid: print("child", pid, file=log, flush=True)
    time.sleep(60)
if how == "dies": sys.exit(3)
rows = []
for line in sys.stdin:
    if line.strip():
        rows.append(json.loads(line))
        continue
    print("batch", len(rows), file=log, flush=True)
    for row in rows[how == "too few":]:
        hypothesis, references = row["hypothesis"].split(), row["references"]
        best = max(len({*hypothesis} & {*each.split()}) for each in references)
        print({"text": "good", "nan": "NaN", "huge": "1e999"}.get(how, best / 10))
    if how == "too many": print(1)
    sys.stdout.flush()
    rows = []
if how == "fails": sys.exit(4)
"""
"""Its score is the number of words that are in the best reference, divided by ten."""


def make_program(folder: Path, how: str = "well") -> list[str]:
    """Write the program; return its command line. It logs into `folder`/log."""
    (folder / "fake.py").write_text(FAKE, encoding="utf-8")
    return [sys.executable, str(folder / "fake.py"), how, str(folder / "log")]


def section(folder: Path, how: str = "well", **settings: Any) -> dict[str, Any]:
    """The section of a recipe for the program."""
    return {"kind": "command", "name": "fake", "run": make_program(folder, how), **settings}


def log_of(folder: Path) -> list[str]:
    """What the program has done."""
    log = folder / "log"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []
