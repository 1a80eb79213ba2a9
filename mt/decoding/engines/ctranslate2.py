"""The CTranslate2 engine: a folder that `mt export --to ctranslate2` wrote; no torch anywhere.

Batches of like length go to workers that translate side by side, with the same beam search as
ours. A sentence that did not end, exceeds its length limit or contains a reserved piece is searched
again, within its limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from mt.config.plugins import Plugin, trust_recipe
from mt.config.schema import Languages, SearchConfig
from mt.data.sentences import UsualLengths
from mt.decoding.batching import BATCH_TOKENS, length_batches
from mt.decoding.text_translator import Profile, TextTranslator
from mt.decoding.types import ONE_SEARCH, Engine, EngineOptions, Hypothesis, Sentence
from mt.errors import ConfigError, MachineError, ModelError
from mt.runtime import files, memory, model_files
from mt.runtime.device import available_cpus, import_ctranslate2
from mt.runtime.model_files import JsonObject
from mt.special_tokens import END, FIRST_PIECE

FORMAT = 1
ABOUT, WEIGHTS, SETTINGS_FILE = "mt.json", "model.bin", "config.json"
SCORED = 4096
"""Padded positions of one batch when scoring."""
TYPES = {None: "default", "auto": "default", "fp32": "float32", "bf16": "bfloat16"}
TYPES |= {"fp16": "float16"}
"""CTranslate2's names of `runtime.precision`; the default is the type of the stored weights."""
EXPORT_AGAIN = "export the run again with mt export RUN --to ctranslate2"


SEARCH = TypeAdapter[SearchConfig](Annotated[SearchConfig, Plugin("search")])


class Settings(JsonObject):
    """`config.json`: the keys that CTranslate2 reads; mt always writes the same names."""

    add_source_bos: bool
    add_source_eos: bool
    bos_token: Literal["<s>"]
    decoder_start_token: Literal["<s>"]
    eos_token: Literal["</s>"]
    unk_token: Literal["<unk>"]
    layer_norm_epsilon: Annotated[float, Field(gt=0)] = 1e-5
    multi_query_attention: bool = False


class Search(JsonObject):
    """The search of the run."""

    kind: str


class About(JsonObject):
    """`mt.json`: what mt knows of the model."""

    format: int
    languages: dict[str, str]
    longest: Annotated[int, Field(ge=2)]
    positions: Annotated[int, Field(ge=2)]
    usual_lengths: UsualLengths | None = None
    search: Search
    vocabulary: str
    sha256: str
    files: dict[Annotated[str, Field(pattern=r"^[a-z]+(_vocabulary)?\.json$")], str] = Field(
        default_factory=dict
    )
    """The hash of each other file of CTranslate2; none in earlier exports."""
    digest: str = ""
    """The hash of all else here; none in earlier exports."""


def accepts(path: Path) -> bool:
    """Whether a CTranslate2 folder lies at `path`."""
    return (path / WEIGHTS).exists()


def open(path: Path, options: EngineOptions) -> Engine:
    """The engine of a folder that `mt export` wrote.

    Raises:
        ConfigError: an option has no meaning here.
        MachineError: ctranslate2 is not installed, or this machine lacks a type or device.
        ModelError: the folder is damaged, or not written by mt.
    """
    for key, value in (("--checkpoint", options.checkpoint), ("ensemble", options.ensemble_paths)):
        if value:
            what = "a CTranslate2 folder holds one model, and no checkpoints"
            raise ConfigError("ENGINE", key, what, "leave it out, or give the run it came from")
    metadata = _read_metadata(path)
    from mt.vocabulary.vocabulary import Vocabulary

    vocabulary = Vocabulary.load(path)
    if vocabulary.digest != metadata.get("vocabulary"):
        raise _damaged(path, "it holds another model's vocabulary")
    _check_files(path, metadata)
    trust_recipe(metadata["search"])
    try:
        profile = Profile(
            languages=Languages.model_validate(metadata["languages"]),
            longest=metadata["longest"],
            positions=metadata["positions"],
            usual=UsualLengths.of(metadata),
            search=SEARCH.validate_python(metadata["search"], context={"name": path / ABOUT}),
        )
    except ValueError as error:
        raise _damaged(path / ABOUT, f"damaged ({str(error).splitlines()[0]})") from None
    names = _piece_names(path)
    if tuple(map(len, names)) != (vocabulary.source_size, vocabulary.target_size):
        raise _damaged(path, "its vocabularies have different sizes")
    return TextTranslator(
        Searcher(_open_translator(path, options), names), vocabulary, profile, options
    )


