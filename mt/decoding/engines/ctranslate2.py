"""The CTranslate2 engine: a folder that `mt export --to ctranslate2` wrote; no torch anywhere.

Batches of like length go to workers that translate side by side; their search is the same beam
search as ours. What it leaves open is put right here: a sentence that did not end, that grew
longer than it may or that holds a reserved piece is searched again, within its limits.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mt.config.plugins import plugin
from mt.config.schema import Languages, SearchConfig
from mt.decoding.batching import length_batches
from mt.decoding.text_translator import Profile, TextTranslator
from mt.decoding.types import Engine, EngineOptions, Hypothesis, Sentence
from mt.errors import ConfigError, MachineError, ModelError
from mt.runtime import files, memory
from mt.special_tokens import END, FIRST_PIECE

FORMAT = 1
ABOUT, WEIGHTS = "mt.json", "model.bin"
SCORED = 4096
"""Padded positions of one batch when scoring."""
TYPES = {None: "default", "auto": "default", "fp32": "float32", "bf16": "bfloat16"}
TYPES |= {"fp16": "float16"}
"""What they call the types of `runtime.precision`; the default is how the weights are stored."""
AGAIN = "export the run again with mt export RUN --to ctranslate2"


def accepts(path: Path) -> bool:
    """Whether a CTranslate2 folder lies at `path`."""
    return (path / WEIGHTS).is_file()


def open(path: Path, options: EngineOptions) -> Engine:
    """The engine of a folder that `mt export` wrote.

    Raises:
        ConfigError: an option has no meaning here.
        MachineError: ctranslate2 is not installed, or cannot do it on this machine.
        ModelError: the folder is damaged, or not written by mt.
    """
    for key, given in (("--checkpoint", options.checkpoint), ("ensemble", options.ensemble_paths)):
        if given:
            what = "a CTranslate2 folder holds one model, and no checkpoints"
            raise ConfigError("ENGINE", key, what, "leave it out, or give the run it came from")
    about = _about(path)
    from mt.vocabulary.vocabulary import Vocabulary

    vocabulary = Vocabulary.load(path)
    if vocabulary.digest != about.get("vocabulary"):
        raise ModelError("CT2-DAMAGED", path, "it holds another model's vocabulary", AGAIN)
    if files.sha256(path / WEIGHTS) != about.get("sha256"):
        what = f"{WEIGHTS} does not have the bytes that {ABOUT} says"
        raise ModelError("CT2-DAMAGED", path, what, AGAIN)
    try:
        profile = Profile(
            languages=Languages.model_validate(about["languages"]),
            longest=int(about["longest"]),
            positions=int(about["positions"]),
            search=plugin("search", about["search"]["kind"]).Config.model_validate(about["search"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        what = f"damaged ({str(error).splitlines()[0]})"
        raise ModelError("CT2-DAMAGED", path / ABOUT, what, AGAIN) from None
    searcher = Searcher(_translator(path, options), _names(path))
    return TextTranslator(searcher, vocabulary, profile, options)


def _about(path: Path) -> dict[str, Any]:
    """What mt.json says."""
    where = path / ABOUT
    if not where.is_file():
        what = f"a CTranslate2 model without {ABOUT}: mt did not write it, its text is unknown"
        raise ModelError("CT2-FOREIGN", path, what, AGAIN)
    try:
        about = dict(files.read_json(where))
        version = int(about["format"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError("CT2-DAMAGED", where, f"damaged ({error})", AGAIN) from None
    if version > FORMAT:
        what = f"written in format {version}, newer than {FORMAT}"
        raise ModelError("CT2-NEWER", where, what, "use a newer mt")
    return about


def _names(path: Path) -> tuple[list[str], list[str]]:
    """By which names they know the ids of each side."""
    shared = path / "shared_vocabulary.json"
    sides = [shared] * 2 if shared.is_file() else [
        path / f"{side}_vocabulary.json" for side in ("source", "target")
    ]  # fmt: skip
    try:
        source, target = (json.loads(side.read_text(encoding="utf-8")) for side in sides)
    except (OSError, ValueError) as error:
        raise ModelError("CT2-DAMAGED", path, f"a vocabulary is missing ({error})", AGAIN) from None
    return source, target


def _translator(path: Path, options: EngineOptions) -> Any:
    try:
        import ctranslate2
    except ImportError:
        advice = "pip install 'mt[ctranslate2]'"
        raise MachineError("CTRANSLATE2", path, "ctranslate2 is not installed", advice) from None
    memory.keep_freed_memory()
    device, _, index = (options.device or "cpu").partition(":")
    workers, threads = _layout(options)
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
    except ValueError as error:  # a type or a device that is not there
        advice = "leave the setting out, or choose another"
        raise MachineError("CTRANSLATE2", path, str(error), advice) from None
    except RuntimeError as error:
        raise ModelError("CT2-DAMAGED", path, str(error), AGAIN) from None


def _layout(options: EngineOptions) -> tuple[int, int]:
    """(workers, threads of each): as asked for, else one worker a core."""
    cores = len(os.sched_getaffinity(0))
    if options.processes == 1 and options.threads is None:
        return cores, 1
    return options.processes, options.threads or max(1, cores // options.processes)


# ---------------------------------------------------------------------------- the settings

SETTINGS = {
    "beams": "beam_size",
    "length_penalty": "length_penalty",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram": "no_repeat_ngram_size",
    "patience": "patience",
    "top_k": "sampling_topk",
    "top_p": "sampling_topp",
    "temperature": "sampling_temperature",
}
"""Settings of our searches and what they are called there. (Their coverage penalty is another.)"""
OWN = {"kind", "max_length_ratio", "max_length_extra"}
"""Settings that are not theirs to know."""


def settings(config: SearchConfig, options: EngineOptions) -> dict[str, Any]:
    """Our search as theirs.

    Raises:
        ConfigError: theirs has no such search or setting; names it.
    """
    if config.kind not in ("beam", "greedy", "sampling"):
        what = f"ctranslate2 has no {config.kind} search"
        advice = "take beam, greedy or sampling, or translate with the run"
        raise ConfigError("ENGINE", "search.kind", what, advice)
    found: dict[str, Any] = {"beam_size": 1, "length_penalty": 0.0}
    for key, asked in config:
        if key in SETTINGS:
            found[SETTINGS[key]] = asked
        elif key not in OWN and asked != type(config).model_fields[key].get_default():
            what = f"ctranslate2 does not know {key}: {asked}"
            raise ConfigError("ENGINE", f"search.{key}", what, "leave it out")
    if config.kind == "sampling":
        found["sampling_topk"] = found.get("sampling_topk") or 0  # 0: among all
    elif options.n_best > found["beam_size"]:
        what = f"{found['beam_size']} beams cannot give {options.n_best} hypotheses"
        raise ConfigError("SEARCH", "search.beams", what, "ask for fewer, or set more beams")
    return found


# ---------------------------------------------------------------------------- the searcher


@dataclass
class _Work:
    """Sentences that are being translated, and what has been found of them."""

    sentences: Sequence[Sentence]
    settings: dict[str, Any]
    options: EngineOptions
    waiting: list[tuple[list[int], list[Any]]] = field(default_factory=list)
    """Rows, and for each what will hold its translation."""

    sampled: bool = False

    @property
    def penalty(self) -> float:
        """The exponent of the length."""
        return float(self.settings["length_penalty"])


class Searcher:
    """Searches with a `ctranslate2.Translator`; see `mt.contracts.Searcher`.

    Args:
        translator: what translates.
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
        work = _Work(sentences, settings(config, options), options)
        work.sampled = config.kind == "sampling"
        if work.sampled:
            import ctranslate2

            ctranslate2.set_random_seed(options.seed)
        budget = options.batch_tokens // work.settings["beam_size"]
        plain = [row for row, each in enumerate(sentences) if not each.prefix]
        for places in length_batches([len(sentences[row].source) for row in plain], budget):
            rows = [plain[place] for place in places]
            longest = max(sentences[row].max_length for row in rows)
            work.waiting.append((rows, self._begin(work, rows, longest, options.n_best)))
        return self._finish(work)

    def _begin(
        self, work: _Work, rows: Sequence[int], longest: int, count: int, **more: Any
    ) -> list[Any]:
        """Have some sentences translated, in one batch; what will hold the results."""
        sentences = [work.sentences[row] for row in rows]
        found: list[Any] = self.translator.translate_batch(
            [[self.source[i] for i in each.source] for each in sentences],
            target_prefix=[[self.target[i] for i in e.prefix] or None for e in sentences],
            asynchronous=True,
            num_hypotheses=count,
            return_scores=True,
            return_end_token=True,
            return_attention=work.options.alignments,
            max_input_length=0,
            max_decoding_length=longest,
            **work.settings,
            **more,
        )
        return found

    def _finish(self, work: _Work) -> Iterator[list[Hypothesis]]:
        """What was found, the sentences in question searched again."""
        found: dict[int, list[Hypothesis]] = {}
        for rows, results in work.waiting:
            for row, result in zip(rows, results, strict=True):
                found[row] = self._hypotheses(result.result())
        again = [
            row for row, each in enumerate(work.sentences) if not self._sound(each, found.get(row))
        ]
        if again:
            found.update(self._again(work, again))
        if work.sampled:  # their scores are those of what was drawn from
            self._tell_tokens(work, found)
            found = {row: _ranked(each, 0.0) for row, each in found.items()}
        if work.options.token_scores:
            self._tell_tokens(work, found)
        return (found[row] for row in range(len(work.sentences)))

    def _hypotheses(self, result: Any) -> list[Hypothesis]:
        ids = self.ids
        attention = result.attention or [None] * len(result.hypotheses)
        return [
            Hypothesis([ids[name] for name in names], score, (), rows)
            for names, score, rows in zip(result.hypotheses, result.scores, attention, strict=True)
        ]

    def _sound(self, sentence: Sentence, found: list[Hypothesis] | None) -> bool:
        """Whether each hypothesis ended in time and is of pieces of text."""
        return found is not None and all(
            each.tokens[-1:] == [END]
            and len(each.tokens) <= sentence.max_length
            and min(each.tokens[:-1], default=FIRST_PIECE) >= FIRST_PIECE
            for each in found
        )

    def _again(self, work: _Work, rows: Sequence[int]) -> dict[int, list[Hypothesis]]:
        """Search sentences within their own limits; what has not ended by then ends there.

        Reserved pieces are forbidden there before probabilities are made of their scores, which
        changes these, and a prefix does not count there: so all is scored anew, and ranked.
        """
        beams = work.settings["beam_size"]
        count = max(beams, work.options.n_best)
        same: dict[int, list[int]] = {}
        for row in rows:
            same.setdefault(work.sentences[row].max_length, []).append(row)
        begun = [
            (each, self._begin(work, each, length - 1, count, suppress_sequences=self.reserved))
            for length, each in same.items()
        ]
        found = {
            row: [_ended(each) for each in self._hypotheses(result.result())]
            for rows, results in begun
            for row, result in zip(rows, results, strict=True)
        }
        self._tell_tokens(work, found)
        count = work.options.n_best
        return {row: _ranked(each, work.penalty)[:count] for row, each in found.items()}

    def _tell_tokens(self, work: _Work, found: dict[int, list[Hypothesis]]) -> None:
        """Fill in the log-probability of each token, where it is not known."""
        places = [(row, n) for row, each in found.items() for n in range(len(each))]
        places = [(row, n) for row, n in places if not found[row][n].log_probabilities]
        pairs = [(work.sentences[row].source, found[row][n].tokens) for row, n in places]
        for (row, n), gains in zip(places, self.force(pairs), strict=True):
            one = found[row][n]
            found[row][n] = Hypothesis(one.tokens, one.score, gains, one.alignment)

    def force(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """The log-probability of each token of each target."""
        waiting = []
        for rows in length_batches([max(map(len, pair)) for pair in pairs], SCORED):
            results = self.translator.score_batch(
                [[self.source[i] for i in pairs[row][0]] for row in rows],
                [[self.target[i] for i in pairs[row][1][:-1]] for row in rows],
                max_input_length=0,
                asynchronous=True,
            )
            waiting.append((rows, results))
        found = {
            row: list(map(float, result.result().log_probs))
            for rows, results in waiting
            for row, result in zip(rows, results, strict=True)
        }
        for gains in found.values():
            if not all(map(math.isfinite, gains)):
                what = "the model's probabilities are not numbers"
                raise ModelError("MODEL-NAN", "the model", what, AGAIN)
        return [found[row] for row in range(len(pairs))]


def _ended(found: Hypothesis) -> Hypothesis:
    if found.tokens[-1:] == [END]:
        return found
    rows = found.alignment
    # END was not searched for: it is aligned with what the token before it is.
    return Hypothesis([*found.tokens, END], found.score, (), rows and [*rows, rows[-1]])


def _ranked(found: Sequence[Hypothesis], penalty: float) -> list[Hypothesis]:
    """The best first, by the scores that their tokens give them."""
    scored = [
        Hypothesis(
            one.tokens,
            math.fsum(one.log_probabilities) / len(one.tokens) ** penalty,
            one.log_probabilities,
            one.alignment,
        )
        for one in found
    ]
    return sorted(scored, key=lambda one: -one.score)
