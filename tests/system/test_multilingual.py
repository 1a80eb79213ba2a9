"""Several directions in one model: the tag of the target, how corpora are drawn, every door."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
import tiny_run
import yaml

from mt.attention_maps import extract
from mt.cli import main
from mt.config import recipe, schema, validation, yaml_reader
from mt.config.schema import SamplingConfig
from mt.data import batch_sampler
from mt.data.pairs import Pair
from mt.data.prepare import prepare
from mt.data.subword_regularization import SubwordRegularizer
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.errors import ConfigError
from mt.evaluation import evaluate
from mt.runtime import files, text_files
from mt.special_tokens import BACK_TRANSLATED, END
from mt.vocabulary.vocabulary import Vocabulary

DE, FR = tiny_run.TARGETS, [f"{line.upper()} !" for line in tiny_run.SOURCES]


def corpus(target, source="en", **more):
    text = {"kind": "text", "source": f"a.{source}", "target": f"a.{target}"}
    return {**text, "languages": {"source": source, "target": target}, **more}


RECIPE = {
    "languages": {"source": "en", "target": "de"},
    "data": {
        "train": [corpus("de"), corpus("fr"), corpus("de", tag="bt")],
        "valid": corpus("de"),
        "more_valid": [corpus("fr")],
        "test": {"german": corpus("de"), "french": corpus("fr")},
        "max_length": 40, "processes": 1, "drop_overlap": False,
    },
    "vocabulary": {"size": 408},
    "model": {"d_model": 16, "n_heads": 2, "d_ff": 16, "encoder_layers": 1, "decoder_layers": 1},
    "schedule": {"kind": "constant", "warmup_steps": 0},
    "batching": {"tokens": 60, "micro_tokens": 100, "window": 2},
    "optimizer": {"learning_rate": 0.01},
    "training": {"max_steps": 6, "validate_every": 3, "save_every": 3, "seed": 2},
    "runtime": {"threads": 1, "precision": "fp32", "device": "cpu"},
    "search": {"kind": "greedy", "max_length_extra": 4},
}  # fmt: skip


def written(folder, **changes):
    values = json.loads(json.dumps(RECIPE))
    for path, value in changes.items():
        section, _, key = path.partition("__")
        values[section][key] = value
    for language, lines in (("en", tiny_run.SOURCES), ("de", DE), ("fr", FR)):
        text = "".join(f"{line}\n" for line in lines)
        (folder / f"a.{language}").write_text(text, encoding="utf-8")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two directions, trained for a few updates."""
    folder = tmp_path_factory.mktemp("several")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MT_CACHE", str(folder / "cache"))
        path = written(folder, data__temperature=3)
        assert main.run(["train", str(path), "--run", str(folder / "run")]) == 0
    return folder / "run"


# -------------------------------------------------------------------------------- the tags


def test_a_source_begins_with_its_target_language_and_says_if_it_was_translated_back(tmp_path):
    prepared = prepare(recipe.load(written(tmp_path))[0], lambda _: None)
    known = prepared.vocabulary
    assert known.languages == ("de", "fr")
    de, fr = ([known.controls[f"<2{each}>"]] for each in known.languages)
    count = len(DE)
    for row, front in ((0, de), (count, fr), (2 * count, [*de, BACK_TRANSLATED])):
        ids = prepared.train.source(row).tolist()
        assert ids == [*front, *known.encode_source(tiny_run.SOURCES[:1])[0], END]
    assert known.pieces_source(prepared.valid.source(count).tolist())[0] == "<2fr>"
    assert prepared.corpus_sizes == (count, count, count)
    no_text = Vocabulary.load(prepared.folder).encode_source(["<2de> <bt>"])[0]
    assert not set(no_text) & {*de, BACK_TRANSLATED}


def test_one_direction_has_no_tags(tmp_path):
    one = {"data__train": [corpus("de")], "data__more_valid": []}
    prepared = prepare(recipe.load(written(tmp_path, **one))[0], lambda _: None)
    assert prepared.vocabulary.languages == ()
    ids = prepared.train.source(0).tolist()
    assert ids == [*prepared.vocabulary.encode_source(tiny_run.SOURCES[:1])[0], END]


def test_a_pair_is_too_long_when_its_tags_make_it_so(tmp_path):
    settled, _ = recipe.load(written(tmp_path))
    known = prepare(settled, lambda _: None).vocabulary
    longest = max(len(ids) for ids in known.encode_source(tiny_run.SOURCES)) + 1
    tight = written(tmp_path, data__max_length=longest, vocabulary__path="known")
    known.save(files.make_folder(tmp_path / "known"))
    kept = prepare(recipe.load(tight)[0], lambda _: None).train.source_lengths
    assert kept.max() <= longest


