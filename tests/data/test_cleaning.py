"""Cleaning: each pair is kept or has one reason, whatever the chunks and processes."""

import itertools
import pickle
import random
import shutil
import tarfile
from collections import Counter

import pytest
from prepared_corpora import GOOD, HELD, cached, quietly, recipe_of, told_by, write_pairs

from mt.config import schema
from mt.config.schema import DEFAULT_RULES, Languages
from mt.config.section import Section
from mt.data import cleaning
from mt.data.cleaning import Cleaner, Finding, clean_chunks, spread_sample
from mt.errors import ConfigError, DataError
from mt.runtime import text_files

ENGLISH_GERMAN = Languages(source="en", target="de")


class Rules(Section):
    """The rules of a recipe."""

    clean: schema.Rules


def rules(*kinds):
    each = [kind if isinstance(kind, dict) else {"kind": kind} for kind in kinds]
    return Rules(clean=each).clean


def split(pairs):
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


DIRT = {
    "copies": [("This is it here.", "This is it here.")],
    "length": [("word " * 160, "wort " * 160)],
    "markup": [("a <br> b", "c <br> d")],
    "numbers": [("In 1984.", "In 1948."), ("17 km to go", "noch 71 km")],
    "duplicates": [GOOD[0], (GOOD[1][0].upper(), GOOD[1][1])],
    "empty": [("", "x"), ("x", " "), (None, "x")],
}


# ------------------------------------------------------------------------------ a cleaner


def test_the_first_rule_that_finds_something_is_the_reason():
    cleaner = Cleaner(rules("numbers", "markup", "copies"), ENGLISH_GERMAN)
    pairs = [("<b> 17 this and that", "<b> 71"), ("<b> this that", "<b> this that"), GOOD[0]]
    assert cleaner.check(*split(pairs)) == [
        Finding("numbers", "17"),
        Finding("markup", "<b>"),
        None,
    ]


def test_a_report_has_the_findings_of_all_rules():
    cleaner = Cleaner(rules("numbers", "markup", "copies", "duplicates"), ENGLISH_GERMAN)
    pairs = [("<b> 17 this and that", "<b> 71"), ("<b> this that", "<b> this that"), ("", "")] * 2
    found = cleaner.check_all(*split(pairs))
    assert [[finding.rule for finding in each] for each in found] == [
        ["numbers", "markup"], ["markup", "copies"], ["empty"],
        ["numbers", "markup", "duplicates"], ["markup", "copies", "duplicates"], ["empty"],
    ]  # fmt: skip


def test_a_duplicate_of_a_dropped_pair_is_none():
    """The first that is sound is kept."""
    cleaner = Cleaner(rules("duplicates", "control_characters"), ENGLISH_GERMAN)
    pairs = [("A house.\x07", "Ein Haus."), ("A house.", "Ein Haus."), ("A house", "Ein Haus")]
    found = cleaner.check(*split(pairs))
    assert [finding and finding.rule for finding in found] == [
        "control_characters", None, "duplicates",
    ]  # fmt: skip


def test_blank_sides_are_no_matter_of_rules():
    cleaner = Cleaner(rules({"kind": "length", "fewest": 0}), ENGLISH_GERMAN)
    found = cleaner.check(["", "x", None, "\u200b"], ["x", "\u00a0", "x", "x"])
    assert [finding.rule for finding in found] == ["empty"] * 4


def test_text_of_one_language_is_judged_by_the_rules_of_a_side():
    made = rules("script", "copies", "ratio", "duplicates", "markup")
    cleaner = Cleaner(made, ENGLISH_GERMAN, side="target")
    texts = ["Ein gutes Haus.", "Это дом.", "a <br> b", "Ein gutes Haus!", ""]
    found = cleaner.check([None] * 5, texts)
    expected = [None, "script", "markup", "duplicates", "empty"]
    assert [finding and finding.rule for finding in found] == expected


def test_what_a_rule_does_not_know_is_said_once():
    lines = []
    cleaner = Cleaner(rules("script"), Languages(source="xx", target="xx"), log=lines.append)
    cleaner.check(*split(GOOD[:5]))
    cleaner.check(*split(GOOD[:5]))
    assert len(lines) == 1
    assert "script" in lines[0]
    assert "xx" in lines[0]


