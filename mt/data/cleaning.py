"""Rules that drop bad pairs from training corpora; each is a plug-in in `filters/`.

Most rules judge a pair by itself, in worker processes. Those that compare pairs with each other,
such as `duplicates`, see in order what the others keep, in one process. So what is dropped does
not depend on the number of processes, and memory grows with what a rule remembers alone. A rule
that does not know a language says so once, and drops nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from mt.config.plugins import plugin
from mt.config.schema import DataConfig, FilterConfig, Languages
from mt.data.pairs import read_pairs
from mt.data.process_pool import map_in_order
from mt.data.text import is_blank
from mt.runtime.console import print_line

Value = float | str
"""What fails a rule: a measure or a piece of the text."""
Sides = tuple[list[str | None], list[str | None]]
"""Source and target lines of a chunk of pairs."""
Texts = Sequence[str]
Judge = Callable[[str], Value | None]
"""What a text has that fails a rule, or None."""
EMPTY = "empty"
"""Why a pair with a blank side is dropped; no rule gets it."""
SAMPLE = 100_000
"""Pairs that a rule learns from."""
_FEW_CHUNKS = 5
"""With fewer chunks of pairs than this, no processes are started."""
Extra = TypeVar("Extra")
Line = str | None


class Finding(NamedTuple):
    """Why a pair is dropped."""

    rule: str
    value: Value


class Context(NamedTuple):
    """What a filter may need to know."""

    source_language: str
    target_language: str
    note: Callable[[str], None]
    """Say once what the rule cannot judge: `note("does not know xx")`."""
    held_out: Sequence[tuple[str, str]] = ()
    """The validation and test pairs."""

    @property
    def languages(self) -> tuple[str, str]:
        """Both languages."""
        return self.source_language, self.target_language


class Filter(Protocol):
    """What `build(config, context)` of a plug-in returns.

    It may also have `learn(pairs)`, which is called once with a sample of the pairs before
    anything is checked, and `finish()`, which is called after the last pair.
    """

    def check(self, sources: Texts, targets: Texts) -> Sequence[Value | None]:
        """Return for each pair the value that fails the rule, or None. No side is blank."""


@dataclass(frozen=True)
class EachSide:
    """A filter that judges each side by itself; None: this side always passes."""

    source: Judge | None
    target: Judge | None

    def check(self, sources: Texts, targets: Texts) -> list[Value | None]:
        """Return the value of the source that fails, else that of the target."""
        values: list[Value | None] = [None] * len(sources)
        if self.source is not None:
            values = [*map(self.source, sources)]
        if self.target is None:
            return values
        others = map(self.target, targets)
        return [b if a is None else a for a, b in zip(values, others, strict=True)]


@dataclass(frozen=True)
class EachPair:
    """A filter that judges each pair by itself."""

    judge: Callable[[str, str], Value | None]

    def check(self, sources: Texts, targets: Texts) -> list[Value | None]:
        """Return the value of each pair."""
        return [*map(self.judge, sources, targets)]


class _Rule(NamedTuple):
    config: FilterConfig
    filter: Filter

    @property
    def label(self) -> str:
        return self.config.label


class Cleaner:
    """The rules for the pairs of one direction, or for the text of one language (`side`)."""

    def __init__(
        self, rules: Sequence[FilterConfig], languages: Languages,
        held_out: Sequence[tuple[str, str]] = (),
        side: Literal["source", "target"] | None = None,
        log: Callable[[str], None] = print_line,
    ) -> None:  # fmt: skip
        codes = (languages.source, languages.target)
        self.side = side
        if side is not None:  # the text stands for both sides
            codes = (codes[side == "target"],) * 2
        self.rules = []
        for config in rules:
            if side is not None and config.compares_sides:
                continue
            note = partial(_note, log, config.label, set())
            context = Context(*codes, note, held_out)
            self.rules.append(_Rule(config, plugin("filters", config.kind).build(config, context)))

    @property
    def learns(self) -> bool:
        """Whether a rule learns from a sample of the pairs first."""
        return any(rule.config.learns for rule in self.rules)

    def learn(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Let the rules that learn do so."""
        for rule in self.rules:
            if rule.config.learns:
                learner: Any = rule.filter
                learner.learn(pairs)

    def finish(self) -> None:
        """Let the rules see that there are no more pairs."""
        for rule in self.rules:
            getattr(rule.filter, "finish", lambda: None)()

    def check(
        self, sources: Sequence[str | None], targets: Sequence[str | None]
    ) -> list[Finding | None]:
        """Return for each pair of a chunk the first rule that drops it, or None.

        Chunks must come in order where a rule compares pairs with each other.
        """
        return self.compare(self.judge(sources, targets), sources, targets)

    def judge(
        self, sources: Sequence[str | None], targets: Sequence[str | None]
    ) -> list[Finding | None]:
        """Do the part of `check` that looks at each pair by itself, in any process."""
        a, b = self._texts(sources, targets)
        findings = [
            Finding(EMPTY, "") if is_blank(x) or is_blank(y) else None
            for x, y in zip(a, b, strict=True)
        ]
        return self._apply("any", findings, a, b)

    def compare(
        self, findings: list[Finding | None], sources: Sequence[str | None],
        targets: Sequence[str | None],
    ) -> list[Finding | None]:  # fmt: skip
        """Do the rest of `check`, after `judge`: in one process, in order."""
        a, b = self._texts(sources, targets)
        for rule in self.rules:
            if rule.config.order == "all":
                values = rule.filter.check(a, b)
                findings = [
                    Finding(rule.label, value) if found is None and value is not None else found
                    for found, value in zip(findings, values, strict=True)
                ]
        return self._apply("kept", findings, a, b)

    def check_all(
        self, sources: Sequence[str | None], targets: Sequence[str | None]
    ) -> list[list[Finding]]:
        """Return for each pair what every rule finds, whether another drops it or not."""
        a, b = self._texts(sources, targets)
        found: list[list[Finding]] = [[] for _ in a]
        blank = [is_blank(x) or is_blank(y) for x, y in zip(a, b, strict=True)]
        for row in (row for row, is_empty in enumerate(blank) if is_empty):
            found[row].append(Finding(EMPTY, ""))
        for rule in self.rules:
            rows = [row for row in range(len(a)) if rule.config.order == "all" or not blank[row]]
            values = rule.filter.check([a[row] for row in rows], [b[row] for row in rows])
            for row, value in zip(rows, values, strict=True):
                if value is not None:
                    found[row].append(Finding(rule.label, value))
        return found

    def _texts(
        self, sources: Sequence[str | None], targets: Sequence[str | None]
    ) -> tuple[list[str], list[str]]:
        """Return both sides as texts; text of one language stands for both."""
        if self.side is not None:
            sources = targets = sources if self.side == "source" else targets
        return [text or "" for text in sources], [text or "" for text in targets]

    def _apply(
        self, order: str, findings: list[Finding | None], sources: list[str], targets: list[str]
    ) -> list[Finding | None]:
        """Add what the rules of an order find in the pairs that are left."""
        findings = list(findings)
        rows = [row for row, found in enumerate(findings) if found is None]
        if len(rows) < len(findings):
            sources, targets = [sources[row] for row in rows], [targets[row] for row in rows]
        for rule in self.rules:
            if rule.config.order != order:
                continue
            values = rule.filter.check(sources, targets)
            kept = [i for i, value in enumerate(values) if value is None]
            if len(kept) == len(rows):
                continue
            for row, value in zip(rows, values, strict=True):
                if value is not None:
                    findings[row] = Finding(rule.label, value)
            rows = [rows[i] for i in kept]
            sources, targets = [sources[i] for i in kept], [targets[i] for i in kept]
        return findings


