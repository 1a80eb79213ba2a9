"""What a model attends to, shown: as a page for a browser, as a picture, in a terminal.

The page is one file that asks for nothing from outside; `page.html` is what it is made from.

Legend: H heads, T rows (what looks), S columns (what is looked at).
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mt.attention_maps.extract import PARTS, AttentionMaps, num_weights
from mt.decoding import output_formats, word_alignment
from mt.decoding.word_alignment import display_pieces, to_words
from mt.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
TEMPLATE = Path(__file__).with_name("page.html")
FINE, COARSE = 65535, 255
"""Levels of a weight on the page, in two bytes or in one."""
FINE_WEIGHTS = 1 << 20
"""Weights of all alternatives up to which they have two bytes each."""
MAX_PAGE_WEIGHTS = 8 << 20
"""Weights that a page holds; alternatives whose maps do not fit are told without them."""


# ------------------------------------------------------------------------------- the page


def render_html(sights: Sequence[AttentionMaps], about: Mapping[str, Any]) -> str:
    """One HTML page for all alternatives; it runs from a file and may fetch nothing.

    Args:
        sights: of `seeing.look`.
        about: what is told of the model: `model`, `checkpoint`, `source` and `target`
            (languages), `forced` (whether the translation was given).

    Raises:
        DataError: the first one alone is too large.
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    data = json.dumps(_page_data(sights, about), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":  # no text can end the script that holds it
        data = data.replace(character, f"\\u{ord(character):04x}")
    parts = {
        "policy": _content_security_policy(template),
        "title": html.escape(sights[0].translation.text),
        "plain": "".join(f"<p dir=auto>{html.escape(s.translation.text)}</p>" for s in sights),
        "data": data,
    }
    # In one go, so that no text is taken for a place.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)


def _content_security_policy(template: str) -> str:
    """The Content-Security-Policy: nothing but the style and the script that are in the page."""
    found = (re.search(rf"<{tag}>(.*?)</{tag}>", template, re.S) for tag in ("style", "script"))
    style, script = (
        base64.b64encode(hashlib.sha256(each[1].encode()).digest()).decode()
        for each in found
        if each is not None
    )
    allowed = f"style-src 'sha256-{style}'; script-src 'sha256-{script}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _page_data(sights: Sequence[AttentionMaps], about: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows, as JSON."""
    first = sights[0]
    own = [part for part in first.maps if part != "encoder"]
    left = MAX_PAGE_WEIGHTS - num_weights(first, ["encoder"])
    fitting, held = [], 0
    for sight in sights:
        left -= num_weights(sight, own)
        fitting.append(left >= 0)
        held = MAX_PAGE_WEIGHTS - left if left >= 0 else held
    if not fitting[0]:
        count = num_weights(first, list(first.maps))
        what = f"its maps have {count:,} weights, a page holds {MAX_PAGE_WEIGHTS:,}"
        raise DataError("PAGE-LARGE", "the source", what, "give a shorter one, or --terminal")
    levels = FINE if held <= FINE_WEIGHTS else COARSE
    value: dict[str, Any] = {
        **about,
        "levels": levels,
        "parts": [[part, PARTS[part]] for part in PARTS if part in first.maps],
        "pieces": display_pieces(first.source),
        "raw": first.source,
        "encoder": _layer_data(first, "encoder", levels) if "encoder" in first.maps else None,
        "translations": [],
    }
    for sight, fits in zip(sights, fitting, strict=True):
        found = _translation_data(sight)
        found |= {part: _layer_data(sight, part, levels) if fits else None for part in own}
        value["translations"].append(found)
    return value


def _translation_data(sight: AttentionMaps) -> dict[str, Any]:
    found = sight.translation
    return {
        "text": found.text,
        "score": output_formats.round_number(found.score),
        "inputs": display_pieces(sight.inputs),
        "outputs": display_pieces(sight.outputs),
        "probabilities": [
            output_formats.round_number(float(np.exp(g))) for g in found.log_probabilities
        ],
        "pharaoh": word_alignment.format_pharaoh(found),
        "links": word_alignment.word_links(found),
        "source_words": [word for word, _ in to_words(found.source_tokens)],
        "words": [word for word, _ in to_words(found.tokens)],
    }


def _layer_data(sight: AttentionMaps, part: str, levels: int) -> list[dict[str, Any]]:
    """For each layer the entropy and confidence of its heads, and all their weights."""
    return [
        {
            "heads": [[round(value, 4) for value in head] for head in heads],
            "weights": base64.b64encode(quantize(layer, levels)).decode(),
        }
        for layer, heads in zip(sight.maps[part], sight.heads(part), strict=True)
    ]


def quantize(weights: NDArray[np.float32], levels: int) -> bytes:
    """The roots of weights as whole numbers up to `levels`, little-endian.

    Of the root, because small weights are told as well as large ones then: one of w is off by at
    most sqrt(w) / levels, and a row of S of them sums to 1 within sqrt(S) / levels.
    """
    kind = "<u2" if levels > COARSE else "u1"
    return np.rint(np.sqrt(weights.astype(np.float64)) * levels).astype(kind).tobytes()
