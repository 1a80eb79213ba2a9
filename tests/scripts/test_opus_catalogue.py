"""The table of OPUS is made from the database in a wheel of opustools."""

from __future__ import annotations

import gzip
import lzma
import sqlite3
import zipfile
from pathlib import Path

import pytest
from script_module import load_script

ROOT = Path(__file__).parents[2]
COLUMNS = "source, target, corpus, preprocessing, version, url, size, alignment_pairs, latest"


@pytest.fixture
def script():
    return load_script("opus_catalogue")


def test_the_newest_archives_in_the_format_of_moses_are_kept(script, tmp_path):
    usual = "https://object.pouta.csc.fi/OPUS-A/v2/moses/de-en.txt.zip"
    rows = [
        ("de", "en", "A", "moses", "v2", usual, 9, 100, "True"),
        ("de", "en", "A", "moses", "v1", usual.replace("v2", "v1"), 8, 90, "False"),
        ("de", "en", "A", "xml", "v2", usual, 7, 100, "True"),
        ("de", "fr", "B", "moses", "v1", "https://else.example/x.zip", 5, None, "True"),
        ("de", "", "B", "moses", "v1", "https://else.example/y.zip", 5, None, "True"),
    ]
    database = sqlite3.connect(":memory:")
    database.execute(f"create table opusfile ({COLUMNS})")
    database.executemany(f"insert into opusfile ({COLUMNS}) values ({','.join('?' * 9)})", rows)
    database.commit()
    wheel = tmp_path / "opustools-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = zipfile.ZipInfo(script.MEMBER, (2026, 8, 26, 7, 32, 0))
        archive.writestr(info, gzip.compress(database.serialize()))
    assert lzma.decompress(script.table(wheel)).decode().splitlines() == [
        "# the catalogue of OPUS of 2026-08-26, from opustools 1.2.3 (MIT licence)",
        "A\tv2\tde\ten\t100\t9",
        "B\tv1\tde\tfr\t\t5\thttps://else.example/x.zip",
    ]
