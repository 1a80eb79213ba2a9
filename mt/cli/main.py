"""The command `mt`: the app made of the commands in `commands/`, and the reporting of errors.

A command calls the functions that do the work and has no logic of its own. Heavy modules are
imported inside the command that needs them, so that help is instant. Standard output is data;
everything else, errors too, goes to standard error.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mt.errors import (
    ConfigError,
    FailedOnAnotherRank,
    MachineError,
    MtError,
    Stopped,
    printable,
    redact,
)
from mt.runtime import console, memory, signals

ABOUT = """Train a machine-translation Transformer from parallel text, and translate with it.

\b
  mt train configs/demo.yaml                  prepare, train, resume when run again
  echo "Hello." | mt translate runs/demo      lines in, lines out
  mt eval runs/demo                           BLEU, chrF and TER of every test set
  mt score runs/demo --source a --target b    log-probability of given translations

Standard output is data, standard error is everything else.

\b
Exit codes:
  0 done                        4 model or checkpoint
  1 a bug of mt                 5 the machine: disk, lock, device, memory
  2 command line or config      6 training diverged
  3 data                        7 download or integrity
  8 diff or diff-trace found a difference
  129, 130, 143 stopped by a signal; a training has saved a checkpoint

MT_CACHE names the folder of encoded corpora and downloads; MT_OFFLINE=1 forbids the network;
MT_MIRROR names a mirror of https://; MT_DEBUG=1 shows the trace of a bug.
"""

PANELS = {
    "Data": (
        "init", "prepare", "data_list", "data_get", "data_clean", "data_report", "backtranslate",
    ),
    "Training": ("train", "average", "diff_trace"),
    "Using a model": ("translate", "score", "attention", "export", "shortlist"),
    "Evaluating": ("eval", "report", "runs", "diff"),
    "Smaller models": ("distill", "prune"),
    "Housekeeping": ("doctor", "config", "cache"),
}  # fmt: skip
"""Files in `commands/` under the headings of the help, in its order."""
COMMANDS = tuple(name for names in PANELS.values() for name in names)

COMPLETION = "_MT_COMPLETE"
"""The variable by which the script of `--install-completion` calls mt."""

GROUPS = {"data": "Find, download, clean and describe corpora."}
"""Commands of two words, by the first: `mt data get` is `commands/data_get.py`."""


class PanelGroup(TyperGroup):
    """The commands of the app, whose help lists them in `PANELS`."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each panel."""
        width = max(map(len, self.commands))
        for panel, names in PANELS.items():
            shown = dict.fromkeys(_command_name(name) for name in names)
            limit = formatter.width - 6 - width
            with formatter.section(panel):
                formatter.write_dl([
                    (name.ljust(width), self.commands[name].get_short_help_str(limit))
                    for name in shown
                ])  # fmt: skip


def _command_name(name: str) -> str:
    """Return the first word of the command in a file of `commands/`."""
    first = name.partition("_")[0]
    return first if first in GROUPS else name.replace("_", "-")


app = typer.Typer(
    cls=PanelGroup,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=ABOUT,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _show_version_or_help(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the versions of mt, torch and Python, and the device."
        ),
    ] = False,
) -> None:
    if version:
        from mt.runtime import device
        from mt.runtime.output import print_lines

        print_lines([f"mt {_version()}, {device.describe_environment()}"])
    elif context.invoked_subcommand is None:
        from mt.runtime.output import print_lines

        print_lines([context.get_help()])


def _group(name: str) -> typer.Typer:
    """Add a group of commands to the app."""
    group = typer.Typer(rich_markup_mode=None, invoke_without_command=True, help=GROUPS[name])
    group.callback()(_show_group_help)
    app.add_typer(group, name=name)
    return group


def _show_group_help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        from mt.runtime.output import print_lines

        print_lines([context.get_help()])


def _add_commands() -> None:
    groups: dict[str, typer.Typer] = {}
    for name in COMMANDS:
        module = importlib.import_module(f"mt.cli.commands.{name}")
        about = (module.__doc__ or "").partition(": ")[2].strip()
        about = about[:1].upper() + about[1:]
        first, _, rest = name.partition("_")
        if first in GROUPS:
            if first not in groups:
                groups[first] = _group(first)
            groups[first].command(rest.replace("_", "-"), short_help=about)(module.command)
        else:
            app.command(name.replace("_", "-"), short_help=about)(module.command)


