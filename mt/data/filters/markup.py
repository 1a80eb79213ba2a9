"""Leftovers of HTML and of wikis: tags, character references, links, templates, headings.

OpusFilter's `HtmlTagFilter` drops lines with tags; mozilla/translations repairs them (`fix_wiki`:
footnotes, links, headings). A placeholder such as `<x id="0"/>` is no leftover.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from mt.config.schema import FilterConfig
from mt.data.cleaning import Context, EachSide, Filter

_MARKUP = re.compile(
    r"</?(?!(?:x|g|bx|ex|ph)\b)[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]{0,200})?/?>"
    r"|<!--|-->"
    r"|&(?:#\d{1,6}|#[xX][0-9a-fA-F]{1,5}|[a-zA-Z]{2,8});"
    r"|\[\[|\]\]|\{\||\|\}|'''|\{\{[^{}]{0,200}[|:\s][^{}]{0,200}\}\}"
    r"|^={2,5}[^=]+={2,5}\s*$"
    r"|\[(?:\d{1,3}|edit|citation needed)\]"
)
_SIGNS = re.compile(r"[<&\[\]{}|='>]")


class Config(FilterConfig):
    """Nothing to choose."""

    kind: Literal["markup"] = "markup"

    compares_sides: ClassVar[bool] = False


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    return EachSide(_judge, _judge)


def _judge(text: str) -> str | None:
    if not _SIGNS.search(text):  # decides nearly all lines at once
        return None
    found = _MARKUP.search(text)
    return found[0][:60] if found else None
