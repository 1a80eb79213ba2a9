"""Lines in, lines out: counts, order, odd bytes, readers that leave; and `mt.load`."""

from __future__ import annotations

import contextlib
import io
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tiny_run

import mt
from mt import translate
from mt.config import plugin
from mt.contracts import EngineOptions, Translation
from mt.errors import ConfigError, DataError, ModelError

REPOSITORY = Path(__file__).parents[1]
ONE = EngineOptions(threads=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.make(tmp_path_factory.mktemp("translate"))


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


def through(engine, data: bytes) -> bytes:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")
    count = translate.translate_stream(engine, io.BytesIO(data), out)
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


def test_lines_out_are_lines_in_whatever_they_hold(engine):
    generator = random.Random(1)
    for _ in range(40):
        data = random_text(generator)
        assert through(engine, data).count(b"\n") == lines_in(data)
    for _ in range(300):
        data = random_text(generator)
        assert through(Echo(generator.randint(1, 5)), data).count(b"\n") == lines_in(data)


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
            translate.translate_stream(each, stream, out, name="stdin")
        assert raw.getvalue().count(b"\n") == 2


def test_what_is_done_is_written_before_more_is_read():
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")

    def slow():
        for count in range(4):
            assert raw.getvalue() == b"line\n" * count
            yield b"line\n"

    assert translate.translate_stream(Echo(1), slow(), out) == 4


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


def test_what_is_no_run_is_told(tmp_path):
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
