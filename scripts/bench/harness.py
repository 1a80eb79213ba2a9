"""What all measuring scripts share: rounds in turn, medians, tables, commands, BLEU, memory.

Scripts in this folder import it as `harness`, the others as `bench.harness`. It imports mt only
where a function needs it, so that a script that only waits for others stays small.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple, TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(1, str(ROOT))  # mt of this checkout
MT = (sys.executable, "-m", "mt")
Result = TypeVar("Result")


def make_parser(text: str, recipe: bool = False) -> argparse.ArgumentParser:
    """Return a parser that shows a module's docstring and, if wanted, takes a recipe."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if recipe:
        parser.add_argument("config", type=Path, nargs="?", default=Path("configs/demo.yaml"))
        parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE")
    return parser


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def say(line: str, end: str = "\n") -> None:
    """Print progress to standard error."""
    print(line, end=end, file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------- rounds


def run_in_turn(sides: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Call each side once a round; return the results by side, one for each round.

    Every other round goes backwards, so that a steady drift of the machine favours no side.
    """
    found: dict[str, list[Result]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            found[name].append(sides[name]())
    return found


def time_in_turn(
    sides: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1, least: float = 0.0
) -> dict[str, list[float]]:
    """Return the seconds of one call by side, one for each round after the rounds of warm-up.

    Args:
        sides: the work by name.
        rounds: rounds that count.
        warm_up: rounds before them.
        least: repeat the call within a round for this many seconds; their mean counts.
    """

    def seconds(work: Callable[[], object]) -> float:
        began, calls = time.perf_counter(), 0
        while not calls or time.perf_counter() - began < least:
            work()
            calls += 1
        return (time.perf_counter() - began) / calls

    found = run_in_turn(
        {name: partial(seconds, work) for name, work in sides.items()}, warm_up + rounds
    )
    return {name: values[warm_up:] for name, values in found.items()}


# ------------------------------------------------------------------------ figures, tables


def divide(these: Sequence[float], those: Sequence[float]) -> list[float]:
    """Return the ratio of each round; a side that failed on the way has fewer rounds."""
    return [a / b for a, b in zip(these, those, strict=False)]


def ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """Return the median of the ratios of each round."""
    return median(divide(these, those))


def show(value: float, form: str = "") -> str:
    """Format a value; three digits if no form is given."""
    return format(value, form or (",.0f" if value >= 100 else ".3g"))


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Return `lowest to highest`."""
    return f"{show(min(values), form)} to {show(max(values), form)}"


def summary(
    values: Sequence[float], form: str = "", middle: Callable[[Any], float] = median
) -> str:
    """Return `median (lowest to highest)`, or the one value."""
    shown = show(middle(values), form)
    return shown if len(values) == 1 else f"{shown} ({spread(values, form)})"


def fit_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Return constant, slope and R^2 of the line of least squares through some points."""
    middle_x, middle_y = fmean(x), fmean(y)
    square = sum((a - middle_x) ** 2 for a in x)
    product = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    slope = product / max(square, 1e-12)
    constant = middle_y - slope * middle_x
    rest = sum((b - constant - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    return constant, slope, 1 - rest / max(sum((b - middle_y) ** 2 for b in y), 1e-12)


def table_row(cells: Iterable[object]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def table(
    head: Sequence[str] | str, rows: Iterable[Iterable[object]] = (), right: bool = False
) -> str:
    """Return a Markdown table.

    Args:
        head: names of the columns, in one string with ` | ` between them or as a list.
        rows: cells.
        right: align all columns but the first to the right.
    """
    head = head.split(" | ") if isinstance(head, str) else head
    rule = "|---" + ("|---:" if right else "|---") * (len(head) - 1) + "|"
    return "\n".join([table_row(head), rule, *map(table_row, rows)])


# ------------------------------------------------------------------------------- commands


class Line(NamedTuple):
    """A line that a command printed."""

    seconds: float
    """When it came, on this process's clock."""
    text: str


@dataclass(frozen=True)
class Finished:
    """What a command printed and cost."""

    lines: Sequence[Line]
    seconds: float
    samples: Sequence[tuple[float, float]] = ()
    """(mark, MB) of the process and all below it, where memory was measured."""

    @property
    def peak(self) -> float:
        """Most MB at once."""
        return max((megabytes for _, megabytes in self.samples), default=0.0)

    @property
    def result(self) -> Any:
        """The JSON value in the last line."""
        return json.loads(self.lines[-1].text)


class CommandError(SystemExit):
    """A command failed; ends the script unless it is caught."""

    def __init__(self, command: Sequence[object], code: int, output: str) -> None:
        words = " ".join(map(str, command))
        super().__init__(f"ended with {code}: {words}\n{output[-2000:]}")
        self.output = output


def run(
    command: Sequence[object], variables: Mapping[str, str] | None = None, *,
    measure: Callable[[int], int] | None = None, every: float = 0.05,
    mark: Callable[[], float] = time.perf_counter, given: str | None = None,
    limit: float | None = None, **streams: Any,
) -> Finished:  # fmt: skip
    """Run a command to its end, and leave no process of it behind.

    Args:
        command: program and arguments.
        variables: environment variables, besides those of this process and `PYTHONPATH`.
        measure: `unshared`, `written`, `resident` or `proportional`: the memory to watch, if any.
        every: seconds between two measurements of memory.
        mark: a number to keep beside each of them, such as the progress.
        given: text for its standard input.
        limit: seconds after which it is killed.
        **streams: other arguments of `subprocess.Popen`.

    Raises:
        CommandError: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(variables or {})}
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
        began = time.perf_counter()
        child = subprocess.Popen(
            list(map(str, command)), env=environment, text=True, errors="replace",
            start_new_session=True, **{
                "stdin": subprocess.DEVNULL if given is None else subprocess.PIPE,
                "stdout": subprocess.PIPE, "stderr": errors, **streams,
            },
        )  # fmt: skip
        stack.callback(_kill, child)
        if limit is not None:
            timer = threading.Timer(limit, _kill, [child])
            timer.start()
            stack.callback(timer.cancel)
        samples: list[tuple[float, float]] = []
        if measure:
            stack.enter_context(watched_memory(child.pid, measure, every, mark, samples))
        if given is not None and child.stdin is not None:
            child.stdin.write(given)
            child.stdin.close()
        lines = [Line(time.perf_counter(), text.rstrip("\n")) for text in child.stdout or ()]
        child.wait()
        seconds = time.perf_counter() - began
        if child.returncode:
            errors.seek(0)
            output = "\n".join(line.text for line in lines) + errors.read()
            raise CommandError(command, child.returncode, output)
    return Finished(lines, seconds, samples)


def _kill(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def set_options(sets: Iterable[str]) -> list[str]:
    """Return `--set KEY=VALUE` for each of the settings."""
    return [word for each in sets for word in ("--set", each)]


def train(
    config: Path, run_folder: Path, sets: Iterable[str] = (), program: Sequence[str] = MT,
    variables: Mapping[str, str] | None = None, **watched: Any,
) -> tuple[list[dict[str, Any]], Finished]:  # fmt: skip
    """Run `mt train`; return the lines of its metrics.jsonl, and what the command cost."""
    command = [*program, "train", config, "--run", run_folder, *set_options(sets)]
    finished = run(command, variables, **watched)
    text = (run_folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()], finished


def training_speed(rows: Iterable[Mapping[str, Any]]) -> float:
    """Return the target tokens a second over lines of metrics.jsonl, padding not counted."""
    rows = list(rows)
    seconds = sum(row["target_tokens"] / row["target_tokens_per_second"] for row in rows)
    return sum(row["target_tokens"] for row in rows) / seconds


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file."""
    return path.read_text(encoding="utf-8").splitlines()


def bleu(lines: Sequence[str], reference: Path, model: Path) -> float:
    """Return the BLEU of translations, by the settings of the model's run directory."""
    from mt.checkpoints import bundle
    from mt.evaluation import scoring

    recipe = bundle.read_any_recipe(model)
    scores = scoring.score_translations(
        lines, [read_lines(reference)], recipe.languages.target, recipe.evaluation
    )
    return scores["BLEU"]["score"]


# ------------------------------------------------------------------------ memory, on Linux


def process_tree(pid: int) -> list[int]:
    """Return the ids of a process and of all below it."""
    found = [pid]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, task.read_text().split())
    return found


def unshared(pid: int) -> int:
    """Return the kB of a process that no other one shares."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Private_")


def written(pid: int) -> int:
    """Return the kB that a process wrote itself; pages of mapped files do not count."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Private_Dirty")


def resident(pid: int) -> int:
    """Return the kB of a process that are in memory."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmRSS")


def proportional(pid: int) -> int:
    """Return the kB of a process in memory; a shared page counts for a share in each."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def _kilobytes(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(name))


@contextlib.contextmanager
def watched_memory(
    pid: int, measure: Callable[[int], int], every: float, mark: Callable[[], float],
    samples: list[tuple[float, float]],
) -> Iterator[None]:  # fmt: skip
    """Append, while inside, (mark, MB of a process and all below it) every few seconds."""
    done = threading.Event()

    def sample() -> None:
        while not done.wait(every):
            samples.append((mark(), sum(map(measure, process_tree(pid))) / 1024))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
