"""Attention maps and confidences in a terminal."""

from __future__ import annotations

from rich.cells import cell_len
from shown_maps import SOURCE, shown

from mt.attention_maps.terminal import attention_lines, coloured_pieces, translation_lines
from mt.decoding.types import Translation


def test_the_same_in_a_terminal(run, capsys):
    arguments = [run, "--source", SOURCE, "--terminal", "--part", "encoder", "--head", 2]
    code, out, _ = shown(arguments, capsys)
    assert code == 0
    assert out.count("confidence (entropy in bits)") == 3
    assert "encoder self-attention, layer 1, head 2" in out
    assert "layer 1, head 1:" not in out
    assert set(out) & set("░▒▓█")
    assert "\x1b" not in out  # no colours where no terminal is


def found(**more):
    pieces = ("▁Zwei", "▁Hunde", "日本", ".")
    return Translation(
        "Zwei Hunde日本.", -0.5, pieces, (-0.01, -0.3, -1.0, -5.0, -0.1),
        source_tokens=("▁Two", "▁dogs", "日本", "\x1b[2J", "."),
        alignment=tuple((0.9, 0.3, 0.05, 0.0, 0.6) for _ in pieces), **more,
    )  # fmt: skip


def test_pieces_are_coloured_by_their_probability():
    text = coloured_pieces(found())
    assert text.plain.startswith("Zwei Hunde日本.")
    assert [span.style for span in text.spans[:4]] == ["green", "yellow", "dark_orange", "red"]


def test_the_map_is_as_wide_as_the_terminal_and_shades_each_cell():
    for width in (20, 30, 200):
        lines = [line.plain for line in attention_lines(found(), width)]
        assert len(lines) % 5 == 0
        assert all(cell_len(line) <= width for line in lines)
        assert not any("\x1b" in line for line in lines)
    heading, first, *_ = lines
    assert heading.split() == ["Two", "dogs", "日本", "\\x1b[2J", "."]
    assert cell_len(heading) == cell_len(first)
    assert first.split("0.99 ")[1].startswith("███ ░░░░")


def test_nothing_that_is_shown_can_steer_the_terminal():
    evil = Translation("a\x1b[2Jb", -1.0, ("▁a\x1b[2Jb",), (-0.5, -0.5))
    shown = [line.plain for line in translation_lines(evil, 80)]
    assert shown == ["a\\x1b[2Jb   (-1.000)"]
