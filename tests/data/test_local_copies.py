"""Corpora of the web become files of this machine, and lines of a recipe that work."""

from __future__ import annotations

import json

import pytest
import sacrebleu.dataset
import yaml
from made_archives import zipped
from pydantic import TypeAdapter
from sacrebleu.dataset.plain_text import PlainTextDataset

from mt.config import schema
from mt.config.schema import Languages
from mt.data.catalogue import find_opus
from mt.data.local_copies import file_name, get_corpus
from mt.data.pairs import read_pairs
from mt.errors import ConfigError, DataError, DownloadError

EN, DE = b"A house.\nA bear.\n", "Ein Haus.\nEin Bär.\n".encode()
PAIRS = [("A house.", "Ein Haus."), ("A bear.", "Ein Bär.")]
TATOEBA = find_opus("Tatoeba", "latest", Languages(source="de", target="en")).url


def get(name, folder, pair=None, update=False, force=False, private=False):
    return list(get_corpus(name, pair, folder, update, force, private))


def read(lines, folder):
    """The pairs of each source that the lines name."""
    text = "".join(f"{line.replace('# the same without these files:  ', '')}\n" for line in lines)
    languages = {"source": "en", "target": "de"}
    for section in yaml.safe_load(text):
        config = TypeAdapter(schema.Source).validate_python(
            {"languages": languages, **section}, context={"folder": folder}
        )
        yield [(pair.source, pair.target) for pair in read_pairs(config)]


@pytest.fixture
def tatoeba(site, tmp_path):
    members = {"Tatoeba.de-en.de": DE, "Tatoeba.de-en.en": EN}
    site.mirror(TATOEBA, zipped(tmp_path / "made.zip", members).read_bytes())
    return tmp_path / "my: data, [1]"


def test_a_corpus_of_opus_becomes_two_files_and_two_ways_to_name_it(tatoeba):
    lines = get("opus:Tatoeba", tatoeba, "en-de")
    assert (tatoeba / "Tatoeba.en-de.en").read_bytes() == EN
    assert (tatoeba / "Tatoeba.en-de.de").read_bytes() == DE
    assert list(json.loads((tatoeba / "data.lock").read_text())) == [TATOEBA]
    assert list(read(lines, tatoeba)) == [PAIRS, PAIRS]
    assert {path.name for path in tatoeba.iterdir()} == {
        "Tatoeba.en-de.en", "Tatoeba.en-de.de", "data.lock"
    }  # fmt: skip


def test_a_test_set_comes_in_all_its_directions(site, tmp_path, monkeypatch):
    members = {"a.en": EN, "a.de": DE}
    url = site.mirror("https://x.example/a.zip", zipped(tmp_path / "z", members).read_bytes())
    pairs = {"en-de": ["a.en", "a.de"], "de-en": ["a.de", "a.en"]}
    known = PlainTextDataset("wmt/x", data=[url], langpairs=pairs)
    monkeypatch.setattr(sacrebleu.dataset, "DATASETS", {"wmt/x": known})
    get("sacrebleu:wmt/x", tmp_path / "data")
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert names == {
        "wmt_x.en-de.en", "wmt_x.en-de.de", "wmt_x.de-en.de", "wmt_x.de-en.en", "data.lock"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.en.gz", EN, "{kind: text, source: "), ("a.tmx", b"<tmx/>", "{kind: tmx, file: "),
        ("a.tsv.gz", EN, "{kind: tsv, file: "), ("x?f=a", EN, "{kind: text, source: "),
    ],
)  # fmt: skip
def test_a_file_of_a_url_is_copied_and_named(site, tmp_path, name, content, line):
    url = site.mirror(f"https://x.example/{name}", content)
    (shown,) = get(url, tmp_path / "data")
    assert line in shown
    assert (tmp_path / "data" / file_name(url)).read_bytes() == content


def test_of_an_archive_the_members_are_shown(site, tmp_path):
    content = zipped(tmp_path / "z", {"a.en": EN, "a.de": DE}).read_bytes()
    url = site.mirror("https://x.example/a.zip", content)
    lines = get(url, tmp_path / "data")
    assert list(read(lines[:1], tmp_path / "data")) == [PAIRS]
    assert "a.en, a.de" in lines[1]


def test_a_file_of_the_user_is_not_replaced_unasked(tatoeba):
    tatoeba.mkdir()
    (tatoeba / "Tatoeba.en-de.de").write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        get("opus:Tatoeba", tatoeba, "en-de")
    assert (tatoeba / "Tatoeba.en-de.de").read_text() == "mine"
    get("opus:Tatoeba", tatoeba, "en-de", force=True)
    assert (tatoeba / "Tatoeba.en-de.de").read_bytes() == DE


def test_half_a_corpus_leaves_no_file(site, tmp_path):
    members = {"Tatoeba.de-en.de": DE + b"more\n", "Tatoeba.de-en.en": EN}
    site.mirror(TATOEBA, zipped(tmp_path / "made.zip", members).read_bytes())
    with pytest.raises(DataError, match="3 lines"):
        get("opus:Tatoeba", tmp_path / "data", "de-en")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["data.lock"]


def test_another_file_than_before_is_accepted_with_update_only(site, tatoeba, tmp_path):
    get("opus:Tatoeba", tatoeba, "en-de")
    members = {"Tatoeba.de-en.de": EN, "Tatoeba.de-en.en": EN}
    site.mirror(TATOEBA, zipped(tmp_path / "made.zip", members).read_bytes())
    for path in (tmp_path / "cache" / "downloads").iterdir():
        path.unlink()
    with pytest.raises(DownloadError, match="--update"):
        get("opus:Tatoeba", tatoeba, "en-de", force=True)
    get("opus:Tatoeba", tatoeba, "en-de", update=True)
    assert (tatoeba / "Tatoeba.en-de.de").read_bytes() == EN


@pytest.mark.parametrize(
    ("name", "pair", "what"),
    [
        ("Tatoeba", "de-en", "opus:NAME"), ("opus:Tatoeba", None, "--pair de-en"),
        ("opus:Tatoba", "de-en", "did you mean Tatoeba"), ("sacrebleu:wtm17", None, "wmt17"),
        ("ftp:x", None, "opus:NAME"),
        ("opus:Tatoeba/../x", "de-en", "name and version"), ("mtdata:x", "de-en", "not the form"),
        ("opus:Tatoeba", "deen", "two language codes"),
    ],
)  # fmt: skip
def test_a_name_that_says_too_little_is_refused(tmp_path, name, pair, what):
    with pytest.raises(ConfigError) as error:
        get(name, tmp_path / "data", pair)
    assert what in str(error.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://x/a/b.zip", "b.zip"), ("https://x/..%2f..%2fb", "_2f.._2fb"),
        ("https://x/", "x"), ("https://x/.bashrc", "bashrc"), ("https://x/a?f=../b", "a"),
        ("https://x/%00%0a", "_00_0a"), ("https://x/..", "download"),
    ],
)  # fmt: skip
def test_no_url_names_a_file_elsewhere(url, name):
    assert file_name(url) == name
