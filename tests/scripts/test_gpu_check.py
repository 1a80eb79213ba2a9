"""The script that checks a GPU runs anywhere, made small."""

import json
import subprocess
from pathlib import Path

import pytest
from script_module import load_script

ROOT = Path(__file__).parents[2]


def test_the_gpu_check_agrees_with_itself_on_a_cpu(python, tmp_path):
    command = [python, "scripts/gpu_check.py", "--device", "cpu", "--quick", "--only"]
    command += [
        "agreement",
        "parts",
        "training",
        "decoding",
        "--ab",
        "chunks=8,64",
        "--rounds",
        "2",
    ]
    command += ["--profile", "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "missing for --multi30k: " in done.stdout
    assert done.stdout.count("| ok |") == 19
    assert "| tiny | chunks=8 | " in done.stdout
    assert "| tiny | chunks=64 | " in done.stdout
    assert "FAILED" not in done.stdout
    assert "| failed |" not in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert len(figures["training"][1]["speeds"]) == 2
    assert figures["parts"]["tiny"]["AdamW, fused"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ab", "speed=1,2"], "--ab knows compile, graphs"),
        (["--ab", "graphs=on,off"], "--ab graphs is yes or no, not 'on'"),
        (["--only", "start"], "start: name the corpus by --multi30k FOLDER"),
    ],
)
def test_a_wrong_option_of_the_check_is_named(python, arguments, message):
    command = [python, "scripts/gpu_check.py", "--device", "cpu", "--quick", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert message in done.stderr


def test_the_recipe_of_its_training_is_one(tmp_path):
    """With real files; what it says of them is not run here."""
    from mt.config import recipe

    script = load_script("gpu_check")
    for name in ("train", "val"):
        for side in ("en", "de"):
            (tmp_path / f"{name}.{side}.gz").touch()
    (tmp_path / "recipe.yaml").write_text(script.RECIPE.format(folder=tmp_path, device="cpu"))
    assert recipe.load(tmp_path / "recipe.yaml")[0].training.max_minutes == 9
