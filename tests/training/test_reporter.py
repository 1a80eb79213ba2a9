"""Laws of what a run tells: figures appear once, logs never end a training."""

import errno
import itertools
import json
import math
import threading
import time

import numpy as np
import pytest
from tensorboard.summary.writer import event_file_writer

from mt.runtime import console, files
from mt.training.reporter import (
    Reporter,
    format_duration,
    heat_map,
    progress_line,
    truncate_log,
    validation_line,
)

VALUES = {
    "epoch": 0, "loss": 2.5, "learning_rate": 1e-3, "grad_norm": 0.7, "target_tokens": 4096,
    "target_tokens_per_second": 2000.0, "padding_fraction": 0.03, "data_wait_fraction": 0.0,
    "peak_memory_bytes": 1 << 30, "seconds": 2.0,
}  # fmt: skip


def steps_in(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["step"] for line in lines]


def train(folder, first, last, total=None):
    """Report the updates after `first` up to `last`, one by one."""
    reporter = Reporter(folder, interactive=False)
    reporter.start(total, first)
    for step in range(first + 1, last + 1):
        reporter.report({"step": step, **VALUES})
    reporter.close()


def events_of(folder):
    """All of TensorBoard's events as a viewer sees them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    return events


def test_each_report_is_one_object_in_metrics_jsonl(tmp_path):
    train(tmp_path, 0, 3)
    first = json.loads((tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first == {"step": 1, **VALUES}
    assert steps_in(tmp_path) == [1, 2, 3]


def test_a_resumed_run_reports_each_step_once(tmp_path):
    train(tmp_path, 0, 5)
    train(tmp_path, 3, 6)
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_torn_last_line_is_dropped_when_the_run_resumes(tmp_path):
    train(tmp_path, 0, 2)
    with open(tmp_path / "metrics.jsonl", "ab") as stream:
        stream.write(b'{"step": 3, "lo')
    train(tmp_path, 2, 3)
    assert steps_in(tmp_path) == [1, 2, 3]


def test_a_log_with_nothing_to_forget_is_left_as_it_is(tmp_path):
    train(tmp_path, 0, 2)
    before = (tmp_path / "metrics.jsonl").stat()
    truncate_log(tmp_path / "metrics.jsonl", 2)
    after = (tmp_path / "metrics.jsonl").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_number_that_is_not_finite_is_null_in_metrics(tmp_path):
    reporter = Reporter(tmp_path, interactive=False)
    reporter.start(None, 0)
    reporter.report({"step": 1, **VALUES, "grad_norm": math.inf, "loss": math.nan})
    reporter.close()
    kept = json.loads((tmp_path / "metrics.jsonl").read_text(encoding="utf-8"))
    assert kept["grad_norm"] is None
    assert kept["loss"] is None


def test_tensorboard_shows_the_metrics_and_no_step_twice(tmp_path, monkeypatch):
    # Files of one second are read by their number in this process, and 10 comes before 9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    train(tmp_path, 0, 5)
    train(tmp_path, 3, 6)
    scalars = events_of(tmp_path).Tags()["scalars"]
    assert {f"train/{key}" for key in VALUES} <= set(scalars)
    steps = [event.step for event in events_of(tmp_path).Scalars("train/loss")]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_the_samples_of_each_validation_are_a_line_which_a_resumed_run_writes_once(tmp_path):
    def validate(first, validated, *steps):
        reporter = Reporter(tmp_path, interactive=False)
        reporter.start(10, first, validated)
        for step in steps:
            values = {"step": step, "valid_loss": 2.0, "valid_perplexity": 7.4}
            reporter.validation(values, [("A house.", "Ein Haus.", f"Häuser {step}")])
        reporter.close()

    path = tmp_path / "samples.jsonl"
    validate(0, None, 2, 4, 6)
    first = path.read_bytes()
    assert json.loads(first.split(b"\n")[1]) == {
        "step": 4, "samples": [["A house.", "Ein Haus.", "Häuser 4"]],
    }  # fmt: skip
    validate(3, 2, 4, 6)
    assert path.read_bytes() == first
    validate(4, 2, 4, 6)  # a signal came in the validation at step 4, and saved a checkpoint
    assert path.read_bytes() == first
    validate(0, None, 2)
    assert path.read_bytes() == first.split(b"\n")[0] + b"\n"


def test_a_validation_is_kept_with_samples_and_a_heat_map(tmp_path, capsys):
    reporter = Reporter(tmp_path, interactive=False)
    reporter.start(10, 0)
    values = {"valid_loss": 2.0, "valid_perplexity": 7.4, "valid_bleu": 31.2, "valid_chrf": 55.0}
    reporter.validation({"step": 4, **values}, [("A <b> house.", "Ein Haus.", "Ein Maus.")])
    reporter.figure("cross_attention", np.eye(2, 3), ["Ein", "Haus"], ["A", "house", "."], 4)
    reporter.close()
    events = events_of(tmp_path)
    assert {"valid/loss", "valid/bleu", "valid/chrf"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["valid/cross_attention"]
    text = [tag for tag in events.Tags()["tensors"] if tag.startswith("valid/sample_1")]
    (shown,) = events.Tensors(text[0])[0].tensor_proto.string_val
    assert b"house" in shown
    assert b"<b>" not in shown, "what the model says must not become HTML"
    told = capsys.readouterr().err
    assert "validation at step 4: loss 2.000, perplexity 7.400, BLEU 31.200, chrF 55.000" in told
    assert "Ein Maus." in told


def test_a_monitored_metric_is_in_the_line_but_no_single_direction():
    values = {"step": 4, "valid_loss": 2.0, "valid_chrf": 5.0, "valid_chrf_en-de": 7.0}
    line = validation_line({**values, "valid_ter": 61.0, "valid_ter_en-de": 62.0})
    assert line == "validation at step 4: loss 2.000, chrF 5.000, ter 61.000"


def test_a_full_disk_is_reported_once_and_training_goes_on(tmp_path, capsys, monkeypatch):
    reporter = Reporter(tmp_path, interactive=False)
    reporter.start(None, 0)
    (tmp_path / "metrics.jsonl").mkdir()  # nothing can be appended to a folder
    for step in (1, 2, 3):
        reporter.report({"step": step, **VALUES})
    reporter.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "warning" in line] == [
        "mt: warning: metrics.jsonl cannot be written (Is a directory); training goes on"
    ]
    assert sum(line.startswith("step ") for line in lines) == 3


def test_tensorboard_that_cannot_be_written_is_reported_once(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("in the way")
    train(tmp_path, 0, 3)
    lines = capsys.readouterr().err.splitlines()
    assert sum("TensorBoard cannot be written" in line for line in lines) == 1
    assert steps_in(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("first", [1, 4, 9])
def test_a_disk_that_fills_up_under_tensorboard_is_one_warning(
    tmp_path, monkeypatch, capsys, first
):
    """Its writer is a thread, which fails between two calls, and whose trace Python prints."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    write, failed, count = RecordWriter.write, [], itertools.count(1)

    def full(self, data):
        if next(count) >= first:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", full)
    monkeypatch.setattr(threading, "excepthook", failed.append)
    hook = threading.excepthook
    train(tmp_path, 0, 3)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "TensorBoard" in line] == [
        "mt: warning: TensorBoard cannot be written ([Errno 28] No space left on device); "
        "training goes on"
    ]
    assert failed == []
    assert threading.excepthook is hook
    assert steps_in(tmp_path) == [1, 2, 3]


