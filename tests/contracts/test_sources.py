"""Laws over every data source: re-iterable, lazy, whole lines, clear errors."""

import itertools
import json

import pytest
import sacrebleu.dataset
from made_archives import zipped
from pydantic import TypeAdapter
from sacrebleu.dataset.plain_text import PlainTextDataset

from mt.config import schema
from mt.config.plugins import plugin, plugins
from mt.config.schema import Languages, SourceConfig
from mt.config.section import input_files
from mt.data.catalogue import find_opus
from mt.data.pairs import Pair
from mt.errors import MtError

ENGLISH = ["A dog.", "Two  cats, ‘here’", "", "x"]
GERMAN = ["Ein Hund.", " Zwei\u2028Katzen", "leer", "\u00e9"]
LANGUAGES = {"source": "en", "target": "de"}


@pytest.fixture
def examples(tmp_path, site, monkeypatch):
    """For each kind a configuration that can be read."""
    (tmp_path / "a.en").write_text("".join(f"{line}\n" for line in ENGLISH))
    (tmp_path / "a.de").write_text("".join(f"{line}\n" for line in GERMAN))
    both = list(zip(ENGLISH, GERMAN, strict=True))
    (tmp_path / "a.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in both))
    rows = [json.dumps({"translation": {"en": a, "de": b}}) + "\n" for a, b in both]
    (tmp_path / "a.jsonl").write_text("".join(rows))
    tuv, unit = '<tuv xml:lang="{}"><seg>{}</seg></tuv>', "<trans-unit>{}{}</trans-unit>"
    units = [f"<tu>{tuv.format('en', a)}{tuv.format('de', b)}</tu>" for a, b in both]
    (tmp_path / "a.tmx").write_text(f"<tmx><body>{''.join(units)}</body></tmx>")
    units = [unit.format(f"<source>{a}</source>", f"<target>{b}</target>") for a, b in both]
    head = '<file source-language="en" target-language="de">'
    (tmp_path / "a.xlf").write_text(f"<xliff>{head}{''.join(units)}</file></xliff>")
    entries = [f'msgid "{a}"\nmsgstr "{b}"\n\n' for a, b in both if a and b]
    (tmp_path / "a.po").write_text("".join(entries))
    return {
        "text": {"source": "a.en", "target": "a.de"},
        "tsv": {"file": "a.tsv"},
        "jsonl": {"file": "a.jsonl"},
        "huggingface": {"files": ["a.jsonl"]},
        "demo": {"split": "train", "size": 20, "seed": 1},
        "tmx": {"file": "a.tmx"},
        "xliff": {"file": "a.xlf"},
        "po": {"file": "a.po"},
        "moses": {"file": "a.zip"},
        **downloaded(tmp_path, site, monkeypatch),
    }


def downloaded(folder, site, monkeypatch):
    """The examples of sources that download, from a server of this machine."""
    sides = {f"a.{code}": (folder / f"a.{code}").read_bytes() for code in ("en", "de")}
    archive = zipped(folder / "a.zip", sides).read_bytes()
    direction = Languages(source="en", target="de")
    site.mirror(find_opus("Tatoeba", "latest", direction).url, archive)
    url = site.mirror("https://data.example/a.zip", archive)
    known = PlainTextDataset("set", data=[url], langpairs={"en-de": ["a.en", "a.de"]})
    monkeypatch.setattr(sacrebleu.dataset, "DATASETS", {"set": known})
    program = folder / "python"
    program.write_text(f"#!/bin/sh\nprintf 'G-n-1-eng-deu\\t{url}\\ta.en,a.de\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("MT_MTDATA", str(program))
    return {
        "opus": {"name": "Tatoeba"}, "url": {"url": url}, "sacrebleu": {"name": "set"},
        "mtdata": {"id": "G-n-1-eng-deu"},
    }  # fmt: skip


def made(examples, folder, kind) -> SourceConfig:
    assert kind in examples, f"give an example of the source {kind} to this test"
    section = {"kind": kind, "languages": LANGUAGES, **examples[kind]}
    config: SourceConfig = TypeAdapter(schema.Source).validate_python(
        section, context={"folder": folder}
    )
    return config


def pairs_of(config):
    return plugin("sources", config.kind).read(config)


each_kind = pytest.mark.parametrize("kind", plugins("sources"))


@each_kind
def test_a_source_can_be_read_again(examples, tmp_path, kind):
    pairs = pairs_of(made(examples, tmp_path, kind))
    first = list(pairs)
    assert first == list(pairs)
    assert first
    early = iter(pairs)
    assert next(early) == first[0]
    assert list(pairs) == first
    assert [next(early)] == first[1:2]
    early.close()


@each_kind
def test_pairs_are_whole(examples, tmp_path, kind):
    pairs = list(pairs_of(made(examples, tmp_path, kind)))
    assert all(isinstance(pair, Pair) for pair in pairs)
    assert {(p.source_language, p.target_language) for p in pairs} == {("en", "de")}
    assert not any("\n" in (p.source or "") + (p.target or "") for p in pairs)
    assert len({pair.origin for pair in pairs}) == len(pairs)
    lines = [pair.origin.rpartition(":")[2] for pair in pairs]
    assert lines == [str(line) for line in range(1, len(pairs) + 1)]


@each_kind
def test_nothing_is_changed(examples, tmp_path, kind):
    if kind == "demo":
        pytest.skip("it makes its own sentences")
    pairs = list(pairs_of(made(examples, tmp_path, kind)))
    both = list(zip(ENGLISH, GERMAN, strict=True))
    if kind == "po":  # has no empty messages
        both = [pair for pair in both if all(pair)]
    assert [(p.source, p.target) for p in pairs] == both


@each_kind
def test_reading_begins_with_the_first_pair(examples, tmp_path, kind):
    config = made(examples, tmp_path, kind)
    for path in input_files(config).values():
        (tmp_path / path).unlink()
    pairs = pairs_of(config)  # says nothing yet
    if input_files(config):
        with pytest.raises(MtError) as error:
            next(iter(pairs))
        assert error.value.code == "DATA-FILE"
        assert str(error.value).count("\n") == 1
    else:
        assert list(itertools.islice(pairs, 3))


@each_kind
def test_every_setting_says_what_it_is(examples, tmp_path, kind):
    config = made(examples, tmp_path, kind)
    for name, info in type(config).model_fields.items():
        assert info.description or name == "kind"
    assert config == type(config).model_validate(config.model_dump())
