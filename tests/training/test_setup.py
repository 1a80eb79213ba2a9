"""A run is built from its recipe: the weights from the seed, the files, the optimizer."""

from __future__ import annotations

import json

import pytest
import torch

from mt.checkpoints import run_directory
from mt.checkpoints.train_state import TrainState
from mt.config.plugins import plugin, plugins
from mt.errors import MachineError
from mt.runtime.lock import lock
from mt.training import setup
from mt.training.reporter import Reporter
from mt.training.schedule import layer_rate_factors
from mt.training.step import set_rate

CPU = torch.device("cpu")


def test_a_new_run_has_its_recipe_vocabulary_and_figures(built):
    run, state = built
    assert state == TrainState()
    assert run_directory.read_recipe(run.folder) == run.recipe
    assert json.loads((run.folder / "resolved.json").read_text()) == run.resolved
    report = json.loads((run.folder / "report.json").read_text())
    assert report == run.data.prepared.report
    assert run.resolved["precision"] == run.module.precision == "fp32"


def test_weights_are_drawn_from_the_seed_alone(built):
    run, _ = built
    vocabulary = run.data.prepared.vocabulary
    torch.manual_seed(99)
    again = setup.build_module(run.recipe, vocabulary, None, CPU)
    training = run.recipe.training.model_copy(update={"seed": 2})
    other = setup.build_module(
        run.recipe.model_copy(update={"training": training}), vocabulary, None, CPU
    )
    for (name, a), b in zip(run.module.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(next(run.module.parameters()), next(other.parameters()))


def test_what_is_frozen_is_in_no_optimizer(built):
    run, _ = built
    module = setup.build_module(run.recipe, run.data.prepared.vocabulary, None, CPU)
    frozen = [p for name, p in module.named_parameters() if "encoder" in name]
    for parameter in frozen:
        parameter.requires_grad_(False)
    groups = setup.build_optimizer(run.recipe, module).param_groups
    trained = {id(p) for group in groups for p in group["params"]}
    assert frozen
    assert trained == {id(p) for p in module.parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", plugins("optimizers"))
@pytest.mark.parametrize("is_tensor", [False, True])
def test_each_layer_has_its_own_rate(built, kind, is_tensor):
    """On a GPU rates are tensors, and torch gives all groups of an optimizer the same one."""
    run, _ = built
    config = plugin("optimizers", kind).Config.model_construct(
        kind=kind, learning_rate=torch.tensor(1.0) if is_tensor else 1.0, layer_decay=0.5
    )
    recipe = run.recipe.model_copy(update={"optimizer": config})
    module = setup.build_module(run.recipe, run.data.prepared.vocabulary, None, CPU)
    optimizer = setup.build_optimizer(recipe, module)
    for rate in (0.25, 1e-3):
        set_rate(optimizer, rate)
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        names = dict(module.named_parameters())
        for name, factor in layer_rate_factors(names, 0.5).items():
            assert float(rates[id(names[name])]) == pytest.approx(rate * factor), name
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def test_an_old_run_is_renamed_with_the_next_number_unless_it_is_in_use(tmp_path):
    for number in (1, 2):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "mark").write_text(str(number))
        setup.archive_run(tmp_path / "run")
        assert (tmp_path / f"run.old-{number}" / "mark").read_text() == str(number)
        assert not (tmp_path / "run").exists()
    with lock(tmp_path / "run" / ".lock"), pytest.raises(MachineError, match="in use"):
        setup.archive_run(tmp_path / "run")


def test_a_folder_without_checkpoints_has_nothing_to_resume(built, tmp_path):
    run, _ = built
    report = Reporter(tmp_path, interactive=False)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".tmp-step-1-9").mkdir()
    assert setup.open_run_folder(run.recipe, tmp_path, report) is None
    assert list((tmp_path / "checkpoints").iterdir()) == []
