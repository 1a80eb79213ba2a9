"""Pre-training on text, then fine-tuning: resumable each, and then on its own."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from resumable_run import bits, written
from safetensors.torch import load_file
from test_resume import run_to_the_end

from mt.checkpoints import run_directory
from mt.checkpoints.run_directory import best_checkpoint
from mt.config import recipe
from mt.errors import ConfigError, ModelError
from mt.export import export
from mt.training import loop
from mt.training.objectives import denoising

SHORT = {"schedule__kind": "constant", "training__max_epochs": 1, "training__average": 0}
ONE_STEP = {"schedule__warmup_steps": 0, "training__max_steps": 1}
TEXT = {
    "data__train": [
        {"kind": "demo", "size": 120, "only": "source"},
        {"kind": "demo", "size": 120, "only": "target", "seed": 2},
    ],
    "objective": {
        "kind": "denoising", "mask": 0.3, "delete": 0.1, "shuffle": 2.0, "predict_weight": 0.5,
    },
    "data__valid": {"kind": "demo", "split": "valid", "size": 10, "only": "target"},
    "training__validate_every": 3, "training__save_every": 4,
}  # fmt: skip


def recipe_file(folder, **changes):
    """The tiny recipe; a whole section may be given, too."""
    sections = {key: value for key, value in changes.items() if "__" not in key}
    path = written(folder, **{key: v for key, v in changes.items() if "__" in key})
    values = {**recipe.read(path).value, **sections}
    path.write_text(json.dumps(values))
    return path


def trained(folder, name="run", **changes):
    loop.train(recipe.load(recipe_file(folder, **changes))[0], folder / name)
    return folder / name


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


SEEDS = []


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A run that denoised the two languages of the demo."""
    real = denoising.Denoising.begin
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoising.Denoising, "begin", lambda o, s: (SEEDS.append(s), real(o, s)))
        return trained(tmp_path_factory.mktemp("pretrained"), **SHORT, **TEXT)


def test_each_update_has_noise_of_its_own(pretrained):
    steps = run_directory.open_run(pretrained, "last").step
    assert len(SEEDS) == len(set(SEEDS)) == steps >= 6


def weights_of(run):
    folder = best_checkpoint(run)
    return load_file(folder / "model.safetensors")


def test_pretraining_stopped_and_resumed_equals_uninterrupted(pretrained, tmp_path, monkeypatch):
    path = recipe_file(tmp_path, **SHORT, **TEXT)
    run_to_the_end(path, tmp_path / "run", [2, 5], monkeypatch)
    assert bits(tmp_path / "run") == bits(pretrained)
    lines = (pretrained / "metrics.jsonl").read_text().splitlines()
    (first, *_) = [json.loads(line) for line in lines if "valid_loss" in line]
    assert "valid_bleu" not in first


def fine(pretrained, **changes):
    return {**SHORT, "training__initialise_from": str(pretrained), **changes}


def test_finetuning_begins_with_the_weights_and_the_vocabulary(pretrained, tmp_path):
    frozen = ["encoder.*", "*embedding*"]
    run = trained(tmp_path, **fine(pretrained, training__freeze=frozen, vocabulary__size=450))
    before, after = weights_of(pretrained), weights_of(run)
    for name, tensor in before.items():
        still = name.startswith("encoder.") or "embedding" in name
        assert torch.equal(tensor, after[name]) == still, name
    opened = run_directory.open_run(run)
    known = run_directory.open_run(pretrained).vocabulary
    assert opened.vocabulary.digest == known.digest
    assert {"<2en>", "<2de>"} < set(known.controls)
    told = opened.resolved["initialised"]
    assert told["path"] == str(best_checkpoint(pretrained))
    assert told["step"] == run_directory.open_run(pretrained).step


def test_a_resume_does_not_need_the_other_run_any_more(pretrained, tmp_path):
    once = fine(tmp_path / "old", optimizer__layer_decay=0.5, training__freeze=["encoder.0.*"])
    twice = {**once, "training__max_epochs": 2}
    shutil.copytree(pretrained, tmp_path / "old", symlinks=True)
    whole, run = trained(tmp_path, "whole", **twice), trained(tmp_path, **once)
    shutil.rmtree(tmp_path / "old")
    trained(tmp_path, **twice)
    last = sorted((run / "checkpoints").glob("step-*"))[-1].name
    for name in ("model.safetensors", "training.safetensors"):
        assert bits(run)[f"{last}/{name}"] == bits(whole)[f"{last}/{name}"]


def test_a_bundle_and_a_checkpoint_begin_it_as_well(pretrained, tmp_path):
    export.export_model(pretrained, "bundle", tmp_path / "old.mt")
    checkpoints = [tmp_path / "old.mt", best_checkpoint(pretrained)]
    found = [
        trained(tmp_path, f"run{i}", **fine(path), **ONE_STEP)
        for i, path in enumerate((pretrained, *checkpoints))
    ]
    one, *others = map(weights_of, found)
    for other in others:
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_another_vocabulary_is_refused_with_both_sizes(pretrained, tmp_path):
    other = trained(tmp_path, "other", **SHORT, **ONE_STEP, vocabulary__size=460)
    with pytest.raises(ModelError) as error:
        trained(tmp_path, **fine(pretrained, vocabulary__path=str(other)))
    theirs, ours = (
        run_directory.open_run(run).vocabulary.digest[:16] for run in (pretrained, other)
    )
    assert f"460 pieces ({ours}), that of {pretrained} has 450 pieces ({theirs})" in str(
        error.value
    )
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_another_shape_is_refused_by_the_names_of_what_differs(pretrained, tmp_path):
    with pytest.raises(ModelError) as error:
        trained(tmp_path, **fine(pretrained, model__d_ff=32))
    told = str(error.value)
    assert "decoder.0.feed_forward.inner.bias: is (16,), the model wants (32,)" in told
    assert "model.d_ff: that model has 16, the recipe 32" in told


def test_a_pattern_that_matches_nothing_is_refused_with_close_names(pretrained, tmp_path):
    with pytest.raises(ConfigError, match=r"'encodr\.\*' matches no parameter; .* encoder"):
        trained(tmp_path, **fine(pretrained, training__freeze=["encodr.*"]))
    with pytest.raises(ConfigError, match="nothing is left to train"):
        trained(tmp_path, "two", **fine(pretrained, training__freeze=["*"]))


def test_what_is_no_model_of_ours_is_refused_and_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return exec, ("raise SystemExit('it was run')",)

    torch.save({"weight": torch.ones(2), "trap": Trap()}, tmp_path / "model.pt")
    for name in ("model.pt", "nowhere"):
        with pytest.raises(ModelError):
            trained(tmp_path, **fine(tmp_path / name))
