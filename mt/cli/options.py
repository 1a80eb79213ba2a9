"""What commands share: their options, and what is read and written on their behalf."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from mt.errors import ConfigError

if TYPE_CHECKING:
    from mt.decoding.types import EngineOptions

ConfigFile = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A YAML recipe, such as configs/demo.yaml.")
]
RunFolders = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN",
        help="A run directory, or one checkpoint folder in it; several are an ensemble.",
    ),
]
RecipeSets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value, say model.dropout=0.3."),
]
EngineSets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Replace a search.* or runtime.* value of the run."
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="best, last, average or step-N; best when left out."),
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N; auto if left out.")
]
RuntimeSets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a runtime.* value of the run."),
]
Processes = Annotated[
    int,
    typer.Option(metavar="N", min=1, help="Share the work among N processes, a model in each."),
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="CPU threads of a process; one a core if left out."),
]
To = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="LANGUAGE", help="Of a model of several directions: the target's, say de."
    ),
]
Precision = Annotated[
    str | None, typer.Option(metavar="NAME", help="auto, fp32, bf16 or fp16; auto if left out.")
]


def print_lines(lines: Any) -> None:
    """Write each to standard output."""
    from mt.runtime import files

    with files.open_output(None) as out:
        for line in lines:
            out.write(f"{line}\n")


def open_input(path: Path | None) -> contextlib.AbstractContextManager[BinaryIO]:
    """The bytes to read: of a file, else of standard input."""
    from mt.runtime import files

    if path is not None:
        return files.open_bytes(path)
    if sys.stdin is None:
        advice = "give it something to read, or a file with -i"
        raise ConfigError("USAGE", "standard input", "it is closed", advice)
    return contextlib.nullcontext(sys.stdin.buffer)


def at_terminal() -> bool:
    """Whether a person types and reads."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def refuse(*wrong: tuple[bool, str, str]) -> None:
    """Refuse what makes no sense together: (whether it is so, option, why)."""
    for is_so, option, why in wrong:
        if is_so:
            raise ConfigError("USAGE", option, why, "leave it out")


def engine_options(
    sets: list[str] | None, checkpoint: str | None, device: str | None,
    precision: str | None = None, threads: int | None = None, processes: int = 1,
    sections: Sequence[str] = ("search", "runtime"), to: str | None = None,
) -> EngineOptions:  # fmt: skip
    """What an engine is asked for, from the options that stand for `runtime.*` and from --set."""
    import json

    from pydantic import Field

    from mt.config import schema, validation, yaml_reader
    from mt.config.section import Section
    from mt.decoding.types import EngineOptions

    class Settings(Section):
        search: dict[str, Any] = Field(default_factory=dict)
        runtime: schema.RuntimeConfig = schema.RuntimeConfig()

    document = yaml_reader.Document({}, name="--set")
    for assignment in sets or ():
        section = assignment.partition("=")[0].split(".")[0].strip()
        if section not in sections:
            known = " and ".join(f"{name}.*" for name in sections)
            what = f"a trained model has its own; only {known} can be set here"
            example = "search.beams=8" if "search" in sections else "runtime.threads=2"
            advice = f"for instance --set {example}"
            raise ConfigError("CONFIG-SET", f"--set {assignment}", what, advice)
        document = yaml_reader.override(document, assignment)
    for key, value in (("device", device), ("precision", precision), ("threads", threads)):
        if value is not None:
            document = yaml_reader.override(document, f"runtime.{key}={json.dumps(value)}")
            document.places["runtime", key] = f"--{key} {value}"
    settings = validation.validate(Settings, document)
    runtime, given = settings.runtime, settings.runtime.model_fields_set
    return EngineOptions(
        checkpoint=checkpoint,
        search=settings.search,
        device=runtime.device if "device" in given else None,
        precision=runtime.precision if "precision" in given else None,
        threads=runtime.threads if isinstance(runtime.threads, int) else None,
        processes=processes,
        target_language=to,
    )
