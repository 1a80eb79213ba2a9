"""Training reports: a progress line, two logs in JSON lines, and TensorBoard; rank 0 only.

A log that cannot be written causes one warning and is then left alone: it never ends a training.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.errors import MtError, printable
from mt.runtime import files
from mt.runtime.console import print_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray
    from rich.progress import Progress
    from torch.utils.tensorboard import SummaryWriter

SAMPLES = "samples.jsonl"
"""The log of translations: a line for each validation, with `step` and `samples`."""
Sample = tuple[str, str, str]
"""A source, its reference and its translation."""


class Reporter:
    """Prints the progress of a run; writes its logs and `tensorboard/` in its folder.

    `metrics.jsonl` has the figures of each report and each validation, `samples.jsonl` some
    translations of each validation. With `interactive`, by default on a terminal, it draws a live
    line.
    """

    def __init__(self, folder: Path, interactive: bool | None = None) -> None:
        self.folder = folder
        self.metrics = folder / "metrics.jsonl"
        self.samples = folder / SAMPLES
        self.interactive = sys.stderr.isatty() if interactive is None else interactive
        self.total_steps: int | None = None
        self._first_step = 0
        self._progress: Progress | None = None
        self._board: SummaryWriter | None = None
        self._thread_hook: Callable[[Any], Any] | None = None
        """What is called when a thread fails, when there is no TensorBoard."""
        self._silent: set[str] = set()

    def start(self, total_steps: int | None, step: int, validated: int | None = None) -> None:
        """Begin to report at `step`; drop what was logged after it, as those updates run again.

        `validated` is the step of the last validation, if there was one.
        """
        self.total_steps, self._first_step = total_steps, step
        self.attempt("metrics.jsonl", lambda: truncate_log(self.metrics, step))
        self.attempt(SAMPLES, lambda: truncate_log(self.samples, validated or 0))
        self.attempt("TensorBoard", lambda: self._open_board(step))
        if self.interactive:
            self._open_progress()

    def report(self, values: Mapping[str, Any], left: tuple[float, bool] | None = None) -> None:
        """Log and print the figures of the last updates; `step` is one of them.

        `left` is of `TimeLeft.estimate`.
        """
        self._keep(values, "train")
        line = progress_line(values, self.total_steps, left)
        if self._progress is None:
            print_line(line)
        else:
            self._progress.update(self._progress.task_ids[0], line=line, completed=values["step"])

    def validation(self, values: Mapping[str, Any], samples: Sequence[Sample] = ()) -> None:
        """Log and print the figures of a validation, and a few of its translations."""
        self._keep(values, "valid")
        step = values["step"]
        if samples:
            line = json.dumps({"step": step, "samples": samples}, ensure_ascii=False)
            self.attempt(SAMPLES, lambda: files.append_line(self.samples, line))
        for number, sample in enumerate(samples, start=1):
            text = "  \n".join(escape_markdown(part) for part in sample)
            self._on_board("add_text", f"valid/sample_{number}", text, step)
        self._on_board("flush")
        self.log(validation_line(values))
        for sample in samples:
            for name, text in zip(("source", "reference", "translation"), sample, strict=True):
                self.log(f"  {name:<11} {text}")

    def figure(
        self, name: str, matrix: ArrayLike, rows: Sequence[str], columns: Sequence[str], step: int
    ) -> None:
        """Show weights [rows, columns] in TensorBoard as a heat map, dark where they are large."""
        image = heat_map(matrix)
        down, across = escape_markdown(" ".join(rows)), escape_markdown(" ".join(columns))
        legend = f"rows: {down}  \ncolumns: {across}"
        self._on_board("add_image", f"valid/{name}", image, step, dataformats="HWC")
        self._on_board("add_text", f"valid/{name}_pieces", legend, step)

    def log(self, line: str) -> None:
        """Print a line to standard error, above the progress line when there is one."""
        if self._progress is None:
            print_line(line)
        else:
            text = printable(line, limit=2000)
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Remove the progress line and close the logs; may be called twice."""
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.stop()
        self._on_board("close")
        self._board = None
        if self._thread_hook is not None:
            threading.excepthook, self._thread_hook = self._thread_hook, None

    # ------------------------------------------------------------------------ within

    def _keep(self, values: Mapping[str, Any], group: str) -> None:
        """Write an object to `metrics.jsonl` and its numbers to TensorBoard."""
        line = json.dumps({k: _finite(v) for k, v in values.items()}, ensure_ascii=False)
        self.attempt("metrics.jsonl", lambda: files.append_line(self.metrics, line))
        for key, value in values.items():
            if key != "step" and isinstance(value, (int, float)):
                tag = f"{group}/{key.removeprefix(group + '_')}"
                self._on_board("add_scalar", tag, value, values["step"])

    def _open_progress(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.fields[line]}", markup=False),
            BarColumn(bar_width=12),
            console=Console(stderr=True),
            transient=True,
        )
        self._progress.add_task(
            "", total=self.total_steps, completed=self._first_step, line="starting"
        )
        self._progress.start()

    def _open_board(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = files.make_folder(self.folder / "tensorboard")
        self._thread_hook = threading.excepthook
        threading.excepthook = partial(_report_other_threads, self._thread_hook)
        self._board = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def _on_board(self, action: str, *arguments: Any, **options: Any) -> None:
        """Call a method of the TensorBoard writer when there is one."""
        board = self._board
        if board is not None:
            self.attempt("TensorBoard", lambda: getattr(board, action)(*arguments, **options))

    def attempt(self, log: str, action: Callable[[], Any]) -> None:
        """Write to a log; when it cannot be written, warn once and give it up."""
        if log in self._silent:
            return
        try:
            action()
        except (OSError, MtError) as error:
            self._silent.add(log)
            reason = error.problems[0][1] if isinstance(error, MtError) else error
            self.log(f"mt: warning: {log} cannot be written ({reason}); training goes on")


def _report_other_threads(hook: Callable[[Any], Any], failed: Any) -> None:
    """Call the hook of threads that failed, unless it is TensorBoard's that did.

    What fails in that one is raised again by the next call of its writer.
    """
    if not type(failed.thread).__module__.startswith("tensorboard."):
        hook(failed)


class SilentReporter(Reporter):
    """The reporter of all ranks but 0: it writes nothing."""

    def _ignore(self, *arguments: Any, **options: Any) -> None:
        pass

    start = report = validation = figure = log = _ignore


class LineReporter(SilentReporter):
    """The reporter of a dry run: it prints lines and writes nothing."""

    log = Reporter.log


# ---------------------------------------------------------------------------- the lines


def progress_line(
    values: Mapping[str, Any], total: int | None, left: tuple[float, bool] | None
) -> str:
    """Format step, epoch, loss, rate, speed, padding, time left and end as one line."""
    parts = [
        f"step {values['step']:,}" + (f"/{total:,}" if total else ""),
        f"epoch {values.get('epoch', 0)}",
        f"loss {values.get('loss', math.nan):.3f}",
        f"rate {values.get('learning_rate', math.nan):.2e}",
        f"{values.get('target_tokens_per_second', math.nan):,.0f} tokens/s",
        f"padding {100 * values.get('padding_fraction', math.nan):.1f} %",
    ]
    if left is not None:
        seconds, whole = left
        duration = format_duration(seconds)
        parts.append(
            f"left {duration}, until {format_clock(time.time() + seconds)}"
            if whole
            else f"left {duration} and the validations"
        )
    return " | ".join(parts)


def validation_line(values: Mapping[str, Any]) -> str:
    """Format the figures of a validation as one line."""
    names = {"valid_loss": "loss", "valid_perplexity": "perplexity"}
    names |= {"valid_bleu": "BLEU", "valid_chrf": "chrF", "train_loss": "loss of training pairs"}
    own = (key for key in values if key.startswith("valid_") and key not in names)  # monitored
    names |= {
        key: key.removeprefix("valid_")
        for key in own
        if not any(key.startswith(f"{other}_") for other in values)  # of one direction
    }
    parts = (
        f"{name} undefined" if math.isnan(values[key]) else f"{name} {values[key]:.3f}"
        for key, name in names.items()
        if key in values
    )
    return f"validation at step {values['step']:,}: {', '.join(parts)}"


def format_duration(seconds: float) -> str:
    """Format seconds as `h:mm:ss`."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def format_clock(moment: float) -> str:
    """Format a time as `17:42`, with the date when that is not today's."""
    then, now = time.localtime(moment), time.localtime()
    return time.strftime("%H:%M" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)


def escape_markdown(text: str) -> str:
    """Escape text for TensorBoard, which renders Markdown and HTML."""
    line = printable(text, limit=2000)
    return "".join(f"&#{ord(c)};" if c in "\\`*_{}[]<>()#+-.!|&~" else c for c in line)


def heat_map(matrix: ArrayLike, cell: int = 16) -> NDArray[np.uint8]:
    """Draw weights [R, C] in 0 to 1 as an image [R * cell, C * cell, 3], white to blue."""
    import numpy as np

    weights = np.clip(np.nan_to_num(np.asarray(matrix, dtype=np.float64)), 0.0, 1.0)
    white, blue = np.array([255.0, 255.0, 255.0]), np.array([8.0, 48.0, 107.0])
    image = white + weights[:, :, None] * (blue - white)  # [rows, columns, 3]
    return np.kron(image.round(), np.ones((cell, cell, 1))).astype(np.uint8)


# ----------------------------------------------------------------------------------- logs


def truncate_log(metrics: Path, step: int) -> None:
    """Drop the lines of a log that came after `step`, and those that a crash cut short."""
    if not metrics.exists():
        return
    before = metrics.read_bytes()
    after = b"".join(line + b"\n" for line in before.split(b"\n") if _step_of(line) <= step)
    if after != before:
        files.write_file(metrics, after)


def _step_of(line: bytes) -> float:
    """Return the step of a line of a log; infinity when the line is damaged."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
