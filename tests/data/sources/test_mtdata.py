"""mtdata is asked as a program, once; mt downloads what it names."""

from __future__ import annotations

import gzip
import sys

import pytest
from made_archives import zipped
from source_sections import pairs

from mt.errors import ConfigError, DataError, MtError

ID = "Statmt-news-16-deu-eng"
TSV = "Ein Haus.\tA house.\nEin Bär.\tA bear.\n".encode()
EN_DE = [("A house.", "Ein Haus."), ("A bear.", "Ein Bär.")]


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Let a program that prints these lines stand for the Python of mtdata's environment."""

    def say(*lines, code=0):
        path = tmp_path / "python"
        log = tmp_path / "calls"
        text = "".join(f"{line}\n" for line in lines)
        path.write_text(
            f"#!{sys.executable}\nimport os, sys\n"
            f"print(sys.argv[1:], os.getcwd(), sorted(os.environ), file=open({str(log)!r}, 'a'))\n"
            f"sys.stdout.write({text!r})\nsys.stderr.write('it failed\\n')\nsys.exit({code})\n"
        )
        path.chmod(0o755)
        monkeypatch.setenv("MT_MTDATA", str(path))
        return log

    return say


def read(folder, identifier=ID, **section):
    return pairs(folder, kind="mtdata", id=identifier, **section)


def test_a_table_is_read_in_the_direction_of_the_recipe(site, tmp_path, program, monkeypatch):
    url = site.mirror("https://data.example/news.deu-eng.tsv.gz", gzip.compress(TSV))
    monkeypatch.setenv("MY_TOKEN", "planted0123456789")
    log = program("Other-x-1-deu-eng\thttps://data.example/x.tsv\t", f"{ID}\t{url}\t", "Total 2")
    assert read(tmp_path) == EN_DE
    turned = {"source": "de", "target": "en"}
    assert read(tmp_path, languages=turned) == [(b, a) for a, b in EN_DE]
    (call,) = log.read_text().splitlines()
    assert "['-I', '-m', 'mtdata', 'list', '-l', 'deu-eng']" in call
    assert str(tmp_path / "cache" / "mtdata") in call
    assert "TOKEN" not in call
    assert ID in (tmp_path / "data.lock").read_text()


def test_members_of_an_archive_are_in_the_order_of_the_identifier(site, tmp_path, program):
    members = {"t/x": TSV.split(b"\t")[0] + b"\n", "t/y": b"A house.\n"}
    url = site.mirror("https://data.example/a.zip", zipped(tmp_path / "z", members).read_bytes())
    program(f"{ID}\t{url}\tt/x,t/y")
    assert read(tmp_path) == EN_DE[:1]


@pytest.mark.parametrize(
    ("lines", "code", "identifier", "what"),
    [
        (["Total 0"], 0, ID, "mtdata has no corpus with this identifier"),
        ([], 3, ID, "mtdata ended with 3: it failed"),
        ([], 0, "Statmt-news-16-deu-fra", "it has deu and fra, not en and de"),
    ],
)
def test_what_it_does_not_know_is_reported(tmp_path, site, program, lines, code, identifier, what):
    program(*lines, code=code)
    with pytest.raises(ConfigError) as error:
        read(tmp_path, identifier)
    assert what in str(error.value)


def test_a_form_that_is_not_read_is_reported(site, tmp_path, program):
    url = site.mirror("https://data.example/x.sgm", b"x")
    program(f"{ID}\t{url}\t")
    with pytest.raises(DataError, match=r"x\.sgm"):
        read(tmp_path)


@pytest.mark.parametrize("python", [None, "/no/such/python"])
def test_without_mtdata_it_says_how_to_get_it(site, tmp_path, monkeypatch, python):
    monkeypatch.delenv("MT_MTDATA", raising=False)
    if python:
        monkeypatch.setenv("MT_MTDATA", python)
    with pytest.raises(MtError) as error:
        read(tmp_path)
    assert "MT_MTDATA" in str(error.value)
    assert error.value.exit_code == 2