# ------------------------------------------------------------------------------- the plan

PARTS = (700, 40, 260)


def test_corpora_are_drawn_from_as_the_temperature_says():
    for temperature in (1.5, 5.0, 1e6):
        rows = batch_sampler.temperature_sample(PARTS, temperature, 1, 0)
        shares = (np.array(PARTS) / 1000) ** (1 / temperature)
        found = np.histogram(rows, [0, 700, 740, 1000])[0]
        assert len(rows) == 1000
        assert np.abs(found - 1000 * shares / shares.sum()).max() <= 1


def test_no_pair_of_a_corpus_comes_twice_more_often_than_another():
    rows = batch_sampler.temperature_sample(PARTS, 5.0, 1, 0)
    times = np.bincount(rows, minlength=1000)
    for first, end in ((0, 700), (700, 740), (740, 1000)):
        assert np.ptp(times[first:end]) <= 1


def test_an_epoch_is_drawn_from_its_seed_and_number_alone():
    first = batch_sampler.temperature_sample(PARTS, 5.0, 1, 0)
    np.testing.assert_array_equal(first, batch_sampler.temperature_sample(PARTS, 5.0, 1, 0))
    assert set(first) != set(batch_sampler.temperature_sample(PARTS, 5.0, 1, 1))
    assert set(first) != set(batch_sampler.temperature_sample(PARTS, 5.0, 2, 0))


def epoch(temperature, parts=PARTS):
    lengths = np.random.default_rng(1).integers(2, 12, (2, 1000))
    settings = schema.BatchingConfig(tokens=100, window=10)
    return batch_sampler.EpochPlan(*lengths, settings, 60, 1, 0, (), parts, temperature)


