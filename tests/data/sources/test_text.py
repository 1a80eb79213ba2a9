"""Text files: compression, line ends, and refusals."""

import bz2
import gzip
import lzma

import pytest
import zstandard
from source_sections import pairs, refused

# ---------------------------------------------------------------------------------- text


def zstd(data):
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress, zstd])
def test_text_is_decompressed_by_its_first_bytes(tmp_path, pack):
    (tmp_path / "a").write_bytes(pack(b"one\ntwo"))
    (tmp_path / "b").write_bytes(pack(b"eins\nzwei\n"))
    assert pairs(tmp_path, kind="text", source="a", target="b") == [
        ("one", "eins"),
        ("two", "zwei"),
    ]


@pytest.mark.parametrize(
    "odd", ["\u2028", "\u2029", "\u0085", "\v", "\f", "\x1c", "\x1d", "\x1e", "\r", "\0"]
)
def test_lines_end_at_line_feeds_only(tmp_path, odd):
    (tmp_path / "a").write_bytes(f"one{odd}more\r\n\ntwo\n".encode())
    (tmp_path / "b").write_bytes(f"\ufeffeins\n{odd}x\nzwei{odd}.".encode())
    assert pairs(tmp_path, kind="text", source="a", target="b") == [
        (f"one{odd}more", "eins"), ("", f"{odd}x"), ("two", f"zwei{odd}."),
    ]  # fmt: skip


@pytest.mark.parametrize(("source", "target"), [(1000, 999), (999, 1000), (3, 0), (0, 1), (5, 500)])
def test_files_of_different_length_are_refused_with_both_counts(tmp_path, source, target):
    (tmp_path / "a").write_text("x\n" * source)
    (tmp_path / "b").write_text("y\n" * target)
    message = refused(tmp_path, kind="text", source="a", target="b")
    assert message == f"mt: error[DATA-LINES] a and b: {source} lines against {target}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"good\nb\xffd\n", "mt: error[DATA-UTF8] a:2: invalid byte 0xff at column 2"),
        (b"\xc0\xaf\n", "mt: error[DATA-UTF8] a:1: invalid byte 0xc0 at column 1"),
        (b"\xed\xa0\x80\n", "mt: error[DATA-UTF8] a:1: invalid byte 0xed at column 1"),
        (b"cut \xc3", "mt: error[DATA-UTF8] a:1: invalid byte 0xc3 at column 5"),
        ("x".encode("utf-16"), "mt: error[DATA-ENCODING] a:1: looks like UTF-16, not UTF-8"),
        (
            gzip.compress(b"x\n" * 99, mtime=0)[:-9],
            "mt: error[DATA-COMPRESSED] a:100: the compressed data",
        ),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, content, expected):
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_text("y\n" * 99)
    assert refused(tmp_path, kind="text", source="a", target="b").startswith(expected)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a b\n").mkdir()
    message = refused(tmp_path, kind="text", source="a b\n", target="a b\n")
    assert message == "mt: error[DATA-FILE] a b\\n: a folder, not a file"
