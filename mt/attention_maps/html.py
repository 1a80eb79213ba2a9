"""What a model attends to, shown: as a page for a browser, as a picture, in a terminal.

The page is one file that asks for nothing from outside; `page.html` is what it is made from.

Legend: H heads, T rows (what looks), S columns (what is looked at).
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mt.attention_maps.extract import PARTS, Sight, cells
from mt.cli import interactive
from mt.decoding import output_formats
from mt.decoding.output_formats import readable, words
from mt.errors import ConfigError, DataError, MachineError, printable
from mt.runtime import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from rich.text import Text

_Map = tuple[int, int, "NDArray[np.float32]"]
"""A layer and a head, counted from 1, and the weights [T, S]."""
TEMPLATE = Path(__file__).with_name("page.html")
FINE, COARSE = 65535, 255
"""Levels of a weight on the page, in two bytes or in one."""
MANY = 1 << 20
"""Weights of all alternatives up to which they have two bytes each."""
ROOM = 8 << 20
"""Weights that a page holds; alternatives whose maps do not fit are told without them."""
RAMP = ("#f3f5f9", "#c5d9f4", "#7fb0ea", "#3a7fd5", "#1a4f9c", "#0b2a5e")
"""From nothing to all; colours go by the root of a weight, so that small ones can be seen."""
LABELLED = 60
"""Most pieces of a side that a picture names."""
NAMED = 24
"""Most characters of such a name."""
WIDEST, DOTS = 40.0, 110
"""Inches of the maps of a layer in a picture, about; dots an inch."""
FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC",
    "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "Arial Unicode MS",
)  # fmt: skip
"""Where a picture looks for characters, in this order."""


# ------------------------------------------------------------------------------- the page


def page(sights: Sequence[Sight], about: Mapping[str, Any]) -> str:
    """One HTML page for all alternatives; it runs from a file and may fetch nothing.

    Args:
        sights: of `seeing.look`.
        about: what is told of the model: `model`, `checkpoint`, `source` and `target`
            (languages), `forced` (whether the translation was given).

    Raises:
        DataError: the first one alone is too large.
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    data = json.dumps(_data(sights, about), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":  # no text can end the script that holds it
        data = data.replace(character, f"\\u{ord(character):04x}")
    parts = {
        "policy": _policy(template),
        "title": html.escape(sights[0].translation.text),
        "plain": "".join(f"<p dir=auto>{html.escape(s.translation.text)}</p>" for s in sights),
        "data": data,
    }
    # In one go, so that no text is taken for a place.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)


def _policy(template: str) -> str:
    """The Content-Security-Policy: nothing but the style and the script that are in the page."""
    found = (re.search(rf"<{tag}>(.*?)</{tag}>", template, re.S) for tag in ("style", "script"))
    style, script = (
        base64.b64encode(hashlib.sha256(each[1].encode()).digest()).decode()
        for each in found
        if each is not None
    )
    allowed = f"style-src 'sha256-{style}'; script-src 'sha256-{script}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _data(sights: Sequence[Sight], about: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows, as JSON."""
    first = sights[0]
    own = [part for part in first.maps if part != "encoder"]
    left = ROOM - cells(first, ["encoder"])
    fitting, held = [], 0
    for sight in sights:
        left -= cells(sight, own)
        fitting.append(left >= 0)
        held = ROOM - left if left >= 0 else held
    if not fitting[0]:
        what = f"its maps have {cells(first, list(first.maps)):,} weights, a page holds {ROOM:,}"
        raise DataError("PAGE-LARGE", "the source", what, "give a shorter one, or --terminal")
    levels = FINE if held <= MANY else COARSE
    value: dict[str, Any] = {
        **about,
        "levels": levels,
        "parts": [[part, PARTS[part]] for part in PARTS if part in first.maps],
        "pieces": readable(first.source),
        "raw": first.source,
        "encoder": _layers(first, "encoder", levels) if "encoder" in first.maps else None,
        "translations": [],
    }
    for sight, fits in zip(sights, fitting, strict=True):
        found = _translation(sight)
        found |= {part: _layers(sight, part, levels) if fits else None for part in own}
        value["translations"].append(found)
    return value


def _translation(sight: Sight) -> dict[str, Any]:
    found = sight.translation
    return {
        "text": found.text,
        "score": output_formats.rounded(found.score),
        "inputs": readable(sight.inputs),
        "outputs": readable(sight.outputs),
        "probabilities": [
            output_formats.rounded(float(np.exp(g))) for g in found.log_probabilities
        ],
        "pharaoh": output_formats.pharaoh(found),
        "links": output_formats.links(found),
        "source_words": [word for word, _ in words(found.source_tokens)],
        "words": [word for word, _ in words(found.tokens)],
    }


def _layers(sight: Sight, part: str, levels: int) -> list[dict[str, Any]]:
    """For each layer the entropy and confidence of its heads, and all their weights."""
    return [
        {
            "heads": [[round(value, 4) for value in head] for head in heads],
            "weights": base64.b64encode(quantised(layer, levels)).decode(),
        }
        for layer, heads in zip(sight.maps[part], sight.heads(part), strict=True)
    ]


def quantised(weights: NDArray[np.float32], levels: int) -> bytes:
    """The roots of weights as whole numbers up to `levels`, little-endian.

    Of the root, because small weights are told as well as large ones then: one of w is off by at
    most sqrt(w) / levels, and a row of S of them sums to 1 within sqrt(S) / levels.
    """
    kind = "<u2" if levels > COARSE else "u1"
    return np.rint(np.sqrt(weights.astype(np.float64)) * levels).astype(kind).tobytes()


# ------------------------------------------------------------------- a picture, a terminal


def chosen(sight: Sight, part: str, layer: int | None, head: int | None) -> list[_Map]:
    """The maps of a part: all, those of a layer, those of a head.

    Raises:
        ConfigError: there is no such part, layer or head.
    """
    if part not in sight.maps:
        what = f"this model has none; it has: {', '.join(sight.maps)}"
        raise ConfigError("ATTENTION", f"--part {part}", what, "choose one of these")
    layers = list(enumerate(sight.maps[part], start=1))
    if layer is not None and not 0 < layer <= len(layers):
        what = f"the {PARTS[part]} has layers 1 to {len(layers)}"
        raise ConfigError("ATTENTION", f"--layer {layer}", what, "choose one of these")
    wanted = layers if layer is None else [layers[layer - 1]]
    found = [
        (number, place, each)
        for number, heads in wanted
        for place, each in enumerate(heads, start=1)
        if head in (None, place)
    ]
    if not found:
        most = max(len(heads) for _, heads in wanted)
        what = f"there are heads 1 to {most}" if most else "no head is left there"
        raise ConfigError("ATTENTION", f"--head {head}", what, "choose another")
    return found


def picture(sight: Sight, part: str, layer: int | None = None, head: int | None = None) -> bytes:
    """A PNG of the maps of a part: a row a layer, a column a head.

    Raises:
        ConfigError: there is no such part, layer or head.
        MachineError: matplotlib is not installed.
    """
    maps = chosen(sight, part, layer, head)
    try:
        import matplotlib
        from matplotlib.font_manager import get_font_names
    except ImportError:
        advice = "pip install 'mt[plot]'"
        raise MachineError("PLOT", "--png", "matplotlib is not installed", advice) from None
    known = set(get_font_names())
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # it is shown as a box
        matplotlib.rcParams["font.family"] = [name for name in FONTS if name in known]
        buffer = io.BytesIO()
        _figure(sight, part, maps).savefig(buffer, format="png", dpi=DOTS)
    return buffer.getvalue()


def _figure(sight: Sight, part: str, maps: Sequence[_Map]) -> Figure:
    """The figure of some maps."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.figure import Figure

    layers, heads = (sorted({each[i] for each in maps}) for i in (0, 1))
    names = [readable(axis) for axis in sight.axes(part)]
    longest = max(map(len, names))
    side = min(max(2.2, 0.22 * longest), 9.0 if longest <= LABELLED else 3.0)  # inches
    side = max(2.2, min(9.0 if len(maps) == 1 else side, WIDEST / len(heads)))
    margin = 1.1 if longest <= LABELLED else 0.5
    size = ((side + margin) * len(heads), (side + margin) * len(layers) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(f"{PARTS[part]}: {printable(sight.translation.text, 70)}")
    axes = figure.subplots(len(layers), len(heads), squeeze=False)
    for each in axes.flat:
        each.set_visible(False)
    told, ramp = sight.heads(part), LinearSegmentedColormap.from_list("weights", RAMP)
    for layer, head, weights in maps:
        each = axes[layers.index(layer), heads.index(head)]
        each.set_visible(True)
        each.imshow(weights, cmap=ramp, norm=PowerNorm(0.5, 0, 1), aspect="auto")
        each.set_title(_told(layer, head, *told[layer - 1][head - 1]), fontsize=8)
        each.tick_params(length=0)
        ticks = zip((each.set_yticks, each.set_xticks), names, (0, 90), strict=True)
        for put, pieces, rotation in ticks:
            short = [printable(piece, NAMED) for piece in pieces]
            short = short if len(pieces) <= LABELLED else []
            put(range(len(short)), short, rotation=rotation, fontsize=min(8, 50 * side / longest))
    return figure


def _told(layer: int, head: int, bits: float, sure: float) -> str:
    return f"layer {layer}, head {head}: confidence {sure:.2f}, entropy {bits:.2f} bits"


def print_lines(
    sights: Sequence[Sight], part: str, layer: int | None = None, head: int | None = None
) -> None:
    """Write the lines of `terminal_lines` to standard output, coloured where it has colours."""
    from rich.console import Console

    with files.output(None) as out:
        console = Console(file=out, highlight=False, soft_wrap=True)
        for line in terminal_lines(sights, part, layer, head, console.width):
            console.print(line)


def terminal_lines(
    sights: Sequence[Sight], part: str, layer: int | None, head: int | None, width: int
) -> Iterator[Text]:
    """The same for a terminal of so many columns: all heads in figures, some as maps of the best.

    Raises:
        ConfigError: there is no such part, layer or head.
    """
    from rich.text import Text

    best = sights[0]
    maps = chosen(best, part, layer, head)
    alternatives = tuple(sight.translation for sight in sights)
    found = replace(best.translation, alternatives=alternatives, alignment=None)
    yield from interactive.shown_lines(found, width)
    yield Text(f"  {output_formats.pharaoh(best.translation)}", style="dim")
    for each in PARTS:
        if each in best.maps:
            yield Text()
            yield from _heads(best, each)
    rows, columns = (readable(axis) for axis in best.axes(part))
    told = best.heads(part)
    for number, place, weights in maps:
        yield Text()
        yield Text(f"{PARTS[part]}, {_told(number, place, *told[number - 1][place - 1])}")
        yield from interactive.shaded_map(
            interactive.flush_right(rows), columns, weights.tolist(), width
        )


def _heads(sight: Sight, part: str) -> Iterator[Text]:
    """Confidence and entropy of each head of a part, a line a layer, in the colour of the first."""
    from rich.text import Text

    yield Text(f"{PARTS[part]}: confidence (entropy in bits) of each head")
    for number, heads in enumerate(sight.heads(part), start=1):
        line = Text(f"  layer {number:<2}", style="dim")
        for bits, sure in heads:
            line.append(f"  {sure:4.2f}", style=interactive.colour(sure))
            line.append(f" ({bits:.1f})", style="dim")
        yield line
