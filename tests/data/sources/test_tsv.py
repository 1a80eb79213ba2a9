"""Tab-separated files: columns by number and by name."""

import pytest
from source_sections import pairs, refused

# ----------------------------------------------------------------------------------- tsv


def test_tsv_takes_columns_by_number(tmp_path):
    (tmp_path / "t").write_text('1\t"quoted\'\tein "x\n2\tb\t\n')
    found = pairs(tmp_path, kind="tsv", file="t", source=2, target=3)
    assert found == [("\"quoted'", 'ein "x'), ("b", "")]
    assert pairs(tmp_path, kind="tsv", file="t", source=3, target=1)[0] == ('ein "x', "1")


def test_tsv_takes_columns_by_name(tmp_path):
    (tmp_path / "t").write_text("id\tde\ten\n1\teins\tone\n")
    assert pairs(tmp_path, kind="tsv", file="t", source="en", target="de") == [("one", "eins")]


@pytest.mark.parametrize(
    ("content", "settings", "expected"),
    [
        ("a\n", {}, "mt: error[DATA-FIELDS] t:1: 1 field; column 2 is asked for"),
        ("a\tb\nc\n", {}, "mt: error[DATA-FIELDS] t:2: 1 field, but 2 in the first line"),
        ("a\tb\n\n", {}, "mt: error[DATA-FIELDS] t:2: 1 field, but 2 in the first line"),
        ("a\tb\nc\td\te\n", {}, "mt: error[DATA-FIELDS] t:2: 3 fields, but 2 in the first line"),
        ("a\tb\n", {"source": "en"}, "mt: error[DATA-COLUMN] t:1: there is no column 'en'; "
         "there are: a, b"),
    ],
)  # fmt: skip
def test_wrong_fields_are_refused(tmp_path, content, settings, expected):
    (tmp_path / "t").write_text(content)
    assert refused(tmp_path, kind="tsv", file="t", **settings) == expected
