"""Attention maps as a PNG, drawn by matplotlib."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mt.attention_maps.extract import PARTS, AttentionMaps, HeadMap, head_title, select_maps
from mt.decoding.word_alignment import display_pieces
from mt.errors import MachineError, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#f3f5f9", "#c5d9f4", "#7fb0ea", "#3a7fd5", "#1a4f9c", "#0b2a5e")
"""From 0 to 1, by the root of a weight, so that small ones are visible."""
MAX_LABELS = 60
"""Most pieces of a side with labels."""
MAX_LABEL_LENGTH = 24
"""Most characters of a label."""
WIDEST, DOTS = 40.0, 110
"""Approximate inches of the maps of a layer; dots an inch."""
FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC",
    "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "Arial Unicode MS",
)  # fmt: skip
"""Fonts for the characters, in the order of search."""


def render_png(
    maps: AttentionMaps, part: str, layer: int | None = None, head: int | None = None
) -> bytes:
    """A PNG of the maps of a part: a row a layer, a column a head.

    Raises:
        ConfigError: there is no such part, layer or head.
        MachineError: matplotlib is not installed.
    """
    selected = select_maps(maps, part, layer, head)
    try:
        import matplotlib
        from matplotlib.font_manager import get_font_names
    except ImportError:
        advice = "pip install 'mt[plot]'"
        raise MachineError("PLOT", "--png", "matplotlib is not installed", advice) from None
    installed = set(get_font_names())
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # it is shown as a box
        matplotlib.rcParams["font.family"] = [name for name in FONTS if name in installed]
        buffer = io.BytesIO()
        _draw_figure(maps, part, selected).savefig(buffer, format="png", dpi=DOTS)
    return buffer.getvalue()


def _draw_figure(maps: AttentionMaps, part: str, selected: Sequence[HeadMap]) -> Figure:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.figure import Figure

    layers, heads = (sorted({each[i] for each in selected}) for i in (0, 1))
    names = [display_pieces(axis) for axis in maps.axes(part)]
    longest = max(map(len, names))
    side = min(max(2.2, 0.22 * longest), 9.0 if longest <= MAX_LABELS else 3.0)  # inches
    side = max(2.2, min(9.0 if len(selected) == 1 else side, WIDEST / len(heads)))
    margin = 1.1 if longest <= MAX_LABELS else 0.5
    size = ((side + margin) * len(heads), (side + margin) * len(layers) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(f"{PARTS[part]}: {printable(maps.translation.text, 70)}")
    axes = figure.subplots(len(layers), len(heads), squeeze=False)
    for each in axes.flat:
        each.set_visible(False)
    figures, ramp = maps.heads(part), LinearSegmentedColormap.from_list("weights", COLOURS)
    for layer, head, weights in selected:
        each = axes[layers.index(layer), heads.index(head)]
        each.set_visible(True)
        each.imshow(weights, cmap=ramp, norm=PowerNorm(0.5, 0, 1), aspect="auto")
        each.set_title(head_title(layer, head, *figures[layer - 1][head - 1]), fontsize=8)
        each.tick_params(length=0)
        ticks = zip((each.set_yticks, each.set_xticks), names, (0, 90), strict=True)
        for set_ticks, pieces, rotation in ticks:
            short = [printable(piece, MAX_LABEL_LENGTH) for piece in pieces]
            short = short if len(pieces) <= MAX_LABELS else []
            font = min(8, 50 * side / longest)
            set_ticks(range(len(short)), short, rotation=rotation, fontsize=font)
    return figure