def _note(log: Callable[[str], None], label: str, seen: set[str], what: str) -> None:
    if what not in seen:
        seen.add(what)
        log(f"data.clean: the rule {label} {what}, and drops nothing there")


# --------------------------------------------------------------------------- whole corpora


def cleaners_for(
    data: DataConfig, held_out: Sequence[tuple[str, str]], log: Callable[[str], None]
) -> list[Cleaner]:
    """Return the cleaner of each training corpus; those of one direction share one.

    The rules that learn have learned.
    """
    found: dict[tuple[str, str, str | None], Cleaner] = {}
    cleaners = []
    for source in data.train:
        key = (source.direction.source, source.direction.target, source.side)
        if key not in found:
            found[key] = Cleaner(data.clean, source.direction, held_out, source.side, log)
        cleaners.append(found[key])
    for cleaner in found.values():
        if cleaner.learns:
            own = [s for s, c in zip(data.train, cleaners, strict=True) if c is cleaner]
            pairs = chain.from_iterable(read_pairs(source) for source in own)
            texts = ((pair.source or "", pair.target or "") for pair in pairs)
            cleaner.learn(spread_sample(texts, SAMPLE))
    return cleaners


def held_out_texts(data: DataConfig) -> list[tuple[str, str]]:
    """Return the validation and test pairs, where a rule needs them."""
    if not any(rule.needs_held_out for rule in data.clean):
        return []
    corpora = (data.valid, *data.more_valid, *data.test.values())
    pairs = chain.from_iterable(read_pairs(source) for source in corpora)
    return [(pair.source or "", pair.target or "") for pair in pairs]


def spread_sample(items: Iterable[Extra], most: int) -> list[Extra]:
    """Return at most `most` items, and at least half of it where there are, evenly spread."""
    sample: list[Extra] = []
    step = 1
    for number, item in enumerate(items):
        if number % step == 0:
            sample.append(item)
            if len(sample) > most:
                sample, step = sample[::2], 2 * step
    return sample


def clean_chunks(
    chunks: Iterable[tuple[int, Sides, Extra]], cleaners: Sequence[Cleaner], processes: int
) -> Iterator[tuple[int, Sides, Extra, list[Finding | None]]]:
    """Check chunks of training corpora, each with the number of its corpus, in order.

    Yields each chunk with the finding for each pair.

    Raises:
        MachineError: a worker process was killed.
    """
    chunks = iter(chunks)
    first = list(islice(chunks, _FEW_CHUNKS))
    processes = processes if len(first) == _FEW_CHUNKS else 1
    checked = map_in_order(
        partial(_judge, list(cleaners)), chain(first, chunks), processes, lambda chunk: chunk[:2]
    )
    for (number, sides, extra), findings in checked:
        yield number, sides, extra, cleaners[number].compare(findings, *sides)
    for cleaner in {id(each): each for each in cleaners}.values():
        cleaner.finish()


def drop_found(
    sides: tuple[list[Line], list[Line]], findings: Sequence[Finding | None]
) -> tuple[list[Line], list[Line]]:
    """Return the lines of the pairs without a finding."""
    source, target = (
        [line for line, found in zip(lines, findings, strict=True) if found is None]
        for lines in sides
    )
    return source, target


def _judge(cleaners: list[Cleaner], chunk: tuple[int, Sides]) -> list[Finding | None]:
    number, (sources, targets) = chunk
    return cleaners[number].judge(sources, targets)
