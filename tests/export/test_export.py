"""Exports are the model: scores, greedy and beam output; what cannot be is refused beforehand."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_run
import torch

from mt.checkpoints import run_directory, train_state
from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.config.schema import Languages, VocabularyConfig
from mt.config.validation import validate
from mt.config.yaml_reader import parse
from mt.data.collate import pad_rows
from mt.data.pairs import Pair
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.errors import ConfigError, DataError, ModelError
from mt.export import export, verify
from mt.special_tokens import BEGIN, END
from mt.vocabulary.learn import learn_vocabulary

ctranslate2, huggingface = plugin("exporters", "ctranslate2"), plugin("exporters", "huggingface")
GREEDY, BEAM = EngineOptions(search={"kind": "greedy"}), EngineOptions()
LINES = tiny_run.SOURCES
HOSTILE = [
    "</s> <s> <0x41> <mask> <reserved_1> <unk>",
    " a\tb\u3000c\u00a0 ", "ﬁne Ⅳ ①", "🙂 日本語 \x00\x01",
    "", "   ", "a</s>b", "▁a ▁", "▁▁", "x" * 60, "e\u0301 \u0301", "<", "< a <b", "\u2028\x85\x1f.",
    "𝒳 ½ ™", "\u200b\ufeff", "A man\u00ad sleeps", "\\n \\t", '"quoted" — dash…',
]  # fmt: skip
OPTIONS = {
    "norm": ["pre", "post"],
    "norm_kind": ["layer", "rms"],
    "activation": ["relu", "gelu", "swiglu"],
    "positions": ["sinusoidal", "learned", "rotary", "none"],
    "tie_embeddings": ["all", "decoder", "none"],
    "scale_embeddings": [True, False],
}


def some_combinations(options):
    """Each pair of values of two options together at least once, and few combinations."""
    keys = list(options)
    every = [
        dict(zip(keys, values, strict=True)) for values in itertools.product(*options.values())
    ]

    def pairs(one):
        return {frozenset(pair) for pair in itertools.combinations(one.items(), 2)}

    chosen, left = [], set().union(*map(pairs, every))
    while left:
        best = max(every, key=lambda one: len(pairs(one) & left))
        chosen.append(best)
        left -= pairs(best)
    return chosen


@pytest.fixture(scope="module")
def subwords():
    """A joint vocabulary, and one a side."""
    languages = Languages(source="en", target="de")
    found = {}
    for joint in (True, False):
        config = VocabularyConfig(size=408 if joint else 370, joint=joint)
        texts = (tiny_run.SOURCES, tiny_run.TARGETS)
        found[joint] = learn_vocabulary(config, languages, *texts)
    return found


def opened_with(folder, subwords, joint=True, steps=100, **options):
    """A model that has learned a little, so that its sentences end, and what its run opens as."""
    text = tiny_run.RECIPE.replace("KIND", "sentencepiece")
    recipe = validate(Recipe, parse(text, "recipe", folder))
    if options.get("positions") == "learned":
        options["max_length"] = 80
    schema = plugin("models", "transformer").Config
    sizes = {"d_model": 16, "n_heads": 2, "d_ff": 32, "encoder_layers": 2, "decoder_layers": 2}
    config = schema(**{**sizes, **options})
    recipe = recipe.model_copy(update={"model": config})
    torch.manual_seed(7)
    model = plugin("models", "transformer").build(config, subwords[joint])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.3, 0.3)
            elif "norm" in name:
                parameter.uniform_(0.7, 1.3)
    learn(model, subwords[joint], steps)
    state = train_state.TrainState(step=7)
    return model.eval(), run_directory.LoadedModel(
        folder, folder, recipe, subwords[joint], state, {}
    )


def learn(model, known, steps):
    """Some updates on the few sentences that there are."""
    encoded = known.encode_source(tiny_run.SOURCES), known.encode_target(tiny_run.TARGETS)
    source = torch.from_numpy(pad_rows([np.array([*ids, END]) for ids in encoded[0]]))
    target = torch.from_numpy(pad_rows([np.array([BEGIN, *ids, END]) for ids in encoded[1]]))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        logits = model(source, target[:, :-1]).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, target[:, 1:].flatten(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def native_engine(model, opened):
    native = plugin("engines", "native")
    device = torch.device("cpu")
    return native.native_engine(model, opened.vocabulary, opened.recipe, device, "fp32")


def texts(engine, options, lines=LINES):
    return [each.text for each in engine.translate(lines, options)]


def scores(engine):
    pairs = [Pair(s, t, "en", "de", "x:1") for s in LINES[:3] for t in tiny_run.TARGETS[:3]]
    return [each.log_probability for each in engine.score(pairs)]


@pytest.mark.parametrize(
    "options", some_combinations(OPTIONS), ids=lambda o: "-".join(map(str, o.values()))
)
def test_ctranslate2_is_the_model_with_every_option(options, subwords, tmp_path):
    model, opened = opened_with(tmp_path, subwords, **options)
    ctranslate2.export(model, opened, tmp_path / "ct2", ctranslate2.Config())
    ours, theirs = native_engine(model, opened), open_engine(tmp_path / "ct2", EngineOptions())
    assert scores(theirs) == pytest.approx(scores(ours), rel=1e-4)
    assert texts(theirs, GREEDY) == texts(ours, GREEDY)
    assert texts(theirs, BEAM) == texts(ours, BEAM)


def test_ctranslate2_has_separate_vocabularies(subwords, tmp_path):
    model, opened = opened_with(tmp_path, subwords, joint=False)
    ctranslate2.export(model, opened, tmp_path / "ct2", ctranslate2.Config())
    ours, theirs = native_engine(model, opened), open_engine(tmp_path / "ct2", EngineOptions())
    assert scores(theirs) == pytest.approx(scores(ours), rel=1e-4)
    assert texts(theirs, BEAM) == texts(ours, BEAM)


def test_settings_of_beams_mean_the_same_in_ctranslate2(subwords, tmp_path):
    model, opened = opened_with(tmp_path, subwords)
    ctranslate2.export(model, opened, tmp_path / "ct2", ctranslate2.Config())
    ours, theirs = native_engine(model, opened), open_engine(tmp_path / "ct2", EngineOptions())
    plain = texts(ours, BEAM)
    for search in (
        {"repetition_penalty": 1.5}, {"no_repeat_ngram": 2}, {"patience": 2.0, "n_best": 3},
        {"length_penalty": 0.0}, {"length_penalty": 2.0, "beams": 2},
    ):  # fmt: skip
        count = search.pop("n_best", 1)
        options = EngineOptions(search=search, n_best=count)
        assert texts(theirs, options) == texts(ours, options)
    assert texts(ours, EngineOptions(search={"no_repeat_ngram": 1})) != plain


EXPRESSED = {
    "norm": ["pre", "post"],
    "activation": ["relu", "gelu"],
    "tie_embeddings": ["all", "decoder", "none"],
    "scale_embeddings": [True, False],
}


@pytest.mark.parametrize(
    "options", some_combinations(EXPRESSED), ids=lambda o: "-".join(map(str, o.values()))
)
def test_transformers_loads_it_and_gives_the_same_logits(options, subwords, tmp_path):
    from transformers import AutoModelForSeq2SeqLM

    model, opened = opened_with(tmp_path, subwords, steps=0, **options)
    huggingface.export(model, opened, tmp_path / "hf", huggingface.Config())
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "hf").eval()
    source = torch.randint(68, 408, (3, 9))
    source[1, 6:] = 0
    target = torch.randint(68, 408, (3, 8))
    with torch.inference_mode():
        ours = model(source, target)
        mask = (source != 0).long()
        found = theirs(source, attention_mask=mask, decoder_input_ids=target).logits
    assert (found - ours).abs().max() < 1e-4 * ours.abs().max()


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_transformers_translates_raw_text_as_we_do(norm, subwords, tmp_path):
    model, opened = opened_with(tmp_path, subwords, norm=norm)
    huggingface.export(model, opened, tmp_path / "hf", huggingface.Config())
    ours = native_engine(model, opened)
    theirs = huggingface.open(tmp_path / "hf", opened)
    assert scores(theirs) == pytest.approx(scores(ours), rel=1e-4)
    for options in (GREEDY, BEAM):
        assert texts(theirs, options) == texts(ours, options)


@pytest.mark.parametrize("beams", [1, 3])
def test_transformers_ends_the_longest_sentences_where_we_do(beams, subwords, tmp_path):
    """A model that has learned nothing goes on until the limit, of a source as long as may be."""
    model, opened = opened_with(tmp_path, subwords, steps=0)
    search = {"max_length_ratio": 0.3, "beams": beams}
    recipe = opened.recipe
    recipe = recipe.model_copy(update={"search": recipe.search.model_copy(update=search)})
    opened = replace(opened, recipe=recipe)
    huggingface.export(model, opened, tmp_path / "hf", huggingface.Config())
    theirs = huggingface.open(tmp_path / "hf", opened)
    most, text = recipe.data.max_length - 1, " ".join(tiny_run.SOURCES)
    begun = [text[:end] for end in range(len(text))]
    lines = [begun[[len(ids) for ids in subwords[True].encode_source(begun)].index(most)], "A boy."]
    ours = texts(native_engine(model, opened), EngineOptions(), lines)
    assert texts(theirs, EngineOptions(), lines) == ours
    assert len(ours[0]) > len(ours[1])


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_their_tokenizer_cuts_hostile_text_as_ours(kind):
    config = VocabularyConfig(size=408, model=kind)
    languages = Languages(source="en", target="de")
    ours = learn_vocabulary(config, languages, tiny_run.SOURCES, tiny_run.TARGETS)
    theirs = huggingface.tokenizer(ours, 1024)
    lines = [*HOSTILE, *tiny_run.SOURCES, *tiny_run.TARGETS]
    expected = [[*ids, END] for ids in ours.encode_source(lines)]
    assert theirs(lines).input_ids == expected
    folded = ours.normalise_source(lines)
    for ids, text in zip(expected, folded, strict=True):
        if "▁" not in text:
            assert theirs.decode(ids, skip_special_tokens=True) == text


# ------------------------------------------------------------------------------- refusals


def refused(exporter, opened):
    with pytest.raises(ConfigError) as error:
        exporter.check(opened, exporter.Config())
    return str(error.value)


def test_another_model_is_refused_by_name(subwords, tmp_path):
    _, opened = opened_with(tmp_path, subwords, steps=0)
    rnn = opened.recipe.model.model_copy(update={"kind": "rnn"})
    opened = replace(opened, recipe=opened.recipe.model_copy(update={"model": rnn}))
    for exporter in (ctranslate2, huggingface):
        assert "model.kind: " in refused(exporter, opened)
        assert "cannot express the model rnn" in refused(exporter, opened)


def test_attention_that_is_not_scaled_is_refused_by_name(subwords, tmp_path):
    _, opened = opened_with(tmp_path, subwords, steps=0, scale_attention=False)
    for exporter in (ctranslate2, huggingface):
        assert "model.scale_attention: " in refused(exporter, opened)
        assert "cannot express false" in refused(exporter, opened)


def test_what_marian_and_pegasus_lack_is_refused_all_at_once(subwords, tmp_path):
    options = {"norm_kind": "rms", "activation": "swiglu", "positions": "none"}
    _, opened = opened_with(tmp_path, subwords, joint=False, steps=0, **options)
    message = refused(huggingface, opened)
    for key in ("model.norm_kind", "model.activation", "model.positions", "vocabulary.joint"):
        assert key in message


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.make(tmp_path_factory.mktemp("exported"))


def test_nothing_is_written_where_it_is_refused(run, tmp_path):
    (run.parent / "other").mkdir(exist_ok=True)
    out = tmp_path / "out"
    for kind, settings in (
        ("huggingface", {"quantization": "int8"}), ("ctranslate2", {"quantization": "int3"}),
        ("onnx", {}),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            export.export_model(run, kind, out, settings)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_kept_unless_it_is_an_export_and_forced(run, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(ConfigError, match="EXPORT-EXISTS"):
            export.export_model(run, "ctranslate2", precious, force=force)
    assert (precious / "thesis.txt").read_text() == "years of work"
    out = tmp_path / "out"
    for force in (False, True):
        done = export.export_model(run, "ctranslate2", out, force=force)
        assert done.path == out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "precious"]


@pytest.mark.parametrize("kind", ["int8", "int8_float32", "float16", "bfloat16"])
def test_quantised_exports_stay_near_the_model(kind, run, tmp_path):
    done = export.export_model(run, "ctranslate2", tmp_path / "out", {"quantization": kind})
    assert done.worst < 0.1
    assert done.rows[1].bytes < done.rows[0].bytes + 60_000
    assert json.loads((tmp_path / "out" / "mt.json").read_text())["quantization"] == kind


def test_an_export_that_differs_is_an_error_and_leaves_nothing(run, tmp_path, monkeypatch):
    def wrong(model, opened, path, config, export=ctranslate2.export):
        with torch.no_grad():
            model.encoder[0].feed_forward.inner.weight.mul_(1.5)
        export(model, opened, path, config)

    monkeypatch.setattr(ctranslate2, "export", wrong)
    with pytest.raises(ModelError, match="EXPORT-DIFFERS") as error:
        export.export_model(run, "ctranslate2", tmp_path / "out")
    assert error.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_a_quantised_export_that_translates_otherwise_is_an_error(run, tmp_path, monkeypatch):
    strict = {"int8": verify.Tolerance(0.05, 101.0)}
    monkeypatch.setattr(export, "TOLERANCES", strict)
    monkeypatch.setattr(verify, "MAX_LOSS", -1.0)
    with pytest.raises(ModelError, match="chrF2"):
        export.export_model(run, "ctranslate2", tmp_path / "out", {"quantization": "int8"})
    monkeypatch.setattr(export, "TOLERANCES", {"int8": verify.Tolerance(1e-9)})
    with pytest.raises(ModelError, match="forced scores"):
        export.export_model(run, "ctranslate2", tmp_path / "out", {"quantization": "int8"})
    assert list(tmp_path.iterdir()) == []


def test_without_the_data_a_sample_must_be_given(tmp_path):
    run = tiny_run.make(tmp_path)
    for path in tmp_path.glob("train.*"):
        path.unlink()
    with pytest.raises(ConfigError, match="--sample FILE"):
        export.export_model(run, "bundle")
    (tmp_path / "lines.txt").write_text("A man sleeps.\n\nGirls sing.\n")
    done = export.export_model(run, "bundle", sample=tmp_path / "lines.txt")
    assert done.sample.lines == ["A man sleeps.", "Girls sing."]
    assert done.rows[1].bleu is None
    with pytest.raises(DataError):
        export.export_model(run, "bundle", sample=tmp_path / "nowhere", force=True)


def test_an_export_is_called_after_its_run(run, tmp_path):
    names = {"bundle": "run.mt", "ctranslate2": "run-ctranslate2", "huggingface": "run-huggingface"}
    for kind, name in names.items():
        done = export.export_model(run, kind)
        assert done.path == run.parent / name
        assert done.worst < 1e-4
        lines = list(export.format_result(done))
        assert lines[-1] == f"written: {done.path}"


def test_a_tie_is_distinguished_from_a_difference(run):
    engine = open_engine(run, EngineOptions(precision="fp32"))
    (found,) = engine.translate(["Girls sing."], GREEDY)
    other = (*found.tokens[:2], "<0x41>")
    assert not verify._is_tie(engine, "Girls sing.", found.tokens, other)
    with torch.no_grad():  # two bytes that are the same to the model
        table = engine.searcher.models[0].target_embedding.weight
        table[engine.vocabulary.pieces_target(range(408)).index("<0x41>")] = table[
            engine.vocabulary.pieces_target(range(408)).index("<0x42>")
        ]
    pair = [(*found.tokens[:2], name) for name in ("<0x41>", "<0x42>")]
    assert verify._is_tie(engine, "Girls sing.", *pair)
