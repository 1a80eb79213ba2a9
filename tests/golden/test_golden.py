"""Runs and bundles written by earlier versions open, and translate as they did.

Each `NAME/` is a run and each `NAME.mt` a bundle that commit 5ae3c55 trained on the demo corpus
(600 updates; models of 24 to 32 dimensions); `NAME.translations.txt` is what that commit
translated `source.txt` to, by beam search with 3 beams in fp32 on one thread.
"""

import shutil
from pathlib import Path

import pytest

import mt
from mt.checkpoints import checkpoint, run_directory
from mt.data.text import repeats

HERE = Path(__file__).parent
RUNS = ["transformer", "heads", "rnn"]


def lines_of(name: str) -> list[str]:
    return (HERE / name).read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", [*RUNS, "transformer.mt"])
def test_an_old_model_translates_as_it_did(name):
    model = mt.load(HERE / name, device="cpu", precision="fp32", threads=1)
    expected = lines_of(f"{name.removesuffix('.mt')}.translations.txt")
    assert model.translate(lines_of("source.txt")) == expected


def test_a_model_that_loops_is_searched_again():
    model, lines = mt.load(HERE / "transformer", device="cpu", threads=1), lines_of("source.txt")
    before = model.translate(lines)
    found = model.translate(lines, search={"retry_repetition": True})
    loops = [repeats(text) for text in before]
    assert any(loops)
    assert not any(repeats(text) for text in found)
    assert all(a == b for a, b, loop in zip(before, found, loops, strict=True) if not loop)


@pytest.mark.parametrize("name", RUNS)
def test_an_old_run_is_resumed(name, tmp_path):
    from mt.training.loop import train

    run = shutil.copytree(HERE / name, tmp_path / name, symlinks=True)
    recipe = run_directory.read_recipe(run)
    plan = recipe.training.model_copy(update={"max_steps": 602})
    schedule = recipe.schedule.model_copy(update={"kind": "constant"})
    changed = recipe.model_copy(update={"training": plan, "schedule": schedule})
    run_directory.write_recipe(run, changed)
    train(changed, run)
    folder = run / "checkpoints" / checkpoint.checkpoint_name(602)
    assert checkpoint.integrity_error(folder) is None
    assert checkpoint.read_state(folder).step == 602
