"""Data, recipes and standard input of any bytes: each line is counted, or the fault is named."""

from __future__ import annotations

import functools
import io
import json
import random
from collections import Counter
from pathlib import Path

import damages
import pytest
import tiny_run
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from mt.checkpoints.run_directory import open_run
from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.config.validation import validate
from mt.config.yaml_reader import parse
from mt.data import encode
from mt.data.pairs import read_pairs
from mt.decoding.translate import open_engine, translate_lines
from mt.decoding.types import EngineOptions
from mt.errors import DataError

CASES, MANY = 500, 20_000
"""Of data; the counts of make test, and of make torture."""
COMMANDS, MANY_COMMANDS = 12, 500
"""Of data, by the whole of `mt prepare`."""
RECIPES, MANY_RECIPES = 500, 10_000
STREAMS, MANY_STREAMS = 300, 5_000

TEXT = [
    *(b"\n", b"\n", b"\n", b"\r\n", b"\r", b" ", b"\x0b", b"\x0c", b"\x1b[31m", b"\x7f"),
    *(c.encode() for c in "\x00\x85\xa0\u2028\u2029\u200b\u202e\ue000\u2581\ufeff"),
    *(b"{", b"}", b'"', b"'", b",", b":", b"[", b"<s>", b"</s>", b"<pad>", b"<2de>"),
    *(b"A boy eats an apple.", b"Ein Junge", b"a\tb\n", b'{"en": "a", "de": "b"}\n'),
    *(b"word " * 60, b"x" * 3000, "\u0e01\u0301\U0001f600".encode()),
]
"""What has a meaning somewhere."""
BROKEN = [
    *(b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf0\x9f", b"\xef\xbb\xbf", b"\xff\xfe", b"\t"),
    *(b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh9", b"PK\x03\x04"),
]
"""What is no UTF-8, or looks like compressed data."""
PARTS = st.sampled_from(TEXT + BROKEN) | st.binary(max_size=6)
BYTES = st.lists(st.sampled_from(TEXT), max_size=16) | st.lists(PARTS, max_size=16)
BYTES = BYTES.map(b"".join)


def each(strategy, count, seed=None):
    """Decorator: call a function at once with so many values; `seed` draws other ones."""

    def run(function):
        chosen = settings(
            max_examples=count, deadline=None, derandomize=seed is None, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        test = chosen(given(strategy)(function))
        (test if seed is None else seeded(seed)(test))()

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny run and its text; short translations, settings that are read fast."""
    here = tmp_path_factory.mktemp("fuzzed")
    tiny_run.make(here)
    return here


@pytest.fixture(autouse=True)
def _one_command_line(monkeypatch):
    monkeypatch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))


# ------------------------------------------------------------------------------------ data

SOURCES = {
    "text": {"source": "a", "target": "b"},
    "monolingual": {"kind": "text", "target": "b"},
    "tsv": {"file": "a"},
    "jsonl": {"file": "a"},
    "huggingface": {"files": ["a.csv"]},
}
COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh")
DATA = st.tuples(st.sampled_from(sorted(SOURCES)), BYTES, st.none() | BYTES)
"""A kind, the bytes of a file, and those of another; None: the same."""


def write_corpus(folder: Path, case) -> dict:
    """The files of a corpus, and its section."""
    kind, first, second = case
    second = first if second is None else second
    for name, content in {"a": first, "b": second, "a.csv": first}.items():
        (folder / name).write_bytes(content)
    return {"kind": kind, **SOURCES[kind]}


def check_data(folder: Path, count: int, seed=None) -> Counter:
    """Read and encode corpora; the number of those of each outcome."""
    opened = open_run(folder / "run")
    found: Counter[str] = Counter()

    @each(DATA, count, seed)
    def read_and_encode(case):
        section = {**write_corpus(folder, case), "languages": {"source": "en", "target": "de"}}
        config = validate(
            plugin("sources", section["kind"]).Config, parse(json.dumps(section), "x", folder)
        )
        pairs, dropped, kept = 0, Counter(), 0
        options = encode.encode_options(config, opened.vocabulary)
        try:
            for sides in encode.chunk_pairs(read_pairs(config)):
                encoded = encode.encode(*sides, opened.vocabulary, 40, {}, options)
                pairs += len(sides[0])
                kept += len(encoded.source)
                dropped.update(reason for reason in encoded.reasons if reason)
        except DataError as error:
            found[error.code] += 1  # its text is printable: tests/test_errors.py
            return
        assert pairs == kept + sum(dropped.values())
        content = case[2] if case[0] == "monolingual" and case[2] is not None else case[1]
        if case[0] in ("text", "tsv", "monolingual") and not content.startswith(COMPRESSED):
            assert pairs == lines_of(content)
        found["read"] += 1

    return found


def lines_of(content: bytes) -> int:
    """The number of lines; the last may have no end."""
    return content.count(b"\n") + bool(content and not content.endswith(b"\n"))


def check_prepare(folder: Path, count: int, seed=None) -> Counter:
    """`mt prepare` with corpora; the number of each exit code."""
    base = {
        "languages": {"source": "en", "target": "de"},
        "data": {"valid": {"kind": "text", "source": "train.en", "target": "train.de"}},
        "vocabulary": {"path": "run"}, "training": {"max_steps": 10_000},
    }  # fmt: skip
    base["data"].update(max_length=40, processes=1)
    codes: Counter[int] = Counter()

    @each(DATA.filter(lambda case: case[0] != "monolingual"), count, seed)
    def prepare(case):
        train = [write_corpus(folder, case)]
        recipe = {**base, "data": {**base["data"], "train": train}}
        (folder / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
        code, out, err = damages.run_captured(["prepare", str(folder / "recipe.yaml")])
        assert code in (0, 3), err
        assert out == ""
        assert "Traceback" not in err
        assert err.replace("\n", "").isprintable()
        codes[code] += 1

    return codes


def test_each_line_of_any_corpus_is_kept_or_counted(folder):
    found = check_data(folder, CASES)
    assert found["read"] > CASES // 20
    assert len(found) > 4


def test_any_corpus_is_prepared_or_refused(folder):
    assert sum(check_prepare(folder, COMMANDS).values()) >= COMMANDS


@pytest.mark.torture
def test_each_line_of_many_corpora_is_kept_or_counted(folder, seed, figure):
    figure(f"{MANY} corpora: {dict(check_data(folder, MANY, seed))}")
    codes = dict(check_prepare(folder, MANY_COMMANDS, seed))
    figure(f"{MANY_COMMANDS} corpora by mt prepare: exit codes {codes}")


# --------------------------------------------------------------------------------- recipes

RECIPE = b"""\
languages: {source: en, target: de}
data:
  train: [{kind: demo, size: 4000}]
  valid: {kind: demo, split: valid}
model: {d_model: 128, n_heads: 4, d_ff: 256, dropout: 0.1}
training: {max_epochs: 8, seed: 1}
search: {kind: beam, beams: 4}
"""
SETS = st.tuples(
    st.sampled_from([
        "model.d_model", "search.beams", "data.train.0.kind", "data.train", "languages.source",
        "optimizer", "training.seed", "runtime.threads", "x", "", "data.train.9", "model.x.y",
    ]),
    st.sampled_from(["", "1", "-1", "1e400", "[", "{}", "null", "~", "!!python/object:os", "&a *a",
                     "no", "0x7f", "9" * 40, ".nan", "\x1b[2J", "auto", "a.b", "\u202e"]),
).map("=".join)  # fmt: skip
SETS |= st.sampled_from(["model.d_model=64", "search.beams=2", "training.seed=7"])
MUTATED = st.tuples(st.integers(0, 2**32), st.lists(SETS | st.text(max_size=12), max_size=1))


def changed_recipe(number: int) -> bytes:
    """The recipe of the demo with bytes, or values, replaced."""
    draw = random.Random(number)
    if number % 4 == 0:
        place = draw.choice([i for i, byte in enumerate(RECIPE) if byte in b"0123456789"])
        return RECIPE[:place] + b"%d" % draw.randrange(10) + RECIPE[place + 1 :]
    if number % 4 == 1:
        return damages.changed_json(RECIPE, draw)
    if number % 4 == 2:
        return damages.changed_bytes(RECIPE, draw)
    lines = RECIPE.split(b"\n")
    odd = [b"\t", b"- ", b"a: &a [*a]", b"? x", b"%TAG", b"--- ", b"'", b"{", b"<<: {a: 1}", b"#"]
    place = draw.randrange(len(lines))
    lines[place] = draw.choice([draw.choice(odd) + lines[place], lines[place] + draw.choice(odd)])
    return b"\n".join(lines)


def check_recipes(folder: Path, count: int, seed=None) -> Counter:
    """`mt config` of changed recipes; the number of each exit code."""
    path, codes = folder / "changed.yaml", Counter()

    @each(MUTATED, count, seed)
    def show(case):
        number, sets = case
        path.write_bytes(changed_recipe(number))
        options = [word for each in sets for word in ("--set", each)]
        code, out, err = damages.run_captured(["config", str(path), *options])
        assert code in (0, 2), (code, err)
        codes[code] += 1
        if code == 0:
            shown = out
            path.write_text(out, encoding="utf-8")
            if codes[0] % 10 == 0:
                code, out, err = damages.run_captured(["config", str(path)])
                values = [validate(Recipe, parse(text, "x", folder)) for text in (shown, out)]
                assert values[0] == values[1]
            return
        assert out == ""
        assert "Traceback" not in err
        assert err.replace("\n", "").isprintable()
        lines = err.splitlines()
        assert len(lines) >= 2
        assert all(line.startswith("mt: error[") for line in lines[:-1])
        assert str(path) in err or "--set" in err

    return codes


def test_any_recipe_is_shown_or_its_fault_named(folder):
    codes = check_recipes(folder, RECIPES)
    assert min(codes[0], codes[2]) > RECIPES // 20


@pytest.mark.torture
def test_many_recipes_are_shown_or_their_fault_named(folder, seed, figure):
    codes = dict(check_recipes(folder, MANY_RECIPES, seed))
    figure(f"{MANY_RECIPES} recipes: exit codes {codes}")


# -------------------------------------------------------------------------- standard input

SHORT = {"kind": "greedy", "max_length_ratio": 0.05, "max_length_extra": 2}


def check_streams(folder: Path, count: int, seed=None) -> Counter:
    """Translate streams; how many were translated whole, and how many have a bad line."""
    options = EngineOptions(device="cpu", threads=1, search=SHORT)
    engine, found = open_engine(folder / "run", options), Counter()

    @each(st.tuples(BYTES, st.booleans()), count, seed)
    def translate(case):
        content, replaced = case
        out = io.StringIO()
        try:
            translate_lines(
                engine, io.BytesIO(content), out, options, "standard input", replace_bad=replaced
            )
        except DataError as error:
            assert not replaced
            where, _ = error.problems[0]
            number = int(where.removeprefix("standard input:"))
            assert out.getvalue().count("\n") == number - 1
            found["refused"] += 1
            return
        lines = out.getvalue().split("\n")
        assert lines.pop() == ""
        assert len(lines) == lines_of(content)
        for before, line in zip(content.split(b"\n"), lines, strict=False):
            assert before.strip() or not line
            assert "\r" not in line
        found["translated"] += 1

    return found


def test_any_stream_gives_a_line_a_line(folder):
    found = check_streams(folder, STREAMS)
    assert min(found["translated"], found["refused"]) > STREAMS // 10


@pytest.mark.parametrize("bad", ["stop", "replace"])
def test_the_whole_command_gives_a_line_a_line(bad, folder):
    line = ["translate", str(folder / "run"), "--on-bad-utf8", bad, "--device", "cpu", "--threads"]

    @each(BYTES, 10)
    def translate(content):
        code, out, err = damages.run_captured([*line, "1"], content)
        assert code == 0 or (bad == "stop" and code == 3), err
        assert code == 3 or out.count("\n") == lines_of(content)
        assert err.replace("\n", "").isprintable()


@pytest.mark.torture
def test_many_streams_give_a_line_a_line(folder, seed, figure):
    figure(f"{MANY_STREAMS} streams: {dict(check_streams(folder, MANY_STREAMS, seed))}")
