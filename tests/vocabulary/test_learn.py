"""Learning a vocabulary: its size, its pieces, foreign models and the sample of lines."""

import pytest
from learned_vocabularies import ENGLISH, RESERVED, SIZE, SOURCE, TARGET, learned

from mt.config.schema import Languages, VocabularyConfig
from mt.errors import ConfigError, DataError, ModelError
from mt.special_tokens import FIRST_PIECE, UNK
from mt.vocabulary.learn import learn_vocabulary, sample_rows


@pytest.mark.parametrize("model", ["unigram", "bpe"])
@pytest.mark.parametrize("joint", [True, False])
def test_the_size_is_that_of_the_recipe(model, joint):
    known = learned(model=model, joint=joint)
    assert (known.source_size, known.target_size, known.joint) == (SIZE, SIZE, joint)


def test_reserved_strings_in_the_text_learned_from_are_text():
    known = learn_vocabulary(
        VocabularyConfig(size=SIZE), ENGLISH, [*SOURCE, *RESERVED * 50], [*TARGET, *RESERVED * 50]
    )
    for line in RESERVED[:-1]:
        (ids,) = known.encode_target([line])
        assert min(ids) >= FIRST_PIECE
        assert known.decode_target([ids]) == [line]


@pytest.mark.parametrize("model", ["unigram", "bpe"])
@pytest.mark.parametrize("joint", [True, False])
def test_too_large_a_size_names_the_largest_possible(model, joint):
    settings = {"model": model, "joint": joint}
    with pytest.raises(ConfigError) as error:
        learned(size=50_000, **settings)
    assert error.value.code == "VOCAB-TOO-BIG"
    largest = int(str(error.value).split("largest possible is ")[1].split("\n")[0])
    assert str(error.value).splitlines() == [
        "mt: error[VOCAB-TOO-BIG] vocabulary.size: 50000 is too large for this text; "
        f"the largest possible is {largest}",
        f"set vocabulary.size={largest} or less, or train on more text",
    ]
    known = learned(size=largest, **settings)
    assert known.source_size == known.target_size == largest
    with pytest.raises(ConfigError, match=f"largest possible is {largest}\n"):
        learned(size=largest + 1, **settings)


def test_too_small_a_size_names_the_smallest_possible():
    with pytest.raises(ConfigError) as error:
        learned(size=100)
    assert error.value.code == "VOCAB-TOO-SMALL"
    smallest = int(str(error.value).split("it takes ")[1].split("\n")[0])
    assert learned(size=smallest).size == smallest


def test_no_text_is_reported():
    with pytest.raises(DataError, match="there is no text to learn it from"):
        learn_vocabulary(VocabularyConfig(), ENGLISH, ["", " "], ["a"] * 0)


def test_learning_twice_gives_the_same():
    assert learned().digest == learned().digest
    assert learned().digest != learned(size=SIZE - 1).digest


def test_chinese_spells_rare_characters_in_bytes():
    lines = ["我 看 见 房子" * 3] * 3000 + ["龘 看 见"]
    chinese = Languages(source="zh", target="en")
    known = learn_vocabulary(VocabularyConfig(size=337), chinese, lines, ["see house"] * 3000)
    assert len(known.encode_source(["龘"])[0]) == 4  # the space and three bytes
    whole = learn_vocabulary(
        VocabularyConfig(size=337, character_coverage=1.0), chinese, lines, ["see house"] * 3000
    )
    assert len(whole.encode_source(["龘"])[0]) == 2


def test_a_path_reuses_a_vocabulary(tmp_path):
    known = learned()
    known.save(tmp_path)
    for path in (tmp_path, tmp_path / "vocabulary.model"):
        again = learn_vocabulary(VocabularyConfig(path=str(path)), ENGLISH, [], [])
        assert again.digest == known.digest


def test_a_foreign_model_keeps_its_pieces_above_the_reserved_ids(tmp_path):
    import sentencepiece

    prefix = str(tmp_path / "foreign")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SOURCE), model_prefix=prefix, vocab_size=45, minloglevel=2
    )
    foreign = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    known = learn_vocabulary(VocabularyConfig(path=f"{prefix}.model"), ENGLISH, [], [])
    assert known.size == FIRST_PIECE + 45
    line = "The house sees the river."
    (ids,) = known.encode_target([line])
    assert ids == [FIRST_PIECE + i for i in foreign.encode(line)]
    assert known.decode_target([ids]) == [line]
    assert "".join(known.pieces_target(ids)) == "▁" + line.replace(" ", "▁")
    assert UNK in known.encode_target(["Ж"])[0]


@pytest.mark.parametrize("content", [b"", b"random", b"\0" * 100])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "x.model"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a SentencePiece model"):
        learn_vocabulary(VocabularyConfig(path=str(path)), ENGLISH, [], [])
    with pytest.raises(ModelError, match="No such file"):
        learn_vocabulary(VocabularyConfig(path=str(path) + "x"), ENGLISH, [], [])


def test_whitespace_keeps_given_pieces():
    known = learned(kind="whitespace", size=10_000, joint=False)
    line = "Der houses@@ üß"
    pieces = ["ein@@ fach", "<s> a </s>", "ﬁ x"]
    known = learn_vocabulary(VocabularyConfig(kind="whitespace"), ENGLISH, pieces, [line])
    assert known.decode_target(known.encode_target([line])) == [line]
    for ids, text in zip(known.encode_source(pieces), pieces, strict=True):
        assert known.pieces_source(ids) == text.split(" ")
        assert min(ids) >= FIRST_PIECE
    assert known.encode_source(["never"]) == [[UNK]]
    assert known.size == FIRST_PIECE + len({w for text in [*pieces, line] for w in text.split()})


def test_whitespace_keeps_the_most_frequent_pieces():
    settings = VocabularyConfig(kind="whitespace", size=FIRST_PIECE + 2, joint=False)
    known = learn_vocabulary(settings, ENGLISH, ["b b b a a c"], ["x"])
    assert known.pieces_source(known.encode_source(["a b c"])[0]) == ["a", "b", "<unk>"]


@pytest.mark.parametrize("count", [0, 1, 10, 11, 1000])
def test_a_sample_is_spread_over_all_lines(count):
    rows = sample_rows(count, VocabularyConfig(sample=10))
    assert len(rows) == len(set(rows.tolist())) == min(10, count)
    assert sorted(rows.tolist()) == rows.tolist()
    if count == 1000:
        assert (rows // 100).tolist() == list(range(10))
        assert rows.tolist() != sample_rows(count, VocabularyConfig(sample=10, seed=2)).tolist()
