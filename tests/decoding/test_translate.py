"""Lines in, lines out: counts, order, odd bytes, readers that leave; and `mt.load`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
import tiny_run
import torch

import mt
import mt.decoding.batching
from mt.config.plugins import plugin
from mt.decoding import output_formats, translate
from mt.decoding.types import EngineOptions, Score, Translation
from mt.errors import ConfigError, DataError, ModelError

REPOSITORY = Path(__file__).parents[2]
ONE = EngineOptions(threads=1, precision="fp32")


@pytest.fixture(scope="module")
def engine(run):
    return translate.open_engine(run, ONE)


class Echo:
    """An engine that says what it was told, a window of lines at a time."""

    def __init__(self, window=3):
        self.window = window

    def translate(self, lines, options=None):
        held = []
        for line in lines:
            held.append(Translation(line.replace("\r", " ")))
            if len(held) == self.window:
                yield from held
                held = []
        yield from held

    def score(self, pairs):
        return iter(())


def through(engine, data: bytes, options=None, **more) -> bytes:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")
    count = translate.translate_lines(engine, io.BytesIO(data), out, options, **more)
    assert raw.getvalue().count(b"\n") == count
    return raw.getvalue()


def random_text(generator: random.Random) -> bytes:
    """Lines of anything that is UTF-8, with what ends lines elsewhere in the middle of them."""
    odd = ["\r", "\u2028", "\x85", "\x0b", "\x0c", "\x00", "\ufeff", "\u200b", " ", "\u202e"]
    letters = ["a", "Z", "日", "\U0001f600", "é", ".", "dog ", "\ue000", "\u0301", *odd]
    text = "".join(
        "\n" if generator.random() < 0.2 else generator.choice(letters) for _ in range(80)
    )
    return text.encode()


def lines_in(data: bytes) -> int:
    return data.count(b"\n") + bool(data and not data.endswith(b"\n"))


def random_bytes(generator: random.Random) -> bytes:
    """Any bytes, most of them no UTF-8, in lines, some of them much too long."""
    starts = [b"", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1f\x8b"]
    parts = [generator.choice(starts)]
    for _ in range(generator.randint(0, 5)):
        length = generator.choice([0, 1, 3, 10, 10, 100])
        parts += [generator.randbytes(length), generator.choice([b"\n", b"\n", b"\r\n", b"", b"."])]
    return b"".join(parts)


def test_lines_out_are_lines_in_whatever_they_contain():
    generator = random.Random(1)
    for _ in range(300):
        data = random_text(generator)
        assert through(Echo(generator.randint(1, 5)), data).count(b"\n") == lines_in(data)


@pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_lines_out_are_lines_in_for_inputs_of_any_bytes(engine, monkeypatch, count):
    """T01: whatever the size of batches and windows, the search, and what else is asked for."""
    generator = random.Random(1)
    for number in range(count):
        data = generator.choice([random_bytes, random_bytes, random_text])(generator)
        monkeypatch.setattr(mt.decoding.batching, "FIRST_WINDOW", generator.choice([1, 2, 64]))
        options = EngineOptions(
            search={"beams": generator.choice([1, 2]), "max_length_ratio": 0.1},
            batch_tokens=generator.choice([1, 50, 4096]),
            line_buffered=generator.random() < 0.1,
            alignments=generator.random() < 0.3,
        )
        form = generator.choice([output_formats.format_text, output_formats.make_formatter("json")])
        out = through(engine, data, options, rendering=form, replace_bad=True)
        assert out.count(b"\n") == lines_in(data), (number, data)


def test_bad_bytes_are_replaced_on_demand_and_reported_once(engine, capsys):
    good = b"Dogs.\nGirls sing.\n" * 6
    data = good + b"bad \xff\n\xfe\xfe\n" * 6 + b"Dogs."
    out = through(engine, data, replace_bad=True)
    assert out.split(b"\n")[:12] == through(engine, good).split(b"\n")[:12]
    (told,) = (line for line in capsys.readouterr().err.splitlines() if "UTF8" in line)
    assert told.startswith("mt: warning[DATA-UTF8] input: 12 lines are not UTF-8")
    assert told.endswith("lines 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, ...")
    echoed = through(Echo(), b"\xff\xfea\nb\xe6\x97\n", replace_bad=True)
    assert echoed.decode() == "\ufffd\ufffda\nb\ufffd\n"


def test_a_rendering_gets_each_line_with_its_translation():
    data = "".join(f"line {i}\n" for i in range(50)).encode()
    expected = "".join(f"{i} line {i} line {i}\n" for i in range(50)).encode()
    told = through(Echo(7), data, rendering=lambda n, line, each: f"{n} {line} {each.text}")
    assert told == expected


def test_one_warning_counts_the_lines_that_the_length_limit_ended(capsys):
    class Fixed:
        def translate(self, lines, options=None):
            for line in lines:
                yield Translation(line, truncated=line.isupper())

    as_json = output_formats.make_formatter("json")
    assert through(Fixed(), b"a\nB\n\nC\n") == b"a\nB\n\nC\n"
    out = through(Fixed(), b"a\nB\n", rendering=as_json).splitlines()
    assert [json.loads(line)["truncated"] for line in out] == [False, True]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("mt: warning[TRUNCATED] length limits ended 2 translations: ")
    assert "lines 2, 4;" in first
    assert "warning[TRUNCATED] length limits ended 1 translation: " in second
    through(Fixed(), b"a\n\n")
    assert capsys.readouterr().err == ""


def test_a_line_that_is_too_long_is_refused_with_strict(engine):
    """T06: else it is split, with a warning."""
    data = b"Dogs.\n\n" + b"dogs play " * 40 + b"\n"
    assert through(engine, data).count(b"\n") == 3
    with pytest.raises(DataError, match=r"line 3: \d+ pieces, the model has room for 39") as error:
        through(engine, data, EngineOptions(strict=True))
    assert error.value.exit_code == 3


def test_prefixes_must_be_as_many_as_the_lines(engine):
    ours = EngineOptions(prefixes=iter(["Ein", "Zwei", "Drei"]))
    with pytest.raises(DataError, match="the prefixes: there are more than the 2 lines"):
        through(engine, b"Dogs.\nGirls.\n", ours)
    with pytest.raises(DataError, match="invalid byte"):  # and not that prefixes are left over
        through(engine, b"Dogs.\n\xff\n", EngineOptions(prefixes=["Ein", "Zwei", "Drei"]))


def test_the_same_input_gives_the_same_output_with_any_number_of_threads(engine, run):
    """T14."""
    data = "".join(f"{line}\n" for line in tiny_run.SOURCES).encode()
    first = through(engine, data)
    assert through(engine, data) == first
    before = torch.get_num_threads()
    try:
        assert through(translate.open_engine(run, EngineOptions(threads=2)), data) == first
    finally:
        torch.set_num_threads(before)


def test_more_beams_than_there_are_pieces_find_sorted_distinct_hypotheses(engine):
    """T11."""
    wide = EngineOptions(search={"beams": 500, "max_length_ratio": 0.1}, n_best=500)
    for each in engine.translate(["Dogs."], wide):
        scores = [other.score for other in each.alternatives]
        assert scores == sorted(scores, reverse=True)
        assert len({other.tokens for other in each.alternatives}) == len(scores) > 400


class Slow:
    """A stream whose lines are made when they are read."""

    def __init__(self, lines):
        self.lines = iter(lines)

    def readline(self, size=-1):
        return next(self.lines, b"")


def test_what_was_read_and_written_is_not_kept():
    """T12: what is held does not grow with the input."""
    lines = 5_000
    stream = Slow(b"\xff line %d\n" % number for number in range(lines))
    out = open(os.devnull, "w")  # noqa: SIM115
    tracemalloc.start()
    try:
        with out:
            assert translate.translate_lines(Echo(64), stream, out, replace_bad=True) == lines
        assert tracemalloc.get_traced_memory()[1] < 40 * lines  # a kept line takes more
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n\n", b"Dogs.", b"Dogs.\n", b"Dogs.\n\nGirls."])
def test_blank_lines_and_a_missing_last_newline_keep_the_count(engine, data):
    out = through(engine, data).split(b"\n")[:-1]
    assert len(out) == lines_in(data)
    assert [not line for line in data.split(b"\n")[: len(out)]] == [not line for line in out]


def test_order_is_kept():
    data = "".join(f"line {i}\n" for i in range(1000)).encode()
    assert through(Echo(7), data) == data


def test_a_line_separator_that_is_no_newline_stays_inside_its_line():
    data = "a\u2028b\x0bc\x85d\ne\n".encode()
    assert through(Echo(), data) == data


def test_the_command_reads_what_the_engine_reads(engine):
    expected = [each.text for each in engine.translate(tiny_run.SOURCES)]
    data = "".join(f"{line}\r\n" for line in tiny_run.SOURCES).encode("utf-8-sig")
    assert through(engine, data).decode().splitlines() == expected


def test_lines_before_one_that_is_not_utf8_are_translated(engine):
    for each in (engine, Echo()):
        raw = io.BytesIO()
        out = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")
        stream = io.BytesIO(b"Dogs.\nGirls sing.\nbad \xff\nDogs.\n")
        with pytest.raises(DataError, match="stdin:3: invalid byte 0xff at column 5"):
            translate.translate_lines(each, stream, out, name="stdin")
        assert raw.getvalue().count(b"\n") == 2


def test_what_is_done_is_written_before_more_is_read():
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")

    def slow():
        for count in range(4):
            assert raw.getvalue() == b"line\n" * count
            yield b"line\n"

    assert translate.translate_lines(Echo(1), Slow(slow()), out) == 4


def test_a_reader_that_leaves_ends_the_command_with_141_and_in_silence(run):
    child = subprocess.Popen(
        [sys.executable, "-m", "mt", "translate", str(run), "--set", "runtime.threads=1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=REPOSITORY, bufsize=0,
    )  # fmt: skip
    assert child.stdin
    assert child.stdout
    assert child.stderr

    def feed():
        with contextlib.suppress(BrokenPipeError), child.stdin:
            for _ in range(20_000):
                child.stdin.write(b"Dogs.\n" + b"dogs play " * 40 + b"\n")

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert child.stdout.readline().endswith(b"\n")
    child.stdout.close()
    assert child.wait() == 141
    assert child.stderr.read() == b""
    child.stderr.close()
    feeder.join()


def test_what_is_no_run_is_reported(tmp_path):
    for path, what in ((tmp_path, "not a run"), (tmp_path / "none", "no such run")):
        with pytest.raises(ModelError) as error:
            translate.open_engine(path, ONE)
        first, advice = str(error.value).splitlines()
        assert first.startswith(f"mt: error[RUN-NONE] {path}: {what}")
        assert "run directory" in advice
        assert error.value.exit_code == 4


def test_every_engine_says_what_it_accepts(run, tmp_path):
    assert plugin("engines", "native").accepts(run)
    assert not plugin("engines", "native").accepts(tmp_path)


def test_load_is_the_engine_of_the_command(run, engine):
    expected = [each.text for each in engine.translate(tiny_run.SOURCES)]
    assert mt.load(run, threads=1).translate(tiny_run.SOURCES) == expected
    assert mt.load(str(run), threads=1, search={"beams": 1}).translate(["", "Dogs."])[0] == ""
    with pytest.raises(ConfigError, match="did you mean beams"):
        mt.load(run, threads=1, search={"beems": 1})
    with pytest.raises(TypeError, match="a list of texts"):
        mt.load(run, threads=1).translate("Dogs.")
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = mt.lode


def test_details_are_translations_with_the_options(run):
    model = mt.load(run, threads=1)
    lines = tiny_run.SOURCES[:2]
    plain = model.translate(lines)
    (first, _) = found = model.translate(lines, details=True, n_best=3, alignments=True)
    assert [each.text for each in found] == plain
    assert len(first.alternatives) == 3
    assert len(first.alignment) == len(first.tokens) > 0
    (forced,) = model.translate(lines[:1], details=True, prefixes=["Zwei"])
    assert forced.text.startswith("Zwei")
    for wrong, what in (
        ({"n_best": 2}, "need details=True"),
        ({"checkpoint": "last"}, "when a model is opened"),
        ({"beams": 2}, "beams"),
    ):
        with pytest.raises(TypeError, match=what):
            model.translate(lines, **wrong)


def test_scores_from_python_are_those_of_the_engine(run):
    model = mt.load(run, threads=1)
    (first, second) = model.score(["Dogs.", "Girls sing."], ["Hunde.", ""])
    assert isinstance(first, Score)
    assert first.log_probability == pytest.approx(sum(first.token_log_probabilities))
    assert first.pieces[-1] == "</s>"
    assert len(first.pieces) == first.tokens
    assert second.pieces == ("</s>",)
    with pytest.raises(ValueError, match="shorter"):
        model.score(["Dogs."], [])
    with pytest.raises(TypeError, match="two lists"):
        model.score("Dogs.", ["Hunde."])
