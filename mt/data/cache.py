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
from mt.data.data_lock import DownloadedConfig
from mt.data.encode import HeldOut
from mt.data.pairs import Pair
from mt.errors import DataError, MachineError, ModelError, MtError
from mt.runtime import files, model_files, text_files
from mt.runtime.lock import lock
from mt.vocabulary import vocabulary
from mt.vocabulary.vocabulary import Vocabulary

FORMAT = 2
"""Part of the cache key: a new number rebuilds every cache."""


@dataclass(frozen=True)
class PreparedData:
    """The vocabulary and the encoded corpora of a recipe."""

    vocabulary: Vocabulary
    train: Corpus | None
    """The training corpora; None where they are streamed."""
    valid: Corpus
    valid_pairs: list[Pair]
    """The raw pairs of `valid`, in the same order."""
    report: dict[str, Any]
    """The counts of `report.json`."""
    folder: Path
    held_out: HeldOut
    """The pairs that a stream must drop; empty without a stream."""

    @property
    def digest(self) -> str:
        """The hash of the training pairs; of their configuration where they are streamed."""
        return str(self.report["stream"] if self.train is None else self.train.digest)

    @property
    def corpus_sizes(self) -> tuple[int, ...]:
        """The pairs of each training corpus, in their order in `train`."""
        corpora = self.report["corpora"]
        names = sorted((n for n in corpora if n.startswith("train.")), key=lambda n: int(n[6:]))
        return tuple(corpora[name]["kept"] for name in names if "kept" in corpora[name])


@dataclass(frozen=True)
class CorpusSource:
    """A corpus of the recipe and its files."""

    name: str
    config: SourceConfig
    files: dict[str, dict[str, str]]
    """For each key that names a file its path and sha256, or its size when it is streamed."""

    @property
    def where(self) -> str:
        """Its key in the recipe and its files, for an error message."""
        paths = [file["path"] for file in self.files.values()]
        return f"data.{self.name} ({', '.join(paths) or self.config.kind})"


def changed_files(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, str]]:
    """List the files that differ between two reports of a recipe: each path, and both hashes."""
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
    if data.drop_overlap or any(rule.needs_held_out for rule in data.clean):
        named |= {f"test.{name}": source for name, source in data.test.items()}
    facts = _input_sizes if data.streaming else _hash_inputs
    return [
        *(CorpusSource(name, config, facts(config)) for name, config in train.items()),
        *(CorpusSource(name, config, _hash_inputs(config)) for name, config in named.items()),
    ]


def _input_sizes(section: Section) -> dict[str, dict[str, str]]:
    """Return path and size of the input files of a section."""
    facts = {}
    for key, path in input_files(section).items():
        text_files.open_bytes(Path(path)).close()  # raises when the path is wrong
        facts[key] = {"path": path, "bytes": str(Path(path).stat().st_size)}
    return facts | _downloads(section)


def _hash_inputs(section: Section) -> dict[str, dict[str, str]]:
    facts = {}
    for key, path in input_files(section).items():
        file = Path(path)
        if isinstance(section, schema.VocabularyConfig):
            file = file / "vocabulary.json" if file.is_dir() else file
            if not file.is_file():
                advice = "see vocabulary.path: a SentencePiece .model, or a run directory"
                raise ModelError("VOCAB-NONE", path, "there is no vocabulary there", advice)
        text_files.open_bytes(file).close()  # raises when the path is wrong
        facts[key] = {"path": path, "sha256": files.sha256(file)}
    return facts | _downloads(section)


def _downloads(section: Section) -> dict[str, dict[str, str]]:
    """Download what a source needs; return path and sha256 of each file."""
    if not isinstance(section, DownloadedConfig):
        return {}
    fetched = plugin("sources", section.kind).fetch(section)
    return {
        f"download.{number}": {"path": str(each.path), "sha256": each.sha256}
        for number, each in enumerate(fetched)
    }


