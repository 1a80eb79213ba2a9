"""The commands that use a trained model: translate, score, average; options, files, ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run
import torch
from command_lines import LINES

from mt.checkpoints import checkpoint, run_directory, train_state
from mt.config.plugins import plugin
from mt.decoding import translate
from mt.decoding.types import Translation

REPOSITORY = Path(__file__).parents[3]

HEAVY = ("datasets", "tensorboard", "sacrebleu", "pandas", "pyarrow", "rich", "torch._dynamo")


def process(python, *arguments, **more):
    command = [python, "-m", "mt", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **more,
    )  # fmt: skip


class TestTranslate:
    def test_formats_have_the_same_translations(self, run, mt):
        plain = mt("translate", run, stdin=LINES).out.splitlines()
        assert len(plain) == len(tiny_run.SOURCES)
        columns = mt("translate", run, "--scores", "--alignments", stdin=LINES).out.splitlines()
        assert [row.split("\t")[1] for row in columns] == plain
        moses = mt("translate", run, "--n-best", 2, stdin=LINES).out.splitlines()
        assert [row.split(" ||| ")[1] for row in moses[::2]] == plain
        assert [row.split(" ||| ")[0] for row in moses] == [str(n // 2) for n in range(14)]
        asked = ("--n-best", 2, "--format", "json", "--alignments")
        values = [
            json.loads(row) for row in mt("translate", run, *asked, stdin=LINES).out.splitlines()
        ]
        assert [value["text"] for value in values] == plain
        assert [value["source"] for value in values] == tiny_run.SOURCES
        assert all(len(value["alternatives"]) == 2 for value in values)
        assert all(len(value["alignment"]) == len(value["tokens"]) for value in values)
        assert [f"{value['score']:.6f}" for value in values] == [
            row.split("\t")[0] for row in columns
        ]

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["--n-best", 2, "--format", "text"], "--n-best: text has one translation a line"),
            (["--format", "xml"], "--format xml: no such format"),
            (["--force"], "--force: there is no -o file to replace"),
            (["--line-buffered", "-o", "x"], "--line-buffered: an -o file appears at the end"),
            (["--line-buffered", "--processes", 2], "--line-buffered: one line is no work"),
            (["--processes", 0], "mt translate: Invalid value for '--processes'"),
            (["--on-bad-utf8", "ignore"], "mt translate: Invalid value for '--on-bad-utf8'"),
            (["--precision", "fp8"], "--precision fp8: runtime.precision: "),
            (["--set", "model.d_model=3"], "--set model.d_model=3: a trained model has its own"),
        ],
    )
    def test_what_makes_no_sense_is_refused_in_one_line(self, run, mt, arguments, line):
        done = mt("translate", run, *arguments, stdin=LINES)
        assert (done.code, done.out) == (2, "")
        first, _advice = done.err.splitlines()
        assert line in first

    def test_options_reach_the_engine(self, mt, monkeypatch, tmp_path):
        asked = []

        class Echo:
            def translate(self, lines, options):
                return map(Translation, lines)

        def open_engine(path, options):
            asked.append((path, options))
            return Echo()

        monkeypatch.setattr(translate, "open_engine", open_engine)
        (tmp_path / "prefixes").write_text("a\nb\n", encoding="utf-8")
        given = "--processes 2 --threads 3 --precision bf16 --seed 7 --strict --checkpoint last"
        files = ("--prefix", tmp_path / "prefixes")
        done = mt("translate", "one", "two", "three", *given.split(), *files, stdin="x\ny\n")
        assert (done.code, done.out) == (0, "x\ny\n")
        ((path, options),) = asked
        assert (path, options.ensemble_paths) == (Path("one"), (Path("two"), Path("three")))
        assert (options.processes, options.threads, options.precision) == (2, 3, "bf16")
        assert (options.seed, options.strict, options.checkpoint) == (7, True, "last")
        assert list(options.prefixes) == ["a", "b"]

    def test_prefixes_begin_the_translations(self, run, mt, tmp_path):
        (tmp_path / "prefixes").write_text("Ein\n\nZwei Hunde\n", encoding="utf-8")
        asked = ("--prefix", tmp_path / "prefixes")
        one, _, three = mt("translate", run, *asked, stdin="Dogs.\nA\nB\n").out.splitlines()
        assert one.startswith("Ein")
        assert three.startswith("Zwei Hunde")
        done = mt("translate", run, *asked, stdin="Dogs.\n" * 4)
        assert done.code == 3
        assert "line 4: there is no prefix for it" in done.err

    def test_a_bad_line_stops_it_before_its_output_or_is_replaced(self, run, mt):
        """T04."""
        data = b"Dogs.\nbad \xff\nDogs.\n"
        done = mt("translate", run, stdin=data)
        assert (done.code, done.out.count("\n")) == (3, 1)
        assert "standard input:2: invalid byte 0xff" in done.err
        done = mt("translate", run, "--on-bad-utf8", "replace", stdin=data)
        assert (done.code, done.out.count("\n")) == (0, 3)
        assert "warning[DATA-UTF8]" in done.err

    def test_an_existing_file_is_replaced_only_with_force_and_only_after_success(
        self, run, mt, tmp_path
    ):
        """T09."""
        target = tmp_path / "out"
        assert mt("translate", run, "-o", target, stdin=LINES).code == 0
        first = target.read_bytes()
        assert first.count(b"\n") == len(tiny_run.SOURCES)
        done = mt("translate", run, "-o", target, stdin="Dogs.\n")
        assert done.code == 2
        assert "OUTPUT-EXISTS" in done.err
        assert mt("translate", run, "-o", target, "--force", stdin=b"Dogs.\n\xff\n").code == 3
        assert target.read_bytes() == first
        assert mt("translate", run, "-o", target, "--force", stdin="Dogs.\n").code == 0
        assert target.read_bytes().count(b"\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_full_disk_is_reported(self, run, mt):
        """T09."""
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full here")
        done = mt("translate", run, "-o", "/dev/full", stdin=LINES * 50)
        assert done.code == 5
        assert "mt: error[DISK-FULL] /dev/full" in done.err

    def test_what_is_no_file_is_written_into_and_left_there(self, run, mt, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        assert mt("translate", run, "-o", tmp_path / "pipe", stdin="Dogs.\n").code == 0
        assert os.read(reading, 1000).endswith(b"\n")
        os.close(reading)
        assert (tmp_path / "pipe").is_fifo()

    def test_an_untrained_model_ends_and_one_that_diverged_is_reported(self, mt, tmp_path):
        """T13."""
        run = tiny_run.make(tmp_path)
        assert mt("translate", run, stdin=LINES).code == 0
        opened = run_directory.open_run(run)
        model = plugin("models", "transformer").build(opened.recipe.model, opened.vocabulary)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(1e38)  # finite, so it can be saved; its products are not
        checkpoint.save_checkpoint(
            run, checkpoint.checkpoint_name(8), model, train_state.TrainState(step=8), metadata={}
        )
        pair = ("--source", tmp_path / "train.en", "--target", tmp_path / "train.de")
        for done in (mt("translate", run, stdin=LINES), mt("score", run, *pair)):
            assert (done.code, done.out) == (4, "")
            assert "MODEL-NAN" in done.err

    def test_a_closed_standard_input_is_reported(self, run):
        """T08."""
        closed = f"exec {sys.executable} -m mt translate {run} <&-"
        done = subprocess.run(["sh", "-c", closed], cwd=REPOSITORY, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert "mt: error[USAGE] standard input: it is closed" in done.stderr

    def test_each_line_is_answered_before_the_next_is_sent(self, run):
        """T08; and nothing that a translation does not need has been imported by then (T12)."""
        code = "import sys; from mt.cli.main import run; run(sys.argv[1:])\n"
        code += f"sys.stderr.write(' '.join(set({HEAVY}) & set(sys.modules)))"
        child = subprocess.Popen(
            [sys.executable, "-c", code, "translate", run, "--line-buffered", "--threads", "1"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=REPOSITORY, bufsize=0,
        )  # fmt: skip
        for line in (b"Dogs.\n", b"\n", b"Girls sing.\n"):
            child.stdin.write(line)
            answer = child.stdout.readline()
            assert answer.endswith(b"\n")
            assert (answer == b"\n") == (line == b"\n")
        out, err = child.communicate()
        assert (out, err.count(b"\n")) == (b"", 1)  # the warning of an untrained model's lengths
        assert child.returncode == 0

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_a_kill_leaves_no_file_under_the_name(self, number, run, python, tmp_path):
        """T09."""
        child = process(python, "translate", run, "-o", tmp_path / "out", "--threads", 1)
        child.stdin.write(LINES.encode())
        child.stdin.flush()
        while not list(tmp_path.iterdir()):  # the hidden file: work has begun
            assert child.poll() is None
        child.send_signal(number)
        _, err = child.communicate()
        assert not (tmp_path / "out").exists()
        if number == signal.SIGTERM:
            assert (child.returncode, err.splitlines()[-1]) == (143, b"mt: stopped")
            assert list(tmp_path.iterdir()) == []

    @pytest.mark.torture
    @pytest.mark.parametrize("mebibytes", [300, 600, 900, 1200, 1500])
    def test_too_little_memory_for_a_huge_line_is_reported(self, run, tmp_path, mebibytes):
        """N06; whether it is torch or the line that does not fit."""
        (tmp_path / "line").write_text("A man sleeps in a green room. " * 170_000 + "\n")

        def limit():
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (mebibytes << 20, mebibytes << 20))

        command = [sys.executable, "-m", "mt", "translate", run, "-i", tmp_path / "line"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, "--threads", "1"], cwd=REPOSITORY, env=environment, capture_output=True,
            text=True, timeout=300, preexec_fn=limit,
        )  # fmt: skip
        assert done.returncode == 5, done.stderr
        assert "mt: error[MEMORY] the machine: out of memory" in done.stderr
        assert "Traceback" not in done.stderr
