"""Each torchrun line that is written anywhere gives mt's options to mt.

torchrun takes options for its own that are spelled, or begin, as its own do (`--run` is short for
`--run-path`) unless a `--` comes before the program.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

ROOT = Path(__file__).parents[2]
PLACES = ("mt", "docs", "configs", "scripts", "README*.md", "SECURITY.md", "Makefile")
LINE = re.compile(r"\btorchrun\b((?:[ \t]+(?:\"[^\"\n]*\"|[^\s\"'`,;)]+))+)")
"""A command, up to the quote or sentence end that follows it."""


def texts():
    for place in PLACES:
        for path in ROOT.glob(place):
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.suffix in (".py", ".md", ".yaml", ".sh", "") and file.is_file():
                    yield file, file.read_text(encoding="utf-8")


def commands(text: str):
    """The torchrun commands of a text, continued lines joined."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    joined = re.sub(r"\n\s+(?=--?[a-z])", " ", joined)  # a folded text of YAML
    for match in LINE.finditer(joined):
        words = match[1].strip()
        if words.startswith("-"):
            yield words


def problem(command: str) -> str | None:
    """Why torchrun would not give a command to mt as it stands; None if it would."""
    words = shlex.split(re.sub(r"\$(\w+|\{[^}]*\}|@)", "1", command))  # variables of a shell
    try:
        parsed = get_args_parser().parse_args(words)
    except SystemExit:
        return "torchrun refuses it"
    if not parsed.module or parsed.training_script != "mt":
        return f"runs {parsed.training_script}"
    after = words[words.index("mt") + 1 :]
    if parsed.training_script_args != after:
        return f"mt gets {parsed.training_script_args}"
    return None if words[words.index("mt") - 1] == "--" else "has no -- before mt"


FOUND = [(file, command) for file, text in texts() for command in commands(text)]


@pytest.mark.parametrize(
    ("file", "command"), FOUND, ids=lambda each: getattr(each, "name", str(each)[:40])
)
def test_it_gives_mt_its_options(file, command):
    assert problem(command) is None, f"{file}: torchrun {command}"


def test_they_are_found():
    assert {file.name for file, _ in FOUND} >= {
        "train.py", "distill.py", "__main__.py", "distributed.md", "distillation.md", "slurm.sh",
        "kubernetes.yaml",
    }  # fmt: skip


@pytest.mark.parametrize(
    "command",
    ["-m mt train x.yaml --run DIR", "--nproc-per-node 2 -m mt train x.yaml", "-m -- other train"],
)
def test_a_wrong_one_is_noticed(command):
    assert problem(command) is not None
    assert problem("-m -- mt train x.yaml --run DIR --set a=b") is None
