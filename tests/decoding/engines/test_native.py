"""The native engine: order, blank and long lines, scores, settings, what it refuses."""

from __future__ import annotations

import math

import pytest
import tiny_run
import torch

from mt.checkpoints import checkpoint, run_directory
from mt.config.plugins import plugin
from mt.data.pairs import Pair
from mt.decoding.decoders import ModelDecoder
from mt.decoding.text_translator import to_translation
from mt.decoding.types import EngineOptions, Hypothesis, Request, Sentence
from mt.errors import ConfigError, DataError, MachineError, ModelError
from mt.special_tokens import BEGIN, END, FIRST_PIECE

native = plugin("engines", "native")
ONE = EngineOptions(threads=1, precision="fp32")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.make(tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="module")
def engine(run):
    return native.open(run, ONE)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """An engine whose output, cut into words again, is the same tokens."""
    return native.open(tiny_run.make(tmp_path_factory.mktemp("words"), "whitespace"), ONE)


def options(**more):
    return EngineOptions(threads=1, **{"precision": "fp32", **more})


def texts(engine, lines, **more):
    return [each.text for each in engine.translate(lines, options(**more))]


def pair(source, target):
    return Pair(source, target, "en", "de", "test:1")


LINES = [
    *tiny_run.SOURCES,
    "",
    *tiny_run.SOURCES[::-1],
    "Dogs.",
    "apple apple",
    " ",
    "日本 \U0001f600",
]


def test_batch_size_and_order_do_not_change_translations(engine):
    expected = texts(engine, LINES)
    assert len(set(expected)) > 5
    assert texts(engine, LINES, batch_tokens=1) == expected
    assert texts(engine, LINES, batch_tokens=60) == expected
    assert texts(engine, LINES[::-1]) == expected[::-1]
    assert [texts(engine, [line])[0] for line in LINES] == expected


def test_windows_do_not_change_translations(engine, monkeypatch):
    import mt.decoding.batching

    expected = texts(engine, LINES)
    monkeypatch.setattr(mt.decoding.batching, "FIRST_WINDOW", 2)
    monkeypatch.setattr(mt.decoding.batching, "LARGEST_WINDOW", 5)
    assert texts(engine, LINES) == expected


def test_output_comes_before_all_input_was_read(engine):
    read = []

    def endless():
        while True:
            read.append(1)
            yield "Dogs."

    assert next(engine.translate(endless(), options())).text is not None
    assert len(read) <= 64


@pytest.mark.parametrize(
    "line", ["", " ", "\t \r", "\u00a0", "\u200b", "\ufeff", "\x00\x1b", "\u2028\u3000"]
)
def test_a_blank_line_stays_blank_and_never_meets_the_model(run, line):
    engine = native.open(run, ONE)
    engine.searcher.models = []
    (found,) = engine.translate([line])
    assert (found.text, found.score, found.tokens) == ("", 0.0, ())
    assert list(engine.translate([])) == []


def test_no_translation_contains_what_ends_a_line(run):
    engine = native.open(run, ONE)
    ids = engine.vocabulary.encode_target(["a\nb\rc"])[0]
    assert engine.vocabulary.decode_target([ids]) == ["a\nb\rc"]
    found = Hypothesis([*ids, END], -1.0, [0.0] * 20)
    told = to_translation(engine.vocabulary, (), found, "a\nb\rc", Sentence([END], 9))
    assert told.text == "a b c"


def test_a_long_line_is_split_at_its_sentences(engine, capsys):
    short = ["Two dogs play in the grass!", "Girls sing.", 'He says "The house is red."']
    for text in short:
        assert len(engine.vocabulary.encode_source([text])[0]) < 40
    line = " ".join(short)
    assert len(engine.vocabulary.encode_source([line])[0]) >= 40
    found = texts(engine, ["Dogs.", line, "Girls."])
    assert capsys.readouterr().err == (
        "mt: warning[LINE-LONG] 1 lines of more than 39 pieces were split at sentence ends, "
        "or cut where there are none: lines 2\n"
    )
    assert found[0] == texts(engine, ["Dogs."])[0]
    assert found[1] == " ".join(_parts(engine, short))
    assert capsys.readouterr().err == ""


def _parts(engine, sentences):
    """The translations of sentences, each with as many of those after it as fit."""
    parts, room = [], engine.profile.longest - 1
    for text in sentences:
        joined = f"{parts[-1]} {text}" if parts else text
        if parts and len(engine.vocabulary.encode_source([joined])[0]) <= room:
            parts[-1] = joined
        else:
            parts.append(text)
    assert len(parts) > 1
    return texts(engine, parts)


def test_a_long_line_without_sentence_ends_is_cut(engine, capsys):
    line = "dogs play " * 40
    cut = engine.vocabulary.encode_source([line])[0][: engine.profile.longest - 1]
    (found,) = engine.translate([line])
    assert "lines 1\n" in capsys.readouterr().err
    sentence = Sentence([*cut, END], len(found.log_probabilities))  # it ran to its limit
    ((best, *_),) = engine.searcher.search([sentence], engine.profile.search, ONE)
    assert found.score == best.score


