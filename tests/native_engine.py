"""The native engine of tiny runs, and lines for it."""

from __future__ import annotations

import tiny_run

from mt.config.plugins import plugin
from mt.data.pairs import Pair
from mt.decoding.types import EngineOptions

native = plugin("engines", "native")

ONE = EngineOptions(threads=1, precision="fp32")


def options(**more):
    return EngineOptions(threads=1, **{"precision": "fp32", **more})


def texts(engine, lines, **more):
    return [each.text for each in engine.translate(lines, options(**more))]


def pair(source, target):
    return Pair(source, target, "en", "de", "test:1")


LINES = [
    *tiny_run.SOURCES,
    "",
    *tiny_run.SOURCES[::-1],
    "Dogs.",
    "apple apple",
    " ",
    "日本 \U0001f600",
]
