"""The two sides of a corpus in an archive: two members of as many lines, one a language.

So OPUS and the shared tasks have published corpora since Moses: `Tatoeba.de-en.de` and
`Tatoeba.de-en.en` in one zip, with a README and a licence beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mt.config.schema import Languages
from mt.data import archives
from mt.data.languages import match_languages
from mt.data.pairs import Pair, pair_lines
from mt.errors import DataError, printable

_COMPRESSED = (".gz", ".xz", ".bz2", ".zst")


def read_sides(
    path: Path, direction: Languages, name: str, members: tuple[str | None, str | None]
) -> Iterator[Pair]:
    """Yield the pairs of two members of an archive, found by language where none is named.

    Args:
        path: the archive.
        direction: languages of the two members.
        name: what the archive is called, for origins and messages.
        members: the member of each side; None: the only one that ends in the language.

    Raises:
        DataError: a member is missing, there are several, or they have different lengths.
        DownloadError: the archive is hostile or damaged.
    """
    if not path.is_file():
        advice = "check its name; in a recipe it is relative to the folder of the recipe"
        raise DataError("DATA-FILE", path, "no such file", advice)
    if not archives.is_archive(path):
        what, advice = "not a zip or tar archive", "for a file at a URL set format, such as tsv"
        raise DataError("DATA-ARCHIVE", name, what, advice)
    codes = direction.source, direction.target
    found = [
        member or _member_of(path, code, name) for member, code in zip(members, codes, strict=True)
    ]
    where = f"{name}, {found[0]} and {found[1]}"
    source, target = (
        archives.read_lines(partial(archives.open_member, path, member), f"{name}, {member}")
        for member in found
    )
    yield from pair_lines(source, target, direction, name, where)


def _member_of(path: Path, code: str, name: str) -> str:
    """Return the member whose name ends in a language code."""
    names = archives.member_names(path)
    endings = {each: _ending(each) for each in names}
    best = match_languages(code, [ending for ending in endings.values() if ending])
    found = [each for each in names if endings[each] in best]
    if len(found) == 1:
        return found[0]
    what = f"{len(found) or 'no'} members end in .{code}"
    what += f"; there are: {printable(', '.join(found or names), 200)}"
    raise DataError("DATA-MEMBER", name, what, "name the members with source and target")


def _ending(name: str) -> str:
    """Return what follows the last dot of a name, but for an ending of compression."""
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return name.rpartition("/")[2].rpartition(".")[2] if "." in name else ""