def test_the_warning_names_ten_lines_and_counts_all(engine, capsys):
    texts(engine, ["", *["dogs play " * 40] * 9, *[""] * 99, *["dogs play " * 40] * 3])
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "12 lines" in told
    assert told.endswith("lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 110, ...\n")


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
def test_a_translation_scores_what_forcing_it_scores(words, penalty):
    lines = tiny_run.SOURCES
    found = list(words.translate(lines, options(search={"length_penalty": penalty})))
    scores = list(words.score([pair(a, b.text) for a, b in zip(lines, found, strict=True)]))
    assert len({each.text for each in found}) > 1
    for each, forced in zip(found, scores, strict=True):
        ids = words.vocabulary.encode_target([each.text])[0]
        assert words.vocabulary.pieces_target(ids) == list(each.tokens)
        assert forced.tokens == len(each.log_probabilities) == len(each.tokens) + 1
        assert each.score * forced.tokens**penalty == pytest.approx(
            forced.log_probability, abs=1e-4
        )
        assert each.log_probabilities == pytest.approx(forced.token_log_probabilities, abs=1e-4)


def test_scores_do_not_depend_on_batch_mates(engine):
    pairs = [pair(a, b) for a in tiny_run.SOURCES for b in (*tiny_run.TARGETS, "")]
    together = list(engine.score(pairs))
    alone = [next(engine.score([each])) for each in pairs]
    for a, b in zip(together, alone, strict=True):
        assert a.tokens == b.tokens
        assert a.log_probability == pytest.approx(b.log_probability, abs=1e-4)


def test_what_is_too_long_to_score_is_cut_with_a_warning(engine, capsys):
    (found,) = engine.score([pair("Dogs.", "Hunde " * 50)])
    assert found.tokens == engine.profile.longest
    assert "LINE-LONG" in capsys.readouterr().err


def test_a_pair_with_one_side_cannot_be_scored(engine):
    with pytest.raises(DataError, match="test:1: a side is missing"):
        list(engine.score([pair("Dogs.", None)]))


def test_the_decoder_gives_what_full_decoding_gives(engine):
    """Cache, reordering and dropping, as a search uses them, against no cache at all."""
    source = torch.randint(FIRST_PIECE, 408, (4, 6), generator=torch.Generator().manual_seed(1))
    source[2, 4:] = 0
    model, width, steps = engine.searcher.models[0].eval(), 3, 7
    decoder = ModelDecoder(model)
    generator = torch.Generator().manual_seed(2)
    with torch.inference_mode():
        state = decoder.start(source, width, torch.full((4,), steps))
        prefixes = torch.empty((4, width, 0), dtype=torch.long)
        for step in range(steps):
            tokens = torch.randint(FIRST_PIECE, 408, prefixes.shape[:2], generator=generator)
            if step == 0:
                tokens.fill_(BEGIN)
            prefixes = torch.cat((prefixes, tokens[..., None]), dim=2)
            logits = decoder.step(state, tokens)
            rows = source.repeat_interleave(width, dim=0)
            full = model(rows, prefixes.flatten(0, 1))[:, -1]
            torch.testing.assert_close(logits.flatten(0, 1), full, atol=1e-5, rtol=1e-5)
            beams = torch.randint(0, width, tokens.shape, generator=generator)
            if step == 3:
                kept = torch.tensor([0, 2])
                decoder.select_sentences(state, kept)
                source, prefixes, beams = source[kept], prefixes[kept], beams[kept]
            decoder.reorder(state, beams)
            prefixes = prefixes.gather(1, beams[..., None].expand_as(prefixes))


def test_max_lengths_follow_the_source_and_the_recipe(words, monkeypatch):
    asked: list[Request] = []

    class Build:
        @staticmethod
        def build(config):
            search = plugin("search", config.kind).build(config)
            return lambda decoder, request: asked.append(request) or search(decoder, request)

    monkeypatch.setattr("mt.decoding.torch_searcher.plugin", lambda folder, kind: Build)
    settings = {"max_length_ratio": 2.0, "max_length_extra": 3}
    texts(words, ["Girls sing.", "A boy eats an apple."], search=settings)
    assert asked[0].max_lengths.tolist() == [14, 8]


def test_n_best_lists_are_sorted_and_begin_with_the_translation(engine):
    for each in engine.translate(tiny_run.SOURCES, options(n_best=3)):
        scores = [other.score for other in each.alternatives]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        assert each.alternatives[0].text == each.text
        assert len({other.tokens for other in each.alternatives}) == 3
    assert all(not each.alternatives for each in engine.translate(tiny_run.SOURCES))


def test_a_forced_prefix_begins_the_translation(engine):
    prefixes = ["Zwei Hunde", "", "ein Haus"] * 4
    found = list(engine.translate(tiny_run.SOURCES[:3] * 4, options(prefixes=prefixes)))
    for each, prefix in zip(found, prefixes, strict=True):
        assert each.text.startswith(prefix)
        assert each.prefix == prefix
    free = list(engine.translate(tiny_run.SOURCES[:3] * 4))
    assert [a.text == b.text for a, b in zip(found, free, strict=True)] == [False, True, False] * 4


