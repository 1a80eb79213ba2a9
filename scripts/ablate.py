"""Train variants of a recipe over several seeds, and make a table of their validation scores.

    python scripts/ablate.py RECIPE --grid FILE [--to FOLDER] [--jobs N] [--test NAME]

The grid is a YAML file:

    seeds: [1, 2, 3]
    common: {training.max_epochs: 20}       # for all rows
    rows:
      plain: {}
      dropout 0.3: {model.dropout: 0.3}
      R-Drop: {model.dropout: 0.3, objective: {kind: r_drop, alpha: 5.0}}

Keys are those of `mt train --set`. Each row and seed is a run of its own in the folder (by default
runs/ablate/RECIPE). The command may be stopped and run again at any time: finished runs are kept,
others go on where they were, and those of a row that was changed are trained afresh. Rows are
compared by BLEU and chrF2 of the validation corpus, translated as the recipe searches. A test set
is looked at only where --test names it: do that once, for the row that was chosen.
The table goes to standard output and to table.md in the folder.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mt.checkpoints import checkpoint, run_directory  # noqa: E402
from mt.config import yaml_reader  # noqa: E402
from mt.decoding.translate import open_engine  # noqa: E402
from mt.decoding.types import EngineOptions  # noqa: E402
from mt.errors import MtError  # noqa: E402
from mt.evaluation import evaluate, scoring  # noqa: E402
from mt.runtime import files  # noqa: E402
from mt.runtime.device import physical_cores  # noqa: E402

trainings: list[subprocess.Popen[bytes]] = []
stopped = threading.Event()


@dataclass(frozen=True)
class Trial:
    """A row of the grid with one seed."""

    row: str
    settings: dict[str, Any]
    """What `--set` gets: values by their keys, the seed among them."""
    run: Path

    @property
    def record(self) -> Path:
        """The file of its settings and, when it is done, its result."""
        return self.run.with_name(f"{self.run.name}.json")


def read_grid(path: Path, folder: Path) -> list[Trial]:
    """Return the trials of a grid, seed by seed: each row has a result before any has two."""
    try:
        grid = yaml_reader.read(path).value
    except MtError as error:
        raise SystemExit(str(error)) from None
    if not isinstance(grid.get("rows"), dict) or set(grid) - {"seeds", "common", "rows"}:
        raise SystemExit(f"{path}: expected the keys rows and, if wanted, seeds and common")
    names = [re.sub(r"[^\w.]+", "-", str(row)).strip("-") for row in grid["rows"]]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SystemExit(f"{path}: two rows would be the folder {twice[0]}; rename one")
    trials = []
    for seed in grid.get("seeds", [1]):
        for row, name in zip(grid["rows"], names, strict=True):
            settings = {**(grid.get("common") or {}), **(grid["rows"][row] or {})}
            settings["training.seed"] = seed
            trials.append(Trial(str(row), settings, folder / f"{name}.seed{seed}"))
    return trials


def read_record(trial: Trial) -> dict[str, Any]:
    """Return what is on record of a trial; nothing if it had other settings."""
    if not trial.record.exists():
        return {}
    record: dict[str, Any] = json.loads(trial.record.read_text(encoding="utf-8"))
    return record if record["settings"] == trial.settings else {}


def work(trial: Trial, recipe: Path, tests: list[str], threads: int) -> dict[str, Any]:
    """Train and score a trial, unless that is done, and return its record."""
    record = read_record(trial)
    if "steps" not in record:
        fresh = not record and trial.run.exists()
        record = {"row": trial.row, "settings": trial.settings}
        files.write_file(trial.record, json.dumps(record))
        train(trial, recipe, threads, fresh)
        state = checkpoint.read_state(run_directory.choose_checkpoint(trial.run, "last"))
        record |= {"steps": state.step, "minutes": round(state.seconds / 60, 1)}
        record |= {"valid": score(trial.run, None, threads)}
    for name in tests:
        if name not in record:
            record[name] = score(trial.run, name, threads)
    files.write_file(trial.record, json.dumps(record))
    return record


def train(trial: Trial, recipe: Path, threads: int, fresh: bool) -> None:
    """Train to the end, as far as an earlier call has not; the output goes to a .log file."""
    command = [sys.executable, "-m", "mt", "train", str(recipe), "--run", str(trial.run)]
    for key, value in {**trial.settings, "runtime.threads": threads}.items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    log = trial.run.with_name(f"{trial.run.name}.log")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command += ["--fresh"] if fresh else []
    if stopped.is_set():
        raise RuntimeError("not begun")
    with (
        log.open("ab") as stream,
        subprocess.Popen(command, stdout=stream, stderr=stream, env=environment) as child,
    ):
        trainings.append(child)
        if stopped.is_set():  # while this one started
            child.terminate()
    if child.returncode:
        raise RuntimeError(f"mt train ended with {child.returncode}; see {log}")


def stop(number: int, frame: object) -> None:
    """End the trainings as well, each with a checkpoint: they would go on without this process."""
    stopped.set()
    for child in trainings:
        child.terminate()


def score(run: Path, test: str | None, threads: int) -> dict[str, float]:
    """Return the scores of a test set of the recipe, or of its validation corpus."""
    recipe = run_directory.read_recipe(run)
    if test is not None and test not in recipe.data.test:
        raise RuntimeError(f"--test {test}: the recipe has {', '.join(recipe.data.test) or 'none'}")
    corpus = recipe.data.valid if test is None else recipe.data.test[test]
    sources, references = evaluate.read_test_set(corpus)
    options = EngineOptions(low_latency=False, threads=threads)
    target = corpus.direction.target
    lines = evaluate.translate_texts(open_engine(run, options), options, sources, target)
    found = scoring.score_translations(lines, references, target, recipe.evaluation, sources)
    return {name: value["score"] for name, value in found.items()}


def make_table(records: list[dict[str, Any]], tests: list[str]) -> str:
    """Return the rows with mean and standard deviation over their seeds, as Markdown."""
    columns = [(part, name) for part in ("valid", *tests) for name in ("BLEU", "chrF2")]
    columns = [
        (part, name) for part, name in columns if any(name in each[part] for each in records)
    ]
    lines = [
        "| " + " | ".join(["row", *(f"{part} {name}" for part, name in columns)])
        + " | updates | minutes | seeds |",
        "|---" + "|---:" * (len(columns) + 3) + "|",
    ]  # fmt: skip
    for row in dict.fromkeys(each["row"] for each in records):
        same = [each for each in records if each["row"] == row]
        cells = [spread([each[part][name] for each in same]) for part, name in columns]
        steps = statistics.mean(each["steps"] for each in same)
        minutes = statistics.mean(each["minutes"] for each in same)
        cells += [f"{steps:,.0f}", f"{minutes:.0f}", str(len(same))]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    """Return the mean and, of several values, their standard deviation."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="ablate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--grid", type=Path, required=True, metavar="FILE")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="runs/ablate/RECIPE")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (1)")
    parser.add_argument("--threads", type=int, metavar="N", help="of each run; cores / jobs")
    parser.add_argument("--test", action="append", default=[], metavar="NAME")
    given = parser.parse_args(arguments)
    folder = (given.to or Path("runs/ablate") / given.recipe.stem).absolute()
    threads = given.threads or max(1, physical_cores() // given.jobs)
    trials = read_grid(given.grid, folder)
    folder.mkdir(parents=True, exist_ok=True)

    def work_or_report(trial: Trial) -> dict[str, Any] | None:
        try:
            return work(trial, given.recipe, given.test, threads)
        except Exception as error:  # the other rows go on
            print(f"{trial.run.name}: {error}", file=sys.stderr, flush=True)
            return None

    before = signal.signal(signal.SIGTERM, stop)
    with ThreadPoolExecutor(given.jobs) as pool:
        found = list(pool.map(work_or_report, trials))
    signal.signal(signal.SIGTERM, before)
    records = [record for record in found if record is not None]
    if records:
        table = make_table(records, given.test)
        files.write_file(folder / "table.md", table)
        print(table, end="")
    return 0 if len(records) == len(trials) else 1


if __name__ == "__main__":
    raise SystemExit(main())
