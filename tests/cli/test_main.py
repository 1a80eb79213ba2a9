"""Laws of the commands: data on standard output, all else on standard error, honest exit codes."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mt.cli import main
from mt.config import recipe
from mt.errors import Stopped

ROOT = Path(__file__).parents[2]

MT = (sys.executable, "-m", "mt")

COMMANDS = (
    "prepare", "train", "translate", "score", "eval", "average", "config", "diff-trace",
    "cache", "attention", "distill", "backtranslate",
)  # fmt: skip


def process(command, **options):
    """A process that finds this `mt` wherever it runs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 120, **options}
    return subprocess.run(command, env=environment, **options)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_is_complete(command, capsys):
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


def test_the_help_lists_each_command_once_under_its_heading(capsys):
    assert main.run(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Show this message and exit.\n")[2]
    panels, places = {}, set()
    for line in listed.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            panels[line[:-1]] = names = []
        elif match := re.match(r"  ([a-z-]+) +(\S)", line):
            names.append(match[1])
            places.add(match.start(2))
    assert list(panels) == list(main.PANELS)
    names = [name for each in panels.values() for name in each]
    assert len(names) == len(set(names))
    wanted = {re.sub("^data_.*", "data", name).replace("_", "-") for name in main.COMMANDS}
    assert set(names) == wanted
    assert len(places) == 1  # aligned over all panels
    files = {path.stem for path in Path(main.__file__).with_name("commands").glob("[a-z]*.py")}
    assert files == set(main.COMMANDS)
    assert "eval" in panels["Evaluating"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("mt tra", {"train", "translate"}),
        ("mt data re", {"report"}),
        ("mt train --dry", {"--dry-run"}),
    ],
)
def test_a_shell_completes_commands_and_options(line, words, capsys, monkeypatch):
    for name, value in {
        "_MT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }.items():
        monkeypatch.setenv(name, value)
    assert main.run([]) == 0
    assert set(capsys.readouterr().out.split()) == words


def test_the_script_of_completion_calls_mt_by_the_same_variable(capsys, monkeypatch):
    assert main.run(["--help"]) == 0
    assert "--install-completion" in capsys.readouterr().out
    monkeypatch.setenv("_MT_COMPLETE", "source_bash")
    assert main.run([]) == 0
    assert f"{main.COMPLETION}=complete_bash" in capsys.readouterr().out
    monkeypatch.setenv("_MT_COMPLETE", "nonsense")
    assert main.run([]) == 1


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


def test_the_version_names_mt_torch_python_and_device(capsys):
    import torch

    assert main.run(["--version"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("mt ")
    assert f"torch {torch.__version__}" in shown
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in shown
    assert shown.count("\n") == 1


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

    @pytest.mark.parametrize("debug", ["0", "1"])
    def test_no_secret_or_escape_is_in_the_report_of_a_bug(
        self, folder, monkeypatch, capsys, debug
    ):
        monkeypatch.setenv("MT_DEBUG", debug)
        monkeypatch.setenv("HF_TOKEN", "planted-secret")
        error = ValueError("planted-secret at https://me:planted-too@host \x1b[2J")
        assert self.fails(monkeypatch, error) == 1
        out, err = capsys.readouterr()
        (log,) = (folder / "cache").glob("mt-crash-*.log")
        told = out + err + log.read_text(encoding="utf-8")
        assert "planted" not in told
        assert told.count("***") >= 4
        assert err.replace("\n", "").isprintable()

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

    def test_a_full_disk_under_standard_output_is_reported(self, folder, python):
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full here")
        with open("/dev/full", "w") as full:
            done = process([python, "-m", "mt", "config", "recipe.yaml"], cwd=folder, stdout=full)
        assert done.returncode == 5
        assert b"mt: error[DISK-FULL] standard output" in done.stderr
        assert b"Traceback" not in done.stderr
        assert b"Exception ignored" not in done.stderr


def test_mt_runs_as_a_module():
    assert process([*MT, "--help"]).stdout.startswith(b"Usage: mt ")


@pytest.mark.parametrize("group", main.GROUPS)
def test_a_group_alone_shows_its_commands(group, capsys):
    assert main.run([group]) == 0
    out = capsys.readouterr().out
    members = [name for name in main.COMMANDS if name.startswith(f"{group}_")]
    assert members
    assert all(name.removeprefix(f"{group}_") in out for name in members)
    assert main.run([group, "nothing"]) == 2
    assert f"mt {group} --help" in capsys.readouterr().err
