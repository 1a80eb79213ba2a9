"""Options, input and output that commands share."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from typer import Argument, Context, Option

from mt.errors import ConfigError

MAX_PROCESSES, MAX_HYPOTHESES, MAX_COUNT = 4096, 10_000, 10**9
"""The bounds of integer options, those of `mt/config/section.py` for keys of recipes."""
DIFFERENT = 8
"""Exit code for a difference, which is no failure and so no MtError."""
MAX_SEED = 2**31 - 1
"""Of seeds, as of those in a recipe."""

if TYPE_CHECKING:
    from mt.decoding.types import EngineOptions

ConfigFile = Annotated[
    Path, Argument(metavar="CONFIG", help="A YAML recipe, such as configs/demo.yaml.")
]
RunFolder = Annotated[Path, Argument(metavar="RUN", help="A run directory.")]
RunFolders = Annotated[
    list[Path],
    Argument(metavar="RUN", help="A run directory or a checkpoint in it; several: an ensemble."),
]
RecipeSets = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Replace a value, for example model.dropout=0.3."),
]
EngineSets = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Replace a search.* or runtime.* value of the run."),
]
RuntimeSets = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Replace a runtime.* value of the run."),
]
Checkpoint = Annotated[
    str | None, Option(metavar="NAME", help="best, last, average or step-N; default best.")
]
Device = Annotated[
    str | None, Option(metavar="NAME", help="auto, cpu, cuda or cuda:N; default auto.")
]
Precision = Annotated[
    str | None, Option(metavar="NAME", help="auto, fp32, bf16 or fp16; default auto.")
]
Processes = Annotated[
    int,
    Option(
        metavar="N",
        min=1,
        max=MAX_PROCESSES,
        help="Share the work among N processes, each with a model.",
    ),
]
AutoProcesses = Annotated[
    int | None,
    Option(
        metavar="N",
        min=1,
        max=MAX_PROCESSES,
        help="Translating processes; default one per CPU core.",
    ),
]
Threads = Annotated[
    int | None,
    Option(metavar="N", min=1, max=1024, help="CPU threads of a process; default one per core."),
]
To = Annotated[
    str | None, Option("--to", metavar="LANGUAGE", help="Target of a multilingual model, say de.")
]
Fresh = Annotated[bool, Option("--fresh", help="Start over; an older run is renamed, not deleted.")]
Force = Annotated[bool, Option("--force", help="Replace output that exists already.")]
Strict = Annotated[
    bool, Option("--strict", help="Exit with 3 at a line that is too long for the model.")
]


def _trust(context: Context, trust: bool) -> bool:
    """Trust the models of a command until it ends."""
    from mt.config.plugins import trust_models

    context.with_resource(trust_models(trust))
    return trust


Trust = Annotated[
    bool,
    Option(
        "--trust",
        callback=_trust,
        help="Import the modules that the model's recipe names; they can do anything.",
    ),
]
NewRun = Annotated[
    Path | None, Option(metavar="DIR", help="The run directory; default runs/<config name>.")
]


def open_input(path: Path | None) -> contextlib.AbstractContextManager[BinaryIO]:
    """Open a file or pipe for reading bytes; standard input if there is no path, or `-`."""
    from mt.runtime import text_files

    if path is not None and path != Path("-"):
        return text_files.open_bytes(path, or_pipe=True)
    if sys.stdin is None:
        advice = "give it something to read, or a file with -i"
        raise ConfigError("USAGE", "standard input", "it is closed", advice)
    return contextlib.nullcontext(sys.stdin.buffer)


def at_terminal() -> bool:
    """Whether standard input and output are both a terminal."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def refuse(*conflicts: tuple[bool, str, str]) -> None:
    """Raise for the first conflict of options: (whether it exists, option, reason)."""
    for exists, option, reason in conflicts:
        if exists:
            raise ConfigError("USAGE", option, reason, "leave it out")


def engine_options(
    sets: list[str] | None, checkpoint: str | None, device: str | None,
    precision: str | None = None, threads: int | None = None, processes: int = 1,
    sections: Sequence[str] = ("search", "runtime"), to: str | None = None,
) -> EngineOptions:  # fmt: skip
    """Engine options from --set and from the options that abbreviate `runtime.*`."""
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
        if assignment.partition("=")[0].split(".")[0].strip() not in sections:
            allowed = " and ".join(f"{name}.*" for name in sections)
            what = f"a trained model has its own; only {allowed} can be set here"
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
