"""Laws of `mt/contracts.py`: the nouns fit every planned use, and cost nothing to import."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mt import interfaces
from mt.config import yaml_reader

ROOT = Path(__file__).parents[1]
STUBS = ROOT / "tests" / "contract_stubs.py"
PROTOCOLS = {
    "models": interfaces.ModelPlugin,
    "objectives": interfaces.ObjectivePlugin,
    "optimizers": interfaces.OptimizerPlugin,
    "search": interfaces.SearchPlugin,
    "sources": interfaces.SourcePlugin,
    "exporters": interfaces.ExporterPlugin,
    "engines": interfaces.EnginePlugin,
}


BENT = [
    ("def reorder(self, rows: Tensor)", "def reorder(self, rows: list[int])"),
    ("def output(self) -> tuple[Tensor, Tensor | None]", "def output(self) -> Tensor"),
    ("-> Iterator[Score]", "-> Iterator[float]"),
]
"""Lines of the stubs, and what they become when they no longer fit."""


@pytest.fixture(scope="module")
def complaints(tmp_path_factory):
    """What mypy has to say of the stubs, and of a bent copy for each entry of BENT, by name.

    One run for all, with the settings of the project, so that it shares the cache of `make types`.
    """
    folder = tmp_path_factory.mktemp("stubs")
    text = STUBS.read_text(encoding="utf-8")
    paths = [folder / f"bent_{number}.py" for number in range(len(BENT))]
    for path, (right, wrong) in zip(paths, BENT, strict=True):
        assert right in text
        path.write_text(text.replace(right, wrong), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", *map(str, [STUBS, *paths])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if ": error: " in line]
    return {
        path.stem: [line for line in lines if Path(line.split(":")[0]).name == path.name]
        for path in [STUBS, *paths]
    }


def test_every_planned_use_fits_the_nouns(complaints):
    assert complaints[STUBS.stem] == []


@pytest.mark.parametrize("number", range(len(BENT)))
def test_a_use_that_does_not_fit_is_noticed(complaints, number):
    assert complaints[f"bent_{number}"] != []


def test_the_nouns_do_not_import_torch():
    code = "import mt.contracts, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


@pytest.mark.parametrize(
    ("folder", "kind"), [(f, kind) for f in PROTOCOLS for kind in yaml_reader.plugins(f)]
)
def test_every_plugin_has_what_its_folder_promises(folder, kind):
    module = yaml_reader.plugin(folder, kind)
    protocol = PROTOCOLS[folder]
    promised = [n for n, v in vars(protocol).items() if inspect.isfunction(v) and n[0] != "_"]
    assert promised
    for name in promised:
        wanted = [p for p in inspect.signature(getattr(protocol, name)).parameters if p != "self"]
        given = list(inspect.signature(getattr(module, name)).parameters)
        assert given == wanted, f"{folder}/{kind}.py: {name}"
    if folder != "engines":
        assert issubclass(module.Config, yaml_reader.Variant)
        assert module.Config.model_fields["kind"].default == kind
        assert module.Config.model_config["frozen"]


@pytest.mark.parametrize(
    ("folder", "kind"),
    [(f, k) for f in PROTOCOLS for k in yaml_reader.plugins(f) if f != "engines"],
)
def test_every_setting_has_a_docstring(folder, kind):
    fields = yaml_reader.plugin(folder, kind).Config.model_fields
    assert [name for name, info in fields.items() if not info.description and name != "kind"] == []
