"""The page holds the figures, escapes the data, and needs nothing from elsewhere."""

import json
import re

import pytest
from lxml import html
from prepared_corpora import GOOD, HELD, recipe_of, write_pairs

from mt.data.report import LONGEST, describe_data
from mt.data.report_page import HEIGHT, format_report, histogram, render, scatter, write_report
from mt.errors import ConfigError

EVIL = '<script>alert("x")</script> {{ 7*7 }}'


@pytest.fixture
def report(folder):
    pairs = [*GOOD, (EVIL, "Da <br> & dort"), HELD[0], GOOD[0]]
    write_pairs(folder, "dirty", pairs)
    return describe_data(recipe_of(folder, train=("dirty",)), lambda line: None)


def test_the_page_shows_the_figures_and_escapes_the_data(report):
    page = render(report)
    assert "<script" not in page
    text = html.fromstring(page).text_content()
    assert EVIL in text
    assert f"{len(GOOD) + 3:,}" in text
    assert "markup" in text
    assert "test.test" in text


def test_the_page_loads_nothing(report):
    page = render(report)
    assert not re.findall(r"""(?:src|href|url|@import)\s*[=(]""", page)
    assert len(page) < 2_000_000


def test_the_page_of_any_data_is_whole(folder):
    for pairs in ([("", "")], [("x", "y")]):
        write_pairs(folder, "odd", pairs)
        made = describe_data(recipe_of(folder, train=("odd",)), lambda line: None)
        made["sample"]["languages"] = None
        assert render(made).rstrip().endswith("</html>")


def test_bars_are_as_high_as_their_counts():
    counts = [[0] * (LONGEST + 1), [0] * (LONGEST + 1)]
    counts[0][3], counts[1][LONGEST] = 10, 5
    tall, low = histogram(counts)
    assert (tall["height"], tall["y"], low["height"], low["y"]) == (
        HEIGHT, 0.0, HEIGHT / 2, HEIGHT / 2
    )  # fmt: skip
    assert "or more" in low["label"]
    cells = [[0, 7], [0, 0]]
    assert [cell["darkness"] for cell in scatter(cells)] == [1.0]


def test_the_json_twin_has_the_figures_and_no_file_is_replaced(report, tmp_path):
    write_report(report, tmp_path / "page.html")
    twin = json.loads((tmp_path / "page.json").read_text())
    assert twin["train"][0]["pairs"] == report["train"][0]["pairs"]
    assert twin["shares"]["leaked"] > 0
    assert twin["verdict"][0][0] == "bad"
    with pytest.raises(ConfigError, match="OUTPUT-EXISTS"):
        write_report(report, tmp_path / "page.html")
    with pytest.raises(ConfigError, match="JSON"):
        write_report(report, tmp_path / "other.json")


def test_the_lines_have_a_row_for_each_corpus(report):
    lines = list(format_report(report))
    assert [line.split()[0] for line in lines if line][:5] == [
        "corpus", "train.0", "held", "valid", "test.test",
    ]  # fmt: skip
    assert lines[-1].startswith("good:") or "warning:" in lines[-1]