def test_too_few_prefixes_are_reported(engine):
    with pytest.raises(DataError, match="line 2: there is no prefix for it"):
        list(engine.translate(["Dogs.", "Girls."], options(prefixes=["Ein"])))


def test_an_alignment_has_a_row_a_token_over_the_source_pieces(engine):
    for each in engine.translate(tiny_run.SOURCES, options(alignments=True, n_best=2)):
        for one in each.alternatives:
            assert len(one.alignment) == len(one.tokens)
            for row in one.alignment:
                assert len(row) == len(one.source_tokens)
                assert 0 < sum(row) < 1 + 1e-5


def test_settings_replace_those_of_the_run(engine):
    greedy = texts(engine, LINES, search={"kind": "greedy"})
    assert texts(engine, LINES, search={"beams": 1}) == greedy
    assert greedy != texts(engine, LINES)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"beems": 8},
            "mt: error[CONFIG] --set search.beems=8: search.beems: unknown key "
            "(did you mean beams?)",
        ),
        (
            {"beams": 0},
            "mt: error[CONFIG] --set search.beams=0: search.beams: should be greater than or "
            "equal to 1, got 0",
        ),
        (
            {"kind": "bean"},
            "mt: error[CONFIG] --set search.kind=bean: search: unknown kind 'bean' "
            "(did you mean beam?)",
        ),
    ],
)
def test_a_wrong_setting_is_reported_by_its_key(run, engine, settings, line):
    with pytest.raises(ConfigError) as at_open:
        native.open(run, options(search=settings))
    with pytest.raises(ConfigError) as at_call:
        list(engine.translate(["Dogs."], options(search=settings)))
    assert str(at_open.value).splitlines()[0] == str(at_call.value).splitlines()[0] == line


@pytest.mark.parametrize(
    "more",
    [
        {"target_language": "zh"},
        {"n_best": 4},
        {"search": {"kind": "greedy"}, "n_best": 2},
    ],
)
def test_what_is_not_there_yet_is_refused(engine, more):
    with pytest.raises(ConfigError):
        list(engine.translate(["Dogs."], options(**more)))


def test_bf16_translates_and_leaves_the_weights_alone(run):
    engine = native.open(run, options(precision="bf16"))
    before = {k: v.clone() for k, v in engine.searcher.models[0].state_dict().items()}
    assert len(texts(engine, LINES)) == len(LINES)
    assert engine.searcher.models[0].output()[0].dtype == torch.float32
    assert all(torch.equal(v, before[k]) for k, v in engine.searcher.models[0].state_dict().items())


def test_a_model_in_training_is_translated_without_dropout_and_trains_on(run, engine):
    expected = texts(engine, LINES)
    device = torch.device("cpu")
    live = native.native_engine(
        engine.searcher.models[0], engine.vocabulary, run_directory.read_recipe(run), device, "fp32"
    )
    engine.searcher.models[0].train()
    try:
        assert texts(live, LINES) == expected
        assert engine.searcher.models[0].training
        loss = (
            engine.searcher.models[0](torch.full((1, 2), 70), torch.full((1, 2), 70))
            .logsumexp(-1)
            .sum()
        )
        loss.backward()
    finally:
        engine.searcher.models[0].eval()
        engine.searcher.models[0].zero_grad()


def test_a_model_that_diverged_is_reported(run):
    engine = native.open(run, ONE)
    with torch.no_grad():
        next(engine.searcher.models[0].parameters()).fill_(math.nan)
    with pytest.raises(ModelError, match="MODEL-NAN"):
        list(engine.translate(["Dogs."]))


def test_a_run_and_its_checkpoint_are_accepted_and_nothing_else(run, tmp_path):
    folder = run / "checkpoints" / "step-00000007"
    assert native.accepts(run)
    assert native.accepts(folder)
    assert not native.accepts(tmp_path)
    assert not native.accepts(tmp_path / "nowhere")
    assert texts(native.open(folder, ONE), LINES) == texts(native.open(run, ONE), LINES)


def test_weights_of_another_shape_are_reported_by_name(tmp_path):
    run = tiny_run.make(tmp_path)
    config = (run / "config.yaml").read_text().replace("d_ff: 32", "d_ff: 48")
    (run / "config.yaml").write_text(config)
    with pytest.raises(ModelError, match=r"feed_forward.*\(32.*\(48") as error:
        native.open(run, ONE)
    assert error.value.exit_code == 4


def test_a_damaged_checkpoint_is_not_translated_with(tmp_path):
    run = tiny_run.make(tmp_path)
    path = run / "checkpoints" / checkpoint.checkpoint_name(7) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="CKPT-HASH"):
        native.open(run, ONE)


def test_a_device_that_is_not_there_is_reported(run):
    with pytest.raises(MachineError, match="NO-GPU"):
        native.open(run, options(device="cuda:97"))
