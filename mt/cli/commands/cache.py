"""`mt cache`: list or clear the encoded corpora."""

from __future__ import annotations

from typing import Annotated

from typer import Option


def command(
    clear: Annotated[
        bool, Option("--clear", help="Delete them all; the next run encodes again.")
    ] = False,
) -> None:
    """List the encoded corpora in the cache with their sizes, or delete them.

    The cache is $MT_CACHE, else mt/ in the platform's cache folder. Everything in it can be made
    again from the recipe and the data.

    \b
    Example:  mt cache --clear
    """
    from mt.runtime import console, files, output

    folder = files.cache_folder() / "corpora"
    entries = sorted(path for path in folder.glob("[!.]*") if path.is_dir())
    if clear:
        for entry in entries:
            files.delete(entry)
        console.print_line(f"deleted {len(entries)} corpora in {folder}")
        return
    sizes = [sum(f.stat().st_size for f in e.rglob("*") if f.is_file()) for e in entries]
    output.print_lines(
        f"{size / 1e6:10.1f} MB  {entry}" for entry, size in zip(entries, sizes, strict=True)
    )
