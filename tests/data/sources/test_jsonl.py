"""JSON lines: keys, line ends within a text, and refusals."""

import json

import pytest
from source_sections import pairs, refused

# --------------------------------------------------------------------------------- jsonl


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ({"translation": {"en": "one", "de": "eins", "fr": "un"}}, {}),
        ({"en": "one", "de": "eins"}, {}),
        ({"translation": {"eng": "one", "deu_Latn": "eins"}}, {}),
        ({"en": "one", "de": "eins"}, {"languages": {"source": "eng", "target": "de_DE"}}),
        ({"s": "one", "t": "eins", "translation": {}}, {"source": "s", "target": "t"}),
    ],
)
def test_jsonl_takes_languages_or_keys(tmp_path, line, settings):
    (tmp_path / "j").write_text(json.dumps(line))
    assert pairs(tmp_path, kind="jsonl", file="j", **settings) == [("one", "eins")]


def test_line_ends_within_json_become_spaces(tmp_path):
    (tmp_path / "j").write_text(json.dumps({"en": "a\nb\r\nc\n", "de": None}))
    assert pairs(tmp_path, kind="jsonl", file="j") == [("a b c", None)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "mt: error[DATA-JSON] j:2: not JSON: Expecting property name enclosed"),
        ("[1]", "mt: error[DATA-JSON] j:2: a JSON list, not an object"),
        ('{"en": "x"}', "mt: error[DATA-COLUMN] j:2: there is no key 'de'; there are: en"),
        ('{"en": "x", "de": [1]}', 'mt: error[DATA-JSON] j:2: de is no text but ["1"]'),
        (r'{"en": "x", "de": "\ud800"}', "mt: error[DATA-UTF8] j:2: half of a surrogate pair"),
        ("[" * 100_000, "mt: error[DATA-JSON] j:2: not JSON: nested too deep"),
    ],
)
def test_a_bad_json_line_is_refused_with_its_number(tmp_path, line, expected):
    (tmp_path / "j").write_text('{"en": "a", "de": "b"}\n' + line + "\n")
    assert refused(tmp_path, kind="jsonl", file="j").startswith(expected)


def test_numbers_are_text_and_blank_lines_are_skipped(tmp_path):
    (tmp_path / "j").write_text('\n{"en": 1.50, "de": 7}\n  \n')
    assert pairs(tmp_path, kind="jsonl", file="j") == [("1.50", "7")]
