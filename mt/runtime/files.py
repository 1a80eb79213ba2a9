"""Everything of ours that touches the disk: create, fsync, rename, delete, lock; and text in.

What is written appears under its final name whole or not at all: it is written beside it
under a hidden name, fsynced, renamed, and the folder fsynced. Text is read as bytes and cut
at `\\n` only: U+2028, form feeds and lone carriage returns stay inside their line.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import fcntl
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import signal
import socket
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from mt.errors import ConfigError, DataError, MachineError

# ------------------------------------------------------------------------------- writing

_faults: dict[str, int] = {}


def _fault(point: str) -> None:
    """Tests kill, fail or slow the program at passages of a point: MT_FAULT=POINT:NUMBER:ACTION.

    `rename:2:kill` at the second rename, `write:1:enospc`, `fsync:3:eio`, `fsync:*:sleep0.02` at
    each fsync; the point `*` is all of them.
    """
    plan = os.environ.get("MT_FAULT")
    if not plan:
        return
    name, number, action = plan.split(":")
    _faults[point] = _faults.get(point, 0) + 1
    if name not in (point, "*") or number not in (str(_faults[point]), "*"):
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action.startswith("sleep"):
        time.sleep(float(action.removeprefix("sleep")))
        return
    code = {"enospc": errno.ENOSPC, "eio": errno.EIO}[action]
    raise OSError(code, os.strerror(code))


@contextlib.contextmanager
def os_errors_as_mt_errors(path: Path | str) -> Iterator[None]:
    """Turns what the operating system refuses at `path` into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = _free_bytes(Path(path)) >> 20
            what = f"the disk is full ({free} MB free)"
            advice = "free some space and run the same command again; what was saved is intact"
            raise MachineError("DISK-FULL", path, what, advice) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "choose a folder that you may write to"
            raise MachineError("PERMISSION", path, error.strerror or "refused", advice) from None
        advice = "see whether the path and the disk are sound, then run the same command again"
        raise MachineError("DISK", path, error.strerror or str(error), advice) from None


def _free_bytes(path: Path) -> int:
    """Free bytes of the disk on which a path lies, or will lie."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def check_free_space(path: Path, needed: int) -> None:
    """Say now, and not in an hour, that a disk will be full.

    Raises:
        MachineError: there are fewer than `needed` bytes free where `path` lies.
    """
    free = _free_bytes(path)
    if free < needed:
        what = f"{needed >> 20} MB will be needed there, and {free >> 20} MB are free"
        raise MachineError("DISK-FULL", path, what, "free some space, or choose another --run")


def make_folder(path: Path) -> Path:
    """Create a folder and those above it."""
    with os_errors_as_mt_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    _fault("fsync")
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A hidden folder to fill, which becomes `final` at the end, whole or not at all.

    `final` must not exist, except that one which appears in the meantime (another process
    built the same) wins and ours is dropped.
    """
    make_folder(final.parent)
    hidden = final.parent / f".tmp-{final.name}-{os.getpid()}"
    delete(hidden)
    try:
        with os_errors_as_mt_errors(final):
            hidden.mkdir()
            yield hidden
            for file in sorted(hidden.rglob("*")):
                sync(file)
            sync(hidden)
            _fault("rename")
            if not final.exists():
                hidden.rename(final)
            sync(final.parent)
            _fault("renamed")
    finally:
        delete(hidden)


@contextlib.contextmanager
def staged_path(final: Path, replace: bool = False) -> Iterator[Path]:
    """A hidden path for a file or a folder, which becomes `final` at the end, whole or not at all.

    Args:
        final: its name; the folder that holds it is made when it is not there.
        replace: whether what bears this name by then is deleted; else it must not be there.
    """
    make_folder(final.parent)
    hidden = final.parent / f".tmp-{final.name}-{os.getpid()}"
    delete(hidden)
    try:
        with os_errors_as_mt_errors(final):
            yield hidden
            for file in sorted([hidden, *hidden.rglob("*")]):
                sync(file)
            if replace:
                delete(final)
            _fault("rename")
            hidden.rename(final)
            sync(final.parent)
    finally:
        delete(hidden)


def open_new(path: Path) -> BinaryIO:
    """A new file, open for writing bytes; it must not exist."""
    _fault("create")
    return open(path, "xb")


