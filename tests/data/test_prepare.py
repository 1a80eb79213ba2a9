"""Sources to an encoded corpus: nothing lost, nothing half-made, nothing built twice."""

import concurrent.futures
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import faults
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.config import recipe, validation, yaml_reader
from mt.data.encode import REASONS, encode, is_blank
from mt.data.prepare import prepare
from mt.errors import ConfigError, DataError, Stopped
from mt.runtime import files
from mt.special_tokens import END

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


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the data are; the cache is beside them."""
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    data.mkdir()
    write_pairs(data, "train", GOOD)
    write_pairs(data, "valid", [("The house is high.", "Das house ist hoch."), HELD[0]])
    write_pairs(data, "test", [HELD[1]])
    return data


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


# ---------------------------------------------------------------------------- what comes out


def test_what_is_prepared_is_what_was_read(folder):
    prepared = quietly(recipe_of(folder))
    known = prepared.vocabulary
    assert len(prepared.train) == len(GOOD)
    for row in range(0, len(GOOD), 37):
        source, target = prepared.train.source(row).tolist(), prepared.train.target(row).tolist()
        assert source == [*known.encode_source([GOOD[row][0]])[0], END]
        assert target == [*known.encode_target([GOOD[row][1]])[0], END]
        assert known.decode_target([target]) == [GOOD[row][1]]
    assert [(p.source, p.target) for p in prepared.valid_pairs] == [
        ("The house is high.", "Das house ist hoch."), HELD[0],
    ]  # fmt: skip
    assert prepared.valid_pairs[1].origin == f"{folder}/valid.en:2"
    assert known.decode_target([prepared.valid.target(1)]) == [HELD[0][1]]


@pytest.mark.parametrize("reason", REASONS)
def test_what_cannot_be_used_is_dropped_and_counted(folder, reason):
    write_pairs(folder, "bad", [*GOOD[:2], *BAD[reason], *GOOD[2:4]])
    prepared, lines = told_by(recipe_of(folder, train=("train", "bad"), size=380))
    corpus = prepared.report["corpora"]["train.1"]
    assert corpus["pairs"] == 4 + len(BAD[reason])
    assert corpus["dropped"] == dict.fromkeys(REASONS, 0) | {reason: len(BAD[reason])}
    assert len(prepared.train) == len(GOOD) + corpus["kept"] == len(GOOD) + 4
    last = prepared.train.target(len(prepared.train) - 1)
    assert prepared.vocabulary.decode_target([last]) == [GOOD[3][1]]
    head, row = (
        next(line.split() for line in lines if line.startswith(w)) for w in ("corpus", "train.1")
    )
    assert int(row[head.index(reason)]) == len(BAD[reason])


ODD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\u2581"), max_size=9)


@given(st.lists(st.tuples(ODD, ODD), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_pairs_in_are_pairs_kept_and_pairs_dropped(pairs):
    known = KNOWN[0]
    sources, targets = zip(*pairs, strict=True)
    encoded = encode(sources, targets, known, 12, {"x": {"x"}})
    kept = [pair for pair, reason in zip(pairs, encoded.reasons, strict=True) if reason is None]
    assert len(kept) == len(encoded.source) == len(encoded.target)
    assert known.decode_target(encoded.target) == [target for _, target in kept]
    assert {reason for reason in encoded.reasons if reason} <= set(REASONS)
    for (source, target), reason in zip(pairs, encoded.reasons, strict=True):
        assert (reason == "empty") == (is_blank(source) or is_blank(target))


KNOWN = []


@pytest.fixture(autouse=True, scope="module")
def _known():
    from mt.config import schema
    from mt.config.schema import Languages
    from mt.vocabulary import learn

    languages = Languages(source="en", target="de")
    lines = [[pair[side] for pair in GOOD] for side in (0, 1)]
    KNOWN.append(learn.learn_vocabulary(schema.VocabularyConfig(size=SIZE), languages, *lines))


def test_blank_is_what_nobody_sees():
    for blank in ("", " ", "\u200b", "\ufeff", "\u00a0\u3000", "\u2028", "\x07\0", "\u202e"):
        assert is_blank(blank)
    for seen in (".", " x", "\u0301", "\ue000", "。"):
        assert unicodedata.category(seen[-1])
        assert not is_blank(seen)


def test_a_very_long_line_takes_no_time(folder):
    write_pairs(folder, "long", [("x" * 5_000_000, "y"), ("a " * 1_000_000, "b"), GOOD[0]])
    prepared = quietly(recipe_of(folder, train=("train", "long")))
    assert prepared.report["corpora"]["train.1"]["dropped"]["too_long"] == 2


def test_several_processes_give_what_one_gives(folder):
    generator = random.Random(1)
    many = [generator.choice([*GOOD, *itertools.chain(*BAD.values())]) for _ in range(6_500)]
    write_pairs(folder, "many", many)
    one = quietly(recipe_of(folder, train=("many",), size=380, processes=1))
    shutil.rmtree(folder.parent / "cache")
    three = quietly(recipe_of(folder, train=("many",), size=380, processes=3))
    assert three.train.digest == one.train.digest
    assert three.folder == one.folder
    assert three.report["corpora"] == one.report["corpora"]
    assert sum(one.report["corpora"]["train.0"]["dropped"].values()) > 100


def test_the_report_says_what_went_in(folder):
    prepared = quietly(recipe_of(folder))
    report = json.loads((prepared.folder / "report.json").read_text())
    assert report == prepared.report
    assert report["corpora"]["train.0"]["files"]["source"] == {
        "path": f"{folder}/train.en", "sha256": files.sha256(folder / "train.en"),
    }  # fmt: skip
    assert report["tokens"]["train"]["target"] == prepared.train.target_lengths.sum()
    assert report["vocabulary"]["digest"] == prepared.vocabulary.digest


# ------------------------------------------------------------------------------- the cache


def test_preparing_again_reads_the_cache(folder):
    first = quietly(recipe_of(folder))
    stamp = (first.folder / "report.json").stat().st_mtime_ns
    second, lines = told_by(recipe_of(folder))
    assert second.train.digest == first.train.digest
    assert (first.folder / "report.json").stat().st_mtime_ns == stamp
    assert len(lines) == 1
    assert "from the cache" in lines[0]
    names = {path.name for path in first.folder.iterdir()}
    assert not [name for name in names if name.startswith(".") or name == "work"]


def test_the_cache_goes_by_content_not_by_name(folder):
    first = quietly(recipe_of(folder))
    other = folder.parent / "moved"
    shutil.copytree(folder, other)
    assert quietly(recipe_of(other)).folder == first.folder
    assert quietly(recipe_of(folder, processes=2)).folder == first.folder
    assert quietly(recipe_of(folder, max_length=89)).folder != first.folder
    write_pairs(folder, "train", GOOD[1:])
    assert quietly(recipe_of(folder)).folder != first.folder


@pytest.mark.parametrize(
    "name",
    ["train.source.tokens", "valid.target.offsets", "train.json", "vocabulary.model",
     "vocabulary.json", "report.json", "valid.pairs.jsonl"],
)  # fmt: skip
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_cache_is_built_again_after_one_warning(folder, name, damage):
    first = quietly(recipe_of(folder))
    path = first.folder / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-40])
    again, lines = told_by(recipe_of(folder))
    assert [line for line in lines if line.startswith("warning:")] == lines[:1]
    assert again.train.digest == first.train.digest
    assert again.valid_pairs == first.valid_pairs
    assert len(told_by(recipe_of(folder))[1]) == 1


def test_what_a_killed_process_left_is_swept(folder):
    first = quietly(recipe_of(folder))
    corpora = first.folder.parent
    for name in (f".tmp-{first.folder.name}-999999", ".tmp-0123456789abcdef-99", ".trash-ab-1"):
        (corpora / name / "work").mkdir(parents=True)
    held = ".tmp-fedcba9876543210-7"
    (corpora / held).mkdir()
    with files.lock(corpora / "fedcba9876543210.lock"):
        quietly(recipe_of(folder))
        assert [name for name in cached(folder) if name.startswith(".")] == [held]


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


def start(folder, fault="", waits_at=""):
    made = recipe_of(folder).model_dump(mode="json", include={"languages", "data", "vocabulary"})
    made["training"] = {"max_steps": 10_000}
    (folder / "recipe.yaml").write_text(json.dumps(made))
    environment = faults.environment(fault, str(Path(__file__).parents[2]))
    environment["MT_WAITS_AT"] = waits_at
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(folder / "recipe.yaml")], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process):
    out, told = process.communicate(timeout=300)
    return process.returncode, out.strip(), told


def test_many_at_once_build_once(folder):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: ended(start(folder)), range(4)))
    assert {code for code, _, _ in done} == {0}
    assert len({digest for _, digest, _ in done}) == 1
    assert sum("learning a vocabulary" in told for _, _, told in done) == 1


@pytest.mark.parametrize(("fault", "code"), [
    ("rename:1:kill", -signal.SIGKILL), ("fsync:3:kill", -signal.SIGKILL),
    ("create:2:enospc", 5), ("write:2:enospc", 5), ("rename:1:eio", 5),
])  # fmt: skip
def test_a_failure_leaves_nothing_under_a_final_name(folder, fault, code):
    found, _, told = ended(start(folder, fault))
    assert found == code, told
    assert not [name for name in cached(folder) if len(name) == 16]
    assert "Traceback" not in told
    if code > 0:
        assert not [name for name in cached(folder) if name.startswith(".")]
    quietly(recipe_of(folder))
    assert [len(name) for name in cached(folder) if not name.endswith(".lock")] == [16]


@pytest.mark.parametrize(
    ("number", "phase"), [(signal.SIGINT, "reading"), (signal.SIGTERM, "encoding")]
)
def test_a_signal_ends_it_cleanly(folder, number, phase):
    write_pairs(folder, "train", GOOD * 300)
    process = start(folder, waits_at=phase)
    for line in process.stderr:
        if line.startswith(phase):
            process.send_signal(number)
            break
    code, _, told = ended(process)
    assert code == 128 + number, told
    left = [name for name in cached(folder) if not name.endswith(".lock")]
    # One that comes inside a destructor, where Python tells of it and drops it, is obeyed at the
    # end, when all is there: what counts is what is said last.
    last = told.rstrip().splitlines()[-1]
    assert ("nothing was kept" in last) == (left == []), told
    assert ("what was prepared is kept" in last) == ([len(name) for name in left] == [16]), told


def test_a_signal_within_raises_and_handlers_come_back(folder):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def stop(line):
        if line.startswith("encoding"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped) as error:
        prepare(recipe_of(folder), stop)
    assert error.value.exit_code == 143
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_is_not_swallowed_by_what_swallows_exceptions(folder):
    """As tqdm's monitor does, which `datasets` starts, on a slow machine."""

    def stop(line):
        if line.startswith("reading"):
            with contextlib.suppress(Exception):
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match="nothing was kept"):
        prepare(recipe_of(folder), stop)
    assert not [name for name in cached(folder) if not name.endswith(".lock")]


