"""Laws of every search, on models small enough to try everything."""

from __future__ import annotations

import importlib
import itertools
import math
import random
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from sacrebleu.metrics import CHRF

from mt.config.plugins import plugin, plugins
from mt.decoding.candidates import top_k
from mt.decoding.types import Request
from mt.errors import ConfigError
from mt.special_tokens import BEGIN, END, FIRST_PIECE, PAD

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

    def select_sentences(self, state, sentences):
        for name in ("sources", "prefixes"):
            state[name] = [state[name][i] for i in sentences.tolist()]

    def attention(self, source, prefix):
        """What the step after `prefix` attends to, over the source."""
        generator = torch.Generator().manual_seed(hash((self.seed, source, prefix)) % 2**31)
        return torch.rand(len(source), generator=generator).pow(3).add(1e-3)

    def align(self, source, tokens):
        return torch.stack([
            torch.stack([
                torch.stack([self.attention(tuple(s), tuple(h[:t])) for t in range(len(h))])
                for h in many
            ])
            for s, many in zip(source.tolist(), tokens.tolist(), strict=True)
        ]).softmax(dim=-1)  # fmt: skip

    def score(self, source, tokens):
        """The log-probability of each token, one at a time, in plain arithmetic."""
        found = []
        for i, token in enumerate(tokens):
            row = self.logits(tuple(source), (BEGIN, *tokens[:i])).tolist()
            total = math.log(sum(math.exp(x) for x in row)) if max(row) > NONE else 0.0
            found.append(row[token] - total)
        return found


def make(kind, **settings):
    """A search with those of the settings that it has; diverse beams in one group, if not told."""
    module = plugin("search", kind)
    known = module.Config.model_fields
    settings = {"groups": 1, "samples": 8, **settings}
    return module.build(module.Config(**{k: v for k, v in settings.items() if k in known}))


def spell(ids):
    """Tokens as text: each piece is two letters, some of them shared."""
    return ["".join(("ab", "bc ", "cab")[t % 3] for t in each if t != END) for each in ids]


ask = partial(Request, texts=spell)


