"""What went wrong in a training, in words, from `metrics.jsonl`: evidence, and the key to turn.

Each rule is a function of the records of a run; it returns what it saw, or nothing. The thresholds
are loose, so that a healthy run gets no remark: `tests/training/test_diagnosis.py` holds both.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mt.checkpoints import run_directory
from mt.config.recipe import Recipe
from mt.errors import ModelError, MtError
from mt.runtime import text_files
from mt.training.usual_results import compare_with_usual

FEW_PAIRS = 20_000
"""Training pairs below which a model that overfits has too few of them."""


class Remark(NamedTuple):
    """What a rule found."""

    kind: str
    """In a word or two, such as `overfitting`."""
    evidence: str
    advice: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.kind}: {self.evidence}; {self.advice}"


@dataclass(frozen=True)
class History:
    """The records of a run."""

    recipe: Recipe
    reports: list[dict[str, Any]]
    """Those of training, in order."""
    validations: list[dict[str, Any]]
    """Those of validations, in order."""
    pairs: int | None = None
    """Training pairs; None: unknown."""
    finished: bool = True

    def values(self, key: str, validations: bool = True) -> list[float]:
        """Return the finite values of a key, in order."""
        records = self.validations if validations else self.reports
        found = (record.get(key) for record in records)
        return [float(v) for v in found if v is not None and math.isfinite(float(v))]

    @property
    def last(self) -> dict[str, Any]:
        """The last validation; empty before the first."""
        return self.validations[-1] if self.validations else {}


def diagnose(history: History) -> list[Remark]:
    """Return what is wrong with a training, the gravest first; nothing for a healthy one."""
    found = [remark for rule in RULES if (remark := rule(history)) is not None]
    kinds = {remark.kind for remark in found}
    hidden = {other for kind in kinds for other in HIDES.get(kind, ())}
    return [remark for remark in found if remark.kind not in hidden]


def read_history(folder: Path, recipe: Recipe, pairs: int | None, finished: bool) -> History:
    """Read `metrics.jsonl` of a run.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    path = folder / "metrics.jsonl"
    advice = "train the run, or restore the file"
    if not path.is_file():
        raise ModelError("METRICS-NONE", path, "no such file", advice)
    records: list[dict[str, Any]] = []
    for number, line in enumerate(text_files.read_lines(path), start=1):
        try:
            records.append({**json.loads(line)})
        except (ValueError, TypeError, RecursionError):
            what = "not a JSON object"
            raise ModelError("METRICS-DAMAGED", f"{path}:{number}", what, advice) from None
    validations = [record for record in records if "valid_loss" in record]
    reports = [record for record in records if "loss" in record]
    return History(recipe, reports, validations, pairs, finished)


def read_run_history(path: Path) -> History:
    """Read the records of a run.

    Raises:
        ModelError: it is no run, or has no metrics.
    """
    opened = run_directory.open_run(path, "last")
    corpora = (opened.report.get("corpora") or {}).items()
    kept = [corpus.get("kept") for name, corpus in corpora if name.startswith("train.")]
    pairs = sum(kept) if kept and all(isinstance(each, int) for each in kept) else None
    finished = bool(opened.state.finished)
    return read_history(opened.run, opened.recipe, pairs, finished)


def diagnose_run(path: Path) -> list[Remark]:
    """Diagnose a run; raises as `read_run_history` does."""
    return diagnose(read_run_history(path))


def log_remarks(
    folder: Path, recipe: Recipe, pairs: int | None, log: Callable[[str], None]
) -> None:
    """Log what is wrong with a training that has ended, and what similar ones reached."""
    with contextlib.suppress(MtError):  # metrics.jsonl could not be written
        history = read_history(folder, recipe, pairs, finished=True)
        for remark in diagnose(history):
            log(f"mt: remark: {remark} (mt doctor {folder})")
        comparison = compare_history(history)
        if comparison is not None:
            log(f"mt: compared: {comparison}")


def compare_history(history: History) -> str | None:
    """Return the best validation of a run beside what is usual; see `compare_with_usual`."""
    return compare_with_usual(history.recipe, history.pairs, history.validations)


