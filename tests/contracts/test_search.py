"""Laws of every search, on models small enough to try everything."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from mt.candidates import best_of
from mt.config import plugin, plugins
from mt.contracts import BEGIN, END, FIRST_PIECE, PAD, Request
from mt.errors import ConfigError

NONE = float("-inf")
PIECES = [FIRST_PIECE, FIRST_PIECE + 1, FIRST_PIECE + 2]
SIZE = FIRST_PIECE + len(PIECES)


class Table:
    """A decoder whose next-token logits are random numbers fixed by the source and the prefix.

    It keeps a prefix a beam, as a cache does, so a search that forgets to reorder or to keep
    is found out. `holes` is the share of -inf logits; `levels` rounds, which makes ties.
    """

    def __init__(self, seed: int, holes: float = 0.0, levels: int = 0, size: int = SIZE) -> None:
        self.seed, self.holes, self.levels, self.size = seed, holes, levels, size
        self.steps: list[int] = []

    def logits(self, source: tuple[int, ...], prefix: tuple[int, ...]) -> torch.Tensor:
        key = hash((self.seed, source, prefix)) % 2**31
        generator = torch.Generator().manual_seed(key)
        row = torch.randn(self.size, generator=generator) * 2
        row[:FIRST_PIECE] += 1  # what must never be generated is likely
        if self.levels:
            row = (row * self.levels).round() / self.levels
        row[torch.rand(self.size, generator=generator) < self.holes] = NONE
        return row

    def start(self, source, beams, max_lengths):
        return {"sources": source.tolist(), "prefixes": [[()] * beams for _ in source]}

    def step(self, state, tokens):
        assert tokens.shape == (len(state["sources"]), len(state["prefixes"][0]))
        self.steps.append(len(state["sources"]))
        rows = []
        for source, prefixes, news in zip(
            state["sources"], state["prefixes"], tokens.tolist(), strict=True
        ):
            prefixes[:] = [(*old, new) for old, new in zip(prefixes, news, strict=True)]
            rows.append(torch.stack([self.logits(tuple(source), p) for p in prefixes]))
        return torch.stack(rows)

    def reorder(self, state, beams):
        assert not torch.equal(beams, torch.arange(beams.shape[1]).expand_as(beams))
        state["prefixes"] = [
            [old[i] for i in row]
            for old, row in zip(state["prefixes"], beams.tolist(), strict=True)
        ]

    def keep(self, state, sentences):
        for name in ("sources", "prefixes"):
            state[name] = [state[name][i] for i in sentences.tolist()]

    def score(self, source, tokens):
        """The log-probability of each token, one at a time, in plain arithmetic."""
        found = []
        for i, token in enumerate(tokens):
            row = self.logits(tuple(source), (BEGIN, *tokens[:i])).tolist()
            total = math.log(sum(math.exp(x) for x in row)) if max(row) > NONE else 0.0
            found.append(row[token] - total)
        return found


def make(kind, **settings):
    module = plugin("search", kind)
    known = module.Config.model_fields
    return module.build(module.Config(**{k: v for k, v in settings.items() if k in known}))


def request(sentences=4, longest=5, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(FIRST_PIECE, SIZE, (sentences, 3), generator=generator)
    lengths = torch.randint(1, longest + 1, (sentences,), generator=generator)
    return Request(source=source, max_lengths=lengths, **more)


def texts(hypotheses):
    """The hypotheses of each sentence as tuples of tokens without padding, those that exist."""
    return [
        [tuple(t for t in tokens if t != PAD) for tokens, score in zip(many, scores, strict=True)
         if score != NONE]
        for many, scores in zip(
            hypotheses.tokens.tolist(), hypotheses.scores.tolist(), strict=True
        )
    ]  # fmt: skip


def penalised(total, length, penalty, norm):
    return total / (length if norm == "power" else (5 + length) / 6) ** penalty


every = pytest.mark.parametrize("kind", plugins("search"))
beams = pytest.mark.parametrize(
    "kind", [k for k in plugins("search") if "beams" in plugin("search", k).Config.model_fields]
)
models = [
    {"holes": holes, "levels": levels} for holes, levels in itertools.product((0, 0.3, 0.8), (0, 1))
]


def brute_force(table, source, longest):
    """Every sequence that ends within `longest` tokens and has a probability, with its score."""
    for length in range(longest):
        for pieces in itertools.product(PIECES, repeat=length):
            gains = table.score(source, [*pieces, END])
            if sum(gains) > NONE:
                yield sum(gains), (*pieces, END)


@beams
@pytest.mark.parametrize("norm", ["power", "gnmt"])
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
def test_a_wide_beam_finds_what_brute_force_finds(kind, penalty, norm):
    wide = make(kind, beams=40, length_penalty=penalty, length_norm=norm)
    for seed, settings in itertools.product(range(5), models):
        table, asked = Table(seed, **settings), request(seed=seed, longest=4, n_best=40)
        found = wide(table, asked)
        for row, hypotheses in enumerate(texts(found)):
            source, longest = asked.source[row].tolist(), int(asked.max_lengths[row])
            true = {
                tokens: penalised(total, len(tokens), penalty, norm)
                for total, tokens in brute_force(table, source, longest)
            }
            assert set(hypotheses) == set(true)
            assert found.scores[row, : len(true)].tolist() == pytest.approx(
                sorted(true.values(), reverse=True), abs=1e-4
            )
            for tokens, score in zip(hypotheses, found.scores[row].tolist(), strict=False):
                assert score == pytest.approx(true[tokens], abs=1e-4)


@every
@pytest.mark.parametrize("settings", models)
def test_scores_are_those_of_rescoring_the_own_output(kind, settings):
    penalty = 0.6
    for seed, width in itertools.product(range(5), (1, 2, 5)):
        table, asked = Table(seed, **settings), request(seed=seed, longest=8)
        found = make(kind, beams=width, length_penalty=penalty)(table, asked)
        used = penalty if "beams" in plugin("search", kind).Config.model_fields else 0.0
        for row, hypotheses in enumerate(texts(found)):
            for n, tokens in enumerate(hypotheses):
                gains = table.score(asked.source[row].tolist(), tokens)
                assert found.log_probabilities[row, n, : len(tokens)].tolist() == pytest.approx(
                    gains, abs=1e-4
                )
                assert float(found.scores[row, n]) == pytest.approx(
                    sum(gains) / len(tokens) ** used, abs=1e-4
                )


@beams
@pytest.mark.parametrize("settings", models)
def test_one_beam_is_greedy_search_exactly(kind, settings):
    for seed in range(20):
        asked = request(sentences=6, longest=12, seed=seed)
        one = make(kind, beams=1, length_penalty=0.0)(Table(seed, **settings), asked)
        greedy = make("greedy")(Table(seed, **settings), asked)
        assert torch.equal(one.tokens, greedy.tokens)
        assert torch.equal(one.scores, greedy.scores)
        assert torch.equal(one.log_probabilities, greedy.log_probabilities)


@every
@pytest.mark.parametrize("settings", models)
def test_every_hypothesis_ends_once_within_its_length_and_has_only_text(kind, settings):
    for seed, width in itertools.product(range(5), (1, 3, 8)):
        asked = request(sentences=6, longest=9, seed=seed)
        found = make(kind, beams=width)(Table(seed, **settings), asked)
        for hypotheses, longest in zip(texts(found), asked.max_lengths.tolist(), strict=True):
            for tokens in hypotheses:
                assert len(tokens) <= longest
                assert tokens[-1] == END
                assert all(token in PIECES for token in tokens[:-1])
        assert not found.scores.isnan().any()
        assert not found.log_probabilities.isnan().any()
        lost = found.scores == NONE
        assert not found.tokens[lost].any()
        assert not found.log_probabilities[lost].any()


@beams
@pytest.mark.parametrize("settings", models)
def test_hypotheses_are_sorted_and_distinct(kind, settings):
    for seed in range(10):
        asked = request(longest=7, seed=seed, n_best=6)
        found = make(kind, beams=6)(Table(seed, **settings), asked)
        assert found.tokens.shape[:2] == found.scores.shape == (4, 6)
        assert torch.equal(found.scores, found.scores.sort(dim=1, descending=True).values)
        for hypotheses in texts(found):
            assert len(set(hypotheses)) == len(hypotheses)


@every
@pytest.mark.parametrize("settings", models)
def test_neither_order_nor_batch_mates_matter(kind, settings):
    search = make(kind, beams=3)
    for seed in range(4):
        asked = request(sentences=9, longest=9, seed=seed)
        together = search(Table(seed, **settings), asked)
        order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
        shuffled = Request(source=asked.source[order], max_lengths=asked.max_lengths[order])
        mixed = search(Table(seed, **settings), shuffled)
        assert [texts(together)[i] for i in order.tolist()] == texts(mixed)
        assert torch.equal(together.scores[order], mixed.scores)
        for row in range(9):
            one = Request(asked.source[row, None], asked.max_lengths[row, None])
            alone = search(Table(seed, **settings), one)
            assert texts(alone)[0] == texts(together)[row]
            assert torch.equal(alone.scores[0], together.scores[row])


@every
def test_finished_sentences_leave_the_batch(kind):
    class Long(Table):
        def logits(self, source, prefix):
            row = super().logits(source, prefix)
            row[END] = -30  # ends only where it must
            return row

    table = Long(1)
    lengths = torch.tensor([1] * 8 + [10])
    asked = Request(source=torch.full((9, 2), FIRST_PIECE), max_lengths=lengths)
    make(kind, beams=2)(table, asked)
    assert table.steps == [9] + [1] * 9


@every
def test_a_prefix_from_which_nothing_follows_is_no_hypothesis(kind):
    class Dead(Table):
        def logits(self, source, prefix):
            row = super().logits(source, prefix)
            if len(prefix) > 1 and (source[0] == 70 or prefix[1] == PIECES[0]):
                row[:] = NONE
            if len(prefix) == 1:
                row[END] = NONE
            return row

    source = torch.tensor([[69], [70]])
    asked = Request(source=source, max_lengths=torch.tensor([4, 4]))
    found = make(kind, beams=40)(Dead(3), asked)
    assert not found.scores.isnan().any()
    assert not found.log_probabilities.isnan().any()
    first, second = texts(found)
    assert all(tokens[0] != PIECES[0] for tokens in first)
    assert first or kind == "greedy"
    assert second == []


@every
def test_of_equal_tokens_the_lower_id_is_taken(kind):
    class Level(Table):
        def logits(self, source, prefix):
            row = torch.zeros(self.size)
            row[END] = 0.0 if len(prefix) > 2 else NONE
            row[FIRST_PIECE] = NONE
            return row

    asked = Request(source=torch.ones(1, 1), max_lengths=torch.tensor([9]))
    found = make(kind, beams=3)(Level(0, size=FIRST_PIECE + 500), asked)
    assert texts(found) == [[(FIRST_PIECE + 1, FIRST_PIECE + 1, END)]]


@every
def test_an_empty_batch_gives_nothing(kind):
    asked = Request(
        source=torch.zeros((0, 3), dtype=torch.long), max_lengths=torch.zeros(0, dtype=torch.long)
    )
    found = make(kind, beams=3)(Table(0), asked)
    assert found.tokens.shape[0] == found.scores.shape[0] == 0


@every
def test_a_model_of_numbers_that_are_none_still_ends(kind):
    class Broken(Table):
        def logits(self, source, prefix):
            return torch.full((self.size,), math.nan)

    found = make(kind, beams=3)(Broken(0), request(longest=6))
    assert not found.scores.isfinite().any()


@beams
@pytest.mark.parametrize("settings", models)
def test_a_prefix_is_forced_and_counts(kind, settings):
    for seed in range(5):
        table = Table(seed, **settings)
        prefixes = [(), (PIECES[2],), (PIECES[1], PIECES[0]), (1, PIECES[0])]
        asked = Request(
            source=request(seed=seed).source,
            max_lengths=torch.tensor([3, 2, 5, 4]),
            prefixes=prefixes,
            n_best=9,
        )
        found = make(kind, beams=9)(table, asked)
        for row, hypotheses in enumerate(texts(found)):
            for n, tokens in enumerate(hypotheses):
                assert tokens[: len(prefixes[row])] == prefixes[row]
                total = sum(table.score(asked.source[row].tolist(), tokens))
                assert float(found.scores[row, n]) == pytest.approx(total / len(tokens), abs=1e-4)


@every
def test_what_a_search_cannot_do_is_refused(kind):
    plain = request()
    for more in ({"n_best": 9}, {"prefixes": [[FIRST_PIECE] * 9] * 4}):
        asked = Request(source=plain.source, max_lengths=plain.max_lengths, **more)
        with pytest.raises(ConfigError):
            make(kind, beams=4)(Table(0), asked)


@pytest.mark.parametrize("count", [1, 2, 5, 9, 20])
def test_the_best_of_many_ties_are_the_first(count):
    generator = torch.Generator().manual_seed(count)
    values = torch.randint(0, 6, (2, 50, 16), generator=generator).float()
    values[values == 0] = NONE
    ordered = values.sort(dim=-1, descending=True, stable=True)
    found, places = best_of(values, count)
    assert torch.equal(found, ordered.values[..., :count])
    there = found != NONE
    assert torch.equal(places[there], ordered.indices[..., :count][there])