def cache_key(recipe: Recipe, sources: Sequence[CorpusSource], inherited: Vocabulary | None) -> str:
    """Hash the inputs of preparation: files by content, all else by value."""
    everything = [
        FORMAT, vocabulary.FORMAT, recipe.languages.model_dump(),
        recipe.data.max_length, recipe.data.drop_overlap, recipe.data.streaming,
        _learned_values(recipe.vocabulary) if inherited is None else inherited.digest,
        [
            [s.name, section_values(s.config, s.files), _code_hashes("sources", s.config.kind)]
            for s in sources
        ],
        *rule_values(recipe.data),
    ]  # fmt: skip
    return files.digest_json(everything)[:16]


def _learned_values(config: schema.VocabularyConfig) -> dict[str, Any]:
    """Return the values that decide a vocabulary: all but how training samples from it."""
    values = section_values(config, _hash_inputs(config))
    return {key: value for key, value in values.items() if key != "sampling"}


def section_values(section: Section, inputs: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Return the values of a section, its input files by content, or by size when streamed."""
    records = set(input_files(section, records=True)) - set(input_files(section))
    exclude = {key.split(".")[0] for key in inputs} | records
    values = section.model_dump(mode="json", exclude=exclude)
    for key in ("only", "tag"):  # absent in old caches
        if values.get(key, "") is None:
            del values[key]
    return values | {key: file.get("sha256", file.get("bytes")) for key, file in inputs.items()}


def rule_values(data: schema.DataConfig) -> list[Any]:
    """Return what decides what the rules of `data.clean` drop; nothing without rules."""
    return [
        [section_values(rule, _hash_inputs(rule)), _code_hashes("filters", rule.kind)]
        for rule in data.clean
    ]


def _code_hashes(section: str, kind: str) -> list[str]:
    """Hash the code of a source or filter: the pairs may change with it."""
    module = Path(plugin(section, kind).__file__)
    private = [path for path in module.parent.glob(f"_{module.stem}/*") if path.is_file()]
    return [files.sha256(path) for path in sorted([module, *private])]


def lock_path(folder: Path) -> Path:
    """Return the lock file of a cache entry."""
    return folder.parent / f"{folder.name}.lock"


def sweep_cache(folder: Path) -> None:
    """Delete what killed processes left, also of other entries that no process is building."""
    for pattern in (".tmp-*", ".trash-*"):
        for path in folder.parent.glob(pattern):
            owner = folder.parent / path.name.split("-")[1]
            with contextlib.ExitStack() as stack, contextlib.suppress(MachineError):
                if owner != folder:
                    stack.enter_context(lock(lock_path(owner)))
                files.delete(path)


def open_prepared(
    folder: Path, sources: Sequence[CorpusSource], log: Callable[[str], None]
) -> PreparedData:
    """Open a finished cache entry; raise a ModelError when it is damaged."""
    where = folder / "report.json"

    def damaged(what: str) -> ModelError:
        return ModelError("CORPUS-DAMAGED", where, what, "run `mt prepare` again")

    try:
        report = model_files.read_json(where)
        for source in sources:  # the same content may have been read from another place
            part = "held_out" if source.name.startswith("test.") else "corpora"
            report[part][source.name]["files"] = source.files
        lines = text_files.read_lines(folder / "valid.pairs.jsonl")
        pairs = [Pair(**json.loads(line)) for line in lines]
        texts = (
            model_files.read_json(folder / "held.json", limit=model_files.MAX_VOCABULARY)
            if "stream" in report
            else {}
        )
    except (OSError, ValueError, TypeError, KeyError, DataError, ModelError) as error:
        what = error.problems[0][1] if isinstance(error, MtError) else f"damaged ({error})"
        raise damaged(what) from None
    loaded = Vocabulary.load(folder)
    train = None if "stream" in report else Corpus.open(folder, "train")
    valid = Corpus.open(folder, "valid")
    if {corpus.header["vocabulary"] for corpus in (train or valid, valid)} != {loaded.digest}:
        raise damaged("the vocabulary is not the one that encoded the corpus")
    if len(pairs) != len(valid):
        raise damaged(f"{len(pairs)} validation pairs, {len(valid)} of them encoded")
    size = "streamed" if train is None else f"{len(train):,}"
    log(f"{size} pairs, {loaded.size:,} pieces, from the cache ({folder})")
    held_out = {source: set(targets) for source, targets in texts.items()}
    return PreparedData(loaded, train, valid, pairs, report, folder, held_out)