# --------------------------------------------------------------------------------- rules


def diverging(history: History) -> Remark | None:
    """The loss has risen far above its lowest value, or is no number."""
    losses = [record.get("loss") for record in history.reports]
    advice = f"lower optimizer.learning_rate from {history.recipe.optimizer.learning_rate:g}"
    if any(loss is None or not math.isfinite(loss) for loss in losses):
        return Remark("diverging", "the training loss is no number", advice)
    finite = [float(loss) for loss in losses if loss is not None]
    if len(finite) >= 3 and finite[-1] > 1.3 * min(finite) + 0.5:
        what = f"the training loss rose from {min(finite):.2f} to {finite[-1]:.2f}"
        return Remark("diverging", what, f"{advice}, or raise schedule.warmup_steps")
    return None


def skipping(history: History) -> Remark | None:
    """Many updates were skipped, since their gradients were not finite."""
    record = history.reports[-1] if history.reports else {}
    skipped, step = record.get("skipped", 0), record.get("step", 0)
    if step and skipped > max(10, 0.01 * step):
        what = f"{skipped:,} of {step:,} updates had gradients that are no numbers"
        return Remark("skipped updates", what, "set runtime.precision=fp32, or lower the rate")
    return None


def usual_rate(history: History) -> float:
    """Return a learning rate that suits the width of the model."""
    return 5e-4 * 256 / max(64, getattr(history.recipe.model, "d_model", 256))


def rate_too_high(history: History) -> Remark | None:
    """The loss is higher after the warm-up than in it, or the rate is far above what is usual."""
    rates = history.values("learning_rate", validations=False)
    losses = history.values("loss", validations=False)
    if len(losses) < 8 or len(rates) != len(losses):
        return None
    rate, usual = history.recipe.optimizer.learning_rate, usual_rate(history)
    advice = f"lower optimizer.learning_rate from {rate:g}; {4 * usual:.0e} is usual"
    peak = rates.index(max(rates))
    before, after = min(losses[: peak + 1]), min(losses[peak + 1 :], default=math.inf)
    if peak and after > before + 0.05 and losses[-1] > before + 0.05:
        what = f"the training loss was {before:.2f} in the warm-up, and is {losses[-1]:.2f}"
        return Remark("learning rate too high", what, advice)
    if rate > 20 * usual and losses[-1] > 0.75 * losses[0]:
        what = f"the training loss fell only from {losses[0]:.2f} to {losses[-1]:.2f}"
        return Remark("learning rate too high", what, advice)
    return None


def rate_too_low(history: History) -> Remark | None:
    """After all updates the loss has hardly fallen, and it still falls."""
    losses = history.values("loss", validations=False)
    rate, usual = history.recipe.optimizer.learning_rate, usual_rate(history)
    if len(losses) < 5 or rate >= usual:
        return None
    if losses[-1] < losses[0] - 0.01 and losses[-1] > 0.6 * losses[0]:
        what = f"the training loss fell only from {losses[0]:.2f} to {losses[-1]:.2f}"
        advice = f"raise optimizer.learning_rate from {rate:g}; {4 * usual:.0e} is usual"
        return Remark("learning rate too low", what, advice)
    return None


def under_trained(history: History) -> Remark | None:
    """The validation loss was still falling fast when the training ended."""
    losses = history.values("valid_loss")
    if not history.finished or len(losses) < 4 or losses[-1] > min(losses):
        return None
    falls = [a - b for a, b in zip(losses[-4:], losses[-3:], strict=False)]
    if sum(falls) > 0.15 and falls[-1] > 0.06:
        what = f"the validation loss still fell by {falls[-1]:.2f} in the last validation"
        return Remark("under-trained", what, "raise training.max_epochs or max_steps")
    return None


