"""Write the training pairs that the rules of cleaning keep as text files, and the others apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, BinaryIO

from pydantic import TypeAdapter

from mt.config.schema import DataConfig, Rules, SourceConfig
from mt.data import cleaning, encode
from mt.data.cleaning import Finding, Sides
from mt.data.process_pool import count_processes
from mt.errors import ConfigError
from mt.runtime import files, output
from mt.runtime.console import align_columns
from mt.runtime.signals import raise_on_stop_signals

COLUMNS = ("origin", "rule", "value", "source", "target")
"""Of the file of dropped pairs."""


def with_default_rules(data: DataConfig) -> DataConfig:
    """Return the section with the default rules where it has none."""
    rules: Any = data.clean or TypeAdapter(Rules).validate_python("default")
    return data.model_copy(update={"clean": tuple(rules)})


def write_clean(
    data: DataConfig, folder: Path, dropped: Path | None, log: Callable[[str], None]
) -> list[Counter[str]]:
    """Write the kept pairs of each training corpus into a new folder, `train.N.LANGUAGE` a side.

    Return for each corpus the number of `pairs`, and of those that each rule dropped. `dropped`
    gets the others, tab-separated under `COLUMNS`.

    Raises:
        ConfigError: the folder or the file is there already.
        DataError: the pairs cannot be read, or none is left.
        MachineError: a file cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        advice = "name a new folder, or delete what is in it"
        raise ConfigError("OUTPUT-EXISTS", folder, "it is there already", advice)
    if dropped is not None:
        output.refuse_existing(dropped, "name a new file, or delete this one")
    files.make_folder(folder.parent)
    with ExitStack() as stack:
        stack.enter_context(raise_on_stop_signals("cleaning"))
        rejects = None if dropped is None else stack.enter_context(output.open_output(dropped))
        hidden = files.make_folder(stack.enter_context(files.staged(folder)))
        counts = _write(data, hidden, rejects, log)
        total = sum(counts, Counter[str]())
        if total["pairs"] == _num_dropped(total):
            raise encode.no_pairs_error("data.train", total, _reasons(data))
    return counts


def _write(
    data: DataConfig, folder: Path, rejects: IO[str] | None, log: Callable[[str], None]
) -> list[Counter[str]]:
    counts = [Counter[str]() for _ in data.train]
    processes = count_processes(data.processes)
    log(f"cleaning by {len(data.clean)} rules in {processes} processes")
    cleaners = cleaning.cleaners_for(data, cleaning.held_out_texts(data), log)
    if rejects is not None:
        rejects.write("\t".join(COLUMNS) + "\n")
    with ExitStack() as stack:
        writers = [_open_sides(data.train, number, folder, stack) for number in range(len(counts))]
        chunks = cleaning.clean_chunks(encode.chunk_corpora(data.train), cleaners, processes)
        for number, sides, origins, findings in chunks:
            counts[number].update(finding.rule for finding in findings if finding)
            counts[number]["pairs"] += len(findings)
            kept = cleaning.drop_found(sides, findings)
            for writer, lines in zip(writers[number], kept, strict=True):
                if writer is not None:
                    writer.write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
            if rejects is not None:
                _write_dropped(rejects, sides, origins, findings)
    return counts


def _open_sides(
    train: Sequence[SourceConfig], number: int, folder: Path, stack: ExitStack
) -> list[BinaryIO | None]:
    """Open the file of each side of a corpus; None: it does not have this side."""
    source = train[number]
    stem = f"train.{number}" if len(train) > 1 else "train"
    codes = [source.direction.source, source.direction.target]
    if codes[0] == codes[1]:
        codes = ["source", "target"]
    return [
        stack.enter_context(files.open_new(folder / f"{stem}.{code}"))
        if source.side in (None, side)
        else None
        for side, code in zip(("source", "target"), codes, strict=True)
    ]


def _write_dropped(
    rejects: IO[str], sides: Sides, origins: Sequence[str], findings: Sequence[Finding | None]
) -> None:
    for source, target, origin, finding in zip(*sides, origins, findings, strict=True):
        if finding is not None:
            fields = (origin, finding.rule, finding.value, source or "", target or "")
            line = "\t".join(str(field).replace("\t", " ").replace("\n", " ") for field in fields)
            rejects.write(line.encode("utf-8", "replace").decode() + "\n")


def _reasons(data: DataConfig) -> list[str]:
    return [cleaning.EMPTY, *(rule.label for rule in data.clean)]


def _num_dropped(counts: Counter[str]) -> int:
    return counts.total() - counts["pairs"]


def format_counts(data: DataConfig, counts: Sequence[Counter[str]]) -> Iterator[str]:
    """Format the counts as a table: a column for each corpus, a row for each rule."""
    total = sum(counts, Counter[str]())
    each = [*counts, total] if len(counts) > 1 else list(counts)
    names = [f"train.{number}" for number in range(len(counts))]
    kept = [count["pairs"] - _num_dropped(count) for count in each]
    rows = [
        ["", *(names if len(counts) > 1 else []), "all", "share"],
        ["pairs", *(f"{count['pairs']:,}" for count in each), ""],
        ["kept", *(f"{number:,}" for number in kept), _share(kept[-1], total)],
    ]
    for reason in _reasons(data):
        numbers = [count[reason] for count in each]
        rows.append([reason, *(f"{number:,}" for number in numbers), _share(numbers[-1], total)])
    yield from align_columns(rows)


def _share(number: int, total: Counter[str]) -> str:
    return f"{number / max(1, total['pairs']):.2%}"
