"""The script that checks a GPU runs anywhere, made small."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_gpu_check_agrees_with_itself_on_a_cpu(python):
    command = [python, "scripts/gpu_check.py", "--device", "cpu", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "missing for --multi30k: " in done.stdout
    assert done.stdout.count("| ok |") == 19
    assert "| tiny | " in done.stdout
    assert "FAILED" not in done.stdout


def test_the_recipe_of_its_training_is_one(tmp_path):
    """With real files; what it says of them is not run here."""
    import importlib.util

    from mt.config import recipe

    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "scripts" / "gpu_check.py")
    script = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = script  # dataclasses look their module up
    spec.loader.exec_module(script)
    for name in ("train", "val"):
        for side in ("en", "de"):
            (tmp_path / f"{name}.{side}.gz").touch()
    (tmp_path / "recipe.yaml").write_text(script.RECIPE.format(folder=tmp_path, device="cpu"))
    assert recipe.load(tmp_path / "recipe.yaml")[0].training.max_minutes == 9