def overfitting(history: History) -> Remark | None:
    """The validation loss has risen, while that of training pairs fell."""
    valid, train = history.values("valid_loss"), history.values("train_loss")
    if len(valid) < 3 or len(train) != len(valid) or history.last.get("epoch", 0) < 2:
        return None
    lowest = valid.index(min(valid))
    if valid[-1] > 1.05 * valid[lowest] and train[-1] < 0.8 * train[lowest]:
        step = history.validations[lowest]["step"]
        what = (
            f"the validation loss rose from {valid[lowest]:.2f} at step {step:,} to {valid[-1]:.2f}"
            f", that of training pairs fell to {train[-1]:.2f}"
        )
        if history.pairs is not None and history.pairs < FEW_PAIRS:
            what += f"; {history.pairs:,} training pairs are few"
            return Remark("data too small", what, "see docs/low_resource.md, or add text")
        return Remark("overfitting", what, "raise model.dropout, or set vocabulary.sampling")
    return None


def unlike_training(history: History) -> Remark | None:
    """Soon the validation loss is far above that of training pairs, which are not yet known."""
    valid, train = history.values("valid_loss"), history.values("train_loss")
    if len(valid) < 3 or len(train) != len(valid):
        return None
    for a, b in zip(train[:3], valid[:3], strict=True):
        if b - a > 1.0 and a > 0.6 * train[0]:
            what = f"the validation loss was {b:.2f} when that of training pairs was {a:.2f}"
            advice = "is data.valid of the same kind as data.train? see mt data report"
            return Remark("validation unlike training", what, advice)
    return None


def not_translating(history: History) -> Remark | None:
    """The model writes the target language, and its output has nothing to do with the source."""
    bleu, chrf = history.values("valid_bleu"), history.values("valid_chrf")
    valid, train = history.values("valid_loss"), history.values("train_loss")
    epochs = history.last.get("epoch", 0)
    if len(chrf) < 4 or epochs < 5 or max(bleu, default=0.0) >= 2 or max(chrf) >= 22:
        return None
    what = f"after {epochs} epochs chrF is {chrf[-1]:.1f} and BLEU {max(bleu, default=0.0):.1f}"
    if train and valid and train[-1] > 0.8 * valid[-1] and valid[-1] > 0.97 * min(valid[-3:]):
        advice = "does line n of the target files translate line n of the source files?"
        return Remark("not translating", what, advice)
    return None


def copying(history: History) -> Remark | None:
    """Many translations are copies of their sources."""
    share = history.last.get("valid_copied", 0.0)
    if share > 0.1:
        what = f"{share:.0%} of the validation sources come back as they are"
        advice = "see mt data report; the rule `copies` of data.clean drops such pairs"
        return Remark("copies the source", what, advice)
    return None


def too_short(history: History) -> Remark | None:
    """Translations are much shorter than their references."""
    ratio = history.last.get("valid_length_ratio")
    if ratio is not None and ratio < 0.8:
        what = f"translations have {ratio:.0%} of the characters of their references"
        advice = "raise search.length_penalty; are training targets cut short?"
        return Remark("output too short", what, advice)
    return None


def repeating(history: History) -> Remark | None:
    """Many translations repeat themselves, or are much too long."""
    share, ratio = (history.last.get(f"valid_{k}") or 0.0 for k in ("repeated", "length_ratio"))
    if share > 0.1 or ratio > 1.5:
        what = f"{share:.0%} of the translations repeat themselves, length ratio {ratio:.2f}"
        return Remark("repetition", what, "train longer, or on cleaner text: data.clean=default")
    return None


RULES: Sequence[Callable[[History], Remark | None]] = (
    diverging, skipping, rate_too_high, rate_too_low, not_translating, copying, repeating,
    too_short, unlike_training, overfitting, under_trained,
)  # fmt: skip
HIDES = {
    "diverging": {"learning rate too high", "repetition", "output too short", "not translating"},
    "learning rate too high": {"repetition", "output too short", "not translating"},
    "learning rate too low": {
        "under-trained", "repetition", "output too short", "not translating"
    },
    "not translating": {"repetition", "output too short"},
    "under-trained": {"repetition", "output too short"},
    "validation unlike training": {"overfitting", "data too small", "not translating"},
}  # fmt: skip
"""What follows from a fault, and is no remark of its own."""
