"""What the rules of data cleaning find of dirt that was planted, and what they cost.

Writes pairs of the `demo` source, English and German, with dirt of some thirty kinds among them,
each line of which is known; cleans them by `mt data clean`; and compares what was dropped, by line
and rule. Then the same with the default rules alone and with language identification alone, and,
given files of sound pairs, how many of those the default rules drop. Prints Markdown.

    python scripts/bench/cleaning.py                                  # 1,000,000 pairs
    python scripts/bench/cleaning.py --pairs 20000 --each 20
    python scripts/bench/cleaning.py --sound a.en a.de --sound b.en.gz b.de.gz --most 100000
"""

from __future__ import annotations

import argparse
import json
import string
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from random import Random
from typing import NamedTuple

import harness

Texts = tuple[str, str]
SIDES = ("en", "de")
EVERYTHING = [
    {"kind": "duplicates", "form": "exact", "name": "duplicates_exact"},
    "default", {"kind": "mojibake"}, {"kind": "language"},
    {"kind": "duplicates", "sides": "target", "name": "duplicates_target"},
    {"kind": "alignment"},
]  # fmt: skip
FRENCH = (
    ["Le vieux médecin", "La petite fille", "Notre voisin", "Un jeune soldat", "Ma grand-mère"],
    ["regarde", "cherche", "achète", "répare", "dessine", "oublie", "nettoie", "transporte"],
    ["la fenêtre", "les chaussures", "une bicyclette", "le jardin", "cette lettre", "son manteau"],
    ["depuis hier matin", "avec beaucoup de patience", "pendant les vacances", "sans rien dire"],
    ["parce qu'il pleut", "quand le soleil se couche", "avant le déjeuner", "près de la rivière"],
)
RUSSIAN = (
    ["Старый врач", "Маленькая девочка", "Наш сосед", "Молодой солдат", "Моя бабушка"],
    ["смотрит на", "ищет", "покупает", "чинит", "рисует", "забывает", "моет", "переносит"],
    ["окно", "ботинки", "велосипед", "сад", "это письмо", "пальто"],
    ["со вчерашнего утра", "очень терпеливо", "во время каникул", "молча"],
    ["потому что идёт дождь", "на закате", "перед обедом", "у реки"],
)


class Kind(NamedTuple):
    """A kind of dirt."""

    rule: str
    """The rule that should find it."""
    make: Callable[[Maker, Texts], Texts]
    """Makes it of a sound pair."""


class Maker:
    """What the kinds of dirt are made of."""

    def __init__(self, fresh: Iterator[Texts], held_out: Sequence[Iterator[Texts]]) -> None:
        self.draw = Random(1)
        self.fresh = fresh
        """Sound pairs that are not written."""
        self.valid, self.test = held_out
        self.earlier: list[Texts] = []
        """Sound pairs that were written before."""
        self.french, self.russian = iter(phrases(FRENCH)), iter(phrases(RUSSIAN))

    def before(self) -> Texts:
        """Return a pair that was written before, each at most once."""
        place = self.draw.randrange(len(self.earlier))
        self.earlier[place], pair = self.earlier[-1], self.earlier[place]
        self.earlier.pop()
        return pair

    def number(self) -> int:
        return self.draw.randrange(1000, 9999) * 10 + self.draw.randrange(1, 9)

    def letters(self, count: int) -> str:
        return "".join(self.draw.choices(string.ascii_letters, k=count))


def phrases(parts: tuple[list[str], ...]) -> list[str]:
    found = [" ".join(each) + "." for each in product(*parts)]
    Random(1).shuffle(found)
    return found


def many(maker: Maker, count: int, side: int) -> str:
    """Return several sound sentences of earlier lines."""
    return " ".join(pair[side] for pair in maker.draw.choices(maker.earlier, k=count))


def add(source: Callable[[Maker], str], target: Callable[[Maker], str]) -> Callable[..., Texts]:
    """Add something to the end of both sides."""
    return lambda m, p: (f"{p[0]} {source(m)}".rstrip(), f"{p[1]} {target(m)}".rstrip())


