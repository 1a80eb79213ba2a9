"""`mt data get`: fetch corpora into a folder, with their hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mt.cli.options import Force


def command(
    names: Annotated[
        list[str],
        Argument(
            metavar="NAME", help="opus:NAME, opus:NAME/VERSION, sacrebleu:NAME, mtdata:ID or a URL."
        ),
    ],
    to: Annotated[Path, Option("--to", metavar="DIR", help="Folder of the files.")] = Path(),
    pair: Annotated[
        str | None, Option("--pair", metavar="PAIR", help="Languages, source first: de-en.")
    ] = None,
    update: Annotated[
        bool, Option("--update", help="Fetch again, and accept what is there now.")
    ] = False,
    private: Annotated[
        bool, Option("--private", help="Allow http and private addresses for a URL.")
    ] = False,
    force: Force = False,
) -> None:
    """Fetch corpora, and print the lines of YAML that use them.

    A corpus becomes two files of lines. data.lock in the same folder records the URL, size and
    sha256 of each download; the next one must be the same. A recipe can also name a corpus itself,
    and fetch it when it is prepared: {kind: opus, name: Tatoeba}.

    \b
    Example:  mt data get opus:Tatoeba --pair de-en --to data
              mt data get sacrebleu:wmt17 --pair en-de --to data
    """
    from mt.data.local_copies import get_corpus
    from mt.runtime.output import print_report

    for name in names:
        print_report(get_corpus(name, pair, to, update, force, private))
