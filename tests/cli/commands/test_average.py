"""`mt average`."""

from __future__ import annotations

import pytest
import tiny_run
import torch
from command_lines import LINES

from mt.checkpoints import checkpoint, run_directory, train_state
from mt.config.plugins import plugin
from mt.runtime import model_files
from mt.runtime.lock import lock


class TestAverage:
    @pytest.fixture
    def several(self, tmp_path):
        """A run with the checkpoints 7, 8 and 9."""
        run = tiny_run.make(tmp_path)
        opened = run_directory.open_run(run)
        for step in (8, 9):
            torch.manual_seed(step)
            model = plugin("models", "transformer").build(opened.recipe.model, opened.vocabulary)
            state = train_state.TrainState(step=step)
            checkpoint.save_checkpoint(
                run, checkpoint.checkpoint_name(step), model, state, metadata={"data": "d"}
            )
        return run

    @pytest.mark.parametrize(
        ("asked", "steps"),
        [((), (7, 8, 9)), (("--last", 2), (8, 9)), (("step-9", "step-7"), (7, 9))],
    )
    def test_it_holds_the_mean_of_the_weights(self, several, mt, asked, steps):
        done = mt("average", several, *asked)
        assert (done.code, done.out) == (0, "")
        names = [checkpoint.checkpoint_name(step) for step in steps]
        assert done.err.startswith(f"mt: averaged {', '.join(names)};")
        folder = several / "checkpoints" / "average"
        assert checkpoint.integrity_error(folder) is None
        found = checkpoint.load_weights(folder)
        each = [checkpoint.load_weights(several / "checkpoints" / name) for name in names]
        for key, tensor in found.items():
            mean = torch.stack([weights[key].double() for weights in each]).mean(dim=0)
            torch.testing.assert_close(tensor.double(), mean, atol=1e-6, rtol=1e-6)
        assert checkpoint.read_state(folder).step == 9
        assert model_files.read_json(folder / "MANIFEST.json")["averaged"] == names
        translated = mt("translate", several, "--checkpoint", "average", stdin=LINES)
        assert translated.out.count("\n") == len(tiny_run.SOURCES)

    def test_it_is_replaced_only_with_force(self, several, mt):
        assert mt("average", several).code == 0
        done = mt("average", several, "--last", 2)
        assert done.code == 4
        assert "AVERAGE-EXISTS" in done.err
        assert mt("average", several, "--last", 2, "--force").code == 0

    def test_one_checkpoint_is_refused(self, run, mt):
        for asked in ((), ("step-7", "step-7")):
            done = mt("average", run, *asked)
            assert done.code == 4
            assert "AVERAGE-FEW" in done.err
        assert not (run / "checkpoints" / "average").exists()

    def test_a_run_in_training_is_refused(self, several, mt):
        with lock(several / ".lock"):
            done = mt("average", several)
        assert done.code == 5
        assert "RUN-LOCKED" in done.err

    def test_a_damaged_checkpoint_is_refused_and_nothing_is_written(self, several, mt):
        path = several / "checkpoints" / checkpoint.checkpoint_name(8) / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
        done = mt("average", several)
        assert done.code == 4
        assert "CKPT-HASH" in done.err
        assert not (several / "checkpoints" / "average").exists()

    def test_what_is_no_run_is_reported_and_not_made_into_one(self, mt, tmp_path):
        done = mt("average", tmp_path / "none")
        assert done.code == 4
        assert "RUN-NONE" in done.err
        assert not (tmp_path / "none").exists()
