"""The toolkits that training.py measures beside mt: one adapter a file.

An adapter says how a toolkit is installed, which real command trains the model of `Job`, and how
to read from what that command prints when each update ended and how many real target tokens
(the end of sentence included, padding not) it had. All train the model of `sizes.py` on the same
files of pieces, with Adam (0.9, 0.98). Toolkits that count padding in the size of a batch are
asked for as many more as makes the real tokens about `sizes.TOKENS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    """A line that a command printed."""

    seconds: float
    """When it came, on this process's clock."""
    text: str


class Update(NamedTuple):
    """The end of one update."""

    seconds: float
    """When it ended; only differences count."""
    tokens: float
    """Real target tokens of the update."""


@dataclass(frozen=True)
class Job:
    """One training that a toolkit is asked for."""

    programs: Path
    """Folder of the programs of the toolkit's environment."""
    pieces: Path
    """Folder of `train` and `valid`, `.source` and `.target`, and of `vocabulary.txt`."""
    prepared: Path
    """Folder of what the toolkit makes of the pieces beforehand; it lasts."""
    work: Path
    """Folder of this training; it is deleted afterwards."""
    updates: int
    precision: str
    threads: int = 2

    @property
    def python(self) -> str:
        """The interpreter of the environment."""
        return str(self.programs / "python")

    def program(self, name: str) -> str:
        """A program of the environment."""
        return str(self.programs / name)


Command = list[str]


@dataclass(frozen=True)
class Peer:
    """How to install a toolkit, run it, and read what it says."""

    name: str
    train: Callable[[Job], Command]
    """Writes its settings into `job.work` and gives the command to measure."""
    read: Callable[[Sequence[Line], Job], Iterator[Update]]
    """The updates, from what the command printed or left in `job.work`."""
    prepare: Callable[[Job], Iterable[Command]] = lambda job: ()
    """Commands to run once for some text, not measured."""
    installs: tuple[tuple[str, ...], ...] = ()
    """Arguments of each `pip install`; with none it runs in mt's own environment."""
    mend: Callable[[Path], None] = lambda packages: None
    """Mends the installed packages (given their folder) for this Python and torch."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of its commands."""
    precisions: tuple[str, ...] = ("fp32",)
    """What it can train in on a CPU."""
    keeps_all: bool = False
    """Measure every precision to the end, not only the fastest."""
    packages: str = ""
    """What the table says was measured; the first requirement if left out."""

    @property
    def version(self) -> str:
        """What the table says was measured."""
        return self.packages or self.installs[0][-1].replace("==", " ")


def row_name(peer: Peer, precision: str) -> str:
    """How the table calls a toolkit in a precision."""
    return f"{peer.version}, {precision}"


def every() -> dict[str, Peer]:
    """All toolkits by name; mt comes first."""
    from peers import eole, fairseq, huggingface, joeynmt, opennmt, ours, plain, sockeye

    modules = (ours, plain, huggingface, eole, fairseq, opennmt, sockeye, joeynmt)
    return {module.PEER.name: module.PEER for module in modules}
