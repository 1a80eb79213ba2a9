"""Templates escape in HTML alone, and a page never replaces a file unasked."""

import json

import pytest
from jinja2 import UndefinedError

from mt.errors import ConfigError
from mt.runtime.html_page import render_template, write_page

TEXT = "{{ value }} {{ number|count }} {{ share|percent }}\n"
VALUES = {"value": "<b> & {{ 7 }}", "number": 1000, "share": 0.1234}


@pytest.mark.parametrize(
    ("name", "shown"), [("a.html", "&lt;b&gt; &amp; {{ 7 }}"), ("a.jinja", "<b> & {{ 7 }}")]
)
def test_values_are_escaped_in_html_alone(tmp_path, name, shown):
    (tmp_path / name).write_text(TEXT)
    assert render_template(tmp_path / name, **VALUES) == f"{shown} 1,000 12.34%\n"


def test_a_value_that_is_missing_is_an_error(tmp_path):
    (tmp_path / "a.html").write_text(TEXT)
    with pytest.raises(UndefinedError):
        render_template(tmp_path / "a.html", number=1, share=1)


def test_a_page_and_its_twin_replace_nothing_unasked(tmp_path):
    page = tmp_path / "page.html"
    write_page(lambda: "one", {"n": 1}, page, "name another")
    with pytest.raises(ConfigError, match="name another"):
        write_page(lambda: "two", {"n": 2}, page, "name another")
    page.unlink()
    with pytest.raises(ConfigError, match=r"page\.json"):
        write_page(lambda: "two", {"n": 2}, page, "name another")
    assert json.loads((tmp_path / "page.json").read_text()) == {"n": 1}
    write_page(lambda: "two", {"n": 2}, page, None)
    assert page.read_text() == "two"
    with pytest.raises(ConfigError, match="JSON"):
        write_page(lambda: "x", {}, tmp_path / "x.json", None)
