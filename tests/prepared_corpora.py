"""Small corpora, with and without what must be dropped."""

from mt.config import recipe, validation, yaml_reader
from mt.data.prepare import prepare

SIZE = 366

NOUNS = ["house", "tree", "river", "street", "child", "window", "letter", "garden", "doctor"]

VERBS = ["sees", "finds", "keeps", "paints", "follows", "forgets", "answers", "remembers"]

GOOD = [
    (f"The {a} {v} the {b}.", f"Das {a} {v}t {b} süß {n}.")
    for n, (a, v, b) in enumerate((a, v, b) for a in NOUNS for v in VERBS for b in NOUNS)
]

HELD = [("The  mountain is high.", "Der Berg ist hoch."), ("A ﬁne day", "Ein Tag")]

BAD = {
    "empty": [("", "x"), ("x", "  "), ("\u200b", "x"), ("\ufeff\u00a0", "x"), ("x", "\u2028\x07")],
    "nul": [("a\0b", "c"), ("a", "\0c")],
    "overlap": [
        HELD[0],
        ("The mountain is  high.", "Der\u00a0Berg ist hoch. "),
        ("A fine day", "Ein Tag"),
    ],
    "too_long": [
        ("word " * 120, "kurz"),
        ("short", "wort " * 120),
        ("x" * 9000, "y"),
        ("x", "y" * 9000),
    ],
}


def write_pairs(folder, name, pairs):
    for side, lines in zip(("en", "de"), zip(*pairs, strict=True), strict=True):
        (folder / f"{name}.{side}").write_text("".join(f"{line}\n" for line in lines))


def text(name):
    return {"kind": "text", "source": f"{name}.en", "target": f"{name}.de"}


def recipe_of(folder, train=("train",), size=SIZE, **data):
    value = {
        "languages": {"source": "en", "target": "de"},
        "data": {
            "train": [text(name) for name in train], "valid": text("valid"),
            "test": {"test": text("test")}, "max_length": 90, "processes": 1, **data,
        },
        "vocabulary": {"size": size},
        "training": {"max_steps": 10_000},
    }  # fmt: skip
    return validation.validate(recipe.Recipe, yaml_reader.Document(value, folder=folder))


def quietly(made):
    return prepare(made, lambda line: None)


def told_by(made):
    lines = []
    return prepare(made, lines.append), lines


def cached(folder):
    return sorted(path.name for path in (folder.parent / "cache" / "corpora").iterdir())


PREPARE = """
import os, select, sys
from pathlib import Path
from mt.config import recipe
from mt.runtime import console
from mt.errors import MtError, Stopped
from mt.data.prepare import prepare
def tell(line):
    console.print_line(line)
    while line.startswith(os.environ.get("MT_WAITS_AT") or "never"):
        select.select([], [], [], 0.1)  # until a signal comes
try:
    print(prepare(recipe.load(Path(sys.argv[1]))[0], tell).train.digest)
except (MtError, Stopped) as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
