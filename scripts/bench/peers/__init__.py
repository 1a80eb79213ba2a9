"""The toolkits that training.py measures beside mt: one adapter a file.

An adapter defines how a toolkit is installed, which real command trains the model of `Job`, and how
to read from what that command prints when each update ended and how many target tokens (the end of
sentence included, padding not) it had. All train the model of `sizes.py` on the same files of
pieces, with Adam (0.9, 0.98). For toolkits that count padding in the size of a batch, the batch is
larger, so that about `sizes.TOKENS` of its tokens are not padding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from harness import Line

Command = list[str]


class Update(NamedTuple):
    """The end of one update."""

    seconds: float
    """When it ended; only differences count."""
    tokens: float
    """Target tokens of the update, padding not counted."""


@dataclass(frozen=True)
class Job:
    """One training by a toolkit."""

    programs: Path
    """Folder of the programs of the toolkit's environment."""
    pieces: Path
    """Folder of `train` and `valid`, `.source` and `.target`, and of `vocabulary.txt`."""
    prepared: Path
    """Folder of what the toolkit makes from the pieces beforehand; it is kept."""
    work: Path
    """Folder of this training; it is deleted afterwards."""
    updates: int
    precision: str
    threads: int = 2

    @property
    def python(self) -> str:
        """The interpreter of the environment."""
        return self.program("python")

    def program(self, name: str) -> str:
        """Return the path of a program of the environment."""
        return str(self.programs / name)


@dataclass(frozen=True)
class Peer:
    """How to install a toolkit, run it, and read its output."""

    name: str
    train: Callable[[Job], Command]
    """Writes its settings into `job.work` and returns the command to measure."""
    read: Callable[[Sequence[Line], Job], Iterator[Update]]
    """The updates, from what the command printed or left in `job.work`."""
    prepare: Callable[[Job], Iterable[Command]] = lambda job: ()
    """Commands to run once for some text, not measured."""
    installs: tuple[tuple[str, ...], ...] = ()
    """Arguments of each `pip install`; with none it runs in mt's own environment."""
    patch: Callable[[Path], None] = lambda packages: None
    """Patches the installed packages (given their folder) for this Python and torch."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of its commands."""
    precisions: tuple[str, ...] = ("fp32",)
    """The precisions that it can train in on a CPU."""
    keeps_all: bool = False
    """Measure every precision to the end, not only the fastest."""
    packages: str = ""
    """The name in the table; the first requirement if left out."""

    @property
    def version(self) -> str:
        """The name in the table."""
        return self.packages or self.installs[0][-1].replace("==", " ")


def row_name(peer: Peer, precision: str) -> str:
    """Return the name of a toolkit in a precision, as the table shows it."""
    return f"{peer.version}, {precision}"


def read_json_updates(lines: Sequence[Line], job: Job) -> Iterator[Update]:
    """Read lines such as `{"update": 3, "target_tokens": 4093}`, printed by our own programs."""
    for line in lines:
        if line.text.startswith('{"update"'):
            yield Update(line.seconds, json.loads(line.text)["target_tokens"])


def load() -> dict[str, Peer]:
    """Return all toolkits by name; mt comes first."""
    from peers import eole, fairseq, huggingface, joeynmt, opennmt, ours, plain, sockeye

    modules = (ours, plain, huggingface, eole, fairseq, opennmt, sockeye, joeynmt)
    return {module.PEER.name: module.PEER for module in modules}
