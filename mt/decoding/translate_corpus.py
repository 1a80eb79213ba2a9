"""A whole corpus translated, however long it takes: part by part, into files, by processes.

    OUT/parts/part-000000-0123456789abcdef.txt ...   while it is under way
        source.txt  target.txt  corpus.json          when it is done

The name of a part holds the hash of all that decides what is in it: the model, what is asked of
it, the lines. A part that is there is whole, and is not done again; so a job that was killed
anywhere goes on when it is run again, and what it writes is the same to the last byte, by however
many processes. What is out of date is another name.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Literal, cast

from mt.checkpoints import bundle, checkpoint, run_directory
from mt.data.text import is_blank, one_line
from mt.decoding.translate import MAX_PROCESSES, engine_kind, open_engine
from mt.decoding.types import Engine, EngineOptions
from mt.decoding.worker_pool import Part, WorkerPoolSearcher, open_pool
from mt.errors import ConfigError
from mt.runtime import device, files

FORMAT = 1
PART = 2048
"""Lines of a part: what each process may lose when the job is killed."""
LOG_EVERY_SECONDS = 10.0
"""Seconds between two lines of progress."""
CORPUS = "corpus.json"


@dataclass(frozen=True)
class CorpusJob:
    """A corpus to be translated."""

    model: Path
    """What translates: a run, a checkpoint, a bundle, an exported folder."""
    lines: Iterable[str]
    """Can be iterated again."""
    out: Path
    """The folder to fill."""
    options: EngineOptions
    side: Literal["source", "target"]
    """Which side of the corpus the translations are; the lines are the other."""
    total: int | None = None
    """How many lines, where that is known."""


def translate_corpus(job: CorpusJob, tell: Callable[[str], None]) -> dict[str, Any]:
    """Translate a corpus, or what is left of it, and write both sides as files.

    Args:
        job: what to do.
        tell: where a line of progress goes.

    Returns:
        What `corpus.json` says: the number of `pairs`, and of lines `left_out` for being blank.

    Raises:
        ConfigError: `out` is something else, or the model draws samples that nobody can draw again.
        MtError: what opening the model and reading the lines raise.
    """
    _refuse_existing(job)
    with files.lock(job.out / ".lock"):
        key = _settings_key(job)
        names = _part_file_names(job, key)
        digest = _digest([key, names, job.side])
        done = _is_done(job.out)
        if done is not None and done["digest"] == digest:
            tell(f"{job.out}: {done['pairs']:,} pairs are there already")
            return done
        parts = files.make_folder(job.out / "parts")
        files.delete_leftovers(parts)
        _translate(job, parts, names, tell)
        about = _write_part(job, parts, names) | {"digest": digest, **key}
        files.write_json(job.out / CORPUS, about)  # the last: without it the rest is nothing
        files.delete(parts)
    tell(f"{job.out}: {about['pairs']:,} pairs, {about['left_out']:,} blank lines left out")
    return about


def check_job_processes(options: EngineOptions) -> int:
    """How many processes should share a long work: one a core of a CPU, one on a GPU."""
    on_cpu = options.device == "cpu" or not Path("/dev/nvidiactl").exists()
    return min(device.physical_cores(), MAX_PROCESSES) if on_cpu else 1


def model_digest(model: Path, choice: str | None = None) -> str:
    """A hash by which a model is known, wherever it lies."""
    if run_directory.is_run(model):
        folder = run_directory.open_run(model, choice).folder
        listed = files.read_json(folder / checkpoint.MANIFEST)["files"]
        return str(listed[checkpoint.MODEL]["sha256"])
    if bundle.is_bundle(model):
        return files.sha256(model)
    found = sorted(path for path in model.iterdir() if path.is_file())
    return _digest([[path.name, files.sha256(path)] for path in found])


# ----------------------------------------------------------------------------- the parts


def _refuse_existing(job: CorpusJob) -> None:
    """Nothing of the user's is replaced; nothing that cannot be drawn again is begun."""
    if job.out.is_file() or (job.out.is_dir() and not _is_part_file(job.out)):
        advice = "choose a folder that is not there yet"
        raise ConfigError("OUTPUT-EXISTS", job.out, "is there, and no corpus of mt", advice)
    if job.options.search.get("kind") == "sampling" and engine_kind(job.model) != "native":
        what = "an exported model cannot draw the same samples again"
        raise ConfigError("ENGINE", job.model, what, "give the run that it came from")


