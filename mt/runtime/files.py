"""Files and folders: atomic writes, deletion, the cache; `text_files` reads text.

A file or folder is written under a hidden name, fsynced, renamed, and its parent fsynced, so that
it appears whole or not at all.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from mt.errors import MachineError, MtError
from mt.runtime.console import warn_once

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
        return make_temporary_folder()


def make_temporary_folder() -> Path:
    """Create a folder that is deleted when this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="mt-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


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
