"""The members of zip and tar archives, and single compressed files, read without unpacking them.

An archive may be hostile. It is refused as a whole, before any member is read, when a member is no
plain file or folder, or has a name that would lie elsewhere or clash with another one. Nothing is
written to disk. What unpacks to far more than it takes on disk is stopped while it is read.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import functools
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from mt.errors import DataError, DownloadError, printable
from mt.runtime import text_files

MAX_MEMBERS = 10_000
MAX_RATIO = 200
"""Of unpacked to packed bytes; text comes to 10 or so ..."""
FREE_BYTES = 100 << 20
"""... and below this many unpacked bytes the ratio does not matter."""
MAX_NAME = 255
"""Bytes of a part of a name, as file systems have it."""
_ADVICE = "the archive is damaged or hostile; get it from a place that you trust"


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar archive, the latter compressed or not."""
    return _is_zip(path) or _is_tar(path)


def member_names(path: Path) -> list[str]:
    """List the files in an archive, in its order.

    Raises:
        DownloadError: a member is no plain file or folder, has an unsafe name, or there are too
            many; the archive is damaged or a bomb.
    """
    facts = path.stat()
    return list(_names_once(path, facts.st_size, facts.st_mtime_ns))


@functools.lru_cache(maxsize=100)
def _names_once(path: Path, size: int, changed: int) -> tuple[str, ...]:
    with _translate_errors(path):
        if _is_zip(path):
            with zipfile.ZipFile(path) as archive:
                return tuple(_check_zip(path, archive.infolist()))
        with _open_tar(path) as archive:
            return tuple(_check_names(path, _tar_names(path, archive)))


def open_member(path: Path, name: str) -> BinaryIO:
    """Open a file in an archive, itself decompressed if it is compressed.

    `name` may leave out leading folders.

    Raises:
        DownloadError: as `member_names`.
        DataError: there is no such file; names the nearest.
    """
    found = _find(path, name, member_names(path))
    with _translate_errors(path):
        if _is_zip(path):
            return _unpacked(path, _open_zip_member(path, found))
        return _unpacked(path, _open_tar_member(path, found))


def open_text(path: Path) -> BinaryIO:
    """Open a file that is no archive, decompressed if it is compressed.

    Raises:
        DataError: it is an archive.
        DownloadError: while reading: it is damaged or a bomb.
    """
    if is_archive(path):
        names = ", ".join(member_names(path)[:20])
        what, advice = f"an archive, of: {printable(names, 200)}", "name the files in it"
        raise DataError("DATA-ARCHIVE", path, what, advice)
    return _unpacked(path, open(path, "rb"))


def read_lines(open_stream: Callable[[], BinaryIO], name: str) -> Iterator[str]:
    """Open a file, yield its lines, and close it; raises as `text_files.decode_lines` does."""
    with open_stream() as stream:
        yield from text_files.decode_lines(stream, name, check=True)


# ---------------------------------------------------------------------------------- names


def _check_names(path: Path, members: Iterable[tuple[str, bool]]) -> list[str]:
    """Return the names of the files of (name, is a folder); refuse all if one is unsafe."""
    found: list[str] = []
    seen: dict[str, str] = {}
    folders: set[str] = set()
    for count, (name, is_folder) in enumerate(members, start=1):
        if count > MAX_MEMBERS:
            raise _unsafe(path, f"more than {MAX_MEMBERS:,} members")
        parts = _safe_parts(path, name, is_folder)
        key = "/".join(parts)
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts) + is_folder))
        if is_folder:
            continue
        if key in seen:
            raise _unsafe(path, f"two members have one name: {seen[key]} and {name}")
        seen[key] = name
        found.append(name)
    for key in folders & seen.keys():
        raise _unsafe(path, f"a file and a folder have one name: {seen[key]}")
    return found


def _safe_parts(path: Path, name: str, is_folder: bool) -> list[str]:
    """Return the parts of a name, in the form in which names are compared."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise _unsafe(path, f"a name that is not UTF-8: {name!a}") from None
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name) or ".." in parts:
        raise _unsafe(path, f"a name that leads out of the archive: {name}")
    if not parts and not is_folder:
        raise _unsafe(path, "a member without a name")
    if any(len(part.encode()) > MAX_NAME for part in parts):
        raise _unsafe(path, f"a name of more than {MAX_NAME} bytes: {name[:60]}")
    if any(unicodedata.category(c) == "Cc" for c in name):
        raise _unsafe(path, f"a control character in a name: {name}")
    # Two names that some file system takes for one are refused.
    return [unicodedata.normalize("NFC", part).casefold() for part in parts]


def _find(path: Path, name: str, names: list[str]) -> str:
    """Return the only member with this name, or that ends in it after a slash."""
    wanted = name.strip("/")
    exact = [each for each in names if str(PurePosixPath(each)) == wanted]
    found = exact or [each for each in names if each.endswith(f"/{wanted}")]
    if len(found) == 1:
        return found[0]
    near = get_close_matches(wanted, names, n=3, cutoff=0.4) or names[:10]
    where = f"{path}, member {name}"
    what = f"no such file in the archive; there are: {printable(', '.join(near), 200)}"
    if found:
        what = f"several files have this name: {printable(', '.join(found), 200)}"
    raise DataError("DATA-MEMBER", where, what, "name one of them")


def _unsafe(path: Path, what: str) -> DownloadError:
    return DownloadError("ARCHIVE-UNSAFE", path, what, _ADVICE)


# ------------------------------------------------------------------------------------ zip


def _is_zip(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _check_zip(path: Path, members: list[zipfile.ZipInfo]) -> list[str]:
    for member in members:
        mode = member.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR) or (
            mode & (stat.S_ISUID | stat.S_ISGID) and not member.orig_filename.endswith("/")
        ):
            raise _unsafe(path, f"a member that is no plain file: {member.orig_filename}")
        if member.flag_bits & 1:
            raise _unsafe(path, f"an encrypted member: {member.filename}")
    ranges = sorted((each.header_offset, each.compress_size) for each in members)
    if any(start + size > following for (start, size), (following, _) in pairwise(ranges)):
        raise _unsafe(path, "members that overlap")
    # `filename` ends at a NUL; `orig_filename` is what is written there.
    return _check_names(
        path, [(each.orig_filename, each.orig_filename.endswith("/")) for each in members]
    )


def _open_zip_member(path: Path, name: str) -> BinaryIO:
    archive = zipfile.ZipFile(path)  # closed with the stream, which holds the file
    try:
        member = archive.getinfo(name)
        stream = cast(BinaryIO, archive.open(member))
    finally:
        archive.close()
    return _capped(stream, path, max(member.compress_size, 1))


# ------------------------------------------------------------------------------------ tar


def _is_tar(path: Path) -> bool:
    with _unpacked(path, open(path, "rb")) as stream:
        return stream.read(512)[257:262] == b"ustar"


@contextlib.contextmanager
def _open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar archive as a stream, which needs no second pass to go back."""
    with (
        _unpacked(path, open(path, "rb")) as stream,
        tarfile.open(fileobj=stream, mode="r|", errorlevel=1) as archive,
    ):
        yield archive


