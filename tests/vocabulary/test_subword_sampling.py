"""Laws of words that are cut anew: the same text, the papers' distributions, the same bits."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest
import sentencepiece

from mt.config.schema import Languages, SamplingConfig, VocabularyConfig
from mt.data import subword_regularization
from mt.data.corpus import EncodedPairs
from mt.data.subword_regularization import EpochCorpora, SubwordRegularizer
from mt.errors import ConfigError
from mt.special_tokens import END, FIRST_PIECE
from mt.vocabulary.learn import learn_vocabulary, open_existing
from mt.vocabulary.subword_sampling import NBEST, SPACE, BpeDropout, Pieces, UnigramSampler

WORDS = "lower lowest newer newest wider widest slowly slower new low over under water winter"
LINES = [
    *(f"The {a} {b} is  {b}er than {c}, {a}!" for a in WORDS.split() for b, c in ["ab", "cd"]),
    "Übergrößenträger naïve 東京 ☃", "a", "  two spaces  ", WORDS, WORDS.title(),
]  # fmt: skip


def learned(model, **more):
    config = VocabularyConfig(size=390, model=model, **more)
    return learn_vocabulary(config, Languages(source="en", target="de"), LINES, LINES)


@pytest.fixture(scope="module")
def vocabularies():
    return {model: learned(model) for model in ("bpe", "unigram")}


def foreign(model, folder):
    """A vocabulary whose ids stand elsewhere and which knows not every character."""
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=stream, model_type=model, vocab_size=90,
        character_coverage=0.98, hard_vocab_limit=False, minloglevel=2, unk_id=0, bos_id=1,
        eos_id=2, user_defined_symbols="new",
    )  # fmt: skip
    path = folder / f"{model}.model"
    path.write_bytes(stream.getvalue())
    return open_existing(VocabularyConfig(path=str(path)))


def flat(sentences):
    """Ids end to end, each sentence ending in `</s>`, and where each begins."""
    ended = [[*ids, END] for ids in sentences]
    return np.array([i for ids in ended for i in ids]), np.cumsum([0, *map(len, ended)])


def pairs_of(known, lines):
    ids, starts = flat(known.encode_target(lines))
    return EncodedPairs(ids.astype(np.uint16), starts, ids.astype(np.uint16), starts)


def sentences(pairs):
    return [pairs.target(row).tolist() for row in range(len(pairs))]


def cut_all(pieces, cut, ids, starts, seed=1):
    """The sentences as `cut` cuts their words."""
    symbols, words, first = pieces.spell(ids, starts)
    found, counts = cut(symbols, words, np.random.default_rng(seed))
    ends = np.append(0, np.cumsum(counts))[first]
    return [found[a:b].tolist() for a, b in pairwise(ends)]


CERTAIN = {
    "bpe": [lambda pieces: BpeDropout(pieces, 0.0)],
    "unigram": [
        lambda pieces: UnigramSampler(pieces, 1e4, None),
        lambda pieces: UnigramSampler(pieces, 0, 1),
    ],
}


# ------------------------------------------------------------------ what is certain


@pytest.mark.parametrize("model", ["bpe", "unigram"])
@pytest.mark.parametrize("whose", ["ours", "foreign"])
def test_where_nothing_is_left_to_chance_it_is_sentencepiece(vocabularies, tmp_path, model, whose):
    known = vocabularies[model] if whose == "ours" else foreign(model, tmp_path)
    pieces = Pieces.read(known.target.content, known.target.offset)
    ids, starts = flat(known.encode_target(LINES))
    for make in CERTAIN[model]:
        assert cut_all(pieces, make(pieces), ids, starts) == [
            ids[a:b].tolist() for a, b in pairwise(starts)
        ]


RANDOM = {
    "bpe": [{"dropout": 0.1}, {"dropout": 0.6}, {"dropout": 1.0}],
    "unigram": [{"alpha": 0.2}, {"alpha": 0.0}, {"alpha": 0.5, "nbest": 4}],
}


@pytest.mark.parametrize(
    ("model", "side"), [(m, s) for m, sides in RANDOM.items() for s in sides], ids=str
)
def test_however_words_are_cut_their_text_is_the_same(vocabularies, model, side):
    known = vocabularies[model]
    draw = SubwordRegularizer(SamplingConfig(target=side), known, 10_000)
    before = pairs_of(known, LINES)
    after = draw(before, 1, 0)
    assert known.decode_target(sentences(after)) == LINES
    assert sentences(after) != sentences(before)
    assert all(ids.count(END) == 1 and ids[-1] == END for ids in sentences(after))
    assert np.array_equal(after.arrays("source")[0], before.arrays("source")[0])


def test_what_is_no_text_stays_where_it_is(vocabularies):
    """A tag before the text, and bytes of a character that has no piece."""
    known = vocabularies["bpe"]
    (line,) = known.encode_target(["lowest \N{CAT FACE} newest"])
    ids, starts = flat([[4, *line]])
    pieces = Pieces.read(known.target.content, 0)
    (found,) = cut_all(pieces, BpeDropout(pieces, 1.0), ids, starts)
    assert found[0] == 4
    in_bytes = range(FIRST_PIECE, FIRST_PIECE + 256)
    assert sum(i in in_bytes for i in found) == 4
    assert [i for i in found if i in in_bytes] == [i for i in ids.tolist() if i in in_bytes]


def test_without_any_merge_words_are_characters(vocabularies):
    known = vocabularies["bpe"]
    pairs = SubwordRegularizer(SamplingConfig(source={"dropout": 1.0}), known, 99)(
        pairs_of(known, ["low new"]), 1
    )
    assert known.pieces_source(pairs.source(0)) == [*f"{SPACE}low{SPACE}new", "</s>"]


# ------------------------------------------------------------- the papers' distributions

NAMES = ["", "a", "b", "c", "ab", "bc", "abc", "cc", "ca"]
SCORES = np.array([0, -1.1, -1.3, -1.2, -1.7, -1.4, -2.6, -1.9, -1.6])
WORD = "abcabcc"
DRAWS = 20_000


def frequencies(cut, pieces, word=WORD):
    """How often each cut of a word is drawn."""
    symbols = np.array([pieces.symbols[c] for c in word] * DRAWS)
    starts = np.arange(DRAWS + 1) * len(word)
    ids, counts = cut(symbols, starts, np.random.default_rng(1))
    ends = np.cumsum(counts)
    return Counter(tuple(ids[end - n : end].tolist()) for end, n in zip(ends, counts, strict=True))


def assert_drawn_from(expected, counted):
    """Each within five deviations of what its probability says, and nothing else."""
    assert sum(expected.values()) == pytest.approx(1)
    assert set(counted) <= {cut for cut, p in expected.items() if p > 0}
    for cut, p in expected.items():
        assert abs(counted[cut] - DRAWS * p) <= 5 * (DRAWS * p * (1 - p)) ** 0.5 + 1e-9, cut


def cuts_of(word):
    """Every way to cut a word into known pieces."""
    for count in range(len(word)):
        for places in combinations(range(1, len(word)), count):
            ends = [0, *places, len(word)]
            parts = [word[a:b] for a, b in pairwise(ends)]
            if all(part in NAMES for part in parts):
                yield tuple(map(NAMES.index, parts))


@pytest.mark.parametrize(
    ("alpha", "nbest", "word"),
    [
        (1.0, None, WORD), (0.3, None, WORD), (0.0, None, WORD), (0.5, 3, WORD),
        (1.0, None, 2 * WORD), (0.3, None, 2 * WORD), (0.0, 200, 2 * WORD), (0.2, 20, 2 * WORD),
    ],
)  # fmt: skip
def test_unigram_cuts_have_their_probability_to_the_power_of_alpha(alpha, nbest, word):
    """Kudo 2018, section 3.2: among the n best of all cuts, which are enumerated here."""
    scores = {cut: SCORES[list(cut)].sum() for cut in cuts_of(word)}
    ranked = sorted(scores.values(), reverse=True)
    least = ranked[min(nbest or NBEST, len(ranked)) - 1]
    count = sum(score > least + 1e-6 for score in ranked)
    pieces = Pieces("unigram", NAMES, SCORES)
    counted = frequencies(UnigramSampler(pieces, alpha, nbest), pieces, word)
    # Of cuts that tie for the last places any may be among the n best, but always the same ones.
    tied = [cut for cut in counted if abs(scores[cut] - least) <= 1e-6]
    best = [cut for cut in scores if scores[cut] > least + 1e-6]
    best += tied[: min(nbest or NBEST, len(ranked)) - count]
    total = sum(np.exp(alpha * scores[cut]) for cut in best)
    expected = {cut: np.exp(alpha * scores[cut]) / total for cut in best}
    assert len(scores) > (NBEST if len(word) > len(WORD) else 10)
    assert_drawn_from(expected, counted)


def test_cuts_are_the_same_in_each_process(vocabularies):
    """The best cuts come from SentencePiece, whose own sampling differs between processes."""
    code = (
        "import sys, hashlib, numpy as np\n"
        "from mt.vocabulary.subword_sampling import Pieces, UnigramSampler\n"
        "pieces = Pieces.read(open(sys.argv[1], 'rb').read(), 0)\n"
        "ids = np.tile(np.arange(330, 390), 50)\n"
        "text, words, _ = pieces.spell(ids, np.arange(0, len(ids) + 1, 10))\n"
        "cut = UnigramSampler(pieces, 0.1, None)(text, words, np.random.default_rng(1))\n"
        "print(hashlib.sha256(cut[0].tobytes()).hexdigest())\n"
    )
    content = vocabularies["unigram"].source.content
    with tempfile.NamedTemporaryFile(suffix=".model") as file:
        file.write(content)
        file.flush()
        command = [sys.executable, "-c", code, file.name]
        outputs = {subprocess.run(command, capture_output=True, check=True).stdout for _ in "abc"}
    assert len(outputs) == 1


def algorithm_1(split, dropout):
    """The distribution of what Provilkov et al. 2020, algorithm 1, makes of a split."""
    merges = [
        (-SCORES[NAMES.index("".join(split[i : i + 2]))], i)
        for i in range(len(split) - 1)
        if "".join(split[i : i + 2]) in NAMES
    ]
    found = Counter()
    for number, (_, i) in enumerate(sorted(merges)):  # it is made when all before it are dropped
        share = dropout**number * (1 - dropout)
        merged = (*split[:i], split[i] + split[i + 1], *split[i + 2 :])
        for cut, p in algorithm_1(merged, dropout).items():
            found[cut] += share * p
    found[tuple(map(NAMES.index, split))] += dropout ** len(merges)
    return found


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_bpe_cuts_are_those_of_algorithm_1(dropout):
    pieces = Pieces("bpe", NAMES, SCORES)
    expected = algorithm_1(tuple(WORD), dropout)
    assert len(expected) > 10
    assert_drawn_from(expected, frequencies(BpeDropout(pieces, dropout), pieces))


# ------------------------------------------------------------------------- the same bits


@pytest.mark.parametrize(
    ("model", "side"), [("bpe", {"dropout": 0.2}), ("unigram", {"alpha": 0.3})]
)
def test_an_epoch_is_a_function_of_seed_and_number(vocabularies, model, side):
    known = vocabularies[model]
    pairs = pairs_of(known, LINES)
    made = [
        EpochCorpora(
            SubwordRegularizer(SamplingConfig(source=side, target=side), known, 99), pairs, 7
        )
        for _ in "ab"
    ]
    whole = [sentences(made[0].start_epoch(epoch)) for epoch in range(3)]
    assert whole[0] != whole[1] != whole[2]
    assert sentences(made[1].start_epoch(2)) == whole[2]  # as when a run is resumed there
    draw = SubwordRegularizer(SamplingConfig(source=side, target=side), known, 99)
    assert sentences(draw(pairs, 7, 1)) == whole[1]
    assert sentences(draw(pairs, 8, 1)) != whole[1]
    assert [ids.tolist() for ids in map(draw(pairs, 7, 1).source, range(9))] != whole[1][:9]


def test_many_sentences_are_cut_some_at_a_time(vocabularies, monkeypatch):
    known = vocabularies["bpe"]
    monkeypatch.setattr(subword_regularization, "CHUNK_TOKENS", 40)
    draw = SubwordRegularizer(SamplingConfig(target={"dropout": 0.3}), known, 10_000)
    pairs = pairs_of(known, [*LINES, "", *LINES])
    assert known.decode_target(sentences(draw(pairs, 1))) == [*LINES, "", *LINES]


def test_no_sentence_becomes_too_long(vocabularies):
    known = vocabularies["unigram"]
    pairs = pairs_of(known, LINES)
    plain = sentences(pairs)
    limit = max(map(len, plain))
    draw = SubwordRegularizer(SamplingConfig(target={"alpha": 0.0}), known, limit)
    most = draw.max_lengths(pairs)
    assert most == (limit, limit)
    found = [sentences(draw(pairs, 1, epoch)) for epoch in range(5)]
    assert max(len(ids) for epoch in found for ids in epoch) <= limit
    assert any(epoch[row] == plain[row] for epoch in found for row in range(len(plain)))
    loose = SubwordRegularizer(SamplingConfig(target={"alpha": 0.0}), known, 10_000)
    assert max(map(len, sentences(loose(pairs, 1, 0)))) > limit
    assert loose.max_lengths(pairs)[1] >= max(map(len, sentences(loose(pairs, 1, 0))))


def test_a_sentence_with_a_character_that_is_no_piece_keeps_its_cut():
    """In some models a character stands within longer pieces only."""
    pieces = Pieces("bpe", ["", "", "", "", "a", "ab"], np.array([0, 0, 0, 0, -2.0, -1.0]))
    draw = SubwordRegularizer(SamplingConfig(), learned("bpe"), 99)
    ids, starts = np.array([5, 3, 4, 3]), np.array([0, 2, 4])
    cut = BpeDropout(pieces, 1.0)
    found, lengths = draw._segment(ids, starts, pieces, cut, np.random.default_rng(1))
    assert (found.tolist(), lengths.tolist()) == ([5, 3, 4, 3], [2, 2])


# ------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "bpe", "sampling": {"source": {"alpha": 0.1}}}, "sampling.source.alpha is for"),
        ({"sampling": {"target": {"dropout": 0.1}}}, "dropout is for model: bpe, not for unigram"),
        ({"kind": "whitespace", "sampling": {"target": {"alpha": 0.1}}}, "not for whitespace"),
        ({"sampling": {"source": {"nbest": 5}}}, "nbest draws with alpha"),
    ],
)
def test_sampling_that_does_not_fit_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        VocabularyConfig.model_validate(values)


def test_a_vocabulary_of_another_kind_is_refused_when_it_is_opened(vocabularies):
    with pytest.raises(ConfigError, match="is for a unigram vocabulary, and this one is bpe"):
        SubwordRegularizer(SamplingConfig(source={"alpha": 0.1}), vocabularies["bpe"], 99)
    words = learn_vocabulary(
        VocabularyConfig(kind="whitespace"), Languages(source="en", target="de"), LINES, LINES
    )  # fmt: skip
    with pytest.raises(ConfigError, match="whole words only"):
        SubwordRegularizer(SamplingConfig(source={"alpha": 0.1}), words, 99)


def test_the_first_piece_of_text_is_no_special_one(vocabularies):
    """Else tags could be drawn."""
    assert all(not name for name in Pieces.read(vocabularies["bpe"].source.content, 0).names[:68])
    assert FIRST_PIECE == 68
