"""All file access of `mt`: atomic writes, locks, deletion, and text input.

A file or folder is written under a hidden name, fsynced, renamed, and its parent fsynced, so that
it appears whole or not at all. Lines end at `\\n` only, not at U+2028, form feeds or lone `\\r`.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import socket
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from filelock import FileLock, Timeout

from mt.errors import ConfigError, DataError, MachineError

# ------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def os_errors_as_mt_errors(path: Path | str) -> Iterator[None]:
    """Raise a MachineError that names `path` for each OSError inside."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            what = f"the disk is full ({_free_bytes(Path(path)) >> 20} MB free)"
            advice = "free some space and run the same command again; what was saved is intact"
            raise MachineError("DISK-FULL", path, what, advice) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "choose a folder that you may write to"
            raise MachineError("PERMISSION", path, error.strerror or "refused", advice) from None
        advice = "see whether the path and the disk are sound, then run the same command again"
        raise MachineError("DISK", path, error.strerror or str(error), advice) from None


def _free_bytes(path: Path) -> int:
    """Return the free bytes of the disk of a path that need not exist yet."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def check_free_space(path: Path, needed: int) -> None:
    """Raise a MachineError when the disk of `path` has fewer than `needed` bytes free."""
    free = _free_bytes(path)
    if free < needed:
        what = f"{needed >> 20} MB will be needed there, and {free >> 20} MB are free"
        raise MachineError("DISK-FULL", path, what, "free some space, or choose another --run")


def make_folder(path: Path) -> Path:
    """Create a folder and its parents; return it."""
    with os_errors_as_mt_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def staged(final: Path, replace: bool = True) -> Iterator[Path]:
    """Yield a hidden path for a file, folder or link, which becomes `final` at the end.

    Without `replace` an existing `final` is kept and the new one is dropped.
    """
    hidden = final.parent / f".tmp-{final.name}-{os.getpid()}"
    delete(hidden)
    try:
        with os_errors_as_mt_errors(final):
            yield hidden
            inside = sorted(hidden.rglob("*")) if hidden.is_dir() else []
            for path in [*inside, hidden]:
                if not path.is_symlink():
                    sync(path)
            if hidden.is_dir() and replace:
                delete(final)
            if replace or not final.exists():
                hidden.replace(final)
            sync(final.parent)
    finally:
        delete(hidden)


@contextlib.contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Yield an empty hidden folder, which becomes `final` unless that exists by then."""
    make_folder(final.parent)
    with staged(final, replace=False) as hidden:
        make_folder(hidden)
        yield hidden


def open_new(path: Path) -> BinaryIO:
    """Open a new file for writing bytes; it must not exist."""
    return open(path, "xb")


def write_file(path: Path, data: bytes | str) -> None:
    """Write a small file, replacing one of that name."""
    with staged(path) as hidden:
        hidden.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON."""
    write_file(path, as_json(value))


def as_json(value: Any) -> str:
    """Format a value as indented JSON; NaN and infinity are a ValueError."""
    return json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def digest_json(value: Any) -> str:
    """Return the sha256 of a JSON value, for any order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def open_output(path: Path | None) -> Iterator[IO[str]]:
    """Open standard output, or a file that appears under its name when complete.

    A pipe or a device (/dev/null) is written into directly.
    """
    if path is None:
        if sys.stdout is None:
            what, advice = "it is closed", "send it somewhere, or to /dev/null"
            raise MachineError("OUTPUT", "standard output", what, advice)
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
        yield sys.stdout
        return
    in_place = path.exists() and not path.is_file()
    with (
        contextlib.nullcontext(path) if in_place else staged(path) as target,
        os_errors_as_mt_errors(path),
        open(target, "w", encoding="utf-8", newline="\n") as stream,
    ):
        yield stream


def refuse_existing(path: Path, advice: str) -> None:
    """Raise a ConfigError when a file of the user would be replaced."""
    if path.is_file():
        raise ConfigError("OUTPUT-EXISTS", path, "the file is there already", advice)


def append_line(path: Path, line: str) -> None:
    """Append one line to a log, after ending a line that a crash cut short."""
    with os_errors_as_mt_errors(path), open(path, "a+b") as stream:
        if stream.tell() and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n":
            stream.write(b"\n")
        stream.write(line.encode() + b"\n")


def link(name: Path, to: str) -> None:
    """Make or replace a symbolic link."""
    with staged(name) as hidden:
        hidden.symlink_to(to)


def rename_path(path: Path, to: Path) -> None:
    """Rename within one file system."""
    with os_errors_as_mt_errors(path):
        path.rename(to)
        sync(to.parent)


def delete(path: Path) -> None:
    """Delete a file or folder if it exists; a folder is renamed first, so never half deleted."""
    if not path.exists() and not path.is_symlink():
        return
    with os_errors_as_mt_errors(path):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return
        if not path.name.startswith("."):
            trash = path.parent / f".trash-{path.name}-{os.getpid()}"
            shutil.rmtree(trash, ignore_errors=True)
            path.rename(trash)
            path = trash
        shutil.rmtree(path, ignore_errors=True)


