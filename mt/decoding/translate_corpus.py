"""Translate a whole corpus: part by part, into files, by several processes.

    OUT/parts/part-000000-0123456789abcdef.txt ...   while it is under way
        source.txt  target.txt  corpus.json          when it is done

The name of a part has the hash of all that decides its contents: the model, the options, the lines.
An existing part is complete and is not translated again. So a killed job continues when it runs
again, and its output is the same to the last byte for any number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Literal, cast

from mt.checkpoints import bundle, checkpoint, run_directory
from mt.data.text import is_blank, one_line
from mt.decoding.batching import BATCH_TOKENS
from mt.decoding.translate import engine_kind, open_engine
from mt.decoding.types import Engine, EngineOptions
from mt.decoding.worker_pool import Part, WorkerPoolSearcher, open_pool
from mt.errors import ConfigError, ModelError
from mt.runtime import files, model_files, text_files
from mt.runtime.lock import lock
from mt.runtime.model_files import JsonObject
from mt.runtime.output import open_output

FORMAT = 1
PART = 2048
"""Lines of a part: what each process may lose when the job is killed."""
LOG_EVERY_SECONDS = 10.0
"""Seconds between two lines of progress."""
CORPUS = "corpus.json"


class Corpus(JsonObject):
    """`corpus.json` of a complete corpus."""

    digest: str
    pairs: int
    bytes: dict[str, int]


@dataclass(frozen=True)
class CorpusJob:
    """A corpus to translate."""

    model: Path
    """A run, a checkpoint, a bundle, or an exported folder."""
    lines: Iterable[str]
    """Can be iterated again."""
    out: Path
    """The folder to fill."""
    options: EngineOptions
    side: Literal["source", "target"]
    """The side of the corpus that the translations are; the lines are the other."""
    total: int | None = None
    """The number of lines, if known."""


def translate_corpus(job: CorpusJob, log: Callable[[str], None]) -> dict[str, Any]:
    """Translate the missing parts of a corpus and write both sides as files.

    Returns the contents of `corpus.json`: the number of `pairs`, and of blank lines `left_out`.

    Raises:
        ConfigError: `out` is something else, or the model cannot repeat its samples.
        MtError: what opening the model and reading the lines raise.
    """
    _check_job(job)
    with lock(job.out / ".lock"):
        key = _settings_key(job)
        names = [
            f"part-{number:06}-{files.digest_json([key, number, lines])[:16]}.txt"
            for number, lines in _chunks(job.lines)
        ]
        digest = files.digest_json([key, names, job.side])
        done = _read_metadata(job.out)
        if done is not None and done["digest"] == digest:
            log(f"{job.out}: {done['pairs']:,} pairs are there already")
            return done
        parts = files.make_folder(job.out / "parts")
        files.delete_leftovers(parts)
        _translate(job, parts, names, log)
        metadata = _write_sides(job, parts, names) | {"digest": digest, **key}
        files.write_json(job.out / CORPUS, metadata)  # the last: it marks the corpus complete
        files.delete(parts)
    log(f"{job.out}: {metadata['pairs']:,} pairs, {metadata['left_out']:,} blank lines left out")
    return metadata


def model_digest(model: Path, choice: str | None = None) -> str:
    """A hash of the model's weights, independent of its place."""
    if run_directory.is_run(model):
        folder = run_directory.open_run(model, choice).folder
        manifest = model_files.read_json(folder / checkpoint.MANIFEST, checkpoint.Manifest)
        return str(manifest["files"][checkpoint.MODEL]["sha256"])
    if bundle.is_bundle(model):
        return files.sha256(model)
    paths = sorted(path for path in model.iterdir() if path.is_file())
    return files.digest_json([[path.name, files.sha256(path)] for path in paths])


def _check_job(job: CorpusJob) -> None:
    """Refuse to replace files of the user, and samples that cannot be repeated."""
    if job.out.is_file() or (job.out.is_dir() and not _is_corpus(job.out)):
        advice = "choose a folder that is not there yet"
        raise ConfigError("OUTPUT-EXISTS", job.out, "is there, and no corpus of mt", advice)
    if job.options.search.get("kind") == "sampling" and engine_kind(job.model) != "native":
        what = "an exported model cannot draw the same samples again"
        raise ConfigError("ENGINE", job.model, what, "give the run that it came from")


