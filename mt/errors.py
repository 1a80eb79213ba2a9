"""The one error that a user sees, its kinds, and the exit code of each.

A failure is one line, `mt: error[CODE] WHERE: WHAT`, and one line of advice.
Anything that is not an `MtError` is a bug of ours (exit code 1).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|CREDENTIAL", re.IGNORECASE)
_SECRET = re.compile(r"(?<=://)[^/\s@]+(?=@)|\bhf_\w{8,}")
"""User and password of a URL, and tokens of the Hugging Face hub."""
_SECRET_QUERY = re.compile(
    r"([?&][\w.-]*(?:token|key|secret|sig|signature|password|credential)=)[^&#\s]+", re.IGNORECASE
)
"""A part of a URL that gives access, such as the signature of one of a cloud."""


def redact(text: str) -> str:
    """`text` without secrets: those of the environment, of URLs and of the hub become `***`."""
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRET_NAME.search(name):  # TOKENIZERS_PARALLELISM is no secret
            text = text.replace(value, "***")
    return _SECRET_QUERY.sub(r"\1***", _SECRET.sub("***", text))


def escape_controls(text: str, kept: str = "") -> str:
    """`text` with escapes for control and bidi characters, which steer a terminal; not `kept`."""
    if text.isprintable():
        return text
    escaped = (
        c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text
    )
    return "".join(escaped)


def printable(text: object, limit: int = 300) -> str:
    """`text` safe to show: no secrets, control and bidi characters escaped, cut at `limit`."""
    line = escape_controls(redact(str(text)))
    return line if len(line) <= limit else line[: limit - 3] + "..."


class MtError(Exception):
    """A failure that its reader can mend: what went wrong, where, and what to do.

    Args:
        code: short constant name of the failure, such as `DATA-LINES`.
        where: the file, line, key or path concerned.
        what: what is wrong, with the figures.
        advice: what the reader can do about it.
        others: further (where, what) of the same code, in the same report.
    """

    exit_code = 1

    def __init__(
        self,
        code: str,
        where: object,
        what: str,
        advice: str,
        others: Iterable[tuple[object, str]] = (),
    ) -> None:
        self.code = code
        self.problems = [(printable(w), printable(t)) for w, t in [(where, what), *others]]
        self.advice = printable(advice)
        super().__init__(str(self))

    def __reduce__(self) -> tuple[type[MtError], tuple[object, ...]]:
        """Pickle by the arguments, so that an error can come from another process."""
        (where, what), *others = self.problems
        return type(self), (self.code, where, what, self.advice, others)

    def __str__(self) -> str:
        lines = [f"mt: error[{self.code}] {where}: {what}" for where, what in self.problems]
        return "\n".join([*lines, self.advice])


class ConfigError(MtError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class DataError(MtError):
    """The data are wrong."""

    exit_code = 3


class ModelError(MtError):
    """A model, checkpoint or vocabulary is missing, damaged or does not fit."""

    exit_code = 4


class MachineError(MtError):
    """The machine will not do it: disk, lock, permission, device, memory."""

    exit_code = 5


class DivergedError(MtError):
    """Training diverged."""

    exit_code = 6


class DownloadError(MtError):
    """A download failed or is not what it should be."""

    exit_code = 7


class Stopped(BaseException):
    """A signal asked the program to stop; what was to be saved is saved.

    Like KeyboardInterrupt no Exception: libraries swallow those (tqdm's monitor, for one), and
    with it the signal that happened to come in their code.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        self.exit_code = 128 + signal_number
        super().__init__(message)


class FailedOnAnotherRank(Exception):
    """Another rank of this run has failed and has reported why; this one exits silently."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(f"another process ended with exit code {exit_code}")