def _check_files(path: Path, metadata: dict[str, Any]) -> None:
    """Raise a ModelError when a file of CTranslate2 is not as it was written."""
    # CTranslate2 reads it again, and would hang on a pipe.
    _read_json(path / SETTINGS_FILE, Settings)
    for name, digest in {WEIGHTS: metadata["sha256"], **metadata.get("files", {})}.items():
        model_files.check_file(path / name, "CT2-DAMAGED", EXPORT_AGAIN)
        if files.sha256(path / name) != digest:
            raise _damaged(path / name, f"it does not have the bytes that {ABOUT} says")


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError("CT2-DAMAGED", path, what, EXPORT_AGAIN)


def _read_metadata(path: Path) -> dict[str, Any]:
    """The contents of mt.json."""
    where = path / ABOUT
    if not where.exists():
        what = f"a CTranslate2 model without {ABOUT}: mt did not write it, its text is unknown"
        raise ModelError("CT2-FOREIGN", path, what, EXPORT_AGAIN)
    metadata = _read_json(where, About, FORMAT)
    own = {key: value for key, value in metadata.items() if key != "digest"}
    if metadata.get("digest", files.digest_json(own)) != files.digest_json(own):
        raise _damaged(where, "it does not have the values that it was written with")
    return metadata


def _read_json(
    path: Path, shape: type[JsonObject] | None = None, newest: int | None = None
) -> dict[str, Any]:
    return model_files.read_json(
        path, shape, code="CT2-DAMAGED", advice=EXPORT_AGAIN, newest=newest
    )


def _piece_names(path: Path) -> tuple[list[str], list[str]]:
    """CTranslate2's names of the ids of each side."""
    shared = path / "shared_vocabulary.json"
    sides = [shared] * 2 if shared.is_file() else [
        path / f"{side}_vocabulary.json" for side in ("source", "target")
    ]  # fmt: skip
    source, target = (
        model_files.read_json_texts(side, code="CT2-DAMAGED", advice=EXPORT_AGAIN) for side in sides
    )
    return source, target


def _open_translator(path: Path, options: EngineOptions) -> Any:
    try:
        ctranslate2 = import_ctranslate2()
    except ImportError:
        advice = "pip install 'mt[ctranslate2]'"
        raise MachineError("CTRANSLATE2", path, "ctranslate2 is not installed", advice) from None
    memory.keep_freed_memory()
    device, _, index = (options.device or "cpu").partition(":")
    workers, threads = _workers_and_threads(options)
    try:
        return ctranslate2.Translator(
            str(path),
            device=device,
            device_index=int(index or 0),
            compute_type=TYPES.get(options.precision, str(options.precision)),
            inter_threads=workers,
            intra_threads=threads,
            max_queued_batches=-1,
        )
    except ValueError as error:  # this machine lacks the type or the device
        advice = "leave the setting out, or choose another"
        raise MachineError("CTRANSLATE2", path, str(error), advice) from None
    except (RuntimeError, LookupError, ArithmeticError) as error:
        raise _damaged(path, str(error)) from None


