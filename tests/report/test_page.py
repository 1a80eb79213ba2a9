"""The page holds the report, escapes its text, and loads nothing."""

import json
import re

import pytest
from evaluated_runs import ROWS, evaluated
from lxml import html

from mt.cli import main
from mt.errors import ConfigError
from mt.report.page import EDGE, HEIGHT, WIDTH, chart, marked, render, verdict, write_report
from mt.report.run_report import describe_run

EVIL = '</td><img src=x onerror=alert(1)> {{ 7*7 }} <script>"'


@pytest.fixture
def report(tmp_path):
    rows = [(EVIL, EVIL, f"{EVIL} {EVIL}"), *ROWS[1:]]
    one = evaluated(tmp_path / "one", rows)
    two = evaluated(tmp_path / "two", [(EVIL, EVIL, EVIL), *ROWS[1:]])
    return describe_run(one, two)


def test_text_is_escaped_and_nothing_is_loaded(report):
    page = render(report)
    tree = html.fromstring(page)
    assert tree.xpath("//img") == []
    assert len(tree.xpath("//script")) == 1
    assert EVIL in tree.text_content()
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert not re.findall(r"""<[^>]*\s(?:src|href)\s*=|url\(|@import""", markup)


def test_every_line_is_in_the_page_without_javascript(report):
    rows = html.fromstring(render(report)).xpath("//table[@class='sentences']/tbody/tr")
    assert len(rows) == len(ROWS)
    assert all(row.xpath("td")[0].text_content().isdigit() for row in rows)


def test_the_verdict_says_which_is_better(report):
    pattern = r"test_one: BLEU [\d.]+, -[\d.]+ to run: (worse|within chance) \(95 %.* p = [\d.]+\)"
    assert re.search(pattern, verdict(report)[0])


def test_a_chart_spans_its_points():
    drawn = chart([[[0, 1.0], [100, 3.0]], [[50, 2.0]]])
    first, second = drawn["paths"]
    assert first.split()[0] == f"{EDGE}.0,{HEIGHT - 14}.0"
    assert first.split()[1] == f"{WIDTH}.0,6.0"
    assert len(second.split()) == 1
    assert (drawn["low"], drawn["high"], drawn["last"]) == ("1", "3", "100")
    assert chart([[[1, 1.0]]]) is None
    assert chart([[[1, 1.0], [2, 1.0]]]) is not None


def test_words_that_the_reference_has_not_are_marked():
    assert str(marked("a b c", "a x c")) == "a <mark>x</mark> c"
    assert str(marked("a", "<b> a")) == "<mark>&lt;b&gt;</mark> a"
    assert str(marked("你好吗", "你好")) == "你好"
    assert str(marked("a b", "")) == ""


def test_the_command_writes_the_page_and_its_twin(tmp_path, capsys):
    run = evaluated(tmp_path / "one")
    assert main.run(["report", str(run)]) == 0
    assert "BLEU 100.0" in capsys.readouterr().out
    assert json.loads((run / "page.json").read_text())["runs"][0]["step"] == 7
    assert main.run(["report", str(run)]) == 2
    assert main.run(["report", str(run), "--force"]) == 0
    with pytest.raises(ConfigError, match="JSON"):
        write_report({}, tmp_path / "x.json")