def test_a_signal_in_a_destructor_is_remembered(folder, monkeypatch):
    """Where Python drops every exception."""
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: None)

    class Falling:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(line):
        if line.startswith("reading"):
            Falling()

    with pytest.raises(Stopped, match="what was prepared is kept"):
        prepare(recipe_of(folder), stop)


# -------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("pairs", "expected"), [
    ([], "there are no pairs in it"),
    ([("", ""), (" ", "x")], "none of 2 pairs is left; 2 dropped as empty"),
    ([HELD[0], HELD[0], ("", "")], "none of 3 pairs is left; 2 dropped as overlap"),
    ([("x" * 5000, "y")], "none of 1 pairs is left; 1 dropped as too_long"),
])  # fmt: skip
def test_a_corpus_of_which_nothing_is_left_is_refused(folder, pairs, expected):
    for side in ("en", "de"):
        (folder / f"bad.{side}").write_text("")
    if pairs:
        write_pairs(folder, "bad", pairs)
    with pytest.raises(DataError) as error:
        quietly(recipe_of(folder, train=("train", "bad"), size=380))
    where = f"data.train.1 ({folder}/bad.en, {folder}/bad.de)"
    assert str(error.value).splitlines()[0] == f"mt: error[DATA-EMPTY] {where}: {expected}"
    assert not [name for name in cached(folder) if not name.endswith(".lock")]


