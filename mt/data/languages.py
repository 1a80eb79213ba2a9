"""Language codes and what follows from them."""

from __future__ import annotations

import re

NO_SPACES = {"zh", "ja", "yue", "lzh", "cmn", "zho", "jpn"}
"""Languages whose sentences follow one another without a space."""


def plain_code(language: str) -> str:
    """A language code without its region or script: `zh` of `zh-Hans`."""
    return re.split("[-_]", language.lower())[0]


def space_between(language: str) -> str:
    """What stands between two sentences of a language."""
    return "" if plain_code(language) in NO_SPACES else " "
