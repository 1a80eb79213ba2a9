"""The sabotages of scripts/mutation.py fit the code as it is."""

from pathlib import Path

import pytest
from script_module import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def mutation():
    return load_script("mutation")


def test_each_sabotage_applies_once_to_code_that_still_compiles(mutation, tmp_path):
    for sabotage in mutation.SABOTAGES:
        for name, _, _ in sabotage.edits:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
        for path, before in mutation.apply(tmp_path, sabotage).items():
            assert path.read_text() != before
            compile(path.read_text(), str(path), "exec")
        assert all((ROOT / test).is_file() for test in sabotage.tests)


def test_an_edit_that_does_not_fit_is_an_error(mutation, tmp_path):
    (tmp_path / "a.py").write_text("x\nx\n")
    for old in ("x\n", "y"):
        with pytest.raises(SystemExit, match=r"times in a\.py"):
            mutation.apply(tmp_path, mutation.Sabotage("", "", (("a.py", old, ""),), ()))
