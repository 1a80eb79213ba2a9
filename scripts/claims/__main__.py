"""Measure the claims, or some of them, and write docs/claims.md.

    python scripts/claims              all of them; finished measurements are not repeated
    python scripts/claims b d          these; the page shows all finished measurements
    python scripts/claims --size quick smaller experiments (minutes); micro only tests the machinery
    python scripts/claims --page       only the page, from finished measurements

Measurements are kept under runs/claims/SIZE, one JSON file each, so that a killed run can continue.
`--fresh` deletes them first.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT)]  # this package, and mt of this checkout


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="claims", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("letters", nargs="*", metavar="CLAIM", help="a, b ...; all when left out")
    parser.add_argument("--size", choices=["full", "quick", "micro"], default="full")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    parser.add_argument("--fresh", action="store_true", help="delete finished measurements first")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/claims"), metavar="FOLDER",
        help="where measurements are kept (runs/claims)",
    )  # fmt: skip
    parser.add_argument(
        "--docs", type=Path, metavar="FOLDER",
        help="where claims.md goes: docs, but for other sizes than full the folder of the runs",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    folder = given.runs / given.size
    docs = given.docs or (ROOT / "docs" if given.size == "full" else folder)

    from claims import page, reproduce

    if unknown := [letter for letter in given.letters if letter not in page.names()]:
        parser.error(f"there is no claim {unknown[0]}; there are {', '.join(page.names())}")
    if not given.page:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        os.environ.setdefault("MT_CACHE", str((given.runs / "cache").absolute()))
        if not reproduce.reproduce(folder, given.size, given.letters, given.fresh):
            return 1
    if not page.read_results(folder):
        print(f"nothing was measured in {folder} so far: leave out --page", file=sys.stderr)
        return 1
    print(page.write(folder, docs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