def _is_corpus(folder: Path) -> bool:
    own = {"parts", CORPUS, "source.txt", "target.txt"}
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")} <= own


def _settings_key(job: CorpusJob) -> dict[str, Any]:
    """The settings that decide the translations, besides the lines."""
    options = job.options
    return {
        "format": FORMAT,
        "model": model_digest(job.model, options.checkpoint),
        "search": dict(options.search),
        "target_language": options.target_language,
        "precision": options.precision,
        "batch_tokens": options.batch_tokens or BATCH_TOKENS,
        "seed": options.seed,
    }


def _chunks(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Each part's number and its lines."""
    iterator = iter(lines)
    for number in count():
        part = list(islice(iterator, PART))
        if not part:
            return
        yield number, part


def _translate(job: CorpusJob, folder: Path, names: list[str], log: Callable[[str], None]) -> None:
    """Translate the missing parts."""
    missing = [number for number, name in enumerate(names) if not (folder / name).is_file()]
    if not missing:
        return
    existing = len(names) - len(missing)
    if existing:
        log(f"{existing} of {len(names)} parts are there already")
    began, last, translated = time.monotonic(), time.monotonic(), 0
    for number, texts in _translate_parts(job, set(missing)):
        files.write_file(folder / names[number], "".join(f"{text}\n" for text in texts))
        translated += len(texts)
        now = time.monotonic()
        if now - last >= LOG_EVERY_SECONDS:
            last, speed = now, translated / (now - began)
            of = f" of {job.total:,}" if job.total else ""
            log(f"{existing * PART + translated:,}{of} lines translated, {speed:.1f} lines/s")


def _translate_parts(job: CorpusJob, missing: set[int]) -> Iterator[tuple[int, list[str]]]:
    """The number and the translations of each missing part, in any order."""
    options = replace(job.options, processes=min(job.options.processes, len(missing)))
    if options.processes == 1:
        engine: Engine = open_engine(job.model, options)
        for number, lines, own in _missing_parts(job, missing):
            yield number, [each.text for each in engine.translate(lines, own)]
        return
    searcher = open_pool(engine_kind(job.model), job.model, options).searcher
    yield from cast(WorkerPoolSearcher, searcher).translate(_missing_parts(job, missing))


def _missing_parts(job: CorpusJob, missing: set[int]) -> Iterator[Part]:
    options = replace(job.options, processes=1, low_latency=False)
    for number, lines in _chunks(job.lines):
        if number in missing:
            yield number, lines, replace(options, line_offset=number * PART)


def _read_metadata(out: Path) -> dict[str, Any] | None:
    """The contents of `corpus.json` of a complete corpus, else None."""
    try:
        metadata = model_files.read_json(out / CORPUS, Corpus)
        sizes = metadata["bytes"].items()
        is_complete = all((out / name).stat().st_size == size for name, size in sizes)
        return metadata if is_complete else None
    except (OSError, ValueError, ModelError):
        return None


def _write_sides(job: CorpusJob, parts: Path, names: list[str]) -> dict[str, Any]:
    """Write both sides, line by line; a pair with a blank side is left out."""
    texts = chain.from_iterable(text_files.read_lines(parts / name) for name in names)
    other = "target" if job.side == "source" else "source"
    paths = {side: job.out / f"{side}.txt" for side in ("source", "target")}
    pairs = left_out = 0
    with open_output(paths[job.side]) as ours, open_output(paths[other]) as theirs:
        for line, text in zip(job.lines, texts, strict=True):
            if is_blank(line) or is_blank(text):
                left_out += 1
                continue
            ours.write(f"{text}\n")
            theirs.write(f"{one_line(line)}\n")
            pairs += 1
    sizes = {path.name: path.stat().st_size for path in paths.values()}
    return {"pairs": pairs, "left_out": left_out, "bytes": sizes}
