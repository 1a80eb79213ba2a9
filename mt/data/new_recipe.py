"""From files or the name of a corpus to a folder with a recipe and its text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mt.config.recipe import Recipe
from mt.config.schema import Languages, VocabularyConfig
from mt.config.validation import validate
from mt.config.yaml_reader import Document
from mt.data import local_copies
from mt.data.catalogue import parse_pair
from mt.data.data_lock import FILE_NAME
from mt.data.held_out_split import CorpusFacts, split_corpus
from mt.data.recipe_choice import Choice, Machine, choose, measure_machine
from mt.errors import ConfigError, printable
from mt.runtime import files, text_files
from mt.runtime.html_page import render_template
from mt.special_tokens import FIRST_PIECE
from mt.vocabulary.learn import learn_vocabulary

LARGEST_TRIED = 4_000
"""Pieces; the corpora for which more are chosen have them."""


def write_new_recipe(
    paths: Sequence[Path], origin: str | None, pair: str | None, folder: Path | None,
    minutes: float | None, log: Callable[[str], None],
) -> Iterator[str]:  # fmt: skip
    """Write a folder with a recipe, and training, validation and test text.

    Args:
        paths: two files of lines, or one of a format of pairs; none with `origin`.
        origin: the name of a corpus of `mt data list`.
        pair: the languages, source first; left out: the ends of the names of two files.
        folder: a new folder; left out: named by the languages.
        minutes: how long the training may take; None: by the device.
        log: gets lines on what is done.

    Yields:
        Lines on what was written, and how to go on.

    Raises:
        ConfigError: the command line is wrong, or the folder exists.
        DataError: the text cannot be read, or is too little.
    """
    _check_sources(paths, origin)
    languages = _languages(paths, pair)
    pair = f"{languages.source}-{languages.target}"
    folder = folder or Path(pair)
    if folder.exists():
        what, advice = "it is there already", "name a new folder by --to"
        raise ConfigError("OUTPUT-EXISTS", folder, what, advice)
    files.make_folder(folder.absolute().parent)
    with files.staged_folder(folder) as hidden:
        source = _source(paths, origin, hidden)
        document = {
            "languages": languages.model_dump(),
            "data": {"train": [source], "valid": source, "clean": "default"},
            "training": {"max_epochs": 1},
        }
        recipe = validate(Recipe, Document(document, folder=Path.cwd(), name="the command line"))
        named = [str(path) for path in paths] or [f"--from {origin}"]
        facts = split_corpus(recipe.data, hidden, " and ".join(named), log)
        machine = measure_machine(minutes)
        choice = _with_possible_vocabulary(choose(facts, machine), hidden, languages)
        command = f"mt init {' '.join(named)} --pair {pair}"
        text = format_recipe(choice, facts, machine, languages, command)
        files.write_file(hidden / f"{pair}.yaml", text)
    yield f"{facts.pairs:,} pairs: {facts.kept:,} to train on, {facts.held_out:,} each held out"
    yield f"wrote {folder / f'{pair}.yaml'}, in which each choice has its reason"
    yield f"{choice.epochs} epochs, about {choice.minutes} min; go on with"
    yield f"  mt train {folder / f'{pair}.yaml'}"


def _languages(paths: Sequence[Path], pair: str | None) -> Languages:
    if pair is not None:
        return parse_pair(pair)
    if len(paths) == 2 and all(path.suffix for path in paths):
        return parse_pair("-".join(path.suffix[1:] for path in paths))
    raise ConfigError("USAGE", "mt init", "in which languages?", "add --pair en-de")


def _check_sources(paths: Sequence[Path], origin: str | None) -> None:
    """Refuse a command line that names no corpus, or two."""
    for path in paths:
        text_files.open_bytes(path).close()  # raises when there is none
    lonely = len(paths) == 1 and local_copies.file_section(paths[0])["kind"] == "text"
    if (len(paths) in (1, 2)) == (origin is not None) or len(paths) > 2 or lonely:
        what = "what is the text?"
        if paths:
            what = f"{len(paths)} files" + (f" and --from {origin}" if origin else "")
        advice = "give two files of lines, or one file of pairs (TMX, PO, TSV), or --from NAME"
        raise ConfigError("USAGE", "mt init", what, advice)


def _source(paths: Sequence[Path], origin: str | None, folder: Path) -> dict[str, Any]:
    """Return the section of the corpus; its lock is written into `folder`."""
    if origin is not None:
        return {**local_copies.source_section(origin), "lock": str(folder / FILE_NAME)}
    if len(paths) == 2:
        return {"kind": "text", "source": str(paths[0]), "target": str(paths[1])}
    return local_copies.file_section(paths[0])


def _with_possible_vocabulary(choice: Choice, folder: Path, languages: Languages) -> Choice:
    """Halve the vocabulary until the training text has so many pieces; only little text needs it.

    Raises:
        ConfigError: no vocabulary can be learned.
    """
    size = choice.rules.vocabulary
    if size > LARGEST_TRIED:
        return choice
    codes = languages.source, languages.target
    source, target = ([*text_files.read_lines(folder / f"train.{code}")] for code in codes)
    while True:
        config = VocabularyConfig(size=size, model="bpe")
        try:
            learn_vocabulary(config, languages, source, target)
        except ConfigError:
            size //= 2
            if size <= FIRST_PIECE:
                raise
        else:
            return choice._replace(rules=choice.rules._replace(vocabulary=size))


def format_recipe(
    choice: Choice, facts: CorpusFacts, machine: Machine, languages: Languages, command: str
) -> str:
    """Return the recipe as YAML, with reasons as comments."""
    return render_template(
        Path(__file__).with_name("new_recipe.yaml.jinja"), choice=choice,
        size=choice.size, rules=choice.rules, facts=facts, machine=machine,
        source=languages.source, target=languages.target, command=printable(command),
        worst=sorted(facts.suspects, key=lambda rule: -facts.suspects[rule])[:3],
    )  # fmt: skip
