"""Internet and e-mail addresses that the sides do not share.

mozilla/translations drops pairs with other addresses (`url_mismatch`).
"""

from __future__ import annotations

import re
from typing import Literal

from mt.config.schema import FilterConfig
from mt.data.cleaning import Context, EachPair, Filter
from mt.data.duplicates import missing_part

# An address has ASCII characters only: the Chinese that follows one without a space is no part.
_ADDRESS = re.compile(
    r"(?:https?://|ftp://|www\.)[!-~]+|[A-Za-z0-9.+_-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
)
_SCHEME = re.compile(r"^(?:https?://|ftp://)?(?:www\.)?")


class Config(FilterConfig):
    """Nothing to choose."""

    kind: Literal["urls"] = "urls"


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    return EachPair(_judge)


def _judge(source: str, target: str) -> str | None:
    a, b = _addresses(source), _addresses(target)
    return missing_part(a, b) if a or b else None


def _addresses(text: str) -> list[str]:
    """Return the addresses of a text, without scheme, case and the marks of the sentence."""
    if "." not in text or not ("//" in text or "www" in text or "@" in text):
        return []
    found = _ADDRESS.findall(text)
    return [_SCHEME.sub("", address).rstrip(".,;:!?'\")]}>/").lower() for address in found]
