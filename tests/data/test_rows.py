"""Rows of CSV and JSON files are text, exactly as it is written."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.data.rows import parse_object, read_csv, read_json
from mt.errors import DataError

LIKE_OTHER_TYPES = ["None", "null", "NA", "nan", "N/A", "", "7", "007", "1.50", "1e3", "True",
                    "2000-01-10 10:00:00", "10.01.2000", "-", "inf"]  # fmt: skip


def write(tmp_path, text, name="a.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_what_looks_like_another_type_is_text(tmp_path, separator):
    lines = [f"en{separator}de", *(f"{value}{separator}x" for value in LIKE_OTHER_TYPES)]
    path = write(tmp_path, "\ufeff" + "\r\n".join(lines) + "\r\n")
    rows = list(read_csv(path, ("en", "de"), None))
    assert [row["en"] for row in rows] == LIKE_OTHER_TYPES
    assert {row["de"] for row in rows} == {"x"}


cell = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.tuples(cell, cell), min_size=1), st.sampled_from(",;\t|"))
def test_what_the_csv_module_writes_is_read(tmp_path_factory, pairs, separator):
    out = io.StringIO()
    csv.writer(out, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([("en", "de"), *pairs])
    path = write(tmp_path_factory.mktemp("csv"), out.getvalue())
    rows = [(row["en"], row["de"]) for row in read_csv(path, ("en", "de"), None)]
    assert rows == pairs


def test_a_named_separator_is_used(tmp_path):
    path = write(tmp_path, "en~de\na,b;c~d\n")
    assert list(read_csv(path, ("en", "de"), "~")) == [{"en": "a,b;c", "de": "d"}]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("en,de\na,b\nc\n", "a.csv:3", "1 fields, but 2"),
        ("en,de\na,b\nc,d,e\n", "a.csv:3", "3 fields, but 2"),
        ('en,de\na,b\n"c,d\ne,f\n', "a.csv:3", "unexpected end"),
        ('en,de\n"a"b,c\n', "a.csv:2", "expected after"),
        ("en,de\na,b\nna\u00efve,\u00e9\n".encode("cp1252"), "a.csv:3", "0xef at column 3"),
        ("en,de\na,b\n".encode("utf-16-le"), "a.csv:1", "UTF-16"),
        ("en,de\ra,b\rc,d", "a.csv:1", "CR alone"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path, text, where, what):
    with pytest.raises(DataError, match=what) as error:
        list(read_csv(write(tmp_path, text), ("en", "de"), None))
    assert where in str(error.value)


def test_numbers_and_dates_of_json_are_text(tmp_path):
    expected = {"en": "2000-01-10 10:00:00", "a": "7", "b": "1.50", "c": "1e3", "d": None}
    line = '{"en": "2000-01-10 10:00:00", "a": 7, "b": 1.50, "c": 1e3, "d": null}'
    assert parse_object(line, "here") == expected
    lines, listed = (
        write(tmp_path, f"\n{line}\n \n{line}\n", "a"),
        write(tmp_path, f"[{line}]", "b"),
    )
    assert list(read_json(lines)) == [expected, expected]
    assert list(read_json(listed)) == [expected]


@pytest.mark.parametrize(
    ("text", "where"), [('{"a": 1}\n{', "a:2"), ("[1]", "entry 1"), ("[{}", "a"), ("7\n", "a:1")]
)
def test_what_is_no_object_is_named(tmp_path, text, where):
    with pytest.raises(DataError) as error:
        list(read_json(write(tmp_path, text, "a")))
    assert where in str(error.value)
