"""Laws of the commands: data on standard output, all else on standard error, honest exit codes."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mt.cli import main
from mt.cli.options import engine_options
from mt.config import explain, recipe, yaml_reader
from mt.errors import Stopped

ROOT = Path(__file__).parents[2]
MT = (sys.executable, "-m", "mt")
COMMANDS = ("prepare", "train", "translate", "score", "eval", "average", "config", "diff-trace")
COMMANDS += ("cache", "attention", "distill", "backtranslate")
RECIPE = """\
languages: {source: en, target: de}
data:
  train: [{kind: text, source: a.en, target: a.de}]
  valid: {kind: text, source: b.en, target: b.de}
model: {d_model: 64}
training: {max_steps: 9000}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a recipe in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MT_DEBUG", raising=False)
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def process(command, **options):
    """A process that finds this `mt` wherever it runs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 120, **options}
    return subprocess.run(command, env=environment, **options)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_stands_alone(command, capsys):
    assert main.run([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"Usage: mt {command}" in out
    assert "Example:" in out
    assert "--help" in out


def test_the_help_names_every_command_and_exit_code(capsys):
    assert main.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {command} " in shown for command in COMMANDS)
    assert all(f"  {code} " in shown for code in (0, 1, 2, 3, 4, 5, 6, 7, 8))


def test_mt_alone_prints_the_help(capsys):
    assert main.run([]) == 0
    assert capsys.readouterr().out.startswith("Usage: mt ")


def test_help_comes_in_less_than_half_a_second(folder):
    def spent():  # on processors, by children: what else runs here does not count
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    seconds = []
    for _ in range(5):
        before = spent()
        assert process([*MT, "--help"], cwd=folder).returncode == 0
        seconds.append(spent() - before)
    assert min(seconds) < 0.5


def test_the_version_tells_mt_torch_python_and_device(capsys):
    import torch

    assert main.run(["--version"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("mt ")
    assert f"torch {torch.__version__}" in shown
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in shown
    assert shown.count("\n") == 1


class TestConfig:
    def test_each_value_says_where_it_comes_from(self, folder, capsys):
        assert main.run(["config", "recipe.yaml", "--set", "model.n_heads=2"]) == 0
        said = {
            line.partition(":")[0].strip(): line.partition(" # ")[2]
            for line in capsys.readouterr().out.splitlines()
        }
        assert said["d_model"] == "recipe.yaml:5"
        assert said["n_heads"] == "--set model.n_heads=2"
        assert said["d_ff"] == "default"

    def test_what_it_prints_is_the_same_recipe(self, folder, capsys):
        arguments = ["recipe.yaml", "--set", "optimizer.learning_rate=3e-4"]
        assert main.run(["config", *arguments]) == 0
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "copy.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
        first, _ = recipe.load(folder / "recipe.yaml", arguments[2:])
        assert recipe.load(elsewhere / "copy.yaml")[0] == first

    @pytest.mark.parametrize(
        "text",
        ["no", "1.5", "null", "a: b", "# x", "-", "'", '"', "\\", "äöü 中文", "a\u2028b", " "],
    )
    def test_every_text_is_written_so_that_it_reads_back(self, text):
        line = f"key: {explain._yaml_scalar(text)}"
        assert yaml_reader.parse(line).value == {"key": text}

    def test_explain_tells_type_default_value_and_meaning(self, folder, capsys):
        assert main.run(["config", "recipe.yaml", "--explain", "model.d_model"]) == 0
        assert capsys.readouterr().out == (
            "model.d_model:\n"
            "  Width D of the residual stream.\n"
            "  type: int\n"
            "  default: 512\n"
            "  value: 64 (recipe.yaml:5)\n"
        )

    def test_explain_knows_every_key(self, folder):
        settled, document = recipe.load(folder / "recipe.yaml")

        def keys(value, prefix):
            if isinstance(value, dict) and value:
                return [k for name, v in value.items() for k in keys(v, f"{prefix}.{name}")]
            if isinstance(value, list) and value and isinstance(value[0], dict):
                return [k for i, v in enumerate(value) for k in keys(v, f"{prefix}.{i}")]
            return [prefix.lstrip(".")]

        for key in keys(recipe.dump(settled), ""):
            assert explain.explain(settled, document, key)[-1].startswith("  value: ")

    def test_the_schema_needs_no_config_and_knows_every_section(self, capsys):
        assert main.run(["config", "--schema"]) == 0
        schema = json.loads(capsys.readouterr().out)
        assert set(schema["properties"]) == set(recipe.Recipe.model_fields)
        assert schema["additionalProperties"] is False
        assert "d_model" in json.dumps(schema)


class TestCache:
    def test_it_lists_and_clears_what_is_encoded(self, folder, capsys):
        entry = folder / "cache" / "corpora" / "0123abcd"
        entry.mkdir(parents=True)
        (entry / "tokens").write_bytes(bytes(2_000_000))
        assert main.run(["cache"]) == 0
        assert capsys.readouterr().out == f"       2.0 MB  {entry}\n"
        assert main.run(["cache", "--clear"]) == 0
        assert not entry.exists()
        assert main.run(["cache"]) == 0
        assert capsys.readouterr().out == ""

    def test_a_cache_that_is_not_there_is_empty(self, folder, capsys):
        assert main.run(["cache"]) == 0
        assert main.run(["cache", "--clear"]) == 0
        assert capsys.readouterr().out == ""


class TestWhatGoesWrong:
    """The failures here are made by a command that fails in the way told."""

    def fails(self, monkeypatch, error):
        def load(*_):
            raise error

        monkeypatch.setattr(recipe, "load", load)
        return main.run(["config", "recipe.yaml"])

    def test_a_bug_is_one_line_and_its_trace_is_in_a_file(self, folder, monkeypatch, capsys):
        assert self.fails(monkeypatch, KeyError("oops\x1b[2J")) == 1
        out, err = capsys.readouterr()
        first, second = err.splitlines()
        assert out == ""
        assert first.startswith("mt: error[BUG] mt/cli/commands/config.py:")
        assert first.endswith(": KeyError: 'oops\\x1b[2J'")
        (log,) = (folder / "cache").glob("mt-crash-*.log")
        assert second.endswith(str(log))
        assert "Traceback" in log.read_text(encoding="utf-8")

    def test_mt_debug_shows_the_trace(self, folder, monkeypatch, capsys):
        monkeypatch.setenv("MT_DEBUG", "1")
        assert self.fails(monkeypatch, KeyError("oops")) == 1
        assert "Traceback (most recent call last)" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("error", "code", "line"),
        [
            (Stopped(15, "stopped; saved runs/x"), 143, "stopped; saved runs/x"),
            (Stopped(2, "stopped"), 130, "stopped"),
            (KeyboardInterrupt(), 130, "mt: stopped"),
            (MemoryError("no 8 GB"), 5, "mt: error[MEMORY] the machine: out of memory (no 8 GB)"),
            (
                OSError(28, "No space left on device", "/full/x"),
                5,
                "mt: error[DISK-FULL] /full/x: No space left on device",
            ),
        ],
        ids=["sigterm", "sigint", "ctrl-c", "memory", "disk"],
    )
    def test_each_end_has_its_exit_code(self, folder, monkeypatch, capsys, error, code, line):
        assert self.fails(monkeypatch, error) == code
        out, err = capsys.readouterr()
        assert out == ""
        assert err.splitlines()[0] == line

    def test_a_reader_that_goes_away_ends_it_silently(self, folder):
        command = f"{sys.executable} -m mt config recipe.yaml; echo code $? >&2"
        reading, writing = os.pipe()
        os.close(reading)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            stdout=writing,
            stderr=subprocess.PIPE,
            env=environment,
        )
        os.close(writing)
        assert done.stderr.decode().split() == ["code", "141"]

    def test_a_full_disk_under_standard_output_is_told(self, folder):
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full here")
        with open("/dev/full", "w") as full:
            done = process([*MT, "config", "recipe.yaml"], cwd=folder, stdout=full)
        assert done.returncode == 5
        assert b"mt: error[DISK-FULL] standard output" in done.stderr
        assert b"Traceback" not in done.stderr
        assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("sets", "search", "device"),
    [
        (["search.beams=8"], {"beams": 8}, None),
        (["search={kind: greedy}"], {"kind": "greedy"}, None),
        (["runtime.device=cpu", "search.beams=2"], {"beams": 2}, "cpu"),
    ],
)
def test_set_reaches_the_engine(sets, search, device):
    options = engine_options(sets, "last", None)
    assert (options.search, options.device, options.checkpoint) == (search, device, "last")


def test_mt_runs_as_a_module():
    assert process([*MT, "--help"]).stdout.startswith(b"Usage: mt ")
