"""Attention maps of a translation: every head of every layer, from the model's forward pass.

Legend: H heads, T rows (queries), S columns (keys).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from mt.data.text import is_blank
from mt.decoding.text_translator import TextTranslator, search_config, to_translation
from mt.decoding.translate import open_engine
from mt.decoding.types import AttentionSearcher, EngineOptions, Translation
from mt.errors import ConfigError, DataError
from mt.special_tokens import BEGIN, END

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTS = {
    "cross": "cross-attention",
    "encoder": "encoder self-attention",
    "decoder": "decoder self-attention",
}
"""The attentions that a model may have, the most useful first."""
MAX_ALTERNATIVES = 5
"""Most alternatives by default."""


@dataclass(frozen=True)
class AttentionMaps:
    """A source, a translation of it, and the attention of each head of each layer."""

    translation: Translation
    source: tuple[str, ...]
    """The pieces that the encoder read, the end last."""
    inputs: tuple[str, ...]
    """The pieces that the decoder read, the beginning first."""
    outputs: tuple[str, ...]
    """The pieces that it wrote, the end last."""
    maps: Mapping[str, Sequence[NDArray[np.float32]]]
    """For each of `PARTS` that the model has, the weights [H, T, S] of each layer."""

    def axes(self, part: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The pieces of the rows and of the columns in the maps of a part."""
        rows = self.source if part == "encoder" else self.outputs
        return rows, self.inputs if part == "decoder" else self.source

    def heads(self, part: str) -> list[list[tuple[float, float]]]:
        """Entropy and confidence of each head, a list a layer."""
        end = None if part == "decoder" else len(self.source) - 1
        return [
            list(zip(entropy(layer).tolist(), confidence(layer, end).tolist(), strict=True))
            for layer in self.maps[part]
        ]


def entropy(weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean entropy of the rows [H] of weights [H, T, S], in bits, from 0 to log2 S."""
    wide = weights.astype(np.float64)
    logs = np.log2(wide, out=np.zeros_like(wide), where=wide > 0)
    return -(wide * logs).sum(axis=2).mean(axis=1) + 0.0  # no negative zero


def confidence(weights: NDArray[np.float32], end: int | None) -> NDArray[np.float64]:
    """The mean over rows of the largest weight [H] of weights [H, T, S].

    The column `end` of the sentence's end does not count (Voita et al. 2019, section 4).
    """
    words = weights if end is None else np.delete(weights, end, axis=2)
    return words.max(axis=2).mean(axis=1, dtype=np.float64)


def open_with_attention(path: Path, options: EngineOptions) -> TextTranslator:
    """The engine of a model that returns its attention.

    Raises:
        ConfigError: the engine does not.
        ModelError: there is no model.
    """
    engine = open_engine(path, options)
    inner = engine.searcher if isinstance(engine, TextTranslator) else engine
    if isinstance(engine, TextTranslator) and isinstance(inner, AttentionSearcher):
        return engine
    kind = type(inner).__module__.rpartition(".")[2]
    what = f"the {kind} engine does not tell what each head attends to"
    raise ConfigError("ATTENTION", path, what, "give the run that it was exported from")


def extract(
    engine: TextTranslator, source: str, target: str | None = None, n_best: int | None = None
) -> list[AttentionMaps]:
    """The attention maps of the translations of a line, the best first.

    Args:
        engine: of `open_with_attention`.
        target: a given translation; by default the model's own.
        n_best: number of translations; by default that of beams, at most MAX_ALTERNATIVES.

    Raises:
        ConfigError: the model has no attention, or the search has fewer beams.
        DataError: a side is blank or too long.
    """
    options, vocabulary = engine.options, engine.vocabulary
    searcher = cast(AttentionSearcher, engine.searcher)
    sentence = engine.sentence(source, options)
    if target is None:
        config = search_config(engine.profile.search, options.search)
        count = n_best or min(MAX_ALTERNATIVES, getattr(config, "beams", 1))
        options = replace(options, n_best=count, alignments=True, token_scores=True)
        (hypotheses,) = engine.searcher.search([sentence], config, options)
    else:
        hypotheses = [searcher.forced(sentence.source, _encode_target(engine, target))]
    pieces = tuple(vocabulary.pieces_source(sentence.source))
    (begin,) = vocabulary.pieces_target([BEGIN])
    encoder, results = None, []
    for hypothesis in hypotheses:
        maps = dict(searcher.attentions(sentence.source, hypothesis.tokens))
        if "encoder" in maps:  # the same for every target
            encoder = maps["encoder"] = encoder or maps["encoder"]
        outputs = tuple(vocabulary.pieces_target(hypothesis.tokens))
        text = target or vocabulary.decode_target([hypothesis.tokens])[0]
        translation = to_translation(
            vocabulary, pieces[sentence.front : -1], hypothesis, text, sentence
        )
        results.append(AttentionMaps(translation, pieces, (begin, *outputs[:-1]), outputs, maps))
    return results


def _encode_target(engine: TextTranslator, target: str) -> list[int]:
    """The ids of a given translation, its end included."""
    (ids,) = engine.vocabulary.encode_target([target])
    room = min(engine.profile.longest, engine.profile.positions or 1 << 30) - 1
    if is_blank(target):
        raise DataError("LINE-BLANK", "the target", "there is nothing in it", "give it some text")
    if len(ids) > room:
        what = f"{len(ids)} pieces, the model has room for {room}"
        raise DataError("LINE-LONG", "the target", what, "give one sentence at a time")
    return [*ids, END]


def num_weights(maps: AttentionMaps, parts: Sequence[str]) -> int:
    """The number of weights in the maps of some parts."""
    return sum(math.prod(layer.shape) for part in parts for layer in maps.maps.get(part, ()))


HeadMap = tuple[int, int, "NDArray[np.float32]"]
"""A layer and a head, counted from 1, and the weights [T, S]."""


def select_maps(
    maps: AttentionMaps, part: str, layer: int | None, head: int | None
) -> list[HeadMap]:
    """The maps of a part: all, those of a layer, those of a head.

    Raises:
        ConfigError: there is no such part, layer or head.
    """
    if part not in maps.maps:
        what = f"this model has none; it has: {', '.join(maps.maps)}"
        raise ConfigError("ATTENTION", f"--part {part}", what, "choose one of these")
    layers = list(enumerate(maps.maps[part], start=1))
    if layer is not None and not 0 < layer <= len(layers):
        what = f"the {PARTS[part]} has layers 1 to {len(layers)}"
        raise ConfigError("ATTENTION", f"--layer {layer}", what, "choose one of these")
    layers = layers if layer is None else [layers[layer - 1]]
    selected = [
        (number, place, each)
        for number, heads in layers
        for place, each in enumerate(heads, start=1)
        if head in (None, place)
    ]
    if not selected:
        most = max(len(heads) for _, heads in layers)
        what = f"there are heads 1 to {most}" if most else "no head is left there"
        raise ConfigError("ATTENTION", f"--head {head}", what, "choose another")
    return selected


def head_title(layer: int, head: int, bits: float, confidence: float) -> str:
    """The title of a head's map."""
    return f"layer {layer}, head {head}: confidence {confidence:.2f}, entropy {bits:.2f} bits"