_add_commands()


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("mt")
    except metadata.PackageNotFoundError:
        return "(not installed)"


# --------------------------------------------------------------------------------- errors


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        console.protect_standard_streams()
        signals.install()
        code = run(sys.argv[1:])
        signals.exit_on_signals()
    except (KeyboardInterrupt, Stopped):  # just before or after the command
        code = _report_interrupt()
    from mt.runtime import distributed

    if distributed.several_processes() or signals.has_left_call():
        # With several ranks, torch's threads may outlive Python and abort a successful process.
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command line, report an error in one line, and return the exit code."""
    try:
        command = typer.main.get_command(app)
        if COMPLETION in os.environ:  # a shell wants to know how a line may go on
            command.main(list(arguments), "mt", complete_var=COMPLETION)
        with command.make_context("mt", list(arguments)) as context:
            command.invoke(context)
        _flush_output()
        return 0
    except typer.Exit as error:
        return error.exit_code
    except SystemExit as error:  # of the completion of shells
        return int(error.code or 0)
    except KeyboardInterrupt:
        return _report_interrupt()
    except BrokenPipeError:
        console.discard_output()  # the reader is gone; Python must not flush to it at exit
        return 141
    except FailedOnAnotherRank as error:
        return error.exit_code
    except Stopped as error:
        console.write_error(str(error))
        return error.exit_code
    except Exception as error:
        if signals.interrupted():  # a library may have turned it into this error
            return _report_interrupt()
        if os.environ.get("MT_DEBUG") == "1":
            for line in "".join(traceback.format_exception(error)).splitlines():
                console.print_line(line)
        from mt.runtime import distributed

        known = _as_mt_error(error)
        console.write_error(f"{distributed.rank_prefix()}{known or _report_bug(error)}")
        return known.exit_code if known else 1


def _flush_output() -> None:
    """Write what Python holds for standard output.

    Raises:
        MachineError: it cannot be written.
    """
    from mt.runtime.output import open_output

    if sys.stdout is not None:
        with open_output(None):
            pass


def _report_interrupt() -> int:
    console.write_error("mt: stopped")
    return 128 + (signals.interrupted() or signal.SIGINT)


def _as_mt_error(error: Exception) -> MtError | None:
    """The error as one that the user can fix; None for a bug of mt."""
    if isinstance(error, MtError):
        return error
    usage: Any = error
    if hasattr(error, "format_message"):  # typer's error of a wrong command line
        place = usage.ctx.command_path if getattr(usage, "ctx", None) else "mt"
        what = " ".join(usage.format_message().split())
        return ConfigError("USAGE", place, what, f"see {place} --help")
    if memory.is_out_of_memory(error):
        what = f"out of memory ({memory.first_line(error)})"
        advice = "lower batching.micro_tokens or model sizes, or free memory on the machine"
        return MachineError("MEMORY", "the machine", what, advice)
    from mt.runtime import files

    if files.is_disk_full(error):
        where = getattr(error, "filename", None) or "standard output"
        what = getattr(error, "strerror", None) or "the disk is full"
        advice = "free some space and run the same command again"
        return MachineError("DISK-FULL", where, what, advice)
    return None


def _report_bug(error: Exception) -> str:
    """Write the trace of a bug to a file; the lines that report it."""
    here = Path(__file__).parents[1]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if here in Path(frame.filename).parents]
    where = f"mt/{Path(ours[-1].filename).relative_to(here)}:{ours[-1].lineno}"
    log = _write_crash_log("".join(traceback.format_exception(error)))
    what = f"{type(error).__name__}: {printable(error)}"
    return f"mt: error[BUG] {where}: {what}\na fault of mt itself; please report it with {log}"


def _write_crash_log(trace: str) -> str:
    """The path of a file with the trace, or how to see the trace if none can be written."""
    from mt.runtime import files

    name = f"mt-crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for find in (files.cache_folder, lambda: Path(tempfile.gettempdir())):
        with contextlib.suppress(MtError, OSError):
            folder = files.make_folder(find())
            files.write_file(folder / name, redact(trace))
            return str(folder / name)
    return "the trace that MT_DEBUG=1 shows"
