"""The page holds the report, escapes its text, and loads nothing."""

import json
import re
import shutil

import browser
import pytest
from evaluated_runs import ROWS, evaluated
from lxml import html

from mt.cli import main
from mt.errors import ConfigError
from mt.report.page import (
    ABOVE,
    EDGE,
    HEIGHT,
    SIDE,
    WIDTH,
    chart,
    dots,
    grade,
    marked,
    render,
    verdict,
    write_report,
)
from mt.report.run_report import describe_run

EVIL = '</td><img src=x onerror=alert(1)> {{ 7*7 }} <script>"'


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    rows = [(EVIL, EVIL, f"{EVIL} {EVIL}"), *ROWS[1:]]
    expected = [20.0, *[80.0] * (len(rows) - 1)]
    one = evaluated(folder / "one", rows, expected=expected, samples=(5, 10))
    two = evaluated(folder / "two", [(EVIL, EVIL, EVIL), *ROWS[1:]])
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


def test_the_verdict_compares_the_run_with_what_is_usual(report):
    assert not any(line.startswith("Compared") for line in verdict(report))  # of unknown pairs
    usual = {**report, "usual": "validation BLEU 3; runs of mt on <b>: 5"}
    assert "Compared: validation BLEU 3; runs of mt on <b>: 5" in verdict(usual)
    assert "<b>" not in render(usual)


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


def test_unlikely_words_are_underlined_where_the_probability_of_each_is_known():
    found = str(marked("a b c", "a x <c>", [("a", 0.9), ("x", 0.2), ("<c>", 0.5)]))
    assert found == 'a <mark><u class="un">x</u> <u class="so">&lt;c&gt;</u></mark>'
    assert str(marked("a b c", "a x c", [("a", 0.1), ("c", 0.1)])) == "a <mark>x</mark> c"
    chinese = [("你好", 0.9), ("吗", 0.2), ("。", 0.5)]
    assert str(marked("你好。", "你好吗。", chinese)) == (
        '你好<mark><u class="un">吗</u></mark><u class="so">。</u>'
    )
    assert str(marked("你好", "你 好", [("你好", 0.2)])) == ('<mark><u class="un">你 好</u></mark>')


def test_a_dot_lies_where_its_bin_is_and_is_as_large_as_its_lines():
    few, many = dots([
        {"expected": 0.0, "chrf": 100.0, "lines": 1}, {"expected": 100.0, "chrf": 0.0, "lines": 99},
    ])  # fmt: skip
    assert (few["x"], few["y"]) == (EDGE, ABOVE)
    assert (many["x"], many["y"]) == (EDGE + SIDE, SIDE + ABOVE)
    assert few["radius"] < many["radius"] <= ABOVE
    assert dots([]) == []
    assert [grade(value) for value in (0, 30, 50, 69.9, 70, 100)] == [3, 2, 1, 1, 0, 0]


def test_the_page_shows_how_sure_the_run_is(report):
    tree = html.fromstring(render(report))
    (table,) = tree.xpath("//table[@class='sentences']")
    head = [cell.text_content() for cell in table.xpath("thead//th")]
    cells = [row.xpath("td")[head.index("expected")] for row in table.xpath("tbody/tr")]
    assert [cell.text_content() for cell in cells[:2]] == ["20.0", "80.0"]
    assert [cell.get("class") for cell in cells[:2]] == ["n g3", "n g0"]
    assert table.xpath("tbody/tr[1]//u[@class='un']") != []
    assert table.xpath("tbody/tr[2]//u") == []
    assert [dot.xpath("title")[0].text for dot in tree.xpath("//circle")] == ["1 lines", "6 lines"]
    assert "expected chrF above 50" in verdict(report)[1]


def test_the_page_shows_the_outputs_over_the_training(report):
    tree = html.fromstring(render(report))
    (first, *_) = tree.xpath("//details[summary/span[text()='A house.']]")
    rows = [[cell.text_content() for cell in row.xpath("td")] for row in first.xpath(".//tr[td]")]
    assert rows == [["reference", "Ein Haus."], ["5", "Ein Haus. 5"], ["10", "Ein Haus. 10"]]


