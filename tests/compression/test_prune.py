"""`mt prune`: the new run is a run as any other, and what cannot be pruned is told beforehand."""

from __future__ import annotations

import json

import pytest
import tiny_run

from mt.checkpoints import averaging, checkpoint, run_directory, train_state
from mt.cli import main
from mt.compression import prune
from mt.errors import ConfigError
from mt.runtime import files

MORE = {
    "drop_overlap: true": "drop_overlap: false", "max_steps: 10000": "max_steps: 3",
    "precision: auto": "precision: fp32", "micro_tokens: auto": "micro_tokens: 512",
    "report_every: 50": "report_every: 1", "processes: auto": "processes: 1",
    "warmup_steps: 4000": "warmup_steps: 1", "max_length_ratio: 1.5": "max_length_ratio: 0.2",
    "threads: auto": "threads: 1",
}  # fmt: skip


@pytest.fixture
def run(tmp_path, request):
    """A run of one layer a side and two heads, whose data are there."""
    made = tiny_run.make(tmp_path)
    text = (made / "config.yaml").read_text(encoding="utf-8")
    for before, after in MORE.items():
        assert before in text
        text = text.replace(before, after)
    files.write_file(made / "config.yaml", text)
    resolved = {"device": "cpu", "threads": 1, "micro_tokens": 512, "shapes": [], "compile": False,
                "precision": "fp32", "processes": 1, "sharding": "none"}  # fmt: skip
    files.write_json(made / "resolved.json", resolved)
    return made


def gated(run, kind):
    """The same run, of a model with gates."""
    text = (run / "config.yaml").read_text(encoding="utf-8")
    files.write_file(run / "config.yaml", text.replace("head_gates: null", f"head_gates: {kind}"))


def translations(capsys, path):
    capsys.readouterr()
    assert main.run(["translate", str(path), "-i", str(path.parent / "train.en")]) == 0
    return capsys.readouterr().out


def test_a_pruned_run_is_a_run(run, capsys, tmp_path):
    """It is fine-tuned, trained on, averaged, translated with, scored and exported."""
    new = tmp_path / "small"
    line = [
        "prune",
        str(run),
        "--heads",
        "50%",
        "--ff",
        "25%",
        "--finetune-steps",
        "4",
        "-o",
        str(new),
    ]
    assert main.run([*line, "--set", "search.beams=2"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in told[1:4]] == ["before", "pruned", "fine-tuned"]
    assert told[4].endswith("; 3 of 6 heads left, 24 columns a feed-forward layer left")
    opened = run_directory.open_run(new, "last")
    model = opened.recipe.model
    assert (model.n_heads, model.d_head, model.d_ff, model.layer_heads) == (1, 8, 24, None)
    assert opened.recipe.search.beams == 2
    plan = opened.recipe.training
    assert (plan.max_steps, opened.state.finished != "") == (4, True)
    assert opened.recipe.optimizer.learning_rate == pytest.approx(0.3e-3)
    assert [int(folder.name[5:]) for folder in averaging.last_checkpoints(new, 9)] == [0, 2, 4]
    assert len(translations(capsys, new).splitlines()) == 7
    assert main.run(["average", str(new)]) == 0
    assert main.run(["train", str(new / "config.yaml"), "--run", str(new)]) == 0
    assert "has finished" in capsys.readouterr().err
    assert main.run(["export", str(new), "--to", "bundle"]) == 0
    assert main.run(["export", str(new), "--to", "huggingface"]) == 2
    assert "error[EXPORT-KIND] model.d_head" in capsys.readouterr().err
    assert main.run(["prune", str(new), "--ff", "50%", "--checkpoint", "step-2"]) == 0  # once more
    assert run_directory.open_run(tmp_path / "small-pruned").recipe.model.d_ff == 12


def test_pruning_alone_leaves_a_run_to_be_trained_by_the_recipe(run, capsys):
    new = run.with_name("run-pruned")
    assert main.run(["prune", str(run), "--heads", "34%", "--uneven", "--pairs", "5"]) == 0
    opened = run_directory.open_run(new)
    assert opened.folder.name == "step-00000000"
    assert opened.recipe.training.max_steps == 3
    assert sum(map(sum, opened.recipe.model.layer_heads.model_dump().values())) == 4
    before = translations(capsys, new)
    assert main.run(["export", str(new), "--to", "ctranslate2"]) == 2
    assert "error[EXPORT-KIND] model.layer_heads" in capsys.readouterr().err
    assert main.run(["train", str(new / "config.yaml"), "--run", str(new)]) == 0
    assert "resuming" in capsys.readouterr().err
    assert run_directory.open_run(new).state.step == 3
    assert translations(capsys, new) != before
    assert main.run(["prune", str(run), "--heads", "50%"]) == 2
    assert "PRUNE-EXISTS" in capsys.readouterr().err


def test_closed_gates_are_taken_out(run, capsys):
    gated(run, "{kind: hard_concrete}")
    opened = run_directory.open_run(run.parent / "run")
    from mt.config.plugins import plugin

    model = plugin("models", "transformer").build(opened.recipe.model, opened.vocabulary)
    for layer in (model.encoder[0], model.decoder[0]):
        layer.self_attention.gates.alpha.data[:] = layer.self_attention.gates.alpha.new_tensor(
            [-1, 0.1]
        )
    model.decoder[0].cross_attention.gates.alpha.data[1] = -0.8
    checkpoint.save_checkpoint(
        run, checkpoint.checkpoint_name(9), model, train_state.TrainState(step=9), metadata={}
    )
    assert main.run(["export", str(run), "--to", "ctranslate2"]) == 2
    assert "model.head_gates" in capsys.readouterr().err
    before = translations(capsys, run)
    assert main.run(["prune", str(run), "--heads", "closed"]) == 0
    new = run.with_name("run-pruned")
    model = run_directory.open_run(new).recipe.model
    assert (model.n_heads, model.d_head, model.layer_heads, model.head_gates) == (1, 8, None, None)
    assert translations(capsys, new) == before


@pytest.mark.parametrize(
    ("gates", "options", "where"),
    [
        ("null", {"heads": "closed"}, "--heads closed"),
        ("null", {"heads": "10%"}, "--heads"),
        ("null", {"heads": "half"}, "--heads"),
        ("null", {"heads": "100%"}, "--heads"),
        ("null", {"layers": "encoder=2"}, "--layers encoder=2"),
        ("null", {"layers": "encoder"}, "--layers"),
        ("null", {}, "mt prune"),
        ("{kind: topk, heads: 1}", {"heads": "50%"}, "model.kind"),
    ],
)  # fmt: skip
def test_what_cannot_be_pruned_is_refused_before_any_work(run, gates, options, where):
    gated(run, gates)
    options = {"heads": None, "ff": None, "layers": None, "uneven": False, **options}
    with pytest.raises(ConfigError) as caught:
        prune.prune(run, prune.parse_request(**options))
    assert str(caught.value.problems[0][0]) == where
    assert not run.with_name("run-pruned").exists()


def test_a_run_of_before_opens_although_it_knows_no_head_width(run):
    text = (run / "config.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.split(":")[0].strip() not in (
        "d_head", "layer_heads", "head_gates")]  # fmt: skip
    assert len(lines) == len(text.splitlines()) - 3
    known = run_directory.open_run(run)
    files.write_file(run / "config.yaml", "\n".join(lines) + "\n")
    opened = run_directory.open_run(run)
    assert opened.recipe == known.recipe
    opened.model()
    assert json.loads((run / "resolved.json").read_text())["threads"] == 1
