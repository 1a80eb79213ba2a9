"""Which corpora there are: those of OPUS, from a table in mt, and the test sets of sacreBLEU.

Nothing here needs the network. `scripts/opus_catalogue.py` makes the table of OPUS (Tiedemann 2012)
from the one in opustools; its first line says when. A corpus has a licence of its own.
"""

from __future__ import annotations

import functools
import lzma
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from mt.config.schema import Languages
from mt.data.languages import language_distance, split_pair
from mt.errors import ConfigError

TABLE = Path(__file__).parent / "sources" / "_opus" / "catalogue.tsv.xz"
OPUS, SACREBLEU = "opus", "sacrebleu"
LATEST = "latest"


class OpusCorpus(NamedTuple):
    """A corpus of OPUS in one pair of languages."""

    name: str
    version: str
    source: str
    """The first of its two language codes, which are in alphabetical order."""
    target: str
    pairs: int | None
    bytes: int | None
    """Of the archive."""
    url: str


class Listed(NamedTuple):
    """A line of a listing."""

    name: str
    version: str
    languages: str
    pairs: int | None
    bytes: int | None


def opus_url(name: str, version: str, source: str, target: str) -> str:
    """Return where OPUS has the archive of a corpus."""
    base = "https://object.pouta.csc.fi"
    return f"{base}/OPUS-{name}/{version}/moses/{source}-{target}.txt.zip"


@functools.cache
def opus_date() -> str:
    """Return what the first line of the table says about its origin."""
    with lzma.open(TABLE, "rt", encoding="utf-8") as stream:
        return stream.readline().removeprefix("#").strip()


@functools.cache
def opus_corpora() -> tuple[OpusCorpus, ...]:
    """Return the newest version of each corpus of OPUS in each pair of languages."""
    with lzma.open(TABLE, "rt", encoding="utf-8") as stream:
        rows = [line.rstrip("\n").split("\t") for line in stream if not line.startswith("#")]
    return tuple(_parse(*row) for row in rows)


def _parse(
    name: str, version: str, source: str, target: str, pairs: str, kilobytes: str, url: str = ""
) -> OpusCorpus:
    url = url or opus_url(name, version, source, target)
    count, size = (int(pairs) if pairs else None), (int(kilobytes) * 1000 if kilobytes else None)
    return OpusCorpus(name, version, source, target, count, size, url)


def find_opus(name: str, version: str, direction: Languages) -> OpusCorpus:
    """Return a corpus of OPUS in the languages of a direction.

    Of a version that is not in the table nobody knows the size.

    Raises:
        ConfigError: there is none of this name, or not in these languages; names the nearest.
    """
    corpora = [each for each in opus_corpora() if each.name.lower() == name.lower()]
    if not corpora:
        raise _unknown(OPUS, name, {each.name for each in opus_corpora()})
    ranked = [(_distance_either_way(direction, each.source, each.target), each) for each in corpora]
    fitting = [(rank, each) for rank, each in ranked if rank is not None]
    if not fitting:
        pairs = [f"{each.source}-{each.target}" for each in corpora]
        raise _other_languages(OPUS, corpora[0].name, direction, pairs)
    found = min(fitting, key=lambda ranked: (ranked[0], -(ranked[1].pairs or 0)))[1]
    if version in (LATEST, found.version):
        return found
    url = opus_url(found.name, version, found.source, found.target)
    return found._replace(version=version, pairs=None, bytes=None, url=url)


def _distance(direction: Languages, first: str, second: str) -> int | None:
    """Return how far two languages are from those of a direction."""
    source = language_distance(direction.source, first)
    target = language_distance(direction.target, second)
    return None if source is None or target is None else source + target


def _distance_either_way(direction: Languages, first: str, second: str) -> int | None:
    both = _distance(direction, first, second), _distance(direction, second, first)
    return min((each for each in both if each is not None), default=None)


# ------------------------------------------------------------------------------ sacreBLEU


def sacrebleu_sets() -> dict[str, Any]:
    """Return the test sets of sacreBLEU by name; each has URLs, hashes and pairs of languages."""
    from sacrebleu.dataset import DATASETS

    return dict(DATASETS)


