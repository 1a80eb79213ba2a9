"""Attention maps as a PNG, drawn by matplotlib."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mt.attention_maps.extract import PARTS, AttentionMaps
from mt.decoding.word_alignment import display_pieces
from mt.errors import MachineError, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from mt.attention_maps.extract import HeadMap, head_title, select_maps

COLOURS = ("#f3f5f9", "#c5d9f4", "#7fb0ea", "#3a7fd5", "#1a4f9c", "#0b2a5e")
"""From nothing to all; colours go by the root of a weight, so that small ones can be seen."""
MAX_LABELS = 60
"""Most pieces of a side that a picture names."""
MAX_LABEL_LENGTH = 24
"""Most characters of such a name."""
WIDEST, DOTS = 40.0, 110
"""Inches of the maps of a layer in a picture, about; dots an inch."""
FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC",
    "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "Arial Unicode MS",
)  # fmt: skip
"""Where a picture looks for characters, in this order."""


def render_png(
    sight: AttentionMaps, part: str, layer: int | None = None, head: int | None = None
) -> bytes:
    """A PNG of the maps of a part: a row a layer, a column a head.

    Raises:
        ConfigError: there is no such part, layer or head.
        MachineError: matplotlib is not installed.
    """
    maps = select_maps(sight, part, layer, head)
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
        _draw_figure(sight, part, maps).savefig(buffer, format="png", dpi=DOTS)
    return buffer.getvalue()


def _draw_figure(sight: AttentionMaps, part: str, maps: Sequence[HeadMap]) -> Figure:
    """The figure of some maps."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.figure import Figure

    layers, heads = (sorted({each[i] for each in maps}) for i in (0, 1))
    names = [display_pieces(axis) for axis in sight.axes(part)]
    longest = max(map(len, names))
    side = min(max(2.2, 0.22 * longest), 9.0 if longest <= MAX_LABELS else 3.0)  # inches
    side = max(2.2, min(9.0 if len(maps) == 1 else side, WIDEST / len(heads)))
    margin = 1.1 if longest <= MAX_LABELS else 0.5
    size = ((side + margin) * len(heads), (side + margin) * len(layers) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(f"{PARTS[part]}: {printable(sight.translation.text, 70)}")
    axes = figure.subplots(len(layers), len(heads), squeeze=False)
    for each in axes.flat:
        each.set_visible(False)
    told, ramp = sight.heads(part), LinearSegmentedColormap.from_list("weights", COLOURS)
    for layer, head, weights in maps:
        each = axes[layers.index(layer), heads.index(head)]
        each.set_visible(True)
        each.imshow(weights, cmap=ramp, norm=PowerNorm(0.5, 0, 1), aspect="auto")
        each.set_title(head_title(layer, head, *told[layer - 1][head - 1]), fontsize=8)
        each.tick_params(length=0)
        ticks = zip((each.set_yticks, each.set_xticks), names, (0, 90), strict=True)
        for put, pieces, rotation in ticks:
            short = [printable(piece, MAX_LABEL_LENGTH) for piece in pieces]
            short = short if len(pieces) <= MAX_LABELS else []
            put(range(len(short)), short, rotation=rotation, fontsize=min(8, 50 * side / longest))
    return figure
