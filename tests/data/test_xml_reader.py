"""XML from anywhere is read in constant memory, without entities and without the network."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from pathlib import Path

import pytest

from mt.data import xml_reader
from mt.errors import DataError

ROOT = Path(__file__).parents[2]


def elements(path, *units, heads=()):
    return [
        (xml_reader.local_name(e), e.get("n"), xml_reader.text_of(e, ("code",), "name"))
        for e in xml_reader.read_elements(path, units, heads)
    ]


def written(tmp_path, text):
    path = tmp_path / "a.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path):
    with pytest.raises(DataError) as error:
        elements(path, "u")
    assert len(str(error.value).splitlines()) == 2
    return str(error.value)


def test_units_come_in_order_with_their_text_whatever_the_namespace(tmp_path):
    text = """<r xmlns="urn:x"><h n="1"/><u n="2">a<b>b</b><code>no</code>c<!-- x --><?y z?>d</u>
    <u n="3">&lt;&#228;</u></r>"""
    for content in (text.encode(), gzip.compress(text.encode()), text.encode("utf-16")):
        path = written(tmp_path, content)
        assert elements(path, "u", heads=["h"]) == [
            ("h", "1", ""), ("u", "2", "abcd"), ("u", "3", "<ä")
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line"),
    [("<r>\n<u>\n</r>", 3), ("<r>\n<u>a & b</u></r>", 2), ("<r><u>a</u>", 1), ("", 1), ("x", 1)],
)
def test_what_is_not_well_formed_is_refused_with_its_line(tmp_path, text, line):
    assert f"a.xml:{line}: not well-formed XML" in refused(written(tmp_path, text))


def test_no_entity_reads_a_file_or_connects(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("planted")
    for target in (f"file://{secret}", "http://127.0.0.1:9/x"):
        text = f'<!DOCTYPE r [<!ENTITY x SYSTEM "{target}">]><r><u>&x;</u></r>'
        assert "planted" not in refused(written(tmp_path, text))
        text = f'<!DOCTYPE r SYSTEM "{target}"><r><u>a</u></r>'
        assert elements(written(tmp_path, text), "u") == [("u", None, "a")]


def test_entities_within_entities_are_not_expanded(tmp_path):
    entities = '<!ENTITY a0 "ha">' + "".join(
        f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)
    )
    for unit in ("<u>&a9;</u>", '<u n="&a9;">x</u>'):
        refused(written(tmp_path, f"<!DOCTYPE r [{entities}]><r>{unit}</r>"))


def test_a_deep_or_very_long_element_is_refused(tmp_path):
    refused(written(tmp_path, "<r>" + "<u>" * 1000 + "</u>" * 1000 + "</r>"))
    refused(written(tmp_path, "<r><u>" + "x" * 11_000_000 + "</u></r>"))


def test_a_small_file_is_parsed_as_a_whole():
    root = xml_reader.parse(io.BytesIO(b"<r><u>a</u></r>"), "name")
    assert root.findtext("u") == "a"
    with pytest.raises(DataError, match="name:1: not well-formed"):
        xml_reader.parse(io.BytesIO(b"<r>"), "name")


MEMORY = """
import re, sys
from pathlib import Path
from mt.data.xml_reader import read_elements
count = sum(1 for _ in read_elements(Path(sys.argv[1]), ["tu"]))
most = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(count, int(most[1]) // 1024)
"""


def megabytes(path):
    """Elements and the memory of a process that reads them."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return map(int, done.stdout.split())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory is unknown here")
def test_memory_does_not_grow_with_the_file(tmp_path):
    unit = "<tu><tuv lang='en'><seg>A house &amp; a garden</seg></tuv></tu>\n"
    sizes = []
    for number in (1_000, 300_000):
        path = tmp_path / f"{number}.tmx"
        path.write_text(f"<tmx><body>{unit * number}</body></tmx>")
        count, size = megabytes(path)
        assert count == number
        sizes.append(size)
    assert path.stat().st_size > 18_000_000
    assert sizes[1] - sizes[0] < 10
