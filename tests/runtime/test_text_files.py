"""Text is read line by line, plain or compressed, from files and pipes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import threading

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mt.errors import DataError
from mt.runtime import text_files


@pytest.mark.parametrize(
    ("name", "pack", "what"),
    [
        ("a.zip", lambda path: shutil.make_archive(path, "zip", path.parent, "text"), "a zip"),
        ("a.tar.gz", lambda path: shutil.make_archive(path, "gztar", path.parent, "text"), "a tar"),
        ("a.tar", lambda path: shutil.make_archive(path, "tar", path.parent, "text"), "a tar"),
    ],
)
def test_an_archive_is_called_one(tmp_path, name, pack, what):
    (tmp_path / "text").write_text("words\n" * 500)
    pack(tmp_path / "a")
    with pytest.raises(DataError, match=what):
        text_files.open_bytes(tmp_path / name)


def test_a_pipe_is_copied_to_be_read_twice(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("a\nb\n",))
    writer.start()
    copy = text_files.copy_pipe(tmp_path / "pipe")
    writer.join()
    assert list(text_files.read_lines(copy)) == list(text_files.read_lines(copy)) == ["a", "b"]
    assert text_files.copy_pipe(copy) == copy


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_pipe_is_read_plain_or_compressed(tmp_path, pack):
    os.mkfifo(tmp_path / "pipe")
    data = pack(b"a\nb\n")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    with text_files.open_bytes(tmp_path / "pipe", or_pipe=True) as stream:
        assert list(text_files.decode_lines(stream, "pipe")) == ["a", "b"]
    writer.join()


def test_what_unpacks_to_any_size_stops_at_the_longest_line(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_LINE", 1 << 16)
    bomb = gzip.compress(b"short\n" + bytes(10 << 20))
    assert len(bomb) < 20_000
    (tmp_path / "bomb.gz").write_bytes(bomb)
    lines = text_files.read_lines(tmp_path / "bomb.gz")
    assert next(lines) == "short"
    with pytest.raises(DataError, match=r"DATA-LINE\] .*bomb\.gz:2: the line has 65536 bytes"):
        next(lines)


def test_files_packed_one_after_another_are_one_file(tmp_path):
    (tmp_path / "two.gz").write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    assert list(text_files.read_lines(tmp_path / "two.gz")) == ["one", "two"]


LINES = st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(LINES, st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])))
@example(["\ufeffa\u2028b", "\x0c\x85c\r\r"], "d\r")
@example([], "\ufeffa")
def test_lines_end_at_line_feeds_only_and_give_back_the_text(lines, tail):
    text = "".join(f"{line}\n" for line in lines) + tail
    content = text.encode()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return
    found = list(text_files.decode_lines(io.BytesIO(content), "x"))
    assert len(found) == content.count(b"\n") + bool(tail)
    expected = [each.removesuffix("\r") for each in [*lines, *([tail] if tail else [])]]
    if expected:
        expected[0] = expected[0].removeprefix("\ufeff")
    assert found == expected