def test_an_empty_validation_corpus_is_refused(folder):
    write_pairs(folder, "valid", [(" ", "x")])
    with pytest.raises(DataError, match=r"data\.valid .* none of 1 pairs is left"):
        quietly(recipe_of(folder))


def test_errors_of_sources_come_through_as_they_are(folder):
    (folder / "train.en").write_text("one\n")
    with pytest.raises(DataError) as error:
        quietly(recipe_of(folder))
    assert error.value.code == "DATA-LINES"
    (folder / "train.en").write_bytes(b"\xff\n" * len(GOOD))
    with pytest.raises(DataError) as error:
        quietly(recipe_of(folder))
    assert error.value.code == "DATA-UTF8"
    (folder / "train.en").unlink()
    with pytest.raises(DataError) as error:
        quietly(recipe_of(folder))
    assert error.value.code == "DATA-FILE"


def test_a_file_that_changes_meanwhile_is_told(folder):
    def change(line):
        if line.startswith("encoding"):
            write_pairs(folder, "train", GOOD[1:])

    with pytest.raises(DataError) as error:
        prepare(recipe_of(folder), change)
    assert error.value.code == "DATA-CHANGED"


def test_a_vocabulary_that_cannot_be_is_told(folder):
    made = recipe_of(folder)
    large = made.vocabulary.model_copy(update={"size": 30_000})
    with pytest.raises(ConfigError, match="largest possible is"):
        quietly(made.model_copy(update={"vocabulary": large}))
    known = quietly(made).folder
    reused = large.model_copy(update={"path": str(known)})
    again = quietly(made.model_copy(update={"vocabulary": reused}))
    assert again.vocabulary.size == SIZE
    assert again.folder != known


