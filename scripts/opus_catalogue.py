"""Make the table of OPUS corpora that mt ships, from a wheel of opustools.

    python scripts/opus_catalogue.py opustools-1.9.0-py3-none-any.whl

The wheel (MIT licence, University of Helsinki) has a database of all files of OPUS. Of each
corpus, pair of languages and newest version with an archive in the format of Moses a line is kept:
name, version, both languages, pairs, size in kB and, where it does not follow, the URL.
"""

from __future__ import annotations

import gzip
import lzma
import re
import sqlite3
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mt.data.catalogue import TABLE, opus_url  # noqa: E402

MEMBER = "opustools/opusdata.db.gz"
QUERY = """
    select corpus, version, source, target, alignment_pairs, size, url from opusfile
    where latest = 'True' and preprocessing = 'moses' and source != '' and target != ''
    order by corpus, version, source, target
"""


def rows(database: bytes) -> Iterator[str]:
    """Yield the lines of the table from an SQLite database."""
    connection = sqlite3.connect(":memory:")
    connection.deserialize(database)
    for name, version, source, target, pairs, size, url in connection.execute(QUERY):
        usual = url == opus_url(name, version, source, target)
        cells = [name, version, source, target, pairs or "", size or "", *([] if usual else [url])]
        yield "\t".join(map(str, cells)) + "\n"


def table(wheel: Path) -> bytes:
    """Return the compressed table of a wheel of opustools."""
    version = re.match(r"opustools-([\d.]+)-", wheel.name)
    assert version is not None, f"{wheel.name} is no wheel of opustools"
    with zipfile.ZipFile(wheel) as archive:
        year, month, day = archive.getinfo(MEMBER).date_time[:3]
        database = gzip.decompress(archive.read(MEMBER))
    date = f"{year}-{month:02}-{day:02}"
    head = f"# the catalogue of OPUS of {date}, from opustools {version[1]} (MIT licence)\n"
    text = head + "".join(rows(database))
    return lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    content = table(Path(sys.argv[1]))
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_bytes(content)
    print(f"{TABLE}: {len(content):,} bytes")
