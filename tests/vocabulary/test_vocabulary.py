import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.config import validation, yaml_reader
from mt.config.schema import Languages, VocabularyConfig
from mt.errors import ConfigError, DataError, ModelError
from mt.special_tokens import END, FIRST_PIECE, FIRST_RESERVED, PAD, UNK
from mt.vocabulary.learn import learn_vocabulary, sample_rows
from mt.vocabulary.vocabulary import Vocabulary, normalize_source

ENGLISH = Languages(source="en", target="de")
SIZE = 366
NOUNS = ["house", "tree", "river", "street", "child", "window", "morning", "letter", "garden"]
VERBS = ["sees", "finds", "keeps", "paints", "follows", "forgets", "answers", "remembers"]
SOURCE = [f"The {a} {v} the {b}, and the {b} {v} it." for a in NOUNS for v in VERBS for b in NOUNS]
TARGET = [f"Der {a}süß {v}t den {b}er; ‘gewiß’." for a in NOUNS for v in VERBS for b in NOUNS]
RESERVED = [
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<mask>",
    "<bt>",
    "<reserved_7>",
    "<2de>",
    "<0x41>",
    "▁",
]


def learned(**values):
    return learn_vocabulary(VocabularyConfig(**{"size": SIZE, **values}), ENGLISH, SOURCE, TARGET)


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def known(request):
    return learned(model=request.param)


@pytest.mark.parametrize("model", ["unigram", "bpe"])
@pytest.mark.parametrize("joint", [True, False])
def test_the_size_is_what_was_asked_for(model, joint):
    known = learned(model=model, joint=joint)
    assert (known.source_size, known.target_size, known.joint) == (SIZE, SIZE, joint)


LINES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\n\0\u2581"), max_size=30
)


@given(LINES)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_target_line_comes_back_from_its_ids_unchanged(line):
    for known in MODELS:
        assert known.decode_target(known.encode_target([line])) == [line]


MODELS = [learned(model="unigram"), learned(model="bpe", joint=False)]


def test_spaces_of_the_target_come_back():
    lines = ["", " ", "  a", "a  b ", "\ta\u00a0b\u3000", "。「你好」！", "\u2028\x0b\r"]
    assert MODELS[0].decode_target(MODELS[0].encode_target(lines)) == lines


@given(LINES)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_no_character_is_unknown(line):
    for known in MODELS:
        (ids,) = known.encode_source([line])
        assert UNK not in ids
        assert all(FIRST_PIECE <= i < known.source_size for i in ids)


@pytest.mark.parametrize("text", RESERVED)
def test_reserved_strings_in_text_are_text(known, text):
    for line in (text, f"a {text} b", text * 3):
        for ids in (*known.encode_source([line]), *known.encode_target([line])):
            assert ids
            assert min(ids) >= FIRST_PIECE


def test_reserved_strings_in_the_text_learned_from_are_text():
    known = learn_vocabulary(
        VocabularyConfig(size=SIZE), ENGLISH, [*SOURCE, *RESERVED * 50], [*TARGET, *RESERVED * 50]
    )
    for line in RESERVED[:-1]:
        (ids,) = known.encode_target([line])
        assert min(ids) >= FIRST_PIECE
        assert known.decode_target([ids]) == [line]


def test_the_source_is_normalised():
    known = MODELS[0]
    plain, wide = known.encode_source(["Hello 1 fi", "  Ｈｅｌｌｏ\u3000\t1  ﬁ\u00a0"])
    assert plain == wide
    assert known.encode_target(["Hello"]) != known.encode_target(["Ｈｅｌｌｏ"])


def test_decoding_stops_at_the_end_and_leaves_controls_out():
    known = MODELS[0]
    (ids,) = known.encode_target(["Der house"])
    padded = [2, FIRST_RESERVED, *ids, FIRST_RESERVED + 1, END, *ids, PAD]
    assert known.decode_target([padded, [], [END]]) == ["Der house", "", ""]
    assert known.decode_target([]) == known.encode_target([]) == known.encode_source([]) == []
    assert known.decode_target([[]]) == [""]
    assert known.decode_target([[*ids, known.target_size + 5]]) == ["Der house"]


def test_pieces_name_every_id():
    known = MODELS[0]
    assert known.pieces_target([0, 1, 2, 3, 4, 5, 6]) == [
        "<pad>", "<unk>", "<s>", "</s>", "<mask>", "<bt>", "<reserved_2>",
    ]  # fmt: skip
    (ids,) = known.encode_source(["the house"])
    assert "".join(known.pieces_source(ids)) == "▁the▁house"


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


def test_no_text_is_told():
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


@pytest.mark.parametrize("settings", [{}, {"joint": False}, {"kind": "whitespace", "size": 90}])
def test_what_is_saved_is_what_is_loaded(tmp_path, settings):
    known = learned(**settings)
    known.save(tmp_path)
    loaded = Vocabulary.load(tmp_path)
    assert (loaded.digest, loaded.joint, loaded.controls) == (
        known.digest, known.joint, {"<mask>": 4, "<bt>": 5},
    )  # fmt: skip
    copy = pickle.loads(pickle.dumps(known))
    assert copy.joint == known.joint
    for other in (loaded, copy):
        assert other.encode_source(SOURCE[:20]) == known.encode_source(SOURCE[:20])
        assert other.encode_target(TARGET[:20]) == known.encode_target(TARGET[:20])


@pytest.mark.parametrize("name", ["vocabulary.model", "vocabulary.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "flipped", "random"])
def test_a_damaged_vocabulary_is_refused(tmp_path, name, damage):
    learned().save(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        changed = {
            "cut": content[:-9],
            "empty": b"",
            "flipped": flipped,
            "random": b"\xff\x01" * 99,
        }
        path.write_bytes(changed[damage])
    with pytest.raises(ModelError) as error:
        Vocabulary.load(tmp_path)
    assert error.value.code == ("VOCAB-NONE" if damage == "missing" else "VOCAB-DAMAGED")


def test_a_newer_format_is_refused(tmp_path):
    learned().save(tmp_path)
    path = tmp_path / "vocabulary.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ModelError, match="newer than 1"):
        Vocabulary.load(tmp_path)


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


def test_folding_is_idempotent():
    for line in [*SOURCE[:3], "  ａ\u00a0b ", "①\u2003²"]:
        assert normalize_source(normalize_source(line)) == normalize_source(line)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{character_coverage: 0.0}", "should be auto or above 0 and at most 1, got 0.0"),
        ("{size: 68}", "should be greater than 68"),
        ("{modle: bpe}", "unknown key (did you mean model?)"),
    ],
)
def test_a_wrong_setting_is_told(text, expected):
    with pytest.raises(ConfigError) as error:
        validation.validate(VocabularyConfig, yaml_reader.parse(text))
    assert expected in str(error.value)