def _workers_and_threads(options: EngineOptions) -> tuple[int, int]:
    """Workers, and threads of each; by default one worker a core."""
    cores = len(available_cpus())
    if options.processes == 1 and options.threads is None:
        return cores, 1
    return options.processes, options.threads or max(1, cores // options.processes)


SETTINGS = {
    "beams": "beam_size",
    "min_length": "min_decoding_length",
    "length_penalty": "length_penalty",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram": "no_repeat_ngram_size",
    "patience": "patience",
    "top_k": "sampling_topk",
    "top_p": "sampling_topp",
    "temperature": "sampling_temperature",
}
"""CTranslate2's names of our search settings. (Its coverage penalty is another one.)"""
OWN = {"kind", "max_length_ratio", "max_length_extra", *ONE_SEARCH}
"""Settings that mt applies itself."""


def settings(config: SearchConfig, options: EngineOptions) -> dict[str, Any]:
    """The settings of CTranslate2 for a search of ours.

    Raises:
        ConfigError: it has no such search or setting.
    """
    if config.kind not in ("beam", "greedy", "sampling"):
        what = f"ctranslate2 has no {config.kind} search"
        advice = "take beam, greedy or sampling, or translate with the run"
        raise ConfigError("ENGINE", "search.kind", what, advice)
    theirs: dict[str, Any] = {"beam_size": 1, "length_penalty": 0.0}
    for key, value in config:
        if key in SETTINGS:
            theirs[SETTINGS[key]] = value
        elif key not in OWN and value != type(config).model_fields[key].get_default():
            what = f"ctranslate2 does not know {key}: {value}"
            raise ConfigError("ENGINE", f"search.{key}", what, "leave it out")
    if config.kind == "sampling":
        theirs["sampling_topk"] = theirs.get("sampling_topk") or 0  # 0: among all
    elif options.n_best > theirs["beam_size"]:
        what = f"{theirs['beam_size']} beams cannot give {options.n_best} hypotheses"
        raise ConfigError("SEARCH", "search.beams", what, "ask for fewer, or set more beams")
    return theirs


@dataclass
class _Job:
    """Sentences that are being translated."""

    sentences: Sequence[Sentence]
    settings: dict[str, Any]
    options: EngineOptions
    is_sampled: bool
    pending: list[tuple[list[int], list[Any]]] = field(default_factory=list)
    """Rows, and the future of each."""


class Searcher:
    """A `mt.decoding.types.Searcher` with a `ctranslate2.Translator`.

    Args:
        names: the names of the ids of each side.
    """

    prefetch_windows = 1  # so that the workers need not wait while a window is read or written

    def __init__(self, translator: Any, names: tuple[list[str], list[str]]) -> None:
        self.translator = translator
        self.source, self.target = names
        self.ids = {name: i for i, name in enumerate(self.target)}
        self.reserved = [[name] for name in self.target[:FIRST_PIECE]]
        del self.reserved[END]

    def search(
        self, sentences: Sequence[Sentence], config: SearchConfig, options: EngineOptions
    ) -> Iterator[list[Hypothesis]]:
        """The best hypotheses of each sentence, in order; the workers begin at once."""
        job = _Job(sentences, settings(config, options), options, config.kind == "sampling")
        if job.is_sampled:
            ctranslate2 = import_ctranslate2()
            ctranslate2.set_random_seed(options.seed)
        budget = (options.batch_tokens or BATCH_TOKENS) // job.settings["beam_size"]
        free = [row for row, each in enumerate(sentences) if not each.prefix]
        for places in length_batches([len(sentences[row].source) for row in free], budget):
            rows = [free[place] for place in places]
            longest = max(sentences[row].max_length for row in rows)
            job.pending.append((rows, self._begin(job, rows, longest, options.n_best)))
        return self._finish(job)

    def _begin(
        self, job: _Job, rows: Sequence[int], longest: int, count: int, **more: Any
    ) -> list[Any]:
        """Start the translation of some sentences in one batch; a future of each."""
        sentences = [job.sentences[row] for row in rows]
        futures: list[Any] = self.translator.translate_batch(
            [[self.source[i] for i in each.source] for each in sentences],
            target_prefix=[[self.target[i] for i in e.prefix] or None for e in sentences],
            asynchronous=True,
            num_hypotheses=count,
            return_scores=True,
            return_end_token=True,
            return_attention=job.options.alignments,
            max_input_length=0,
            max_decoding_length=longest,
            **job.settings,
            **more,
        )
        return futures

    def _finish(self, job: _Job) -> Iterator[list[Hypothesis]]:
        """The results, sentences with a wrong one searched again."""
        by_row = self._results(job.pending)
        again = [
            row for row, each in enumerate(job.sentences) if not _is_sound(each, by_row.get(row))
        ]
        if again:
            by_row.update(self._search_again(job, again))
        if job.is_sampled:  # their scores are those of the narrowed distribution
            self._add_log_probs(job, by_row)
            by_row = {row: _rank(each, 0.0) for row, each in by_row.items()}
        if job.options.token_scores:
            self._add_log_probs(job, by_row)
        return (by_row[row] for row in range(len(job.sentences)))

    def _results(
        self, pending: Sequence[tuple[list[int], list[Any]]]
    ) -> dict[int, list[Hypothesis]]:
        by_row = {}
        for rows, futures in pending:
            for row, future in zip(rows, futures, strict=True):
                result = future.result()
                attention = result.attention or [None] * len(result.hypotheses)
                each = zip(result.hypotheses, result.scores, attention, strict=True)
                by_row[row] = [
                    Hypothesis([self.ids[name] for name in names], score, (), alignment)
                    for names, score, alignment in each
                ]
        return by_row

    def _search_again(self, job: _Job, rows: Sequence[int]) -> dict[int, list[Hypothesis]]:
        """Search sentences within their own limits; a hypothesis that has not ended ends there.

        CTranslate2 forbids the reserved pieces before its softmax, which changes scores, and does
        not score a prefix: so all hypotheses are scored and ranked again.
        """
        count = max(job.settings["beam_size"], job.options.n_best)
        by_length: dict[int, list[int]] = {}
        for row in rows:
            by_length.setdefault(job.sentences[row].max_length, []).append(row)
        pending = [
            (each, self._begin(job, each, length - 1, count, suppress_sequences=self.reserved))
            for length, each in by_length.items()
        ]
        results = self._results(pending)
        by_row = {row: [_with_end(one) for one in each] for row, each in results.items()}
        self._add_log_probs(job, by_row)
        penalty = float(job.settings["length_penalty"])
        return {row: _rank(each, penalty)[: job.options.n_best] for row, each in by_row.items()}

    def _add_log_probs(self, job: _Job, by_row: dict[int, list[Hypothesis]]) -> None:
        """Compute the log-probability of each token of the hypotheses without them."""
        places = [
            (row, n)
            for row, each in by_row.items()
            for n, one in enumerate(each)
            if not one.log_probabilities
        ]
        pairs = [(job.sentences[row].source, by_row[row][n].tokens) for row, n in places]
        for (row, n), log_probs in zip(places, self.force(pairs), strict=True):
            by_row[row][n] = replace(by_row[row][n], log_probabilities=log_probs)

    def force(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """The log-probability of each token of each target."""
        pending = []
        for rows in length_batches([max(map(len, pair)) for pair in pairs], SCORED):
            futures = self.translator.score_batch(
                [[self.source[i] for i in pairs[row][0]] for row in rows],
                [[self.target[i] for i in pairs[row][1][:-1]] for row in rows],
                max_input_length=0,
                asynchronous=True,
            )
            pending.append((rows, futures))
        by_row = {
            row: list(map(float, future.result().log_probs))
            for rows, futures in pending
            for row, future in zip(rows, futures, strict=True)
        }
        if not all(math.isfinite(value) for each in by_row.values() for value in each):
            what = "the model's probabilities are not numbers"
            raise ModelError("MODEL-NAN", "the model", what, EXPORT_AGAIN)
        return [by_row[row] for row in range(len(pairs))]


def _is_sound(sentence: Sentence, hypotheses: list[Hypothesis] | None) -> bool:
    """Whether each hypothesis ended in time and consists of pieces of text."""
    return hypotheses is not None and all(
        each.tokens[-1:] == [END]
        and len(each.tokens) <= sentence.max_length
        and min(each.tokens[:-1], default=FIRST_PIECE) >= FIRST_PIECE
        for each in hypotheses
    )


def _with_end(one: Hypothesis) -> Hypothesis:
    if one.tokens[-1:] == [END]:
        return one
    rows = one.alignment
    # END was not searched for: it gets the alignment of the token before it.
    return Hypothesis([*one.tokens, END], one.score, (), rows and [*rows, rows[-1]])


def _rank(hypotheses: Sequence[Hypothesis], penalty: float) -> list[Hypothesis]:
    """The best first, by the scores that their tokens give them."""
    scored = [
        replace(one, score=math.fsum(one.log_probabilities) / len(one.tokens) ** penalty)
        for one in hypotheses
    ]
    return sorted(scored, key=lambda one: -one.score)
