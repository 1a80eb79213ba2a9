"""Laws of every search, on models small enough to try everything."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from table_decoder import (
    NONE,
    PIECES,
    Table,
    ask,
    make,
    models,
    request,
    rows_of,
    seeds,
    texts,
)

from mt.config.plugins import plugin, plugins
from mt.errors import ConfigError
from mt.special_tokens import BEGIN, END, FIRST_PIECE

every = pytest.mark.parametrize("kind", plugins("search"))

own_choice = pytest.mark.parametrize("kind", [k for k in plugins("search") if k != "mbr"])


@every
@pytest.mark.parametrize("settings", models)
def test_scores_are_those_of_rescoring_the_own_output(kind, settings):
    penalty = 0.6
    for seed, width in itertools.product(range(5), (1, 2, 5)):
        table, asked = Table(seed, **settings), request(seed=seed, longest=8)
        found = make(kind, beams=width, groups=width, length_penalty=penalty)(table, asked)
        used = penalty if "length_penalty" in plugin("search", kind).Config.model_fields else 0.0
        for row, hypotheses in enumerate(texts(found)):
            for n, tokens in enumerate(hypotheses):
                gains = table.score(asked.source[row].tolist(), tokens)
                assert found.log_probabilities[row, n, : len(tokens)].tolist() == pytest.approx(
                    gains, abs=1e-4
                )
                if kind != "mbr":  # whose score is no probability
                    assert float(found.scores[row, n]) == pytest.approx(
                        sum(gains) / len(tokens) ** used, abs=1e-4
                    )


class LateEnd(Table):
    """The same numbers, but for END, which is impossible before `least` pieces."""

    least = 0

    def logits(self, source, prefix):
        row = super().logits(source, prefix)
        if len(prefix) - 1 < self.least and bool((row[FIRST_PIECE:] > NONE).any()):
            row[END] = NONE
        return row


@every
@pytest.mark.parametrize("least", [1, 3])
@pytest.mark.parametrize("settings", models)
def test_no_hypothesis_is_shorter_than_the_least_length(kind, settings, least):
    """Unless its limit is, or nothing but its end is possible."""
    for seed, width in itertools.product(range(3), (1, 4)):
        asked = request(longest=6, seed=seed, min_length=least)
        table = Table(seed, **settings)
        found = make(kind, beams=width, groups=width)(table, asked)
        for row, source, longest in rows_of(asked):
            for tokens in texts(found)[row]:
                can_go_on = table.logits(tuple(source), (BEGIN, *tokens[:-1]))[FIRST_PIECE:]
                short = len(tokens) - 1 < min(least, longest - 1)
                assert not short or not bool((can_go_on > NONE).any())


@pytest.mark.parametrize("kind", ["beam", "greedy"])
@pytest.mark.parametrize("least", [1, 3])
def test_an_end_that_may_not_come_takes_no_place_of_the_beam(kind, least):
    for seed, width in itertools.product(range(12), (1, 2, 5)):
        asked, late = request(longest=7, seed=seed), LateEnd(seed)
        asked = replace(asked, max_lengths=asked.max_lengths + least)
        late.least = least
        expected = make(kind, beams=width, length_penalty=0.0)(late, asked)
        found = make(kind, beams=width, length_penalty=0.0)(
            Table(seed), replace(asked, min_length=least)
        )
        if least == 1 or width == 1:  # later, how much END lacks differs from beam to beam
            assert texts(found) == texts(expected)
        for row, hypotheses in enumerate(texts(found)):
            gains = Table(seed).score(asked.source[row].tolist(), hypotheses[0])
            assert float(found.scores[row, 0]) == pytest.approx(sum(gains), abs=1e-4)


against = pytest.mark.parametrize(
    "repetition",
    [
        {"no_repeat_ngram": 1}, {"no_repeat_ngram": 2}, {"no_repeat_ngram": 3},
        {"repetition_penalty": 1.7}, {"repetition_penalty": 0.5},
        {"no_repeat_ngram": 2, "repetition_penalty": 1.3},
    ],
    ids=str,
)  # fmt: skip


@every
@pytest.mark.parametrize("settings", models)
def test_every_hypothesis_ends_once_within_its_length_and_has_only_text(kind, settings):
    for seed, width in itertools.product(range(5), (1, 3, 8)):
        asked = request(sentences=6, longest=9, seed=seed)
        found = make(kind, beams=width, groups=width)(Table(seed, **settings), asked)
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


@every
@pytest.mark.parametrize("settings", models)
def test_hypotheses_are_sorted_and_distinct(kind, settings):
    n = 1 if kind == "greedy" else 6
    for seed, groups in itertools.product(range(10), (1, 3, 6)):
        asked = request(longest=7, seed=seed, n_best=n)
        found = make(kind, beams=6, groups=groups)(Table(seed, **settings), asked)
        assert found.tokens.shape[:2] == found.scores.shape == (4, n)
        assert torch.equal(found.scores, found.scores.sort(dim=1, descending=True).values)
        for hypotheses in texts(found):
            assert len(set(hypotheses)) == len(hypotheses) or kind == "sampling"


@every
@pytest.mark.parametrize("settings", models)
def test_neither_order_nor_batch_mates_matter(kind, settings):
    search, n = make(kind, beams=6, groups=2), 1 if kind == "greedy" else 3
    for seed in range(4):
        asked = request(sentences=9, longest=9, seed=seed, n_best=n, seeds=range(70, 79))
        together = search(Table(seed, **settings), asked)
        order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
        seeds = [70 + i for i in order.tolist()]
        shuffled = ask(asked.source[order], asked.max_lengths[order], n_best=n, seeds=seeds)
        mixed = search(Table(seed, **settings), shuffled)
        assert [texts(together)[i] for i in order.tolist()] == texts(mixed)
        assert torch.equal(together.scores[order], mixed.scores)
        for row in range(9):
            one = ask(asked.source[row, None], asked.max_lengths[row, None], n_best=n)
            alone = search(Table(seed, **settings), replace(one, seeds=[70 + row]))
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
    asked = ask(source=torch.full((9, 2), FIRST_PIECE), max_lengths=lengths)
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
    asked = ask(source=source, max_lengths=torch.tensor([4, 4]))
    found = make(kind, beams=40)(Dead(3), asked)
    assert not found.scores.isnan().any()
    assert not found.log_probabilities.isnan().any()
    first, second = texts(found)
    assert all(tokens[0] != PIECES[0] for tokens in first)
    assert first or kind not in ("beam", "diverse")
    assert second == []


@own_choice
def test_of_equal_tokens_the_lower_id_is_taken(kind):
    class Level(Table):
        def logits(self, source, prefix):
            row = torch.zeros(self.size)
            row[END] = 0.0 if len(prefix) > 2 else NONE
            row[FIRST_PIECE] = NONE
            return row

    asked = ask(source=torch.ones(1, 1), max_lengths=torch.tensor([9]))
    found = make(kind, beams=3, top_k=1)(Level(0, size=FIRST_PIECE + 500), asked)
    assert texts(found) == [[(FIRST_PIECE + 1, FIRST_PIECE + 1, END)]]


@every
def test_an_empty_batch_gives_nothing(kind):
    asked = ask(
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


@every
@pytest.mark.parametrize("settings", models)
def test_a_prefix_is_forced_and_counts(kind, settings):
    n = 1 if kind == "greedy" else 8
    for seed in range(5):
        table = Table(seed, **settings)
        prefixes = [(), (PIECES[2],), (PIECES[1], PIECES[0]), (1, PIECES[0])]
        asked = ask(
            source=request(seed=seed).source,
            max_lengths=torch.tensor([3, 2, 5, 4]),
            prefixes=prefixes,
            n_best=n,
        )
        found = make(kind, beams=8, groups=2, length_penalty=0.0)(table, asked)
        for row, hypotheses in enumerate(texts(found)):
            for i, tokens in enumerate(hypotheses):
                assert tokens[: len(prefixes[row])] == prefixes[row]
                gains = table.score(asked.source[row].tolist(), tokens)
                total = float(found.log_probabilities[row, i].sum())
                assert total == pytest.approx(sum(gains), abs=1e-4)
                assert kind == "mbr" or float(found.scores[row, i]) == pytest.approx(
                    total, abs=1e-4
                )
        if not settings["holes"]:
            assert all(texts(found))


@every
def test_what_a_search_cannot_do_is_refused(kind):
    plain = request()
    cannot = [{"prefixes": [[FIRST_PIECE] * 9] * 4}, {"n_best": 9}]
    for more in cannot[: 1 if kind == "sampling" else 2]:
        with pytest.raises(ConfigError):
            make(kind, beams=4)(Table(0), replace(plain, **more))


# ------------------------------------------------------------------------ repetitions


class Unrepeated(Table):
    """A table whose logits are changed against repetition, in plain Python."""

    def __init__(self, seed, no_repeat_ngram=0, repetition_penalty=1.0, prefix=(), **more):
        super().__init__(seed, **more)
        self.ngram, self.penalty, self.prefix = no_repeat_ngram, repetition_penalty, tuple(prefix)

    def logits(self, source, prefix):
        row, held = super().logits(source, prefix), list(prefix[1:])
        for token in set(held):
            row[token] *= 1 / self.penalty if row[token] > 0 else self.penalty
        forced = self.prefix[len(held)] if len(held) < len(self.prefix) else None
        n = self.ngram
        ngrams = {tuple(held[i : i + n]) for i in range(len(held) - n + 1)} if n else set()
        for token in range(len(row)):
            if tuple([*held, token][-n:]) in ngrams and token != forced:
                row[token] = NONE
        return row


@own_choice
@against
@pytest.mark.parametrize("settings", models)
@seeds(1, 3)
def test_what_is_done_against_repetition_is_what_a_plain_program_does(
    kind, repetition, settings, numbers
):
    forced = (PIECES[0], PIECES[1]) * 2
    for seed, width, prefix in itertools.product(numbers, (2, 5), ((), forced)):
        asked = request(seed=seed, longest=9, n_best=1 if kind == "greedy" else 2)
        asked = replace(asked, seeds=[1, 2, 3, 4])
        if prefix:
            asked = replace(asked, max_lengths=asked.max_lengths + 4, prefixes=[prefix] * 4)
        found = make(kind, beams=width, **repetition)(Table(seed, **settings), asked)
        table = Unrepeated(seed, prefix=prefix, **repetition, **settings)
        true = make(kind, beams=width)(table, asked)
        if kind == "sampling":  # its scores are those of the unchanged model, and order by them
            assert list(map(Counter, texts(found))) == list(map(Counter, texts(true)))
        else:
            assert texts(found) == texts(true)
            assert torch.allclose(found.scores, true.scores, atol=1e-4)


@every
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_blocked_ngram_never_appears_and_the_hypothesis_ends_instead(kind, size):
    class Eager(Table):
        def logits(self, source, prefix):
            row = super().logits(source, prefix)
            row[END] = -20  # only where nothing else is left
            return row

    among = {"kind": "sampling", "no_repeat_ngram": size}
    for seed in range(5):
        asked = replace(request(seed=seed), max_lengths=torch.tensor([40] * 4))
        search = make(kind, beams=4, groups=2, no_repeat_ngram=size, candidates=among)
        for hypotheses in texts(search(Eager(seed), asked)):
            assert hypotheses
            for tokens in hypotheses:
                ngrams = [tokens[i : i + size] for i in range(len(tokens) - size + 1)]
                assert len(set(ngrams)) == len(ngrams)
                assert len(tokens) < 40
