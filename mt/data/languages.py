"""Language codes in any usual form, and how languages write.

`de`, `deu`, `ger`, `de_DE` and `deu_Latn` are German; `zh-Hans`, `zho_Hans` and `zh_CN` are Chinese
in simplified characters. `langcodes` has the tables of ISO 639, BCP 47 and CLDR.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

CHINESE = {
    "zh", "cmn", "yue", "lzh", "wuu", "nan", "hak", "gan", "hsn", "cdo", "cjy", "cpx", "mnp", "czh",
    "czo",
}  # fmt: skip
JAPANESE = {"ja", "ryu"}
KOREAN = {"ko"}
SPACELESS = CHINESE | JAPANESE
"""Languages whose sentences follow one another without a space."""
SPACELESS_WORDS = {
    "th", "nod", "sou", "tts", "lo", "km", "my", "mnw", "shn", "ksw", "rki", "bo", "dz", "khb",
    "tdd", "blt", "twh",
}  # fmt: skip
"""Languages whose words follow one another without a space, while their sentences may not."""
SPACELESS_SCRIPTS = {"thai", "laoo", "khmr", "mymr", "tibt", "talu", "tale", "tavt", "lana"}
"""ISO 15924 codes of the scripts of SPACELESS_WORDS."""


class LanguageParts(NamedTuple):
    """The parts of a language code, in lower case; empty where it does not say."""

    base: str
    """The shortest code of ISO 639: `de`, `zh`, `yue`."""
    script: str
    """ISO 15924."""
    territory: str
    """ISO 3166."""


@functools.lru_cache(maxsize=10_000)
def parse_language(code: str) -> LanguageParts:
    """Parse a language code of any usual form; of any other text, the parts that it seems to have.

    A script that goes without saying (`Latn` of German) is left out.
    """
    import langcodes

    plain = code.strip().replace("_", "-")
    try:
        tag = langcodes.Language.get(plain).simplify_script()
    except ValueError:
        first, *others = plain.lower().split("-")
        script = next((part for part in others if len(part) == 4 and part.isalpha()), "")
        return LanguageParts(first, script, "")
    parts = (tag.language, tag.script, tag.territory)
    return LanguageParts(*((part or "").lower() for part in parts))


def base_code(language: str) -> str:
    """Return a language code without region or script: `zh` of `zh-Hans` and of `zho`."""
    return parse_language(language).base


def language_distance(code: str, other: str) -> int | None:
    """Return 0 if two codes mean the same, 1 if only one of them names a region, else None.

    The language must be the same, and the script, which may go without saying: that of `zh_TW` is
    not that of `zh`.
    """
    a, b = _likely(code), _likely(other)
    if a[:2] != b[:2]:
        return None
    if a.territory == b.territory:
        return 0
    return 1 if "" in (a.territory, b.territory) else None


@functools.lru_cache(maxsize=10_000)
def _likely(code: str) -> LanguageParts:
    """Parse a language code; a script that it does not say is the one that it likely has."""
    import langcodes

    parts = parse_language(code)
    try:
        script = langcodes.Language.get(code.strip().replace("_", "-")).maximize().script
    except ValueError:
        return parts
    return parts._replace(script=(script or "").lower())


def match_languages(code: str, codes: Iterable[str]) -> list[str]:
    """Return those of `codes` that are nearest to a code, none if no one is near."""
    distances = {each: language_distance(code, each) for each in codes}
    known = [distance for distance in distances.values() if distance is not None]
    return [each for each, distance in distances.items() if known and distance == min(known)]


def find_code(code: str, codes: Iterable[str]) -> str:
    """Return a code as it is in `codes`, else the one of them that means it, else itself."""
    names = list(codes)
    nearest = [code] if code in names else match_languages(code, names)
    return nearest[0] if len(nearest) == 1 else code


def same_language(code: str, other: str) -> bool:
    """Whether two codes can mean the same language."""
    return language_distance(code, other) is not None


def split_pair(pair: str) -> tuple[str, str] | None:
    """Split `de-en` or `zh-Hans-en` into its two codes; None if it is not a pair of codes."""
    import langcodes

    parts = pair.split("-")
    splits = [("-".join(parts[:n]), "-".join(parts[n:])) for n in range(1, len(parts))]
    if len(splits) > 1:
        valid = langcodes.tag_is_valid
        splits = [(a, b) for a, b in splits if valid(a) and valid(b)]
    codes = [
        each for each in splits if all(re.fullmatch(r"[A-Za-z]{2,8}([-_]\w+)*", c) for c in each)
    ]
    return codes[0] if len(codes) == 1 else None


def sentence_separator(language: str) -> str:
    """Return the separator between two sentences of a language."""
    return "" if base_code(language) in SPACELESS else " "