def same(form: str) -> Callable[..., Texts]:
    """Write both sides into a form: `{}` is the text."""
    return lambda m, p: (form.format(p[0]), form.format(p[1]))


def without(sign: str) -> Callable[..., Texts]:
    """Put a sign into the middle of the target."""
    return lambda m, p: (p[0], p[1].replace(" ", f" {sign}", 1))


def price(maker: Maker, pair: Texts) -> Texts:
    number = maker.number()
    return f"{pair[0]} It costs ${number}.", f"{pair[1]} Es kostet {number} €."


def repeat_target(maker: Maker, pair: Texts) -> Texts:
    source, target = maker.before()
    return f"{source} Indeed.", target


def each(pair: Texts, change: Callable[[str], str]) -> Texts:
    return change(pair[0]), change(pair[1])


def loop(maker: Maker, pair: Texts) -> Texts:
    return pair[0] + " and then and then" * 3, pair[1] + " und dann und dann" * 3


def table(maker: Maker, pair: Texts) -> Texts:
    line = " | ".join(str(maker.number()) for _ in range(5))
    return line, line


def numbers(maker: Maker, pair: Texts) -> Texts:
    number = maker.number()
    return f"{pair[0]} ({number})", f"{pair[1]} ({int(str(number)[::-1]) + 1})"


KINDS = {
    "empty source": Kind("empty", lambda m, p: ("", p[1])),
    "target of invisible characters": Kind("empty", lambda m, p: (p[0], "\u00a0\u200b")),
    "paragraph of 40 sentences": Kind("length", lambda m, p: (many(m, 40, 0), many(m, 40, 1))),
    "target far too long": Kind("ratio", lambda m, p: (p[0], f"{p[1]} {many(m, 7, 1)}")),
    "words without spaces": Kind("long_words", lambda m, p: (p[0], f"{p[1]} {m.letters(60)}")),
    "table of numbers": Kind("alphabet", table),
    "Cyrillic target": Kind("script", lambda m, p: (p[0], next(m.russian))),
    "French target": Kind("language", lambda m, p: (p[0], next(m.french))),
    "sides exchanged": Kind("language", lambda m, p: (p[1], p[0])),
    "copy of the source": Kind("copies", lambda m, p: (p[0], p[0])),
    "copy in capitals": Kind("copies", lambda m, p: (p[0], p[0].upper())),
    "HTML tags": Kind("markup", same("<p>{}</p>")),
    "HTML characters": Kind("markup", same("{}&nbsp;")),
    "wiki links": Kind("markup", same("[[{}]]")),
    "wiki headings": Kind("markup", same("== {} ==")),
    "footnotes": Kind("markup", same("{}[12]")),
    "placeholder lost": Kind("placeholders", add(lambda m: "{0}", lambda m: "")),
    "other format": Kind("placeholders", add(lambda m: "%s", lambda m: "%d")),
    "other address": Kind("urls", add(
        lambda m: f"https://{m.letters(8)}.org", lambda m: f"https://{m.letters(8)}.org")),
    "e-mail lost": Kind("urls", add(lambda m: f"{m.letters(8)}@example.org", lambda m: "")),
    "other number": Kind("numbers", numbers),
    "other currency": Kind("currency", price),
    "sentences cut to pieces": Kind(
        "punctuation", lambda m, p: (f"{p[0]} {many(m, 1, 0)}", many(m, 2, 1).replace(" ", ". "))),
    "loop of a model": Kind("repetition", loop),
    "control character": Kind("control_characters", without("\x08")),
    "replacement character": Kind("control_characters", without("\ufffd")),
    "private use": Kind("control_characters", without("\ue012")),
    "mojibake": Kind("mojibake", lambda m, p: (
        p[0], f"{p[1]} Für schöne Straßen.".encode().decode("cp1252", "replace"))),
    "validation pair": Kind("overlap", lambda m, p: next(m.valid)),
    "test pair in capitals": Kind("overlap", lambda m, p: each(next(m.test), str.upper)),
    "repeated pair": Kind("duplicates_exact", lambda m, p: m.before()),
    "repeated pair, other case": Kind(
        "duplicates", lambda m, p: each(m.before(), lambda text: f"“{text.lower()}”")),
    "repeated target": Kind("duplicates_target", repeat_target),
    "translation of another line": Kind("alignment", lambda m, p: (p[0], next(m.fresh)[1])),
}  # fmt: skip