def test_a_run_of_an_earlier_version_has_a_page_without_these(tmp_path):
    tree = html.fromstring(render(describe_run(evaluated(tmp_path / "one"), None, attention=False)))
    assert tree.xpath("//circle") == tree.xpath("//u") == tree.xpath("//path") == []
    assert "Outputs over training" not in tree.text_content()


def test_the_page_of_many_long_lines_has_at_most_2_mb(tmp_path):
    worst = ["<&> " * 500, "你好" * 1500, "a" * 4000, "<b> " * 90, "\x1b" * 3000]
    texts = [worst[n % len(worst)] for n in range(400)]
    rows = [(text, text[::-1], f"x {text}" if n % 3 else text[1:]) for n, text in enumerate(texts)]
    run = evaluated(tmp_path / "one", rows, expected=[20.0] * len(rows))
    page = render(describe_run(run, None))
    assert 500_000 < len(page.encode()) <= 2_000_000


def test_the_command_writes_the_page_and_its_twin(tmp_path, capsys):
    run = evaluated(tmp_path / "one")
    assert main.run(["report", str(run)]) == 0
    assert "BLEU 100.0" in capsys.readouterr().out
    assert json.loads((run / "page.json").read_text())["runs"][0]["step"] == 7
    assert main.run(["report", str(run)]) == 2
    assert main.run(["report", str(run), "--force"]) == 0
    assert 'class="map"' in (run / "page.html").read_text()
    assert main.run(["report", str(run), "--force", "--no-attention"]) == 0
    assert 'class="map"' not in (run / "page.html").read_text()
    with pytest.raises(ConfigError, match="JSON"):
        write_report({}, tmp_path / "x.json")


# ------------------------------------------------------------------------------ a browser


@pytest.fixture
def window(tmp_path):
    window = browser.Browser(tmp_path / "profile")
    yield window
    window.close()
    shutil.rmtree(tmp_path / "profile", ignore_errors=True)


@pytest.mark.slow
@pytest.mark.skipif(browser.found() is None, reason="there is no Chromium")
@pytest.mark.parametrize("count", [1_000, 20_000])
def test_a_browser_paints_the_page_at_once_and_it_works(tmp_path, window, figure, count):
    rows = [
        (f"{n} {source}", f"{n} {target}", f"{n} {' '.join(output.split()[n % 3 :])}")
        for n, (source, target, output) in ((n, ROWS[n % len(ROWS)]) for n in range(count))
    ]
    expected = [float(n * 37 % 101) for n in range(count)]
    run = evaluated(tmp_path / "one", rows, expected=expected, samples=(5, 10, 15))
    page = tmp_path / "page.html"
    write_report(describe_run(run, None), page)
    assert page.stat().st_size <= 2_000_000
    paints, backs = [], []
    for scheme in ("light", "dark"):
        window.look(1200, 900, scheme)
        window.open(page)
        paints.append(window.first_paint())
        backs.append(window.value("getComputedStyle(document.body).backgroundColor"))
        assert window.wrong() == []
    figure(f"{count:,} lines: {page.stat().st_size:,} bytes, first paint {min(paints):.0f} ms")
    assert min(paints) < 1000  # the first one also starts the browser
    assert backs[0] != backs[1]

    def cells(column):
        row = f"[...document.querySelectorAll('.sentences tbody tr')].map(r => r.cells[{column}])"
        return window.value(f"{row}.map(c => Number(c.textContent))")

    assert len(cells(0)) == 1000
    window.value("document.querySelectorAll('.sentences thead button')[2].focus(); 0")
    for order in (sorted, lambda values: sorted(values, reverse=True)):
        window.key("Enter")
        assert cells(2) == order(cells(2))
    window.value("document.querySelector('td details summary').focus(); 0")
    window.key("Enter")
    assert window.value("document.querySelector('td details').open") is True
    window.look(390, 800, "light")
    assert window.value("document.documentElement.scrollWidth - innerWidth") <= 0
    window.scripts(allowed=False)
    window.open(page)
    window.scripts(allowed=True)
    assert len(cells(0)) == 1000
    assert window.value("document.querySelector('.script').checkVisibility()") is False
    assert window.wrong() == []
