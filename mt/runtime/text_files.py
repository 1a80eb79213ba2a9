"""Text that users give: files and pipes, plain or compressed, line by line.

Lines end at `\\n` only, not at U+2028, form feeds or lone `\\r`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from mt.errors import DataError
from mt.runtime.files import make_temporary_folder, os_errors_as_mt_errors


def is_pipe(path: Path) -> bool:
    """Whether a path is a pipe or a device, such as `<(...)` of a shell, which is read once."""
    return path.is_fifo() or path.is_char_device()


def copy_pipe(path: Path) -> Path:
    """Return a path that can be read several times: of a pipe that of a temporary copy."""
    if not is_pipe(path):
        return path
    with os_errors_as_mt_errors(path), open(path, "rb") as stream:
        return _copy_stream(stream, path.name)


def _copy_stream(stream: BinaryIO, name: str) -> Path:
    """Return a temporary file of this name with the rest of a stream."""
    copy = make_temporary_folder() / name
    with os_errors_as_mt_errors(copy), open(copy, "wb") as out:
        shutil.copyfileobj(stream, out)
    return copy


_ARCHIVE_ADVICE = "in a recipe kind: moses reads it; or unpack it, and name the file inside"


def open_bytes(path: Path, or_pipe: bool = False) -> BinaryIO:
    """Open a file to read, decompressed if its first bytes are of gzip, xz, bzip2 or zstd.

    Raises:
        DataError: missing, unreadable, an archive, or not a regular file (`or_pipe`: nor a pipe).
    """
    advice = "check its name; in a recipe it is relative to the folder of the recipe"
    try:
        if not path.exists():
            raise DataError("DATA-FILE", path, "no such file", advice)
        if not path.is_file() and not (or_pipe and is_pipe(path)):
            what = "a folder, not a file" if path.is_dir() else "not a regular file"
            raise DataError("DATA-FILE", path, what, advice)
        stream = open(path, "rb")  # noqa: SIM115  (the caller closes it)
    except OSError as error:
        raise DataError("DATA-FILE", path, error.strerror or str(error), advice) from None
    magic = stream.peek(6)[:6]
    if magic.startswith(b"PK\x03\x04"):
        stream.close()
        what, advice = "a zip archive, not a text file", _ARCHIVE_ADVICE
        raise DataError("DATA-ARCHIVE", path, what, advice)
    readers: dict[bytes, Any] = {
        b"\x1f\x8b": gzip.GzipFile, b"\xfd7zXZ": lzma.LZMAFile, b"BZh": bz2.BZ2File,
    }  # fmt: skip
    for start, reader in readers.items():
        if magic.startswith(start):
            with stream:  # a reader would not close a stream that it is given
                source = _copy_stream(stream, path.name) if is_pipe(path) else path
            return _refuse_tar(cast(BinaryIO, reader(source)), path)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        frames = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
        return _refuse_tar(io.BufferedReader(frames), path)
    return _refuse_tar(stream, path)


def _refuse_tar(stream: BinaryIO, path: Path) -> BinaryIO:
    """Return a stream, unless a tar archive begins there."""
    try:
        head = cast(Any, stream).peek(512)
    except _encoding_error() as error:  # a reader that goes on after it may find an empty file
        stream.close()
        raise _damaged(f"{path}:1", error) from None
    if head[257:262] == b"ustar":
        stream.close()
        what, advice = "a tar archive, not a text file", _ARCHIVE_ADVICE
        raise DataError("DATA-ARCHIVE", path, what, advice)
    return stream


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file, plain or compressed; raises as `decode_lines` does."""
    with open_bytes(path) as stream:
        yield from decode_lines(stream, str(path), check=True)


@dataclass(frozen=True)
class LineReader:
    """The lines of a text file, which can be read several times."""

    path: Path

    def __iter__(self) -> Iterator[str]:
        """Read from the first line."""
        return read_lines(self.path)


MAX_LINE = 64 << 20
"""Bytes from which on a line is refused: a compressed file can unpack to any size."""


def decode_lines(
    stream: BinaryIO, name: str, replaced: Callable[[int], None] | None = None,
    check: bool = False,
) -> Iterator[str]:  # fmt: skip
    """Yield the lines of a byte stream, without `\\n`, one `\\r` before it, and a BOM.

    In a line that is not UTF-8 bad bytes become U+FFFD, and `replaced` is called with its number;
    without `replaced` such a line is an error. With `check`, of files, a first line that shows
    another encoding or another end of line is one, too.

    Raises:
        DataError: damaged compressed data, a line is too long or not UTF-8; names the line.
    """
    number = 0
    try:
        for number, raw in enumerate(iter(partial(stream.readline, MAX_LINE), b""), start=1):
            if len(raw) == MAX_LINE:
                what, advice = f"the line has {MAX_LINE} bytes or more", "is this file text?"
                raise DataError("DATA-LINE", f"{name}:{number}", what, advice)
            if number == 1:
                if replaced is None:
                    _check_first_line(raw, name, check)
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            raw = raw.removesuffix(b"\n").removesuffix(b"\r")
            try:
                yield _decode_line(raw, f"{name}:{number}")
            except DataError:
                if replaced is None:
                    raise
                replaced(number)
                yield raw.decode("utf-8", errors="replace")
    except _encoding_error() as error:
        raise _damaged(f"{name}:{number + 1}", error) from None


def _damaged(where: str, error: Exception) -> Exception:
    """Return the error of broken compressed data; one of the disk, which has a number, as it is."""
    if getattr(error, "errno", None) is not None:
        return error
    what = f"the compressed data are damaged or cut short ({error})"
    return DataError("DATA-COMPRESSED", where, what, "fetch or compress the file again")


def _check_first_line(raw: bytes, name: str, check: bool) -> None:
    """Raise a DataError when a file is UTF-16, or has the line ends of an old Mac."""
    many_zeros = check and raw[:64].count(0) > len(raw[:64]) // 4
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or many_zeros:
        what, advice = "looks like UTF-16, not UTF-8", "iconv -f UTF-16 -t UTF-8"
        raise DataError("DATA-ENCODING", f"{name}:1", what, f"convert it: {advice}")
    if check and not raw.endswith(b"\n") and raw.count(b"\r") > 1:
        what, advice = "its lines end in CR alone, which ends no line here", "tr '\\r' '\\n'"
        raise DataError("DATA-LINE-ENDS", f"{name}:1", what, f"convert it: {advice}")


def _decode_line(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"invalid byte 0x{raw[error.start]:02x} at column {error.start + 1}"
        advice = "the text must be UTF-8; mend the line, or convert: iconv -f CP1252 -t UTF-8"
        raise DataError("DATA-UTF8", where, what, advice) from None


def _encoding_error() -> tuple[type[Exception], ...]:
    """Return the exceptions of broken compressed data."""
    import zstandard

    return (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
