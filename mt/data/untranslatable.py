"""What a translation keeps as it is: addresses and placeholders."""

from __future__ import annotations

import re

# An address has ASCII characters only: the Chinese that follows one without a space is no part.
_ADDRESS = re.compile(
    r"(?:https?://|ftp://|www\.)[!-~]+|[A-Za-z0-9.+_-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
)
_SCHEME = re.compile(r"^(?:https?://|ftp://)?(?:www\.)?")
_PLACEHOLDER = re.compile(
    r"\$?\{\{?\s?[\w.]{0,60}\s?\}?\}"
    r"|(?<![\d%])(?<!\d\s)%(?:\d+\$|\(\w+\))?[sdifuxc@](?!\w)"
    r"|</?(?:x|g|bx|ex|ph)\b[^<>]{0,80}>"
)
_SIGNS = re.compile(r"[{%<]")


def addresses(text: str) -> list[str]:
    """Return internet and e-mail addresses, without scheme, case and the marks of the sentence."""
    if "." not in text or not ("//" in text or "www" in text or "@" in text):
        return []
    found = _ADDRESS.findall(text)
    return [_SCHEME.sub("", address).rstrip(".,;:!?'\")]}>/").lower() for address in found]


def placeholders(text: str) -> list[str]:
    """Return the placeholders of software texts: `{0}`, `%s`, `${name}`, `<x/>`."""
    return _PLACEHOLDER.findall(text) if _SIGNS.search(text) else []