def test_at_temperature_one_the_plan_is_that_of_one_corpus():
    ours, plain = epoch(1.0), epoch(1.0, ())
    for a, b in zip(ours.windows, plain.windows, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_batches_of_an_epoch_have_the_drawn_pairs():
    made = epoch(5.0)
    rows = [int(row) for w in range(len(made.windows)) for u in made.updates(w) for m in u
            for row in m]  # fmt: skip
    assert Counter(rows) == Counter(batch_sampler.temperature_sample(PARTS, 5.0, 1, 0).tolist())


def weights(run):
    folder = sorted((run / "checkpoints").iterdir())[-1]
    return hashlib.sha256((folder / "training.safetensors").read_bytes()).hexdigest()


def test_a_stopped_run_of_several_directions_resumes_bit_for_bit(tmp_path):
    path = written(tmp_path, data__temperature=3)
    for name, steps in (("whole", 6), ("parts", 4), ("parts", 6)):
        sets = ["--set", f"training.max_steps={steps}"]
        assert main.run(["train", str(path), "--run", str(tmp_path / name), *sets]) == 0
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_what_cannot_be_drawn_is_refused(tmp_path):
    path = written(tmp_path, data__temperature=2, data__streaming=True)
    with pytest.raises(ConfigError, match=r"data\.temperature: 2"):
        recipe.load(path)


# -------------------------------------------------------------------------------- the doors


def test_each_direction_is_validated(run):
    rows = [json.loads(line) for line in text_files.read_lines(run / "metrics.jsonl")]
    scores = [row for row in rows if "valid_bleu" in row]
    assert scores
    for row in scores:
        each = [row["valid_chrf_en-de"], row["valid_chrf_en-fr"]]
        assert row["valid_chrf"] == pytest.approx(sum(each) / 2)


def test_to_says_the_language(run, capsys):
    sampled = {"kind": "sampling", "max_length_extra": 4}  # the untrained differ in details only
    engine = open_engine(run, EngineOptions(search=sampled, precision="fp32"))

    def texts(language):
        asked = EngineOptions(search=sampled, target_language=language)
        return [each.text for each in engine.translate(tiny_run.SOURCES, asked)]

    assert texts("de") != texts("fr")
    assert texts(None) == texts("de")
    assert texts("fra") == texts("fr_FR") == texts("fr")
    command = ["translate", str(run), "--to", "fr", "-i", str(run.parent / "a.en")]
    command += ["--precision", "fp32"]
    command += [f"--set=search.{key}={value}" for key, value in sampled.items()]
    capsys.readouterr()
    assert main.run(command) == 0
    assert capsys.readouterr().out.split("\n")[:-1] == texts("fr")


def test_an_unknown_language_is_refused_and_the_known_are_named(run, capsys):
    assert main.run(["translate", str(run), "--to", "zh", "-i", str(run.parent / "a.en")]) == 2
    err = capsys.readouterr().err
    assert "--to: this model translates to de, fr, not to zh" in err


def test_a_pair_is_scored_in_its_language(run, capsys):
    engine = open_engine(run, EngineOptions(precision="fp32"))
    source, target = tiny_run.SOURCES[0], FR[0]
    de, fr, none = engine.score(
        [Pair(source, target, "", language, "") for language in ("de", "fr", "")]
    )
    assert de.log_probability == none.log_probability != fr.log_probability
    files_of = ["--source", str(run.parent / "a.en"), "--target", str(run.parent / "a.fr")]
    capsys.readouterr()
    assert main.run(["score", str(run), *files_of, "--to", "fr", "--precision", "fp32"]) == 0
    first = float(capsys.readouterr().out.splitlines()[0])
    assert first == pytest.approx(fr.log_probability, abs=1e-3)


def test_a_test_set_is_translated_to_its_own_language(run):
    engine = open_engine(run, EngineOptions())
    evaluate.evaluate(run, engine)
    for name, language in (("german", "de"), ("french", "fr")):
        kept = list(text_files.read_lines(evaluate.hypothesis_path(run, name, "")))
        asked = EngineOptions(target_language=language)
        assert kept == [each.text for each in engine.translate(tiny_run.SOURCES, asked)]


def test_alignments_are_of_the_text_and_not_of_the_tag(run):
    engine = open_engine(run, EngineOptions())
    (found,) = engine.translate(["Girls sing."], EngineOptions(alignments=True))
    assert "<2de>" not in found.source_tokens
    assert {len(row) for row in found.alignment} == {len(found.source_tokens)}
    assert sum(found.alignment[0]) < 1  # some of it went to the tag, and to the end


@pytest.mark.parametrize("kind", ["bundle", "ctranslate2"])
def test_an_export_knows_the_languages(run, tmp_path, kind):
    if kind == "ctranslate2":
        pytest.importorskip("ctranslate2")
    out = tmp_path / ("out.mt" if kind == "bundle" else "out")
    assert main.run(["export", str(run), "--to", kind, "-o", str(out)]) == 0
    ours, theirs = (open_engine(path, EngineOptions(precision="fp32")) for path in (run, out))
    for language in ("de", "fr"):
        asked = EngineOptions(target_language=language)
        texts = [[e.text for e in engine.translate(DE, asked)] for engine in (ours, theirs)]
        assert texts[0] == texts[1]


def test_what_an_export_cannot_say_is_refused_by_name(run, tmp_path, capsys):
    pytest.importorskip("transformers")
    assert main.run(["export", str(run), "--to", "huggingface", "-o", str(tmp_path / "x")]) == 2
    assert "cannot say which of de, fr" in capsys.readouterr().err


def test_an_existing_vocabulary_gets_the_names_it_lacks(run, tmp_path):
    known = Vocabulary.load(run)
    known.save(files.make_folder(tmp_path / "known"))
    (tmp_path / "a.zh").write_text("".join(f"{line}\n" for line in DE), encoding="utf-8")
    path = written(tmp_path, vocabulary__path="known", data__train=[corpus("de"), corpus("zh")])
    more = prepare(recipe.load(path)[0], lambda _: None).vocabulary
    assert more.languages == ("de", "fr", "zh")
    assert {name: more.controls[name] for name in known.controls} == known.controls


def test_the_default_is_the_direction_that_is_learned():
    values = {**RECIPE, "languages": {"source": "fr", "target": "en"}}
    settled = validation.validate(recipe.Recipe, yaml_reader.Document(values))
    assert settled.direction.target == "de"


def test_the_maps_of_attention_are_of_the_chosen_language(run):
    engine = extract.open_with_attention(run, EngineOptions(target_language="fr"))
    sight, *_ = extract.extract(engine, "Girls sing.")
    assert sight.source[0] == "<2fr>"  # the map has all that the model sees
    assert sight.translation.source_tokens == sight.source[1:-1]


def test_words_that_are_cut_again_keep_their_tags(tmp_path):
    prepared = prepare(recipe.load(written(tmp_path))[0], lambda _: None)
    sampling = SamplingConfig.model_validate({"source": {"alpha": 0.1}})
    drawn = SubwordRegularizer(sampling, prepared.vocabulary, 40)(prepared.train, 1)
    changed = 0
    for row in range(len(prepared.train)):
        before, after = (each.source(row).tolist() for each in (prepared.train, drawn))
        tags = [i for i in before if 4 <= i < 68]
        assert after[: len(tags)] == tags
        changed += before != after
    assert changed