def test_a_cleaner_can_be_sent_to_another_process():
    made = Cleaner(Rules(clean=["default", {"kind": "language"}]).clean, ENGLISH_GERMAN, HELD)
    pairs = [*dirty(200), *HELD]
    again = pickle.loads(pickle.dumps(made))
    assert again.check(*split(pairs)) == made.check(*split(pairs))


@pytest.mark.shared_data
def test_of_sound_text_the_default_rules_drop_at_most_one_pair_in_a_thousand(shared_data):
    folder = shared_data / "multi30k"
    sides = [text_files.read_lines(folder / f"train.{code}.gz") for code in ("en", "de")]
    pairs = list(zip(*sides, strict=True))
    with tarfile.open(shared_data / "tatoeba-deu-eng-2018.tar.xz") as archive:
        names = [f"tatoeba-deu-eng-2018/split/train.{code}" for code in ("en", "de")]
        texts = [archive.extractfile(name).read().decode() for name in names]
    pairs += list(zip(*(text.split("\n")[:71_000] for text in texts), strict=True))
    pairs = pairs[::4]
    cleaner = Cleaner(Rules(clean="default").clean, ENGLISH_GERMAN, HELD)
    found = Counter(finding.rule for finding in cleaner.check(*split(pairs)) if finding)
    assert found.total() <= len(pairs) / 1000, found


# ------------------------------------------------------------------------- whole corpora


def dirty(count, seed=1):
    draw = random.Random(seed)
    every = [*itertools.chain(*DIRT.values())]
    return [draw.choice(every) if draw.random() < 0.2 else draw.choice(GOOD) for _ in range(count)]


def chunks_of(pairs, size):
    for start in range(0, len(pairs), size):
        yield 0, tuple(split(pairs[start : start + size])), start


def findings_of(pairs, size, processes):
    made = rules("copies", "length", "markup", "numbers", "duplicates")
    checked = clean_chunks(chunks_of(pairs, size), [Cleaner(made, ENGLISH_GERMAN)], processes)
    return [finding for *_, findings in checked for finding in findings]


def test_neither_chunks_nor_processes_change_anything():
    pairs = dirty(3000)
    one = findings_of(pairs, 3000, 1)
    assert one == findings_of(pairs, 97, 1) == findings_of(pairs, 97, 3)
    counts = Counter(finding.rule for finding in one if finding)
    assert set(counts) == set(DIRT)
    assert counts.total() < len(one)


def test_a_sample_is_spread_and_bounded():
    assert spread_sample(range(10), 20) == list(range(10))
    sample = spread_sample(range(1000), 100)
    assert 50 <= len(sample) <= 100
    assert len({b - a for a, b in itertools.pairwise(sample)}) == 1
    assert sample[-1] >= 900


# ------------------------------------------------------------------------------ preparing


def test_preparing_drops_and_counts_by_rule(folder):
    bad = [pair for pairs in DIRT.values() for pair in pairs if None not in pair]
    write_pairs(folder, "dirty", [*GOOD, *bad])
    made = recipe_of(
        folder, train=("dirty",), clean=[{"kind": kind} for kind in DIRT if kind != "empty"]
    )
    prepared, lines = told_by(made)
    corpus = prepared.report["corpora"]["train.0"]
    assert (corpus["pairs"], corpus["kept"]) == (len(GOOD) + len(bad), len(GOOD))
    expected = {kind: sum(None not in pair for pair in DIRT[kind]) for kind in DIRT}
    assert {kind: n for kind, n in corpus["dropped"].items() if n} == expected
    assert prepared.train.digest == quietly(recipe_of(folder)).train.digest
    head, row = (
        next(line.split() for line in lines if line.startswith(w)) for w in ("corpus", "train.0")
    )
    assert {kind: int(row[head.index(kind)]) for kind in expected} == expected


def test_without_rules_the_cache_is_that_of_before(folder):
    first = quietly(recipe_of(folder))
    assert quietly(recipe_of(folder, clean=[])).folder == first.folder
    other = quietly(recipe_of(folder, clean=[{"kind": "length"}]))
    assert other.folder != first.folder
    assert other.folder != quietly(recipe_of(folder, clean=[{"kind": "length", "most": 99}])).folder


def test_processes_do_not_change_what_is_kept(folder):
    write_pairs(folder, "dirty", [(a or "", b) for a, b in dirty(6500)])
    made = {"train": ("dirty",), "size": 370, "clean": "default"}
    one = quietly(recipe_of(folder, processes=1, **made))
    shutil.rmtree(folder.parent / "cache")
    three = quietly(recipe_of(folder, processes=3, **made))
    assert three.train.digest == one.train.digest
    assert three.report["corpora"] == one.report["corpora"]


