"""The output of a command: standard output, or a file that appears whole."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from mt.errors import ConfigError, MachineError, escape_controls
from mt.runtime import console, files

STANDARD_OUTPUT = Path("-")
_DESCRIPTOR = re.compile(rf"/(?:dev|proc/(?:self|thread-self|{os.getpid()}))/fd/(\d+)$")
"""A path of an open file descriptor; /dev/stdout is a link to one."""


@contextlib.contextmanager
def open_output(path: Path | None, binary: bool = False) -> Iterator[IO[Any]]:
    """Open standard output (`-` or None), or a file that appears under its name when complete.

    The target of a link is replaced, not the link; a replaced file keeps its mode and owner. A
    pipe, a device or an open descriptor (/dev/null, /dev/stdout) is written in place.

    Raises:
        ConfigError: a folder, or a file in a folder that does not exist.
        MachineError: it cannot be written.
    """
    if path is None or path == STANDARD_OUTPUT:
        with _standard_output() as stream:
            yield stream.buffer if binary else stream
        return
    final, descriptor = _resolve(path)
    if final.is_dir():
        raise ConfigError("OUTPUT", path, "it is a folder", "name a file in it")
    in_place = descriptor is not None or (final.exists() and not final.is_file())
    if not in_place and not final.parent.is_dir():
        what = f"there is no folder {final.parent if path.is_symlink() else path.parent}"
        raise ConfigError("OUTPUT", path, what, "create it, or choose another file")
    with files.os_errors_as_mt_errors(path):
        if in_place:
            target = final if descriptor is None else os.dup(descriptor)
            with _open_file(target, binary) as stream:
                yield stream
            return
        with files.staged(final) as hidden:
            with _open_file(hidden, binary) as stream:
                yield stream
            if final.exists():
                _copy_mode_and_owner(final, hidden)


def _open_file(target: Path | int, binary: bool) -> IO[Any]:
    if binary:
        return open(target, "wb")
    return open(target, "w", encoding="utf-8", newline="\n")


class _Terminal:
    """A terminal, which no text of a model or of a corpus can steer."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write text with escapes for all control characters but line ends and tabs."""
        self.stream.write(escape_controls(text, kept="\n\t"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def _standard_output() -> Iterator[Any]:
    if sys.stdout is None:
        what, advice = "it is closed", "send it somewhere, or to /dev/null"
        raise MachineError("OUTPUT", "standard output", what, advice)
    stream: Any = sys.stdout
    stream.reconfigure(encoding="utf-8", newline="\n")
    try:
        yield _Terminal(stream) if stream.isatty() else stream
        stream.flush()
    except BrokenPipeError:  # the reader has enough
        raise
    except OSError as error:
        if error.filename is not None:  # of another file
            raise
        console.discard_output()
        code = "DISK-FULL" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "OUTPUT"
        what, advice = error.strerror or str(error), "send it to something that can be written"
        raise MachineError(code, "standard output", what, advice) from None


def _resolve(path: Path) -> tuple[Path, int | None]:
    """Follow links; return what they lead to, and the number of a descriptor of this process."""
    for _ in range(40):
        match = _DESCRIPTOR.match(os.path.abspath(path))
        if match:
            return path, int(match[1])
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    return Path(os.path.realpath(path)), None


def _copy_mode_and_owner(old: Path, new: Path) -> None:
    facts = old.stat()
    with contextlib.suppress(OSError, AttributeError):  # only root may give files away, on Unix
        shutil.chown(new, facts.st_uid, facts.st_gid)
    with contextlib.suppress(OSError):
        new.chmod(stat.S_IMODE(facts.st_mode))


def refuse_existing(path: Path, advice: str) -> None:
    """Raise a ConfigError when a file of the user would be replaced, not one in /dev/fd."""
    if path.is_file() and _resolve(path)[1] is None:
        raise ConfigError("OUTPUT-EXISTS", path, "the file is there already", advice)


def print_lines(lines: Iterable[Any]) -> None:
    """Write lines to standard output."""
    with open_output(None) as out:
        for line in lines:
            out.write(f"{line}\n")


def print_report(lines: Iterable[Any]) -> None:
    """Write the report of some work to standard output; where that fails, the work goes on."""
    for line in lines:
        try:
            sys.stdout.write(escape_controls(f"{line}\n", kept="\n\t"))
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError):  # full, gone, closed, None
            console.discard_output()
