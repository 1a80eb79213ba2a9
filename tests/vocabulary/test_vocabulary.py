import pickle

import pytest
import tiny_run
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_vocabularies import RESERVED, SOURCE, TARGET, learned

from mt.config import validation, yaml_reader
from mt.config.schema import VocabularyConfig
from mt.decoding.word_alignment import to_words
from mt.errors import ConfigError, ModelError
from mt.special_tokens import END, FIRST_PIECE, FIRST_RESERVED, PAD, UNK
from mt.vocabulary import learn
from mt.vocabulary.vocabulary import Vocabulary, normalize_source

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


@given(LINES)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_source_line_comes_back_as_it_was_normalised(line):
    for known in MODELS:
        assert known.source.decode(known.encode_source([line])) == [normalize_source(line)]


@pytest.mark.parametrize("text", RESERVED)
def test_reserved_strings_in_text_are_text(known, text):
    for line in (text, f"a {text} b", text * 3):
        for ids in (*known.encode_source([line]), *known.encode_target([line])):
            assert ids
            assert min(ids) >= FIRST_PIECE


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
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(ModelError, match="format 3, this one reads 2"):
        Vocabulary.load(tmp_path)


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
def test_a_wrong_setting_is_reported(text, expected):
    with pytest.raises(ConfigError) as error:
        validation.validate(VocabularyConfig, yaml_reader.parse(text))
    assert expected in str(error.value)


@pytest.mark.parametrize("more", [{}, {"byte_fallback": True, "remove_extra_whitespaces": False}])
def test_a_model_that_puts_spaces_after_words_leaves_none_at_the_end(tmp_path, more):
    """SentencePiece's treat_whitespace_as_suffix, in a model that another program made."""
    import sentencepiece

    lines, size = [*tiny_run.SOURCES, *tiny_run.TARGETS], 330 if more else 60
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(tmp_path / "suffix"), vocab_size=size,
        treat_whitespace_as_suffix=True, minloglevel=2, hard_vocab_limit=False, **more,
    )  # fmt: skip
    known = learn.open_existing(VocabularyConfig(path=str(tmp_path / "suffix.model")))
    ids = known.encode_target(lines)
    assert all(known.pieces_target(each)[-1].endswith("▁") for each in ids)
    assert known.decode_target(ids) == lines
    words = [word for word, _ in to_words(known.pieces_target(ids[0]))]
    assert words == lines[0].split(" ")
    if more:
        assert known.decode_target(known.encode_target(["a "])) == ["a "]  # its own
