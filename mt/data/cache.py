"""The cache of encoded corpora: its key, its lock, and how an entry is opened."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mt.config import schema
from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.config.schema import SourceConfig
from mt.config.section import Section, input_files
from mt.data.corpus import Corpus
from mt.data.encode import HeldOut
from mt.data.pairs import Pair
from mt.errors import DataError, MachineError, ModelError
from mt.runtime import files
from mt.vocabulary import vocabulary
from mt.vocabulary.vocabulary import Vocabulary

FORMAT = 1
"""Part of the hash: another number and every cache is built again."""


@dataclass(frozen=True)
class PreparedData:
    """What training needs of the data."""

    vocabulary: Vocabulary
    train: Corpus | None
    """The training corpora; None where they are streamed."""
    valid: Corpus
    valid_pairs: list[Pair]
    """The raw pairs of `valid`, in the same order."""
    report: dict[str, Any]
    """What was read, kept and dropped, as in `report.json`."""
    folder: Path
    held: HeldOut
    """The pairs that a stream must leave out; empty where there is none."""

    @property
    def digest(self) -> str:
        """The hash of the training pairs; of their configuration where they are streamed."""
        digest: str = self.train.digest if self.train is not None else self.report["stream"]
        return digest

    @property
    def corpus_sizes(self) -> tuple[int, ...]:
        """How many pairs of `train` are of each training corpus; they stand in this order."""
        corpora = self.report["corpora"]
        names = sorted((n for n in corpora if n.startswith("train.")), key=lambda n: int(n[6:]))
        return tuple(corpora[name]["kept"] for name in names if "kept" in corpora[name])


@dataclass(frozen=True)
class CorpusSource:
    """A corpus of the recipe and what its files are."""

    name: str
    config: SourceConfig
    files: dict[str, dict[str, str]]
    """For each key that names a file its path and sha256, or its size where it is streamed."""

    @property
    def where(self) -> str:
        """Its key in the recipe and its files, for an error message."""
        paths = [file["path"] for file in self.files.values()]
        return f"data.{self.name} ({', '.join(paths) or self.config.kind})"


def changed_files(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, str]]:
    """The files whose bytes differ between two reports of a recipe: each path, and both hashes."""
    old, new = ({**r.get("corpora", {}), **r.get("held_out", {})} for r in (before, now))
    return [
        (file["path"], f"sha256 {old[name]['files'][key]['sha256']} -> {file['sha256']}")
        for name in new if name in old
        for key, file in new[name]["files"].items()
        if old[name]["files"].get(key, file)["sha256"] != file["sha256"]
    ]  # fmt: skip


def corpus_sources(recipe: Recipe) -> list[CorpusSource]:
    """List the training, validation and held-out corpora of a recipe, with hashed files."""
    data = recipe.data
    train = {f"train.{i}": source for i, source in enumerate(data.train)}
    named = {"valid": data.valid}
    named |= {f"valid.{i}": source for i, source in enumerate(data.more_valid, start=1)}
    if data.drop_overlap:
        named |= {f"test.{name}": source for name, source in data.test.items()}
    facts = _input_sizes if data.streaming else _hash_inputs
    return [
        *(CorpusSource(name, config, facts(config)) for name, config in train.items()),
        *(CorpusSource(name, config, _hash_inputs(config)) for name, config in named.items()),
    ]


def _input_sizes(section: Section) -> dict[str, dict[str, str]]:
    """What is known of input files without reading them."""
    found = {}
    for key, path in input_files(section).items():
        files.open_bytes(Path(path)).close()  # says what is wrong with the path
        found[key] = {"path": path, "bytes": str(Path(path).stat().st_size)}
    return found


def _hash_inputs(section: Section) -> dict[str, dict[str, str]]:
    found = {}
    for key, path in input_files(section).items():
        file = Path(path)
        if isinstance(section, schema.VocabularyConfig):
            file = file / "vocabulary.json" if file.is_dir() else file
            if not file.is_file():
                advice = "see vocabulary.path: a SentencePiece .model, or a run directory"
                raise ModelError("VOCAB-NONE", path, "there is no vocabulary there", advice)
        with files.open_bytes(file):  # says what is wrong with the path
            pass
        found[key] = {"path": path, "sha256": files.sha256(file)}
    return found


def cache_key(recipe: Recipe, sources: Sequence[CorpusSource], known: Vocabulary | None) -> str:
    """The hash of what decides the result: files by content, all else by value."""
    cut = _learned_values(recipe.vocabulary) if known is None else known.digest
    everything = [
        FORMAT, vocabulary.FORMAT, recipe.languages.model_dump(),
        recipe.data.max_length, recipe.data.drop_overlap, recipe.data.streaming,
        cut,
        [
            [s.name, section_values(s.config, s.files), _source_code_hashes(s.config.kind)]
            for s in sources
        ],
    ]  # fmt: skip
    return files.digest_json(everything)[:16]


def _learned_values(config: schema.VocabularyConfig) -> dict[str, Any]:
    """The values that decide what a vocabulary is; how training draws from it is not one."""
    values = section_values(config, _hash_inputs(config))
    return {key: value for key, value in values.items() if key != "sampling"}


def section_values(section: Section, inputs: dict[str, dict[str, str]]) -> dict[str, Any]:
    """The values of a section, its input files by their content, or size where it is streamed."""
    values = section.model_dump(mode="json", exclude={key.split(".")[0] for key in inputs})
    for key in ("only", "tag"):  # which corpora did not have at first
        if values.get(key, "") is None:
            del values[key]
    return values | {key: file.get("sha256", file.get("bytes")) for key, file in inputs.items()}


def _source_code_hashes(kind: str) -> list[str]:
    """The hashes of a source's own files: what it reads may change with them."""
    module = Path(plugin("sources", kind).__file__)
    private = [path for path in module.parent.glob(f"_{module.stem}/*") if path.is_file()]
    return [files.sha256(path) for path in sorted([module, *private])]


