"""What a model attends to while it says a translation: every head of every layer, from its forward.

Legend: H heads, T rows (what looks), S columns (what is looked at).
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
from mt.decoding.types import AttentionSearcher, EngineOptions, Hypothesis, Sentence, Translation
from mt.errors import ConfigError, DataError
from mt.special_tokens import BEGIN, END

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTS = {
    "cross": "cross-attention",
    "encoder": "encoder self-attention",
    "decoder": "decoder self-attention",
}
"""The attentions that a model may have, those that translate first."""
MAX_WEIGHTS = 5
"""Alternatives that are shown unasked."""


@dataclass(frozen=True)
class AttentionMaps:
    """A source, a translation of it, and what each head of each layer attended to."""

    translation: Translation
    source: tuple[str, ...]
    """The pieces that were read, the last is the end."""
    inputs: tuple[str, ...]
    """The pieces that the decoder was fed, the first is the beginning."""
    outputs: tuple[str, ...]
    """The piece that it said at each position, the last is the end."""
    maps: Mapping[str, Sequence[NDArray[np.float32]]]
    """For each of `PARTS` that the model has, the weights [H, T, S] of each layer."""

    def axes(self, part: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What looks (down) and what is looked at (across) in the maps of a part."""
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
    """In bits, the mean over rows [H] of weights [H, T, S]: 0 looks at one, log2 S at all alike."""
    wide = weights.astype(np.float64)
    logs = np.log2(wide, out=np.zeros_like(wide), where=wide > 0)
    return -(wide * logs).sum(axis=2).mean(axis=1) + 0.0  # no negative zero


def confidence(weights: NDArray[np.float32], end: int | None) -> NDArray[np.float64]:
    """The mean over rows of the largest weight [H] of weights [H, T, S].

    The end of the sentence does not count as looked at, for it is no word (Voita et al. 2019,
    section 4).

    Args:
        weights: of one layer.
        end: the column of the end, where there is one.
    """
    words = weights if end is None else np.delete(weights, end, axis=2)
    return words.max(axis=2).mean(axis=1, dtype=np.float64)


def open_with_attention(path: Path, options: EngineOptions) -> TextTranslator:
    """The engine of a model that tells what it attends to.

    Raises:
        ConfigError: what lies there tells nothing of it.
        ModelError: there is no model.
    """
    engine = open_engine(path, options)
    if isinstance(engine, TextTranslator) and isinstance(engine.searcher, AttentionSearcher):
        return engine
    kind = type(engine).__module__.rpartition(".")[2]
    if isinstance(engine, TextTranslator):
        kind = type(engine.searcher).__module__.rpartition(".")[2]
    what = f"the {kind} engine does not tell what each head attends to"
    raise ConfigError("ATTENTION", path, what, "give the run that it was exported from")


def extract(
    engine: TextTranslator, source: str, target: str | None = None, n_best: int | None = None,
    options: EngineOptions | None = None,
) -> list[AttentionMaps]:  # fmt: skip
    """What a model attends to when it translates a line, for each alternative, the best first.

    Args:
        engine: of `open_with_attention`.
        source: one line.
        target: what the model is made to say; by default what it finds.
        n_best: how many alternatives; by default as many as the search has beams, at most MOST.
        options: as the engine was opened with.

    Raises:
        ConfigError: the model has no attention, or the search cannot give so many.
        DataError: there is nothing to translate, or it is too long.
    """
    options = options or engine.options
    searcher = cast(AttentionSearcher, engine.searcher)
    sentence = engine.sentence(source, options)
    if target is None:
        config = search_config(engine.profile.search, options.search)
        wanted = n_best or min(MAX_WEIGHTS, getattr(config, "beams", 1))
        asked = replace(options, n_best=wanted, alignments=True, token_scores=True)
        (found,) = engine.searcher.search([sentence], config, asked)
    else:
        found = [searcher.forced(sentence.source, _score_target(engine, target))]
    encoder = None
    sights = []
    for hypothesis in found:
        maps = dict(searcher.attentions(sentence.source, hypothesis.tokens))
        if "encoder" in maps:  # the same whatever is said
            encoder = maps["encoder"] = encoder or maps["encoder"]
        sights.append(_attention_maps(engine, sentence, hypothesis, target, maps))
    return sights


def _score_target(engine: TextTranslator, target: str) -> list[int]:
    """The ids of a given translation, its end included."""
    (ids,) = engine.vocabulary.encode_target([target])
    room = min(engine.profile.longest, engine.profile.positions or 1 << 30) - 1
    if is_blank(target):
        raise DataError("LINE-BLANK", "the target", "there is nothing in it", "give it some text")
    if len(ids) > room:
        what = f"{len(ids)} pieces, the model has room for {room}"
        raise DataError("LINE-LONG", "the target", what, "give one sentence at a time")
    return [*ids, END]


def _attention_maps(
    engine: TextTranslator, sentence: Sentence, found: Hypothesis, target: str | None,
    maps: Mapping[str, Sequence[NDArray[np.float32]]],
) -> AttentionMaps:  # fmt: skip
    vocabulary = engine.vocabulary
    source = tuple(vocabulary.pieces_source(sentence.source))
    outputs = tuple(vocabulary.pieces_target(found.tokens))
    (begin,) = vocabulary.pieces_target([BEGIN])
    text = target or vocabulary.decode_target([found.tokens])[0]
    told = to_translation(vocabulary, source[sentence.front : -1], found, text, sentence)
    return AttentionMaps(told, source, (begin, *outputs[:-1]), outputs, maps)


def num_weights(sight: AttentionMaps, parts: Sequence[str]) -> int:
    """How many weights the maps of some parts of a sight have."""
    return sum(math.prod(layer.shape) for part in parts for layer in sight.maps.get(part, ()))


HeadMap = tuple[int, int, "NDArray[np.float32]"]
"""A layer and a head, counted from 1, and the weights [T, S]."""


def select_maps(
    sight: AttentionMaps, part: str, layer: int | None, head: int | None
) -> list[HeadMap]:
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


def head_title(layer: int, head: int, bits: float, sure: float) -> str:
    """The title of a head's map."""
    return f"layer {layer}, head {head}: confidence {sure:.2f}, entropy {bits:.2f} bits"