def write_file(path: Path, data: bytes | str) -> None:
    """Write a small file, replacing one of that name in a single step."""
    raw = data.encode() if isinstance(data, str) else data
    with os_errors_as_mt_errors(path):
        hidden = path.parent / f".tmp-{path.name}-{os.getpid()}"
        try:
            _fault("write")
            hidden.write_bytes(raw)
            sync(hidden)
            _fault("replace")
            hidden.replace(path)
            sync(path.parent)
        finally:
            hidden.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON."""
    write_file(path, as_json(value))


def as_json(value: Any) -> str:
    """A value as JSON, readable; a number that is not finite is refused."""
    return json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


@contextlib.contextmanager
def open_output(path: Path | None) -> Iterator[IO[str]]:
    """Where lines go: standard output, or a file that appears under its name when complete.

    What is no regular file (a pipe, /dev/null) is written into as it stands.
    """
    if path is None:
        if sys.stdout is None:
            what, advice = "it is closed", "send it somewhere, or to /dev/null"
            raise MachineError("OUTPUT", "standard output", what, advice)
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
        yield sys.stdout
        return
    if path.exists() and not path.is_file():
        with (
            os_errors_as_mt_errors(path),
            open(path, "w", encoding="utf-8", newline="\n") as stream,
        ):
            yield stream
        return
    with os_errors_as_mt_errors(path):
        hidden = path.parent / f".tmp-{path.name}-{os.getpid()}"
        try:
            with open(hidden, "w", encoding="utf-8", newline="\n") as stream:
                yield stream
            sync(hidden)
            hidden.replace(path)
        finally:
            hidden.unlink(missing_ok=True)


def refuse_existing(path: Path, advice: str) -> None:
    """Say that a file of the user's is not replaced.

    Raises:
        ConfigError: there is one at `path`.
    """
    if path.is_file():
        raise ConfigError("OUTPUT-EXISTS", path, "the file is there already", advice)


def append_line(path: Path, line: str) -> None:
    """Append one line to a log, after ending a line that a crash left torn."""
    with os_errors_as_mt_errors(path), open(path, "a+b") as stream:
        if stream.tell() and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n":
            stream.write(b"\n")
        stream.write(line.encode() + b"\n")


def link(name: Path, to: str) -> None:
    """Make or replace a symbolic link in a single step."""
    with os_errors_as_mt_errors(name):
        hidden = name.parent / f".tmp-{name.name}-{os.getpid()}"
        hidden.unlink(missing_ok=True)
        hidden.symlink_to(to)
        _fault("link")
        hidden.replace(name)
        sync(name.parent)


def rename_path(path: Path, to: Path) -> None:
    """Rename within one file system."""
    with os_errors_as_mt_errors(path):
        path.rename(to)
        sync(to.parent)


def delete(path: Path) -> None:
    """Delete a file or folder if it is there; a folder is renamed first, so never half there."""
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
            _fault("trash")
        shutil.rmtree(path, ignore_errors=True)


def delete_leftovers(folder: Path) -> None:
    """Delete what a killed process left half-written or half-deleted in `folder`."""
    for pattern in (".tmp-*", ".trash-*"):
        for path in folder.glob(pattern):
            delete(path)


@contextlib.contextmanager
def lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold a file lock, which the system frees when the process ends, however it ends.

    Raises:
        MachineError: another process holds it and `wait` is false.
    """
    make_folder(path.parent)
    with contextlib.ExitStack() as stack:
        with os_errors_as_mt_errors(path):
            stream = stack.enter_context(open(path, "a+", encoding="utf-8"))
            _acquire(stream, path, wait)
            stream.truncate(0)
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            stream.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n")
            stream.flush()
        yield


def _acquire(stream: IO[str], path: Path, wait: bool) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        stream.seek(0)
        what = f"in use by {stream.read().strip() or 'another process'}"
        advice = "wait for it to end, or train into another folder with --run"
        raise MachineError("RUN-LOCKED", path.parent, what, advice) from None


def cache_folder() -> Path:
    """Where encoded corpora are kept: `$MT_CACHE`, else the platform's cache folder."""
    named = os.environ.get("MT_CACHE")
    if named:
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mt"


# ------------------------------------------------------------------------------- reading


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal."""
    with os_errors_as_mt_errors(path), open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path | zipfile.Path) -> Any:
    """The value in a JSON file; OSError and ValueError are the caller's to tell."""
    return json.loads(path.read_text(encoding="utf-8"))


def open_bytes(path: Path) -> BinaryIO:
    """A file to read, decompressed when its first bytes say gzip, xz, bzip2 or zstd.

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
    owners: dict[bytes, Any] = {
        b"\x1f\x8b": gzip.GzipFile, b"\xfd7zXZ": lzma.LZMAFile, b"BZh": bz2.BZ2File,
    }  # fmt: skip
    for start, owner in owners.items():
        if magic.startswith(start):
            stream.close()  # one that is handed a stream would not close it
            reader: BinaryIO = owner(path)
            return reader
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        frames = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
        return io.BufferedReader(frames)
    return stream


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 text file, plain or compressed; raises what `decode_lines` does."""
    with open_bytes(path) as stream:
        yield from decode_lines(stream, str(path))


@dataclass(frozen=True)
class LineReader:
    """The lines of a text file, which can be read again; see `read_lines`."""

    path: Path

    def __iter__(self) -> Iterator[str]:
        """The lines, from the first."""
        return read_lines(self.path)


def decode_lines(
    stream: BinaryIO, name: str, replaced: Callable[[int], None] | None = None
) -> Iterator[str]:
    """The lines of a byte stream, cut at `\\n` only; one `\\r` before it and a BOM are dropped.

    Args:
        stream: the bytes.
        name: what the stream is called in an error.
        replaced: told the number of each line that is not UTF-8, whose bad bytes then become
            U+FFFD; without it such a line is an error.

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
    """What reading broken compressed data raises."""
    import zstandard

    return (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError)
