"""`mt cache`: list or clear the encoded corpora and the downloads."""

from __future__ import annotations

from typing import Annotated

from typer import Option


def command(
    clear: Annotated[
        bool, Option("--clear", help="Delete the encoded corpora; the next run encodes again.")
    ] = False,
    clear_downloads: Annotated[
        bool, Option("--clear-downloads", help="Delete the downloads; they are fetched again.")
    ] = False,
) -> None:
    """List the encoded corpora and the downloads in the cache with their sizes, or delete them.

    The cache is $MT_CACHE, else mt/ in the platform's cache folder. Everything in it can be made
    or fetched again from the recipe and the data.

    \b
    Example:  mt cache --clear
    """
    from mt.runtime import console, files, output

    corpora, downloads = (files.cache_folder() / name for name in ("corpora", "downloads"))
    found = {
        corpora: sorted(path for path in corpora.glob("[!.]*") if path.is_dir()),
        downloads: sorted(
            path for path in downloads.glob("[!.]*") if path.suffix not in (".lock", ".etag")
        ),
    }
    wanted = {corpora: clear, downloads: clear_downloads}
    for folder, entries in found.items():
        if wanted[folder]:
            for entry in entries:
                files.delete(entry)
            console.print_line(f"deleted {len(entries)} {folder.name} in {folder}")
    if not any(wanted.values()):
        entries = [*found[corpora], *found[downloads]]
        sizes = [
            sum(each.stat().st_size for each in (entry, *entry.rglob("*")) if each.is_file())
            for entry in entries
        ]
        output.print_lines(
            f"{size / 1e6:10.1f} MB  {entry}" for entry, size in zip(entries, sizes, strict=True)
        )
