"""Describe the corpora of a recipe: sizes, lengths, doubtful pairs, leaks, scripts, vocabulary.

All pairs are read once, in chunks, by worker processes; memory grows by 24 bytes a pair. What costs
more (languages, vocabulary) is measured on a sample that is spread over the training corpora. The
result is plain data, which `report_page` shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mt.config.recipe import Recipe
from mt.config.schema import DataConfig, SourceConfig
from mt.data import cleaning, encode
from mt.data.cleaned_files import with_default_rules
from mt.data.cleaning import Cleaner, Finding, Sides
from mt.data.corpus import SIDES
from mt.data.duplicates import Hashes, HashSet, hash_texts, normal_form
from mt.data.pairs import read_pairs
from mt.data.process_pool import count_processes, map_in_order
from mt.data.sample_figures import describe_sample
from mt.data.scripts import word_counter
from mt.errors import printable
from mt.runtime.signals import raise_on_stop_signals

FORMAT = 1
LONGEST = 60
"""Words; longer sentences are counted together in the last column of a histogram."""
CELLS = 30
"""Rows and columns of the table of source against target lengths."""
EXAMPLES = 5
"""Shown of each kind of suspect."""
SAMPLE = 20_000
"""Pairs from which languages and vocabulary are described."""
MATCHES = ("pair", "normal", "source", "target")
"""How a training pair may equal a held-out one: exactly; without case, spaces and punctuation; on
one side alone, in this normal form."""


class Measures(NamedTuple):
    """What a worker measures of a chunk."""

    findings: list[Finding | None]
    words: NDArray[np.int32]
    """[2, pairs] of source and target."""
    characters: NDArray[np.int64]
    """[2] of source and target."""
    hashes: dict[str, Hashes]
    """[pairs] by each way to match."""


def describe_data(recipe: Recipe, log: Callable[[str], None]) -> dict[str, Any]:
    """Describe the corpora of a recipe.

    Raises:
        DataError: a corpus cannot be read.
        ConfigError: a rule of `data.clean` is wrong for these languages.
    """
    data = with_default_rules(recipe.data)
    log(f"reading {len(data.train)} training corpora and {1 + len(data.test)} others")
    with raise_on_stop_signals("describing the data"):
        texts = {name: _read_texts(source) for name, source in _held_out_corpora(recipe)}
        held_out = {name: _HeldOut(pairs) for name, pairs in texts.items()}
        cleaners = cleaning.cleaners_for(data, list(chain(*texts.values())), log)
        corpora = [_Corpus(source) for source in data.train]
        pairs = _count_pairs(data, cleaners, corpora, list(held_out.values()))
        sample = cleaning.spread_sample(pairs, SAMPLE)
        return {
            "format": FORMAT,
            "languages": recipe.languages.model_dump(),
            "rules": [rule.label for rule in data.clean],
            "train": [corpus.figures() for corpus in corpora],
            "held_out": {name: corpus.figures() for name, corpus in held_out.items()},
            "sample": describe_sample(recipe, sample),
        }


def _count_pairs(
    data: DataConfig, cleaners: Sequence[Cleaner], corpora: Sequence[_Corpus],
    held_out: Sequence[_HeldOut],
) -> Iterator[tuple[str, str]]:  # fmt: skip
    """Count the training pairs in `corpora` and `held_out`; yield each after it."""
    seen = {side: HashSet() for side in ("pair", "source", "target")}
    for number, sides, origins, measures in measure_chunks(data, cleaners):
        findings = cleaners[number].compare(measures.findings, *sides)
        corpora[number].add(sides, origins, findings, measures, seen)
        for corpus in held_out:
            corpus.compare(sides, origins, measures.hashes)
        yield from ((a or "", b or "") for a, b in zip(*sides, strict=True))


def _read_texts(source: SourceConfig) -> list[tuple[str, str]]:
    return [(pair.source or "", pair.target or "") for pair in read_pairs(source)]


def _held_out_corpora(recipe: Recipe) -> Iterator[tuple[str, SourceConfig]]:
    yield "valid", recipe.data.valid
    yield from ((f"valid.{i}", c) for i, c in enumerate(recipe.data.more_valid, start=1))
    yield from ((f"test.{name}", c) for name, c in recipe.data.test.items())


# ------------------------------------------------------------------------ in worker processes


def measure_chunks(
    data: DataConfig, cleaners: Sequence[Cleaner]
) -> Iterator[tuple[int, Sides, list[str], Measures]]:
    """Yield the chunks of all training corpora, with the origin of each pair, measured.

    `findings` lacks what `Cleaner.compare` adds to it.
    """
    directions = [source.direction for source in data.train]
    counters = [(word_counter(each.source), word_counter(each.target)) for each in directions]
    work = partial(_measure, list(cleaners), counters)
    chunks, processes = encode.chunk_corpora(data.train), count_processes(data.processes)
    for item, measures in map_in_order(work, chunks, processes, lambda item: item[:2]):
        yield *item, measures


def _measure(
    cleaners: Sequence[Cleaner], counters: Sequence[Sequence[Callable[[str], int]]],
    chunk: tuple[int, Sides],
) -> Measures:  # fmt: skip
    number, sides = chunk
    texts = [[line or "" for line in side] for side in sides]
    words = [[*map(count, side)] for count, side in zip(counters[number], texts, strict=True)]
    characters = [sum(map(len, side)) for side in texts]
    return Measures(
        cleaners[number].judge(*sides), np.array(words, np.int32), np.array(characters),
        _hash_pairs(*texts),
    )  # fmt: skip


def _hash_pairs(sources: Sequence[str], targets: Sequence[str]) -> dict[str, Hashes]:
    """Return the hashes by which pairs are compared, for each of MATCHES."""
    a, b = ([*map(normal_form, side)] for side in (sources, targets))
    return {
        "pair": hash_texts(map("\n".join, zip(sources, targets, strict=True))),
        "normal": hash_texts(map("\n".join, zip(a, b, strict=True))),
        "source": hash_texts(a), "target": hash_texts(b),
    }  # fmt: skip


# ----------------------------------------------------------------------------- the counts


class _Corpus:
    """The figures of a training corpus, chunk by chunk."""

    def __init__(self, source: SourceConfig) -> None:
        self.source, self.pairs = source, 0
        self.characters = np.zeros(2, np.int64)
        self.lengths = np.zeros((2, LONGEST + 1), np.int64)
        self.cells = np.zeros((CELLS + 1, CELLS + 1), np.int64)
        self.total_words = np.zeros(2, np.int64)
        self.repeated = Counter[str]()
        self.found = Counter[str]()
        self.examples: dict[str, list[dict[str, Any]]] = {}

    def add(
        self, sides: Sides, origins: Sequence[str], findings: Sequence[Finding | None],
        measures: Measures, seen: dict[str, HashSet],
    ) -> None:  # fmt: skip
        """Count a chunk."""
        self.pairs += len(findings)
        self.characters += measures.characters
        self.total_words += measures.words.sum(axis=1)
        for histogram, words in zip(self.lengths, measures.words, strict=True):
            histogram += np.bincount(np.minimum(words, LONGEST), minlength=LONGEST + 1)
        cells = np.minimum(measures.words * CELLS // LONGEST, CELLS)
        np.add.at(self.cells, (cells[0], cells[1]), 1)
        for key, known in seen.items():
            self.repeated[key] += int(known.add(measures.hashes[key]).sum())
        for row, finding in enumerate(findings):
            if finding is None:
                continue
            self.found[finding.rule] += 1
            examples = self.examples.setdefault(finding.rule, [])
            if len(examples) < EXAMPLES:
                examples.append(
                    {"value": printable(finding.value), **_example(sides, origins, row)}
                )

    def figures(self) -> dict[str, Any]:
        """Return the figures as JSON."""
        return {
            "name": self.source.kind, "languages": self.source.direction.model_dump(),
            "pairs": self.pairs, "suspects": self.found.total(),
            "words": self.total_words.tolist(), "characters": self.characters.tolist(),
            "lengths": self.lengths.tolist(), "cells": self.cells.tolist(),
            "repeated": dict(self.repeated),
            "found": [
                {"rule": rule, "pairs": pairs, "examples": self.examples[rule]}
                for rule, pairs in self.found.most_common()
            ],
        }  # fmt: skip


class _HeldOut:
    """The pairs of a validation or test set that training pairs equal."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self.hashes = _hash_pairs([a for a, _ in pairs], [b for _, b in pairs])
        self.unique = {key: np.unique(hashes) for key, hashes in self.hashes.items()}
        self.leaked = {key: np.zeros(len(unique), bool) for key, unique in self.unique.items()}
        self.examples: list[dict[str, Any]] = []

    def compare(self, sides: Sides, origins: Sequence[str], hashes: dict[str, Hashes]) -> None:
        """Note which held-out pairs are in a chunk of training pairs."""
        for key, unique in self.unique.items():
            if not len(unique):
                continue
            place = np.minimum(np.searchsorted(unique, hashes[key]), len(unique) - 1)
            equal = unique[place] == hashes[key]
            self.leaked[key][place[equal]] = True
            if key == "normal":
                rows = np.flatnonzero(equal)[: EXAMPLES - len(self.examples)]
                self.examples += [_example(sides, origins, int(row)) for row in rows]

    def figures(self) -> dict[str, Any]:
        """Return how many of the pairs are in the training data, in each way."""
        counts = {
            key: int(self.leaked[key][np.searchsorted(self.unique[key], hashes)].sum())
            if len(hashes) else 0
            for key, hashes in self.hashes.items()
        }  # fmt: skip
        return {"pairs": len(self.hashes["pair"]), "leaked": counts, "examples": self.examples}


def _example(sides: Sides, origins: Sequence[str], row: int) -> dict[str, Any]:
    texts = {name: printable(side[row] or "") for name, side in zip(SIDES, sides, strict=True)}
    return {"origin": printable(origins[row].rpartition("/")[2]), **texts}
