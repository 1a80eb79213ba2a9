"""Attention maps as one HTML page, made from `page.html`, that loads nothing from outside."""

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
from mt.decoding.output_formats import round_number
from mt.decoding.word_alignment import display_pieces, format_pharaoh, to_words, word_links
from mt.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEMPLATE = Path(__file__).with_name("page.html")
FINE, COARSE = 65535, 255
"""Levels of a weight on the page, in two bytes or in one."""
FINE_WEIGHTS = 1 << 20
"""Most weights of all alternatives with two bytes each."""
MAX_PAGE_WEIGHTS = 8 << 20
"""Most weights of a page; alternatives whose maps do not fit have none."""


def render_html(alternatives: Sequence[AttentionMaps], about: Mapping[str, Any]) -> str:
    """One HTML page for all alternatives of `extract`, the best first.

    Args:
        about: `model`, `checkpoint`, `source` and `target` (languages), and `forced` (whether the
            translation was given).

    Raises:
        DataError: the first one alone is too large.
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    data = json.dumps(_page_data(alternatives, about), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":  # no text can end the script that contains it
        data = data.replace(character, f"\\u{ord(character):04x}")
    texts = [html.escape(each.translation.text) for each in alternatives]
    fields = {
        "policy": _content_security_policy(template),
        "title": texts[0],
        "plain": "".join(f"<p dir=auto>{text}</p>" for text in texts),
        "data": data,
    }
    # In one pass, so that no text is taken for a field.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: fields[place[1]], template)


def _content_security_policy(template: str) -> str:
    """Allow only the style and the script that are in the page."""
    hashes = []
    for tag in ("style", "script"):
        text = "".join(re.findall(rf"<{tag}>(.*?)</{tag}>", template, re.S)[:1])
        hashes.append(base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())
    allowed = f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _page_data(alternatives: Sequence[AttentionMaps], about: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of the page, as JSON."""
    first = alternatives[0]
    own = [part for part in first.maps if part != "encoder"]
    left = MAX_PAGE_WEIGHTS - num_weights(first, ["encoder"])
    fitting, used = [], 0
    for each in alternatives:
        left -= num_weights(each, own)
        fitting.append(left >= 0)
        used = MAX_PAGE_WEIGHTS - left if left >= 0 else used
    if not fitting[0]:
        count = num_weights(first, list(first.maps))
        what = f"its maps have {count:,} weights, a page holds {MAX_PAGE_WEIGHTS:,}"
        raise DataError("PAGE-LARGE", "the source", what, "give a shorter one, or --terminal")
    levels = FINE if used <= FINE_WEIGHTS else COARSE
    translations = [
        _translation_data(each)
        | {part: _layer_data(each, part, levels) if fits else None for part in own}
        for each, fits in zip(alternatives, fitting, strict=True)
    ]
    return {
        **about,
        "levels": levels,
        "parts": [[part, PARTS[part]] for part in PARTS if part in first.maps],
        "pieces": display_pieces(first.source),
        "raw": first.source,
        "encoder": _layer_data(first, "encoder", levels) if "encoder" in first.maps else None,
        "translations": translations,
    }


def _translation_data(maps: AttentionMaps) -> dict[str, Any]:
    one = maps.translation
    return {
        "text": one.text,
        "score": round_number(one.score),
        "inputs": display_pieces(maps.inputs),
        "outputs": display_pieces(maps.outputs),
        "probabilities": [round_number(float(np.exp(value))) for value in one.log_probabilities],
        "pharaoh": format_pharaoh(one),
        "links": word_links(one),
        "source_words": [word for word, _ in to_words(one.source_tokens)],
        "words": [word for word, _ in to_words(one.tokens)],
    }


def _layer_data(maps: AttentionMaps, part: str, levels: int) -> list[dict[str, Any]]:
    """For each layer the entropy and confidence of its heads, and all their weights."""
    return [
        {
            "heads": [[round(value, 4) for value in head] for head in heads],
            "weights": base64.b64encode(quantize(layer, levels)).decode(),
        }
        for layer, heads in zip(maps.maps[part], maps.heads(part), strict=True)
    ]


def quantize(weights: NDArray[np.float32], levels: int) -> bytes:
    """The roots of weights as integers up to `levels`, little-endian.

    Roots keep small weights precise, too: the error of w is at most sqrt(w) / levels, and a row of
    S weights sums to 1 within sqrt(S) / levels.
    """
    kind = "<u2" if levels > COARSE else "u1"
    return np.rint(np.sqrt(weights.astype(np.float64)) * levels).astype(kind).tobytes()
