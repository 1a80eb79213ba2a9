"""Laws of traces: two runs are equal to the bit, or the first thing that differs is named."""

import json
import math

import pytest
import torch

from mt.cli import main
from mt.interfaces import Batch
from mt.training import determinism_trace
from mt.training.determinism_trace import TraceWriter
from mt.training.reporter import Reporter


def batch(seed, rows=3):
    ids = torch.randint(70, 90, (rows, 5), generator=torch.Generator().manual_seed(seed))
    lengths = torch.full((rows,), 5)
    return Batch(ids, ids, lengths, lengths - 1, torch.arange(rows) + seed)


def written(run, last, first=1, *, changed=None, end=True):
    """The trace of updates `first` to `last`; `changed` is (step, what)."""
    run.mkdir(exist_ok=True)
    module = torch.nn.Linear(3, 2)
    weight = torch.arange(6.0).reshape(2, 3)
    with torch.no_grad():
        module.weight.copy_(weight), module.bias.zero_()
    made = TraceWriter(run, first - 1, Reporter(run, interactive=False))
    for step in range(first, last + 1):
        what = changed[1] if changed and changed[0] == step else None
        values = {"loss": 0.1 * step, "norm": 1.5, "rate": 1e-3 / step}
        if what in values:
            # The very next number that a float can be.
            values[what] = math.nextafter(values[what], math.inf)
        seen = [batch(step), batch(100 + step + (what == "data"))]
        if what == "weights":
            with torch.no_grad():
                module.weight[1, 2] = 5.0000005
        place = (0, 0, step + (what == "update"))
        made.note(step, place, seen, values["loss"], values["norm"], values["rate"], module)
    if end:
        made.end(last, module)
    return run


def test_equal_runs_are_equal(tmp_path, capsys):
    runs = [str(written(tmp_path / name, 60)) for name in "ab"]
    assert main.run(["diff-trace", *runs]) == 0
    assert capsys.readouterr().out == "equal: 60 updates compared, weights at 2 of them\n"
    assert main.run(["diff-trace", runs[0], f"{runs[1]}/trace.jsonl"]) == 0


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("update", "update"), ("data", "data"), ("loss", "loss"), ("norm", "gradient norm"),
        ("rate", "learning rate"), ("weights", "weights"),
    ],
)  # fmt: skip
def test_one_bit_is_found_where_it_first_differs(tmp_path, what, told, capsys):
    one = written(tmp_path / "a", 60)
    other = written(tmp_path / "b", 60, changed=(50, what))
    assert main.run(["diff-trace", str(one), str(other)]) == 8
    head, *values = capsys.readouterr().out.splitlines()
    assert head == f"step 50: {told} differs"
    assert [line.split()[-1] for line in values] == [str(one), str(other)]
    assert values[0].split()[0] != values[1].split()[0]


def test_a_resumed_trace_is_that_of_a_whole_run(tmp_path):
    whole = determinism_trace.read_trace(written(tmp_path / "a", 60))
    written(tmp_path / "b", 37, end=False)
    with open(tmp_path / "b" / "trace.jsonl", "ab") as stream:
        stream.write(b'{"step": 38, "lo')  # the crash
    torn = determinism_trace.read_trace(tmp_path / "b")
    assert max(torn) == 37
    written(tmp_path / "b", 60, first=31)
    resumed = determinism_trace.read_trace(tmp_path / "b")
    assert determinism_trace.first_difference(whole, resumed) is None
    assert len((tmp_path / "b" / "trace.jsonl").read_bytes().splitlines()) == 61
    assert determinism_trace.first_difference(whole, torn) == determinism_trace.Difference(
        38, "length", ("traced", "not traced")
    )


def test_numbers_that_are_not_finite_are_traced(tmp_path):
    module, run = torch.nn.Linear(1, 1), tmp_path
    made = TraceWriter(run, 0, Reporter(run, interactive=False))
    made.note(1, (0, 0, 0), [batch(1)], torch.tensor(float("nan")), float("inf"), 1.0, module)
    line = determinism_trace.read_trace(run)[1]
    assert (line["loss"], line["norm"]) == ("nan", "inf")
    assert determinism_trace.first_difference({1: line}, {1: dict(line)}) is None


@pytest.mark.parametrize("name", ["nowhere", "empty", "."])
def test_no_trace_is_reported(tmp_path, capsys, name):
    (tmp_path / "empty").write_text("")
    good = written(tmp_path / "a", 2)
    assert main.run(["diff-trace", str(good), str(tmp_path / name)]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mt: error[TRACE-NONE] ")
    assert "--trace" in err


@pytest.mark.parametrize(
    "line", ["{", "[]", "7", '{"loss": "0x1p+0"}', '{"step": 2, "loss": "one"}', "\x00",
             '{"step": "2"}', '{"step": 2, "loss": 7}', '{"step": 2, "bleu": 7}', "[" * 99999],
    ids=lambda line: line[:12],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path, capsys, line):
    run = written(tmp_path / "a", 3)
    path = run / "trace.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = line
    path.write_text("\n".join(lines) + "\n")
    assert main.run(["diff-trace", str(run), str(run)]) == 3
    assert f"mt: error[TRACE-DAMAGED] {path}:2: " in capsys.readouterr().err


def test_a_full_disk_is_reported_once_and_ends_no_training(tmp_path, capsys):
    made = TraceWriter(tmp_path, 0, Reporter(tmp_path, interactive=False))
    (tmp_path / "trace.jsonl").symlink_to("/dev/full")
    for step in (1, 2):
        made.note(step, (0, 0, 0), [batch(1)], 1.0, 1.0, 1.0, torch.nn.Linear(1, 1))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mt: warning: trace.jsonl cannot be written (the disk is full")


def test_every_line_is_json_of_known_fields(tmp_path):
    for raw in (written(tmp_path / "a", 50) / "trace.jsonl").read_text().splitlines():
        assert json.loads(raw).keys() <= {"step", *determinism_trace.FIELDS}
