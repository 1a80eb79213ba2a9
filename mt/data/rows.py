"""Rows of CSV and JSON files as text: nothing is guessed to be a number, a date or missing.

CSV is that of RFC 4180: fields in quotation marks may hold separators, quotation marks (doubled)
and line ends. JSON is an object a line, or a list of objects.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mt.errors import DataError
from mt.runtime import text_files

SEPARATORS = (",", ";", "\t", "|")
MAX_FIELD = 10 << 20
"""Most characters of a field; more means that a quotation mark is missing."""


def read_csv(path: Path, columns: Sequence[str], separator: str | None) -> Iterator[dict[str, str]]:
    """Yield each row by the names in the first line.

    Args:
        columns: names that the first line should have; they tell the separator.
        separator: of the fields; None: the one of SEPARATORS that finds most of `columns`, then
            the most fields.

    Raises:
        DataError: not UTF-8, a row of another number of fields, or a quotation mark too many.
    """
    csv.field_size_limit(MAX_FIELD)
    names: list[str] = []
    if separator is None:
        first = next(iter(text_files.read_lines(path)), "")
        separator = max(SEPARATORS, key=lambda each: _rate(first, each, columns))
    lines = (f"{line}\n" for line in text_files.read_lines(path))
    reader = csv.reader(lines, delimiter=separator, strict=True)
    number = 1
    try:
        for row in reader:
            where, number = f"{path}:{number}", reader.line_num + 1
            if not names:
                names = row
            elif row:  # a blank line is no row
                if len(row) != len(names):
                    what = f"{len(row)} fields, but {len(names)} in the first line"
                    advice = "put a field with a separator or a line end in quotation marks"
                    raise DataError("DATA-FIELDS", where, what, advice)
                yield dict(zip(names, row, strict=True))
    except csv.Error as error:
        advice = "double the quotation marks within a field; kind: tsv reads files without quoting"
        raise DataError("DATA-CSV", f"{path}:{number}", str(error), advice) from None


def _rate(line: str, separator: str, columns: Sequence[str]) -> tuple[int, int]:
    """Return how many of the columns a separator finds in the first line, and how many fields."""
    try:
        names = next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return 0, 0
    return sum(name in names for name in columns), len(names)


def read_json(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file, one a line, or of the one list in it.

    Raises:
        DataError: not UTF-8, or not JSON.
    """
    lines = text_files.read_lines(path)
    for number, line in enumerate(lines, start=1):
        if number == 1 and line.lstrip().startswith("["):
            text = "\n".join([line, *lines])
            for place, row in enumerate(_parse(text, str(path)), start=1):
                yield _require_object(row, f"{path}, entry {place}")
        elif line.strip():
            yield parse_object(line, f"{path}:{number}")


def parse_object(line: str, where: str) -> dict[str, Any]:
    """Parse a JSON object; its numbers are the text that they are written as."""
    return _require_object(_parse(line, where), where)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        problem = str(error) if isinstance(error, ValueError) else "nested too deep"
        advice = "each line must be one JSON object"
        raise DataError("DATA-JSON", where, f"not JSON: {problem}", advice) from None


def _require_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        what = f"a JSON {type(value).__name__}, not an object"
        raise DataError("DATA-JSON", where, what, 'write {"source": "...", "target": "..."}')
    return value