def lock_path(folder: Path) -> Path:
    """The lock file of a cache entry."""
    return folder.parent / f"{folder.name}.lock"


def sweep_cache(folder: Path) -> None:
    """Delete what killed processes left, also of other corpora that no process is building."""
    for pattern in (".tmp-*", ".trash-*"):
        for path in folder.parent.glob(pattern):
            owner = folder.parent / path.name.split("-")[1]
            with contextlib.ExitStack() as stack, contextlib.suppress(MachineError):
                if owner != folder:
                    stack.enter_context(files.lock(lock_path(owner)))
                files.delete(path)


def open_prepared(
    folder: Path, sources: Sequence[CorpusSource], log: Callable[[str], None]
) -> PreparedData:
    """What a finished cache folder holds; ModelError when it is damaged."""
    where = folder / "report.json"
    try:
        report = files.read_json(where)
        for source in sources:  # the same content may have been read from another place
            part = "held_out" if source.name.startswith("test.") else "corpora"
            report[part][source.name]["files"] = source.files
        pairs = [
            Pair(**json.loads(line)) for line in files.read_lines(folder / "valid.pairs.jsonl")
        ]
        held = files.read_json(folder / "held.json") if "stream" in report else {}
    except (OSError, ValueError, TypeError, KeyError, DataError) as error:
        what = f"damaged ({error})"
        raise ModelError("CORPUS-DAMAGED", where, what, "run `mt prepare` again") from None
    known = Vocabulary.load(folder)
    train = None if "stream" in report else Corpus.open(folder, "train")
    valid = Corpus.open(folder, "valid")
    if {corpus.header["vocabulary"] for corpus in (train or valid, valid)} != {known.digest}:
        what = "the vocabulary is not the one that encoded the corpus"
        raise ModelError("CORPUS-DAMAGED", where, what, "run `mt prepare` again")
    if len(pairs) != len(valid):
        what = f"{len(pairs)} validation pairs, {len(valid)} of them encoded"
        raise ModelError("CORPUS-DAMAGED", where, what, "run `mt prepare` again")
    size = "streamed" if train is None else f"{len(train):,}"
    log(f"{size} pairs, {known.size:,} pieces, from the cache ({folder})")
    texts = {source: set(targets) for source, targets in held.items()}
    return PreparedData(known, train, valid, pairs, report, folder, texts)