def _tar_names(path: Path, archive: tarfile.TarFile) -> Iterator[tuple[str, bool]]:
    for member in archive:
        special = member.mode & (stat.S_ISUID | stat.S_ISGID) and not member.isdir()
        if not (member.isreg() or member.isdir()) or special or member.issparse():
            raise _unsafe(path, f"a member that is no plain file: {member.name}")
        yield member.name, member.isdir()


def _open_tar_member(path: Path, name: str) -> BinaryIO:
    opened = contextlib.ExitStack()
    archive = opened.enter_context(_open_tar(path))
    for member in archive:
        if member.name == name and member.isreg():
            stream = archive.extractfile(member)
            assert stream is not None, "a regular file has content"
            return _translated(cast(BinaryIO, stream), path, opened.close)
    opened.close()
    raise _unsafe(path, "the archive changed while it was read")


# ------------------------------------------------------------------------------ unpacking


def _unpacked(path: Path, stream: BinaryIO) -> BinaryIO:
    """Return the decompressed bytes of a stream, by its first bytes, with a cap."""
    with contextlib.ExitStack() as on_error:
        on_error.callback(stream.close)
        magic = cast(Any, stream).peek(6)[:6]
        on_error.pop_all()
    openers: dict[bytes, Callable[[Any], Any]] = {
        b"\x1f\x8b": _open_gzip, b"\xfd7zXZ": lzma.LZMAFile, b"BZh": bz2.BZ2File,
        b"\x28\xb5\x2f\xfd": _open_zstd,
    }  # fmt: skip
    for start, opener in openers.items():
        if magic.startswith(start):
            return _capped(opener(stream), path, path.stat().st_size, stream.close)
    return stream


def _open_gzip(stream: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=stream))


def _open_zstd(stream: BinaryIO) -> Any:
    import zstandard

    return zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)


def _capped(
    stream: BinaryIO, path: Path, packed: int, close: Callable[[], None] | None = None
) -> BinaryIO:
    return _translated(stream, path, close, max(FREE_BYTES, MAX_RATIO * packed))


class _Counted(io.RawIOBase):
    """A stream that ends with an error after `most` bytes, and whose errors name its file."""

    def __init__(
        self, stream: BinaryIO, path: Path, close: Callable[[], None] | None, most: int | None
    ) -> None:
        self.stream, self.path, self.most, self.count = stream, path, most, 0
        self.close_more = close

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes into a buffer; return their number."""
        with _translate_errors(self.path):
            data = self.stream.read(len(buffer))
        self.count += len(data)
        if self.most is not None and self.count > self.most:
            what = f"unpacks to more than {self.most >> 20:,} MB, far more than text would"
            raise DownloadError("ARCHIVE-BOMB", self.path, what, _ADVICE)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close it, and what it reads from."""
        if not self.closed:
            self.stream.close()
            if self.close_more is not None:
                self.close_more()
        super().close()


def _translated(
    stream: BinaryIO, path: Path, close: Callable[[], None] | None = None, most: int | None = None
) -> BinaryIO:
    return io.BufferedReader(_Counted(stream, path, close, most), 1 << 17)


@contextlib.contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    """Raise errors of archives and of compressed data as a DownloadError."""
    import zstandard

    try:
        yield
    except (
        zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError,
        gzip.BadGzipFile, zstandard.ZstdError, NotImplementedError, RuntimeError, ValueError,
        struct.error,
    ) as error:  # fmt: skip
        what = f"damaged or cut short ({printable(error, 100)})"
        advice = "delete it, and fetch it again"
        raise DownloadError("ARCHIVE-DAMAGED", path, what, advice) from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # a place before the beginning of the file
            raise
        what = f"damaged or cut short ({printable(error, 100)})"  # bz2 raises it
        raise DownloadError(
            "ARCHIVE-DAMAGED", path, what, "delete it, and fetch it again"
        ) from None