def request(sentences=4, longest=5, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(FIRST_PIECE, SIZE, (sentences, 3), generator=generator)
    lengths = torch.randint(1, longest + 1, (sentences,), generator=generator)
    return ask(source=source, max_lengths=lengths, **more)


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
own_choice = pytest.mark.parametrize("kind", [k for k in plugins("search") if k != "mbr"])
beams = pytest.mark.parametrize(
    "kind", [k for k in plugins("search") if "beams" in plugin("search", k).Config.model_fields]
)
models = [
    {"holes": holes, "levels": levels} for holes, levels in itertools.product((0, 0.3, 0.8), (0, 1))
]


CASES = list(
    itertools.product(
        (0.0, 0.6, 1.0), ("power", "gnmt"), ({}, {"patience": 3.0}, {"stop": "bound"})
    )
)


def brute_force(table, source, longest):
    """Every sequence that ends within `longest` tokens and has a probability, with its score."""
    for length in range(longest):
        for pieces in itertools.product(PIECES, repeat=length):
            gains = table.score(source, [*pieces, END])
            if sum(gains) > NONE:
                yield sum(gains), (*pieces, END)


@beams
@pytest.mark.parametrize("rule", [{}, {"patience": 3.0}, {"stop": "bound"}], ids=str)
@pytest.mark.parametrize("norm", ["power", "gnmt"])
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
def test_a_wide_beam_finds_what_brute_force_finds(kind, penalty, norm, rule):
    wide = make(kind, beams=40, length_penalty=penalty, length_norm=norm, **rule)
    for seed, settings in itertools.product(range(2), models):  # 216 models in all
        seed += 2 * CASES.index((penalty, norm, rule))
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


against = pytest.mark.parametrize(
    "repetition",
    [
        {"no_repeat_ngram": 1}, {"no_repeat_ngram": 2}, {"no_repeat_ngram": 3},
        {"repetition_penalty": 1.7}, {"repetition_penalty": 0.5},
        {"no_repeat_ngram": 2, "repetition_penalty": 1.3},
    ],
    ids=str,
)  # fmt: skip


@beams
@pytest.mark.parametrize("repetition", [{}, {"no_repeat_ngram": 2, "repetition_penalty": 1.3}])
@pytest.mark.parametrize("settings", models)
def test_one_beam_is_greedy_search_exactly(kind, settings, repetition):
    prefixes = [(), (PIECES[0],) * 2, (PIECES[1],), (), (), (PIECES[0],)]
    for seed in range(20):
        asked = request(sentences=6, longest=12, seed=seed)
        if seed % 2:
            longer = asked.max_lengths + 2
            asked = replace(asked, max_lengths=longer, prefixes=prefixes)
        plain = {"beams": 1, "length_penalty": 0.0, **repetition}
        one = make(kind, **plain)(Table(seed, **settings), asked)
        greedy = make("greedy", **repetition)(Table(seed, **settings), asked)
        assert torch.equal(one.tokens, greedy.tokens)
        assert torch.equal(one.scores, greedy.scores)
        assert torch.equal(one.log_probabilities, greedy.log_probabilities)


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


def rows_of(asked):
    """Each sentence of a request: its row, its source and its greatest length."""
    return zip(itertools.count(), asked.source.tolist(), asked.max_lengths.tolist(), strict=False)


def follows(table, source):
    """The plain search's view of a table."""

    def follow(prefixes):
        rows = torch.stack([table.logits(tuple(source), (BEGIN, *p)) for p in prefixes])
        gains = rows.double().log_softmax(dim=-1)
        return gains.masked_fill(gains.isnan(), NONE)  # nothing can follow

    return follow


@pytest.fixture
def plain(monkeypatch):
    """The searches that are written as plainly as can be."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts" / "bench"))
    return importlib.import_module("plain_search")


@beams
@pytest.mark.parametrize("patience", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("width", [1, 2, 3, 6])
def test_a_beam_finds_what_a_plain_search_finds(plain, kind, width, patience):
    if "patience" not in plugin("search", kind).Config.model_fields:
        patience = 1.0
    for seed, settings in itertools.product(range(3), models):
        table, asked = Table(seed, **settings), request(seed=seed, longest=9, n_best=width)
        found = make(kind, beams=width, patience=patience, length_penalty=0.6)(table, asked)
        for row, source, longest in rows_of(asked):
            enough = max(1, round(width * patience))
            true = plain.beam(
                follows(table, source), width, longest, lambda length: length**0.6, enough
            )[:width]
            scores = [score for score in found.scores[row].tolist() if score > NONE]
            assert scores == pytest.approx([score for score, _ in true], abs=1e-4)
            if len({round(score, 3) for score, _ in true}) == len(true):  # no ties
                assert texts(found)[row] == [tokens for _, tokens in true]


@pytest.mark.parametrize("norm", ["power", "gnmt"])
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
def test_stopping_at_the_bound_loses_nothing_and_saves_steps(penalty, norm):
    steps = Counter()
    for seed, settings, width in itertools.product(range(6), models[:4], (2, 5)):
        asked = request(seed=seed, longest=14, n_best=width)
        ways = {"bound": {"stop": "bound"}, "never": {"patience": 1e9}, "finished": {}}
        found = {}
        for name, rule in ways.items():
            table = Table(seed, **settings)
            search = make("beam", beams=width, length_penalty=penalty, length_norm=norm, **rule)
            found[name] = search(table, asked)
            steps[name] += sum(table.steps)
        assert texts(found["bound"]) == texts(found["never"])
        assert torch.equal(found["bound"].scores, found["never"].scores)
        assert (found["bound"].scores >= found["finished"].scores).all()
    assert steps["finished"] < steps["never"]
    assert steps["bound"] < steps["never"] or penalty > 1  # when length can make up for much


def test_patience_with_the_bound_is_refused():
    with pytest.raises(ValidationError, match="patience"):
        make("beam", stop="bound", patience=2.0)


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
def test_what_is_done_against_repetition_is_what_a_plain_program_does(kind, repetition, settings):
    forced = (PIECES[0], PIECES[1]) * 2
    for seed, width, prefix in itertools.product(range(3), (2, 5), ((), forced)):
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


# --------------------------------------------------------------------------- coverage

covers = pytest.mark.parametrize(
    "kind",
    [k for k in plugins("search") if "coverage_penalty" in plugin("search", k).Config.model_fields],
)


@covers
@pytest.mark.parametrize("settings", models)
def test_coverage_is_the_formula_of_the_paper(kind, settings):
    """Padding of the source has no part in it, and it is added after the length penalty."""
    for seed in range(4):
        table, asked = Table(seed, **settings), request(seed=seed, longest=4, n_best=40)
        asked.source[::2, 2] = PAD
        plainly = make(kind, beams=40, length_penalty=0.6)(table, asked)
        found = make(kind, beams=40, length_penalty=0.6, coverage_penalty=0.7)(table, asked)
        for row, source, _ in rows_of(asked):
            before = dict(zip(texts(plainly)[row], plainly.scores[row].tolist(), strict=False))
            after = dict(zip(texts(found)[row], found.scores[row].tolist(), strict=False))
            assert set(before) == set(after)
            for tokens, score in after.items():
                attention = table.align(torch.tensor([source]), torch.tensor([[tokens]]))[0, 0]
                expected = before[tokens]
                for position, token in enumerate(source):
                    if token != PAD:
                        covered = sum(float(step[position]) for step in attention)
                        expected += 0.7 * math.log(min(covered, 1.0))
                assert score == pytest.approx(expected, abs=1e-4)


@covers
def test_what_is_never_looked_at_costs_something_finite(kind):
    class Blind(Table):
        def align(self, source, tokens):
            return super().align(source, tokens) * 0

    found = make(kind, beams=4, coverage_penalty=0.2)(Blind(1), request(longest=6))
    assert found.scores.isfinite().all()


# --------------------------------------------------------------------------- sampling


def sampled(table, asked, **settings):
    return texts(make("sampling", **settings)(table, asked))


@pytest.mark.parametrize("settings", models)
def test_one_token_left_is_greedy_search(settings):
    for seed in range(10):
        asked = replace(request(seed=seed, longest=9), seeds=[seed, 1, 2, 3])
        greedy = texts(make("greedy")(Table(seed, **settings), asked))
        ways = [{"top_k": 1}, {"top_p": 1e-6}, {"epsilon": 0.999}]
        ways += [] if settings["levels"] else [{"temperature": 1e-5}]  # which has no ties to break
        for few in ways:
            if "epsilon" in few or "top_p" in few:
                few = few if not settings["levels"] else {"top_k": 1}
            assert sampled(Table(seed, **settings), asked, **few) == greedy


def test_a_sample_does_not_depend_on_how_many_there_are():
    asked = replace(request(sentences=6, longest=9), seeds=range(6))
    few = sampled(Table(1), replace(asked, n_best=2))
    many = sampled(Table(1), replace(asked, n_best=20))
    for first, all_of_them in zip(few, many, strict=True):
        assert not Counter(first) - Counter(all_of_them)


def test_another_seed_gives_another_sample():
    asked = request(sentences=6, longest=9, n_best=5)
    found = [sampled(Table(1), replace(asked, seeds=[s] * 6)) for s in (1, 1, 2)]
    assert found[0] == found[1]
    assert found[0] != found[2]


def narrowed(chances, temperature=1.0, top_k=0, top_p=1.0, epsilon=0.0):
    """The distribution that is drawn from, in plain Python; chances: token to probability."""
    heat = {token: chance ** (1 / temperature) for token, chance in chances.items()}
    total = sum(heat.values())
    ordered = sorted(((c / total, t) for t, c in heat.items()), reverse=True)
    if top_k:
        ordered = ordered[:top_k]
        total = sum(c for c, _ in ordered)
        ordered = [(c / total, t) for c, t in ordered]
    kept, before = [], 0.0
    for chance, token in ordered:
        if before < top_p:
            kept.append((chance, token))
        before += chance
    total = sum(c for c, _ in kept)
    kept = [(c / total, t) for c, t in kept]
    kept = [(c, t) for c, t in kept if c >= epsilon] or kept[:1]
    total = sum(c for c, _ in kept)
    return {t: c / total for c, t in kept}


@pytest.mark.parametrize(
    "narrow",
    [
        {}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 2}, {"top_p": 0.7},
        {"epsilon": 0.2}, {"temperature": 1.5, "top_k": 3, "top_p": 0.9, "epsilon": 0.1},
    ],
    ids=str,
)  # fmt: skip
def test_samples_are_as_frequent_as_they_are_probable(narrow):
    class Short(Table):
        """Only the first token is a choice, so that few samples show its distribution."""

        def logits(self, source, prefix):
            row = super().logits((), prefix) / 2
            if len(prefix) > 1:
                row[FIRST_PIECE:] = NONE
            return row

    for seed in range(3):
        count, table = 4000, Short(seed)
        asked = ask(torch.ones(1, 1), torch.tensor([3]), n_best=count, seeds=[seed])
        found = Counter(tokens[0] for tokens in sampled(table, asked, **narrow)[0])
        row = table.logits((), (BEGIN,))
        raw = {token: math.exp(float(row[token])) for token in (END, *PIECES)}
        true = narrowed({t: c / sum(raw.values()) for t, c in raw.items()}, **narrow)
        assert set(found) == set(true)
        for token, chance in true.items():
            spread = math.sqrt(chance * (1 - chance) / count)
            assert abs(found[token] / count - chance) <= 4 * spread + 1e-9


# --------------------------------------------------------------------- diverse beams


def plain_diverse(table, source, longest, groups, diversity):
    """Groups of one beam, one after another, in plain Python."""
    live: list[tuple[int, ...] | None] = [()] * groups
    totals, ended, follow = [0.0] * groups, set(), follows(table, source)
    for length in range(1, longest + 1):
        taken: Counter[int] = Counter()
        for group in range(groups):
            if (prefix := live[group]) is None:
                continue
            gains = follow([prefix])[0].tolist()
            allowed = [END] if length == longest else [END, *PIECES]
            ranked = sorted(
                (-(totals[group] + gains[t]) + diversity * taken[t], t) for t in allowed
            )
            if ranked[0][0] == math.inf or ranked[0][1] == END:
                live[group] = None
                if ranked[0][0] < math.inf:
                    ended.add((*prefix, END))
                continue
            token = ranked[0][1]
            taken[token] += 1
            totals[group] += gains[token]
            live[group] = (*prefix, token)
    return ended


@pytest.mark.parametrize("settings", models)
@pytest.mark.parametrize("diversity", [0.0, 0.4, 3.0])
def test_groups_avoid_the_tokens_of_those_before(diversity, settings):
    for seed, groups in itertools.product(range(6), (1, 2, 4)):
        table, asked = Table(seed, **settings), request(seed=seed, longest=8, n_best=groups)
        search = make("diverse", beams=groups, groups=groups, diversity=diversity)
        for row, (source, longest) in enumerate(r[1:] for r in rows_of(asked)):
            true = plain_diverse(table, source, longest, groups, diversity)
            assert set(texts(search(table, asked))[row]) == true
            assert diversity or len(true) <= 1


def test_more_diversity_gives_more_different_first_tokens():
    counts = []
    for diversity in (0.0, 0.5, 50.0):
        asked = request(sentences=12, longest=5, n_best=3)
        lengths = asked.max_lengths.clamp(min=3)
        search = make("diverse", beams=3, groups=3, diversity=diversity)
        found = search(Table(2), replace(asked, max_lengths=lengths))
        counts.append(sum(len({tokens[0] for tokens in each}) for each in texts(found)))
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("settings", models)
def test_one_group_is_beam_search(settings):
    for seed, width in itertools.product(range(6), (1, 2, 5)):
        asked = request(sentences=6, seed=seed, longest=9, n_best=width)
        one = make("diverse", beams=width, groups=1)(Table(seed, **settings), asked)
        beam = make("beam", beams=width)(Table(seed, **settings), asked)
        assert texts(one) == texts(beam)
        assert torch.allclose(one.scores, beam.scores, atol=1e-5)


def test_groups_that_cannot_share_the_beams_are_refused():
    with pytest.raises(ValidationError, match="3 cannot share 4 beams"):
        make("diverse", beams=4, groups=3)


# ---------------------------------------------------------------- minimum Bayes risk


def test_the_fast_chrf_is_that_of_sacrebleu():
    from fastchrf import pairwise_chrf

    draw, chrf = random.Random(1), CHRF()
    for _ in range(60):
        many = ["".join(draw.choices("ab äß日\u3000.", k=draw.randrange(14))) for _ in range(6)]
        for text, row in zip(many, pairwise_chrf([many], [many])[0], strict=True):
            expected = [chrf.sentence_score(text, [other]).score for other in many]
            assert row == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "candidates", [{"kind": "sampling"}, {"kind": "beam", "beams": 8}], ids=lambda c: c["kind"]
)
@pytest.mark.parametrize("settings", models)
def test_the_least_risk_is_what_sacrebleu_says(settings, candidates):
    chrf = CHRF()
    for seed in range(4):
        table = Table(seed, **settings)
        asked = replace(request(seed=seed, longest=7, n_best=8), seeds=[seed] * 4)
        inner = {k: v for k, v in candidates.items() if k != "kind"}
        many = texts(make(candidates["kind"], **inner)(table, asked))
        found = make("mbr", candidates=candidates)(table, asked)
        for row, tokens in enumerate(many):
            said = spell(tokens)
            true = {
                text: sum(chrf.sentence_score(text, [other]).score for other in said) / len(said)
                for text in said
            }
            scores = [score for score in found.scores[row].tolist() if score > NONE]
            assert scores == pytest.approx(sorted(true.values(), reverse=True), abs=1e-2)
            for text, score in zip(spell(texts(found)[row]), scores, strict=True):
                assert true[text] == pytest.approx(score, abs=1e-2)


def test_minimum_risk_within_minimum_risk_is_refused():
    with pytest.raises(ValidationError, match="mbr does not fit here"):
        make("mbr", candidates={"kind": "mbr"})


def test_minimum_risk_without_its_library_or_texts_says_so(monkeypatch):
    asked = request(longest=6)
    with pytest.raises(ConfigError, match="only ids"):
        make("mbr")(Table(1), replace(asked, texts=None))
    monkeypatch.setitem(sys.modules, "fastchrf", None)
    with pytest.raises(ConfigError, match="needs the package fastchrf") as told:
        make("mbr")(Table(1), asked)
    assert "pip install" in told.value.advice


# ----------------------------------------------------------------------- the best of many


@pytest.mark.parametrize("count", [1, 2, 5, 9, 20])
def test_the_best_of_many_ties_are_the_first(count):
    generator = torch.Generator().manual_seed(count)
    values = torch.randint(0, 6, (2, 50, 16), generator=generator).float()
    values[values == 0] = NONE
    ordered = values.sort(dim=-1, descending=True, stable=True)
    found, places = top_k(values, count)
    assert torch.equal(found, ordered.values[..., :count])
    there = found != NONE
    assert torch.equal(places[there], ordered.indices[..., :count][there])
