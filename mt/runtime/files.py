"""All file access of `mt`: atomic writes, locks, deletion, and text input.

A file or folder is written under a hidden name, fsynced, renamed, and its parent fsynced, so that
it appears whole or not at all. Lines end at `\\n` only, not at U+2028, form feeds or lone `\\r`.
"""

from __future__ import annotations

import atexit
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
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from mt.errors import DataError, MachineError, MtError
from mt.runtime.console import warn_once

# ------------------------------------------------------------------------------- writing


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_MESSAGES = tuple(
    text
    for code in (errno.ENOSPC, errno.EDQUOT)
    for text in (os.strerror(code), f"(os error {code})", f"[Errno {code}]")
)
"""A full disk in the errors of libraries: those of Rust, such as safetensors, have no number."""


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, is that of a full disk."""
    while error is not None and not isinstance(error, MtError):
        if getattr(error, "errno", None) in _FULL:
            return True
        if isinstance(error, Exception) and any(text in str(error) for text in _FULL_MESSAGES):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def os_errors_as_mt_errors(path: Path | str) -> Iterator[None]:
    """Raise a MachineError that names `path` for each OSError, or full disk, inside."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            what = f"the disk is full ({free_bytes(Path(path)) >> 20} MB free)"
            advice = "free some space and run the same command again; what was saved is intact"
            raise MachineError("DISK-FULL", path, what, advice) from None
        if not isinstance(error, OSError):
            raise
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "choose a folder that you may write to"
            raise MachineError("PERMISSION", path, error.strerror or "refused", advice) from None
        advice = "see whether the path and the disk are sound, then run the same command again"
        raise MachineError("DISK", path, error.strerror or str(error), advice) from None


def free_bytes(path: Path) -> int:
    """Return the free bytes of the disk of a path that need not exist yet."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def check_free_space(path: Path, needed: int) -> None:
    """Raise a MachineError when the disk of `path` has fewer than `needed` bytes free."""
    free = free_bytes(path)
    if free < needed:
        what = f"{needed >> 20} MB will be needed there, and {free >> 20} MB are free"
        raise MachineError("DISK-FULL", path, what, "free some space, or choose another --run")


def make_folder(path: Path) -> Path:
    """Create a folder and its parents; return it."""
    with os_errors_as_mt_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


UNSUPPORTED = {
    errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ENOLCK,
}  # fmt: skip
"""What a file system answers to a call that it does not have."""


def sync(path: Path) -> None:
    """Force a file or folder to the disk; warn once where the file system cannot."""
    is_folder = path.is_dir()
    try:  # Windows forces only what may be written
        handle = os.open(path, os.O_RDWR if os.name == "nt" and not is_folder else os.O_RDONLY)
    except PermissionError:
        if is_folder:  # Windows opens no folder
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        refused = UNSUPPORTED | ({errno.EBADF, errno.EACCES, errno.EPERM} if is_folder else set())
        if error.errno not in refused:
            raise
        what = f"{path}: this file system cannot force data to the disk ({error.strerror})"
        warn_once("FSYNC", f"{what}; a power cut may lose what was saved last")
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
                _replace_folder(hidden, final)
            elif replace or not final.exists():
                hidden.replace(final)
            sync(final.parent)
    finally:
        delete(hidden)


def _replace_folder(new: Path, final: Path) -> None:
    """Rename a folder to a name that may be taken; what has it is deleted after that, or stays."""
    old = _trash(final)
    delete(old)
    with contextlib.suppress(FileNotFoundError):
        final.rename(old)
    try:
        new.rename(final)
    except OSError:
        if os.path.lexists(old):
            old.rename(final)
        raise
    delete(old)


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


def open_partial(path: Path, kept: int) -> BinaryIO:
    """Open a file to append to, cut to its first `kept` bytes."""
    stream = open(path, "ab")  # noqa: SIM115  (the caller closes it)
    stream.truncate(kept)
    return stream


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


def append_line(path: Path, line: str) -> None:
    """Append one line to a log, after ending a line that a crash cut short."""
    with os_errors_as_mt_errors(path), open(path, "a+b") as stream:
        if stream.tell() and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n":
            stream.write(b"\n")
        stream.write(line.encode() + b"\n")


def rename_path(path: Path, to: Path) -> None:
    """Rename within one file system."""
    with os_errors_as_mt_errors(path):
        path.rename(to)
        sync(to.parent)


def _trash(path: Path) -> Path:
    """Return the hidden name of what is deleted next; see `delete_leftovers`."""
    return path.parent / f".trash-{path.name}-{os.getpid()}"


def delete(path: Path) -> None:
    """Delete a file or folder if it exists; a folder is renamed first, so never half deleted."""
    if not path.exists() and not path.is_symlink():
        return
    with os_errors_as_mt_errors(path):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return
        if not path.name.startswith("."):
            trash = _trash(path)
            shutil.rmtree(trash, ignore_errors=True)
            path.rename(trash)
            path = trash
        shutil.rmtree(path, ignore_errors=True)


def delete_leftovers(folder: Path) -> None:
    """Delete the hidden files that a killed process has left in a folder."""
    for pattern in (".tmp-*", ".trash-*"):
        for path in folder.glob(pattern):
            delete(path)


_SET_CACHE = "set MT_CACHE to a folder that you may write to"


def cache_folder() -> Path:
    """Return the folder of encoded corpora: `$MT_CACHE`, else in the cache folder of the user.

    Raises:
        MachineError: neither is known, as for a user without a home.
    """
    folder = os.environ.get("MT_CACHE")
    if folder:
        return Path(folder).absolute()
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        what = "is not set, and this user has no home folder that could hold a cache"
        raise MachineError("CACHE", "MT_CACHE", what, _SET_CACHE) from None
    return Path(base) / "mt"


def make_cache_folder(name: str, or_temporary: bool = False) -> Path:
    """Create a folder in the cache, else one that lives as long as this process; return it.

    Raises:
        MachineError: it cannot be written, and it must outlive this process.
    """
    try:
        folder = make_folder(cache_folder() / name)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        raise MachineError("PERMISSION", folder, "it cannot be written", _SET_CACHE)
    except MachineError as error:
        if not or_temporary:
            raise MachineError(error.code, *error.problems[0], _SET_CACHE) from None
        return _temporary_folder()


def _temporary_folder() -> Path:
    """Create a folder that is deleted when this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="mt-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


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
    copy = _temporary_folder() / name
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