def find_test_set(name: str, direction: Languages) -> tuple[Any, str]:
    """Return a test set of sacreBLEU, and its name for a direction, which is not turned round.

    Raises:
        ConfigError: there is none of this name, or not in this direction; names the nearest.
    """
    sets = sacrebleu_sets()
    if name not in sets:
        raise _unknown(SACREBLEU, name, sets)
    ranked = [(_distance(direction, *pair.split("-", 1)), pair) for pair in sets[name].langpairs]
    fitting = [(rank, pair) for rank, pair in ranked if rank is not None]
    if not fitting:
        raise _other_languages(SACREBLEU, name, direction, sets[name].langpairs)
    return sets[name], min(fitting)[1]


# -------------------------------------------------------------------------------- listing


def list_corpora(pair: str | None, word: str | None) -> list[Listed]:
    """List the corpora of a pair of languages such as `de-en`, the largest first.

    Without a pair each corpus has one line, with the number of its pairs of languages. `word`
    must be part of the name.

    Raises:
        ConfigError: `pair` is not two language codes, or there is nothing.
    """
    listed = list(_of_pair(parse_pair(pair)) if pair else _of_all())
    if word:
        listed = [each for each in listed if word.lower() in each.name.lower()]
    if not listed:
        names = {each.name for each in _of_all()}
        near = get_close_matches(word or "", [name.partition(":")[2] for name in names], n=3)
        what = f"no corpus is called like {word!r}" if word else f"no corpus has {pair}"
        advice = f"did you mean {' or '.join(near)}?" if near else "mt data list shows all corpora"
        raise ConfigError("DATA-NAME", pair or "--grep", what, advice)
    return sorted(listed, key=lambda each: (-(each.pairs or 0), each.name.lower()))


def parse_pair(pair: str) -> Languages:
    """Parse two language codes with a hyphen between them.

    Raises:
        ConfigError: they are not.
    """
    sides = split_pair(pair)
    if sides is None:
        what = f"{pair!r} is not two language codes with a hyphen between them"
        raise ConfigError("DATA-LANGUAGES", "the pair", what, "write de-en, or pt_BR-en")
    return Languages(source=sides[0], target=sides[1])


def _of_pair(direction: Languages) -> Iterator[Listed]:
    for corpus in opus_corpora():
        if _distance_either_way(direction, corpus.source, corpus.target) is not None:
            languages = f"{corpus.source} {corpus.target}"
            name = f"{OPUS}:{corpus.name}"
            yield Listed(name, corpus.version, languages, corpus.pairs, corpus.bytes)
    for name, each in sacrebleu_sets().items():
        for pair in each.langpairs:
            if _distance_either_way(direction, *pair.split("-", 1)) is not None:
                languages = pair.replace("-", " ", 1)
                yield Listed(f"{SACREBLEU}:{name}", "", languages, None, None)


def _of_all() -> Iterator[Listed]:
    groups: dict[str, list[OpusCorpus]] = {}
    for corpus in opus_corpora():
        groups.setdefault(corpus.name, []).append(corpus)
    for name, corpora in groups.items():
        version = max(each.version for each in corpora)
        pairs = sum(each.pairs or 0 for each in corpora)
        size = sum(each.bytes or 0 for each in corpora)
        yield Listed(f"{OPUS}:{name}", version, f"{len(corpora)} pairs", pairs, size)
    for name, each in sacrebleu_sets().items():
        yield Listed(f"{SACREBLEU}:{name}", "", f"{len(each.langpairs)} pairs", None, None)


# --------------------------------------------------------------------------------- errors


def _unknown(kind: str, name: str, names: Iterable[str]) -> ConfigError:
    by_lower = {each.lower(): each for each in names}
    near = [by_lower[each] for each in get_close_matches(name.lower(), by_lower, n=3)]
    what = f"no corpus of {kind} is called {name!r}"
    what += f" (did you mean {' or '.join(near)}?)" if near else ""
    return ConfigError("DATA-NAME", f"{kind}:{name}", what, "mt data list shows all corpora")


def _other_languages(
    kind: str, name: str, direction: Languages, pairs: Iterable[str]
) -> ConfigError:
    asked = direction.source, direction.target
    near = [
        pair for pair in pairs
        if any(language_distance(a, b) is not None for a in asked for b in pair.split("-", 1))
    ]  # fmt: skip
    shown = (near or list(pairs))[:20]
    what = f"it has no {asked[0]}-{asked[1]}; it has {', '.join(shown)}"
    return ConfigError("DATA-LANGUAGES", f"{kind}:{name}", what, "mt data list de-en shows others")
