"""Language codes and what follows from them."""

from __future__ import annotations

import re

CHINESE = {
    "zh", "zho", "chi", "cmn", "yue", "lzh", "wuu", "nan", "hak", "gan", "hsn", "cdo", "cjy", "cpx",
    "mnp", "czh", "czo",
}  # fmt: skip
JAPANESE = {"ja", "jpn", "ryu"}
KOREAN = {"ko", "kor"}
SPACELESS = CHINESE | JAPANESE
"""Languages whose sentences follow one another without a space."""
SPACELESS_WORDS = {
    "th", "tha", "nod", "sou", "tts", "lo", "lao", "km", "khm", "my", "mya", "bur", "mnw", "shn",
    "ksw", "rki", "bo", "bod", "tib", "dz", "dzo", "khb", "tdd", "blt", "twh",
}  # fmt: skip
"""Languages whose words follow one another without a space, while their sentences may not."""
SPACELESS_SCRIPTS = {"thai", "laoo", "khmr", "mymr", "tibt", "talu", "tale", "tavt", "lana"}
"""ISO 15924 codes of the scripts of SPACELESS_WORDS."""


def subtags(language: str) -> list[str]:
    """Return the parts of a language code in lower case: `[zh, hans]` of `zh-Hans`."""
    return re.split("[-_]", language.lower())


def base_code(language: str) -> str:
    """Return a language code without region or script: `zh` of `zh-Hans`."""
    return subtags(language)[0]


def sentence_separator(language: str) -> str:
    """Return the separator between two sentences of a language."""
    return "" if base_code(language) in SPACELESS else " "