def test_a_prepared_corpus_is_opened_without_datasets(folder):
    first = quietly(recipe_of(folder))
    blocked = "import sys; sys.modules['datasets'] = None\n" + PREPARE
    made = recipe_of(folder).model_dump(mode="json", include={"languages", "data", "vocabulary"})
    (folder / "recipe.yaml").write_text(json.dumps({**made, "training": {"max_steps": 10_000}}))
    done = subprocess.run(
        [sys.executable, "-c", blocked, str(folder / "recipe.yaml")], capture_output=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == first.train.digest, done.stderr


# ------------------------------------------------------------------------------- real text


@pytest.mark.shared_data
def test_all_of_multi30k_is_kept_and_its_text_comes_back(folder, shared_data):
    """29,000 captions, none lost; what was encoded decodes to what was read."""
    data = shared_data / "multi30k"
    train, valid = (
        {"kind": "text", "source": f"{name}.en.gz", "target": f"{name}.de.gz"}
        for name in ("train", "val")
    )
    value = {
        "languages": {"source": "en", "target": "de"},
        "data": {"train": [train], "valid": valid, "processes": 1},
        "vocabulary": {"size": 8000},
        "training": {"max_steps": 10_000},
    }
    prepared = quietly(validation.validate(recipe.Recipe, yaml_reader.Document(value, folder=data)))
    corpus = prepared.report["corpora"]["train.0"]
    assert (corpus["pairs"], corpus["kept"]) == (29_000, 29_000)
    assert len(prepared.train) == 29_000
    texts = list(files.read_lines(data / "val.de.gz"))
    assert len(texts) == len(prepared.valid) == 1_014
    known = prepared.vocabulary
    assert [known.decode_target([prepared.valid.target(row)])[0] for row in range(1_014)] == texts
