"""The file `data.lock`: what each download was, so that it is the same everywhere and later.

JSON, sorted, one object for each URL: size, sha256 and revision. It lies beside the recipe and
belongs into version control with it. The first download of a URL adds its entry; each later one
must agree with it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from mt.config.schema import SourceConfig
from mt.config.section import RecordFile
from mt.errors import DownloadError, MachineError, redact
from mt.runtime import files
from mt.runtime.console import warn_once
from mt.runtime.lock import lock

FILE_NAME = "data.lock"
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Pin:
    """What a URL was."""

    bytes: int
    sha256: str
    revision: str
    """Version of the corpus, else what the server calls the version of the file; may be empty."""


class DownloadedConfig(SourceConfig):
    """What every source has that downloads."""

    lock: RecordFile = Field(FILE_NAME, validate_default=True)
    """The file `data.lock` with the hashes of downloads; left out: beside the recipe."""

    @field_validator("lock")
    @classmethod
    def _only_a_data_lock(cls, path: str) -> str:
        # It is written to, and the recipe of a run may be a stranger's.
        if Path(path).name != FILE_NAME:
            raise ValueError(f"should be a file named {FILE_NAME}")
        return path


def read_pins(path: Path) -> dict[str, Pin]:
    """Read the entries by URL; none if the file does not exist.

    Raises:
        DownloadError: it is no `data.lock`.
    """
    if not path.is_file():
        return {}
    try:
        with files.os_errors_as_mt_errors(path), open(path, "rb") as stream:
            entries = json.loads(stream.read(_MOST_BYTES))
        return {str(url): _pin(**entry) for url, entry in entries.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        what, advice = f"damaged ({error})", "mend it, or delete it to record what is fetched next"
        raise DownloadError("LOCK", path, what, advice) from None


def _pin(bytes: int, sha256: str, revision: str) -> Pin:
    if not (isinstance(bytes, int) and isinstance(sha256, str) and isinstance(revision, str)):
        raise TypeError("an entry has a value of a wrong type")
    return Pin(bytes, sha256, revision)


def record_pin(path: Path, url: str, pin: Pin) -> None:
    """Add the entry of a URL, or replace it; warn once where the file cannot be written."""
    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]
    try:
        with lock(files.make_cache_folder("downloads") / f"{name}.lock", wait=True):
            pins = read_pins(path)
            if pins.get(lock_key(url)) == pin:
                return
            pins[lock_key(url)] = pin
            plain: dict[str, Any] = {key: asdict(pins[key]) for key in sorted(pins)}
            files.write_json(path, plain)
    except MachineError as error:
        what = f"{path}: {error.problems[0][1]}; what was downloaded is not recorded there"
        warn_once("LOCK", what)


def find_pin(path: Path, url: str) -> Pin | None:
    """Return the entry of a URL."""
    return read_pins(path).get(lock_key(url))


def lock_key(url: str) -> str:
    """Return a URL without secrets: a signed one is the same file under the next signature."""
    return redact(url)
