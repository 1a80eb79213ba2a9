"""Files of a run, a bundle or an exported folder, which may be damaged or of any origin.

Every such file is read here: a regular file (a pipe would hang), of bounded size, UTF-8, JSON of
bounded depth without NaN, infinity and lone surrogates, and with values of the right types.
Whatever is wrong is one ModelError with the name of the file.
"""

from __future__ import annotations

import errno
import json
import math
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError

from mt.errors import ModelError

MAX_JSON = 10 << 20
"""Most bytes of a JSON file or recipe; what `mt` writes has some kilobytes."""
MAX_VOCABULARY = 1 << 30
"""Most bytes of a vocabulary: some 30 million pieces."""
MAX_LOG = 1 << 30
"""Most bytes of a log: some four million lines."""
MAX_DEPTH = 32
"""Most levels of nesting; what `mt` writes has six."""
CODE = "RUN-DAMAGED"
ADVICE = "restore the file from a copy, or give another run"

FilePath = Path | zipfile.Path


class JsonObject(BaseModel):
    """The types of the known keys of a JSON file; other keys may be anything."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


def check_file(path: FilePath, code: str = CODE, advice: str = ADVICE) -> None:
    """Raise a ModelError unless `path` is a regular file, or a link to one."""
    try:
        missing, wrong = not path.exists(), not path.is_file()
    except OSError as error:
        raise ModelError(code, path, f"cannot be read ({_reason(error)})", advice) from None
    if missing:
        raise ModelError(code, path, os.strerror(errno.ENOENT), advice)
    if wrong:
        what = "a folder, not a file" if path.is_dir() else "not a regular file"
        raise ModelError(code, path, what, advice)


def read_bytes(
    path: FilePath, limit: int = MAX_JSON, code: str = CODE, advice: str = ADVICE
) -> bytes:
    """Return the contents of a file of at most `limit` bytes, else raise a ModelError."""
    check_file(path, code, advice)
    try:
        with path.open("rb") as stream:
            data: bytes = stream.read(limit + 1)
    except OSError as error:
        raise ModelError(code, path, f"cannot be read ({_reason(error)})", advice) from None
    if len(data) > limit:
        raise ModelError(code, path, f"larger than {limit} bytes", advice)
    return data


def read_text(path: FilePath, limit: int = MAX_JSON, code: str = CODE, advice: str = ADVICE) -> str:
    """Return the UTF-8 text of a file, else raise a ModelError."""
    try:
        return read_bytes(path, limit, code, advice).decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"damaged (byte {error.start} is not UTF-8)"
        raise ModelError(code, path, what, advice) from None


def read_json(
    path: FilePath, shape: type[JsonObject] | None = None, limit: int = MAX_JSON, code: str = CODE,
    advice: str = ADVICE, newest: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the object in a JSON file, its known keys of the types of `shape`.

    Raises:
        ModelError: missing, unreadable or damaged, or its `format` is above `newest`; the code
            of that ends in `-NEWER`.
    """
    value = _read_value(path, limit, code, advice)
    version = value.get("format") if isinstance(value, dict) else None
    if newest is not None and isinstance(version, int) and version > newest:
        what = f"made by a newer mt (format {version}, this one reads {newest})"
        raise ModelError(f"{code.split('-')[0]}-NEWER", path, what, "use a newer mt")
    try:
        return check_object(value, shape)
    except ValueError as error:
        raise ModelError(code, path, f"damaged ({error})", advice) from None


def read_json_texts(
    path: FilePath, limit: int = MAX_VOCABULARY, code: str = CODE, advice: str = ADVICE
) -> list[str]:
    """Return the list of texts in a JSON file; raises as `read_json` does."""
    value = _read_value(path, limit, code, advice)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ModelError(code, path, "damaged (it should be a list of texts)", advice)
    return value


def read_json_lines(
    path: Path, shape: type[JsonObject] | None = None, code: str = CODE, advice: str = ADVICE
) -> Iterator[dict[str, Any]]:
    """Yield the object of each line of a log, without those that a crash has cut short.

    Raises:
        ModelError: the file cannot be read, or a known key has a value of another type.
    """
    lines = read_bytes(path, MAX_LOG, code, advice).split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            value = parse_json(line.decode("utf-8"))
        except ValueError:
            continue
        try:
            yield check_object(value, shape)
        except ValueError as error:
            raise ModelError(code, f"{path}:{number}", f"damaged ({error})", advice) from None


def _read_value(path: FilePath, limit: int, code: str, advice: str) -> Any:
    text = read_text(path, limit, code, advice)
    try:
        return parse_json(text)
    except ValueError as error:
        raise ModelError(code, path, f"damaged ({error})", advice) from None


def parse_json(text: str) -> Any:
    """Parse JSON; a ValueError when it is malformed, too deep, or has what JSON does not allow."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inside for each in level for inside in _entries(each)]
        if not level:
            return value
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _entries(value: Any) -> Iterable[Any]:
    """Return what lies in a JSON value, its keys too; refuse text that cannot be encoded."""
    if isinstance(value, dict):
        return (*value.keys(), *value.values())
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("a text with half a character") from None
    return value if isinstance(value, list) else ()


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} where a number belongs")


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def check_object(value: Any, shape: type[JsonObject] | None) -> dict[str, Any]:
    """Return a JSON object; a ValueError when it is none, or a known key has another type."""
    if not isinstance(value, dict):
        raise ValueError("it should be an object, with keys")
    if shape is not None:
        try:
            shape.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{key}: {first['msg'].removeprefix('Input ')}") from None
    return value


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