def _is_part_file(folder: Path) -> bool:
    known = {"parts", CORPUS, "source.txt", "target.txt"}
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")} <= known


def _settings_key(job: CorpusJob) -> dict[str, Any]:
    """What decides the translations besides the lines."""
    asked = job.options
    return {
        "format": FORMAT,
        "model": model_digest(job.model, asked.checkpoint),
        "search": dict(asked.search),
        "target_language": asked.target_language,
        "precision": asked.precision,
        "batch_tokens": asked.batch_tokens,
        "seed": asked.seed,
    }


def _part_file_names(job: CorpusJob, key: dict[str, Any]) -> list[str]:
    """The file names of all parts."""
    return [
        f"part-{number:06}-{_digest([key, number, lines])[:16]}.txt"
        for number, lines in _chunks(job.lines)
    ]


def _chunks(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Each part's number and its lines."""
    iterator = iter(lines)
    for number in count():
        part = list(islice(iterator, PART))
        if not part:
            return
        yield number, part


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _translate(job: CorpusJob, folder: Path, names: list[str], tell: Callable[[str], None]) -> None:
    """Make the parts that are not there."""
    missing = [number for number, name in enumerate(names) if not (folder / name).is_file()]
    if not missing:
        return
    if len(missing) < len(names):
        tell(f"{len(names) - len(missing)} of {len(names)} parts are there already")
    began, last, made = time.monotonic(), time.monotonic(), 0
    for number, texts in _translate_chunk(job, set(missing)):
        files.write_file(folder / names[number], "".join(f"{text}\n" for text in texts))
        made += len(texts)
        now = time.monotonic()
        if now - last >= LOG_EVERY_SECONDS:
            last, speed = now, made / (now - began)
            of = f" of {job.total:,}" if job.total else ""
            before = (len(names) - len(missing)) * PART
            tell(f"{before + made:,}{of} lines translated, {speed:.1f} lines/s")


def _translate_chunk(job: CorpusJob, missing: set[int]) -> Iterator[tuple[int, list[str]]]:
    """The number and the translations of each missing part, in any order."""
    processes = min(job.options.processes, len(missing))
    if processes == 1:
        engine: Engine = open_engine(job.model, replace(job.options, processes=1))
        for number, lines, options in _pending_parts(job, missing):
            yield number, [each.text for each in engine.translate(lines, options)]
        return
    options = replace(job.options, processes=processes)
    threads = options.threads or max(1, device.physical_cores() // processes)
    shared = open_pool(engine_kind(job.model), job.model, options, threads)
    yield from cast(WorkerPoolSearcher, shared.searcher).translate(_pending_parts(job, missing))


def _pending_parts(job: CorpusJob, missing: set[int]) -> Iterator[Part]:
    for number, lines in _chunks(job.lines):
        if number in missing:
            first = number * PART
            yield (
                number,
                lines,
                replace(job.options, processes=1, line_offset=first, low_latency=False),
            )


# ---------------------------------------------------------------------------- the corpus


def _is_done(out: Path) -> dict[str, Any] | None:
    """What is said of the corpus that is there, if one is."""
    try:
        about: dict[str, Any] = files.read_json(out / CORPUS)
        whole = all((out / name).stat().st_size == size for name, size in about["bytes"].items())
        return about if whole and "digest" in about and "pairs" in about else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _write_part(job: CorpusJob, parts: Path, names: list[str]) -> dict[str, Any]:
    """Both sides, line by line; a pair of which a side is blank is left out."""
    texts = chain.from_iterable(files.read_lines(parts / name) for name in names)
    other = "target" if job.side == "source" else "source"
    paths = {side: job.out / f"{side}.txt" for side in ("source", "target")}
    pairs = left_out = 0
    with files.open_output(paths[job.side]) as ours, files.open_output(paths[other]) as theirs:
        for line, text in zip(job.lines, texts, strict=True):
            if is_blank(line) or is_blank(text):
                left_out += 1
                continue
            ours.write(f"{text}\n")
            theirs.write(f"{one_line(line)}\n")
            pairs += 1
    sizes = {path.name: path.stat().st_size for path in paths.values()}
    return {"pairs": pairs, "left_out": left_out, "bytes": sizes}
