"""Identification of languages by py3langid, from the extra `data`."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def langid() -> Any:
    """Return the identifier.

    Raises:
        ImportError: py3langid is not installed.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