def test_without_a_terminal_each_report_is_a_plain_line(tmp_path, capsys):
    train(tmp_path, 0, 1, total=10)
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(
        "step 1/10 | epoch 0 | loss 2.500 | rate 1.00e-03 | 2,000 tokens/s | padding 3.0 %"
    )
    assert line.isprintable()


def test_on_a_terminal_the_line_is_drawn_in_place_and_taken_away(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    reporter = Reporter(tmp_path, interactive=True)
    reporter.start(10, 0)
    reporter.report({"step": 4, **VALUES})
    reporter.log("a [red]line[/red] of its own")
    reporter.close()
    reporter.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert "step 4/10" in err
    assert "a [red]line[/red] of its own" in err
    assert "\x1b[2K" in err, "the line is erased"


def test_what_a_model_says_cannot_drive_the_terminal(tmp_path, capsys):
    reporter = Reporter(tmp_path, interactive=False)
    reporter.log("\x1b[2Jgone\u202e")
    assert capsys.readouterr().err == "\\x1b[2Jgone\\u202e\n"


def test_a_heat_map_is_dark_where_weights_are_large():
    image = heat_map([[0.0, 1.0], [0.5, math.nan]], cell=4)
    assert image.shape == (8, 8, 3)
    assert image.dtype == np.uint8
    darkness = 765 - image[::4, ::4].sum(axis=-1, dtype=int)
    assert darkness[0, 0] == darkness[1, 1] == 0
    assert darkness[0, 1] > darkness[1, 0] > 0


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01")]
)
def test_time_is_shown_as_a_clock(seconds, shown):
    assert format_duration(seconds) == shown


def test_append_repairs_a_torn_line(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"whole\ntor")
    files.append_line(path, "next")
    assert path.read_bytes() == b"whole\ntor\nnext\n"


def test_a_repeated_line_is_printed_once(capsys):
    with console.print_lines_once():
        for line in ("a", "b", "a"):
            console.print_line(line)
    console.print_line("a")
    assert capsys.readouterr().err == "a\nb\na\n"


def test_a_line_says_how_long_is_left_and_until_when(monkeypatch):
    noon = time.mktime((2030, 5, 6, 12, 0, 0, 0, 0, -1))
    monkeypatch.setattr(time, "time", lambda: noon)
    monkeypatch.setattr(time, "localtime", lambda at=noon, real=time.localtime: real(at))
    values = {"step": 5, **VALUES}
    assert "left" not in progress_line(values, 10, None)
    assert progress_line(values, 10, (600.0, True)).endswith("left 0:10:00, until 12:10")
    tomorrow = progress_line(values, 10, (86400.0, True))
    assert tomorrow.endswith("left 24:00:00, until 2030-05-07 12:00")
    unmeasured = progress_line(values, 10, (600.0, False))
    assert unmeasured.endswith("left 0:10:00 and the validations")
