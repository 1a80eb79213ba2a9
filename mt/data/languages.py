"""Language codes and what follows from them."""

from __future__ import annotations

import re

SPACELESS = {"zh", "ja", "yue", "lzh", "cmn", "zho", "jpn"}
"""Languages whose sentences follow one another without a space."""


def base_code(language: str) -> str:
    """Return a language code without region or script: `zh` of `zh-Hans`."""
    return re.split("[-_]", language.lower())[0]


def sentence_separator(language: str) -> str:
    """Return the separator between two sentences of a language."""
    return "" if base_code(language) in SPACELESS else " "