def test_a_corpus_that_a_rule_empties_is_an_error_that_names_it(folder):
    write_pairs(folder, "bad", DIRT["numbers"] + DIRT["markup"])
    with pytest.raises(DataError, match="none of 3 pairs is left; 2 dropped as numbers") as error:
        quietly(
            recipe_of(
                folder, train=("train", "bad"), clean=[{"kind": "numbers"}, {"kind": "markup"}]
            )
        )
    assert "data.train.1" in str(error.value)
    assert "data.clean" in error.value.advice
    assert not [name for name in cached(folder) if not name.endswith(".lock")]


def test_overlap_is_compared_with_tests_even_where_drop_overlap_is_off(folder):
    write_pairs(folder, "leak", [*GOOD, (HELD[1][0].upper(), HELD[1][1]), (HELD[0][0], "nein")])
    rules = [{"kind": "overlap"}]
    made = recipe_of(folder, train=("leak",), size=370, drop_overlap=False, clean=rules)
    first = quietly(made)
    assert first.report["corpora"]["train.0"]["dropped"]["overlap"] == 1
    write_pairs(folder, "test", GOOD[:1])
    assert quietly(made).folder != first.folder


def test_rules_that_learn_do_so_from_the_corpus(folder):
    draw = random.Random(1)
    many = [draw.choice(GOOD) for _ in range(400)]
    shuffled = [(source, "Unten weint Karl einsam oben") for source, _ in many[:3]]
    write_pairs(folder, "mixed", [*many, *shuffled])
    made = recipe_of(folder, train=("mixed",), clean=[{"kind": "alignment", "least": -9.0}])
    assert quietly(made).report["corpora"]["train.0"]["dropped"]["alignment"] == 0


# ------------------------------------------------------------------------------ the recipe


def test_default_stands_for_the_default_rules():
    kinds = [rule["kind"] for rule in DEFAULT_RULES]
    assert [rule.kind for rule in Rules(clean="default").clean] == kinds
    assert [rule.kind for rule in Rules(clean=["default", {"kind": "language"}]).clean] == [
        *kinds, "language",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("clean", "message"),
    [
        ([{"kind": "nothing"}], "unknown kind 'nothing'"),
        (["default", {"kind": "lenght"}], "data.clean.1: unknown kind 'lenght'"),
        ([{"kind": "length", "mots": 3}], "did you mean most?"),
        ([{"kind": "length"}, {"kind": "length"}], "several rules are named length"),
        ("everything", "clean"),
    ],
)
def test_wrong_rules_are_refused(folder, clean, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")) as error:
        recipe_of(folder, clean=clean)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("kind", ["duplicates", "alignment"])
def test_rules_that_need_all_pairs_are_refused_for_streams(folder, kind):
    with pytest.raises(ConfigError, match=f"the rule {kind} must see all pairs"):
        recipe_of(folder, streaming=True, clean=[{"kind": kind}])


def test_a_filter_of_the_user_is_found_by_its_module(folder, tmp_path, monkeypatch):
    (tmp_path / "my_rules").mkdir()
    (tmp_path / "my_rules" / "shouting.py").write_text(
        '"""Drops shouting."""\n'
        "from mt.config.schema import FilterConfig\n"
        "from mt.data.cleaning import EachSide\n"
        "class Config(FilterConfig):\n"
        "    kind: str = 'my_rules.shouting'\n"
        "def judge(text):\n"
        "    return 'loud' if text.isupper() else None\n"
        "def build(config, context):\n"
        "    return EachSide(judge, judge)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from mt.config import plugins

    plugins.trust_kinds(["my_rules.shouting"])
    write_pairs(folder, "loud", [*GOOD, ("STOP IT", "Halt")])
    made = recipe_of(folder, train=("loud",), clean=[{"kind": "my_rules.shouting"}])
    assert quietly(made).report["corpora"]["train.0"]["dropped"]["shouting"] == 1


def test_no_rule_reads_held_out_pairs_for_nothing(folder):
    data = recipe_of(folder, clean=[{"kind": "length"}]).data
    (folder / "valid.en").unlink()
    assert cleaning.held_out_texts(data) == []