# ------------------------------------------------------------------------------ the corpus


def sound_pairs(split: str, size: int) -> Iterator[Texts]:
    """Yield pairs of the demo source, no two of which have the same target."""
    from mt.config.plugins import plugin
    from mt.config.schema import Languages
    from mt.data.duplicates import hash_texts, normal_form

    source = plugin("sources", "demo")
    languages = Languages(source=SIDES[0], target=SIDES[1])
    seen: set[int] = set()
    for pair in source.read(source.Config(split=split, size=size, languages=languages)):
        key = int(hash_texts([normal_form(pair.target)])[0])
        if key not in seen:
            seen.add(key)
            yield pair.source, pair.target


def write_pairs(folder: Path, name: str, pairs: Iterator[Texts]) -> None:
    with (
        open(folder / f"{name}.{SIDES[0]}", "w", encoding="utf-8", newline="\n") as a,
        open(folder / f"{name}.{SIDES[1]}", "w", encoding="utf-8", newline="\n") as b,
    ):
        for source, target in pairs:
            a.write(f"{source}\n")
            b.write(f"{target}\n")


def plant(folder: Path, pairs: int, each_kind: int) -> dict[int, str]:
    """Write a corpus with dirt; return the kind of each dirty line, counted from 1."""
    held_out = [list(sound_pairs(split, each_kind)) for split in ("valid", "test")]
    for name, texts in zip(("valid", "test"), held_out, strict=True):
        write_pairs(folder, name, iter(texts))
    sound = sound_pairs("train", 10 * pairs)
    maker = Maker(sound, [iter(texts) for texts in held_out])
    kinds = [kind for kind in KINDS for _ in range(each_kind)]
    places = maker.draw.sample(range(pairs // 5, pairs + 1), len(kinds))
    planted = dict(zip(places, kinds, strict=True))

    def lines() -> Iterator[Texts]:
        for number in range(1, pairs + 1):
            pair = next(sound)
            if number in planted:
                pair = KINDS[planted[number]].make(maker, pair)
            elif len(maker.earlier) < 10 * each_kind + 1000:
                maker.earlier.append(pair)
            yield pair

    write_pairs(folder, "train", lines())
    return planted


# -------------------------------------------------------------------------------- cleaning


class Cleaned(NamedTuple):
    """What a cleaning dropped, and what it cost."""

    dropped: dict[tuple[str, int], str]
    """The rule that dropped a line of a source file."""
    seconds: float
    peak: float


def clean(folder: Path, train: list[tuple[str, str]], rules: object, processes: int) -> Cleaned:
    """Clean corpora by the command."""

    def text(names: Sequence[object]) -> dict[str, str]:
        return {"kind": "text", "source": str(names[0]), "target": str(names[1])}

    held_out = [[folder / f"{name}.{side}" for side in SIDES] for name in ("valid", "test")]
    recipe = {
        "languages": dict(zip(("source", "target"), SIDES, strict=True)),
        "data": {
            "train": [text(each) for each in train], "valid": text(held_out[0]),
            "test": {"test": text(held_out[1])}, "clean": rules, "processes": processes,
        },
        "training": {"max_steps": 10_000},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder) as out:
        path, dropped = Path(out) / "recipe.yaml", Path(out) / "dropped.tsv"
        path.write_text(json.dumps(recipe), encoding="utf-8")
        command = [*harness.MT, "data", "clean", path, "--to", Path(out) / "clean"]
        command += ["--keep-dropped", dropped]
        done = harness.run(command, measure=harness.proportional, every=0.2)
        for line in done.lines:
            harness.say(line.text)
        found = {}
        with open(dropped, encoding="utf-8", newline="\n") as stream:
            for line in islice(stream, 1, None):
                origin, rule = line.split("\t")[:2]
                file, _, number = origin.rpartition(":")
                found[file, int(number)] = rule
    return Cleaned(found, done.seconds, done.peak)


def report_planted(planted: dict[int, str], dropped: dict[int, str]) -> int:
    """Print what was found of each kind; return the number of lines that were not."""
    rows, missed = [], 0
    for name, kind in KINDS.items():
        rules = Counter(dropped.get(line) for line in planted if planted[line] == name)
        own, total = rules[kind.rule], rules.total()
        others = ", ".join(
            f"{rule or 'kept'} {n}" for rule, n in rules.items() if rule != kind.rule
        )
        rows.append((name, kind.rule, total, own, others))
        missed += total - own
    print(harness.table("kind of dirt | rule | planted | found by it | otherwise", rows) + "\n")
    wrong = Counter(rule for line, rule in dropped.items() if line not in planted)
    shown = ", ".join(f"{rule} {count}" for rule, count in wrong.most_common()) or "none"
    print(f"- sound pairs dropped: {wrong.total():,} ({shown})")
    return missed


def measure_planted(folder: Path, given: argparse.Namespace) -> bool:
    harness.say(
        f"writing {given.pairs:,} pairs, {given.each} of each of {len(KINDS)} kinds of dirt"
    )
    planted = plant(folder, given.pairs, given.each)
    train = [tuple(str(folder / f"train.{side}") for side in SIDES)]
    sets = {"every rule": EVERYTHING, "the default rules": "default",
            "`language` alone": [{"kind": "language"}]}  # fmt: skip
    costs, missed = [], 0
    for name, rules in sets.items():
        harness.say(f"cleaning by {name}")
        done = clean(folder, train, rules, given.processes)
        costs.append((name, f"{done.seconds:.1f}", f"{done.peak:.0f}"))
        if rules is EVERYTHING:
            print(f"{given.pairs:,} pairs, {given.processes} processes\n")
            missed = report_planted(planted, {n: rule for (_, n), rule in done.dropped.items()})
            print(f"- planted lines not found by their rule: {missed:,}\n")
    print(harness.table("rules | seconds | peak memory, MB", costs, right=True) + "\n")
    return not missed


def measure_sound(folder: Path, given: argparse.Namespace) -> bool:
    """Print which share of sound pairs the default rules drop; return whether it is small."""
    from mt.runtime import text_files

    held_out = list(islice(sound_pairs("valid", 100), 100))
    for name in ("valid", "test"):
        write_pairs(folder, name, iter(held_out))
    train, left = [], given.most
    for number, paths in enumerate(given.sound):
        sides = (text_files.read_lines(Path(path)) for path in paths)
        pairs = list(islice(zip(*sides, strict=True), left))
        left -= len(pairs)
        write_pairs(folder, f"sound{number}", iter(pairs))
        train.append(tuple(str(folder / f"sound{number}.{side}") for side in SIDES))
    done = clean(folder, train, "default", given.processes)
    counts, pairs = Counter(done.dropped.values()), given.most - left
    print(harness.table("rule | sound pairs dropped", counts.most_common(), right=True) + "\n")
    judged = sum(number for rule, number in counts.items() if rule != "duplicates")
    share = judged / pairs
    print(f"- {judged:,} of {pairs:,} sound pairs dropped: {share:.3%}, at most 0.1 %; besides "
          f"{counts['duplicates']:,} that repeat an earlier one")  # fmt: skip
    return share <= 0.001


def main() -> int:
    parser = harness.make_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--each", type=int, default=1000, help="lines of each kind of dirt")
    parser.add_argument("--processes", type=int, default=harness.count_cores())
    parser.add_argument("--sound", nargs=2, action="append", default=[], metavar=("EN", "DE"))
    parser.add_argument("--most", type=int, default=100_000, help="sound pairs")
    parser.add_argument("--no-planted", action="store_true", help="measure the sound pairs alone")
    given = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        if not given.no_planted:
            good &= measure_planted(Path(folder), given)
        if given.sound:
            good &= measure_sound(Path(folder), given)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