def delete_leftovers(folder: Path) -> None:
    """Delete the hidden files that a killed process has left in a folder."""
    for pattern in (".tmp-*", ".trash-*"):
        for path in folder.glob(pattern):
            delete(path)


@contextlib.contextmanager
def lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Lock a file, until the process ends at the latest.

    Raises:
        MachineError: another process has locked it and `wait` is false.
    """
    make_folder(path.parent)
    with os_errors_as_mt_errors(path):
        try:
            acquired = FileLock(path, timeout=-1 if wait else 0).acquire()
        except Timeout:
            owner = path.read_text(encoding="utf-8", errors="replace").strip()
            what = f"in use by {owner or 'another process'}"
            advice = "wait for it to end, or train into another folder with --run"
            raise MachineError("RUN-LOCKED", path.parent, what, advice) from None
    with acquired:
        with os_errors_as_mt_errors(path):
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            owner = f"process {os.getpid()} on {socket.gethostname()} since {now}\n"
            path.write_text(owner, encoding="utf-8")
        yield


def cache_folder() -> Path:
    """Return the folder of encoded corpora: `$MT_CACHE`, else in the cache folder of the user."""
    folder = os.environ.get("MT_CACHE")
    if folder:
        return Path(folder).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mt"


# ------------------------------------------------------------------------------- reading


def sha256(path: Path) -> str:
    """Return the hash of a file, in hexadecimal."""
    with os_errors_as_mt_errors(path), open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe_parts(parts: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Return the sha256 and size of each part, for a manifest."""
    return {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in parts.items()
    }


def read_json(path: Path | zipfile.Path) -> Any:
    """Read a JSON file; the caller handles OSError and ValueError."""
    return json.loads(path.read_text(encoding="utf-8"))


def open_bytes(path: Path) -> BinaryIO:
    """Open a file to read, decompressed if its first bytes are of gzip, xz, bzip2 or zstd.

    Raises:
        DataError: missing, unreadable, or not a regular file.
    """
    advice = "see data in the recipe; paths are relative to the recipe's folder"
    try:
        if not path.exists():
            raise DataError("DATA-FILE", path, "no such file", advice)
        if not path.is_file():
            raise DataError("DATA-FILE", path, "not a regular file", advice)
        stream = open(path, "rb")  # noqa: SIM115  (the caller closes it)
    except OSError as error:
        raise DataError("DATA-FILE", path, error.strerror or str(error), advice) from None
    magic = stream.read(6)
    stream.seek(0)
    readers: dict[bytes, Any] = {
        b"\x1f\x8b": gzip.GzipFile, b"\xfd7zXZ": lzma.LZMAFile, b"BZh": bz2.BZ2File,
    }  # fmt: skip
    for start, reader in readers.items():
        if magic.startswith(start):
            stream.close()  # a reader would not close a stream that it is given
            return cast(BinaryIO, reader(path))
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        frames = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
        return io.BufferedReader(frames)
    return stream


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file, plain or compressed; raises as `decode_lines` does."""
    with open_bytes(path) as stream:
        yield from decode_lines(stream, str(path))


@dataclass(frozen=True)
class LineReader:
    """The lines of a text file, which can be read several times."""

    path: Path

    def __iter__(self) -> Iterator[str]:
        """Read from the first line."""
        return read_lines(self.path)


def decode_lines(
    stream: BinaryIO, name: str, replaced: Callable[[int], None] | None = None
) -> Iterator[str]:
    """Yield the lines of a byte stream, without `\\n`, one `\\r` before it, and a BOM.

    In a line that is not UTF-8 bad bytes become U+FFFD, and `replaced` is called with its number;
    without `replaced` such a line is an error.

    Raises:
        DataError: damaged compressed data, or a line is not UTF-8; names line and column.
    """
    number = 0
    try:
        for number, raw in enumerate(stream, start=1):
            if number == 1:
                if raw.startswith((b"\xff\xfe", b"\xfe\xff")) and replaced is None:
                    what, advice = "looks like UTF-16, not UTF-8", "iconv -f UTF-16 -t UTF-8"
                    raise DataError("DATA-ENCODING", name, what, f"convert it: {advice}")
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
        what = f"the compressed data are damaged or cut short ({error})"
        advice = "fetch or compress the file again"
        raise DataError("DATA-COMPRESSED", f"{name}:{number + 1}", what, advice) from None


def _decode_line(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"invalid byte 0x{raw[error.start]:02x} at column {error.start + 1}"
        advice = "the text must be UTF-8; mend or remove the line"
        raise DataError("DATA-UTF8", where, what, advice) from None


def _encoding_error() -> tuple[type[Exception], ...]:
    """Return the exceptions of broken compressed data."""
    import zstandard

    return (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError)
