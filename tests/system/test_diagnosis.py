"""Trainings that are made to fail are diagnosed, and healthy ones are not."""

import random

import pytest

from mt.checkpoints import run_directory
from mt.config import recipe
from mt.data.pairs import read_pairs
from mt.training.diagnosis import diagnose_run, read_run_history
from mt.training.loop import train

pytestmark = pytest.mark.slow

RECIPE = """
languages: {source: en, target: de}
data:
  train: [{kind: text, source: train.en, target: train.de}]
  valid: {kind: text, source: valid.en, target: valid.de}
  max_length: 64
vocabulary: {size: 1200}
model:
  {kind: transformer, d_model: 128, n_heads: 4, d_ff: 512, encoder_layers: 2, decoder_layers: 2}
objective: {kind: cross_entropy, label_smoothing: 0.1}
optimizer: {kind: adamw, learning_rate: 3e-3}
schedule: {kind: linear, warmup_steps: 60}
batching: {tokens: 1536}
training:
  {max_steps: 250, report_every: 20, validate_every: 50, save_every: 250, validate_sentences: 60}
search: {kind: greedy}
"""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Sound pairs, of training and of validation."""
    folder = tmp_path_factory.mktemp("demo")
    text = RECIPE.replace("{kind: text, source: train.en, target: train.de}",
                          "{kind: demo, split: train, size: 60000, seed: 1}")  # fmt: skip
    text = text.replace("{kind: text, source: valid.en, target: valid.de}",
                        "{kind: demo, split: valid, size: 200, seed: 1}")  # fmt: skip
    (folder / "demo.yaml").write_text(text)
    data = recipe.load(folder / "demo.yaml")[0].data
    return [[(p.source, p.target) for p in read_pairs(s)] for s in (data.train[0], data.valid)]


def diagnosed(folder, train_pairs, valid_pairs, *sets):
    for name, some in (("train", train_pairs), ("valid", valid_pairs)):
        for code, lines in zip(("en", "de"), zip(*some, strict=True), strict=True):
            (folder / f"{name}.{code}").write_text("".join(f"{line}\n" for line in lines))
    (folder / "recipe.yaml").write_text(RECIPE)
    settings, _ = recipe.load(folder / "recipe.yaml", sets)
    train(settings, folder / "run")
    assert run_directory.is_run(folder / "run")
    return [remark.kind for remark in diagnose_run(folder / "run")]


def half(line):
    words = line.split()
    return " ".join(words[: max(1, len(words) // 3)])


def test_a_sound_training_gets_no_remark(pairs, tmp_path):
    sets = [
        "model.d_model=192", "model.d_ff=768", "vocabulary.size=2000", "training.max_steps=900",
        "training.validate_every=150", "optimizer.learning_rate=2e-3", "schedule.warmup_steps=100",
    ]  # fmt: skip
    assert diagnosed(tmp_path, *pairs, *sets) == []


def simple_pairs(count, seed):
    """Pairs of a small grammar, which a tiny model learns in seconds."""
    draw = random.Random(seed)
    nouns = ["house Haus", "tree Baum", "river Fluss", "bridge Brücke", "market Markt",
             "garden Garten", "window Fenster", "table Tisch", "book Buch", "dog Hund",
             "cat Katze", "horse Pferd", "child Kind", "woman Frau", "man Mann"]  # fmt: skip
    verbs = ["sees sieht", "paints malt", "sells verkauft", "finds findet", "loves liebt",
             "buys kauft", "needs braucht", "knows kennt"]  # fmt: skip
    adjectives = ["small klein", "old alt", "green grün", "quiet still", "new neu", "red rot"]
    made = []
    for _ in range(count):
        words = [draw.choice(each).split() for each in (adjectives, nouns, verbs, nouns, nouns)]
        (a, x), (b, y), (c, z), (d, u), (e, v) = words
        made.append((f"The {b} is {a} and {c} the {d} or the {e}.",
                     f"Das {y} ist {x} und {z} das {u} oder das {v}."))  # fmt: skip
    return made


@pytest.mark.parametrize(
    "sets",
    [
        ["training.max_steps=400"],
        ["model.norm=pre"],
        ["model.dropout=0.2", "model.n_heads=2"],
        ["model.encoder_layers=2", "model.decoder_layers=2", "model.positions=rotary"],
        ["model={kind: rnn, d_model: 64, units: 64}", "optimizer.learning_rate=5e-3"],
        ["vocabulary.model=bpe", "vocabulary.size=440"],
        ["optimizer.kind=muon"],
        ["schedule.kind=inverse_sqrt"],
        ["training.ema=0.98", "objective.label_smoothing=0.0"],
        ["batching.tokens=2048", "search.kind=beam"],
    ],
    ids=lambda sets: sets[0].partition(":")[0],
)
def test_sound_trainings_of_ten_kinds_get_no_remark(tmp_path, sets):
    plan = [
        "model.d_model=64", "model.d_ff=128", "model.encoder_layers=1", "model.decoder_layers=1",
        "vocabulary.size=400", "batching.tokens=1024", "training.max_steps=400",
        "training.validate_every=80",
    ]  # fmt: skip
    text = simple_pairs(25_000, 1), simple_pairs(100, 2)
    assert diagnosed(tmp_path, *text, *plan, *sets) == []
    (chrf,) = [each["valid_chrf"] for each in read_run_history(tmp_path / "run").validations[-1:]]
    assert chrf > 80  # else it is no sound training


@pytest.mark.parametrize(
    ("expected", "sets"),
    [
        ({"diverging", "learning rate too high"}, ["optimizer.learning_rate=0.5"]),
        ({"learning rate too low"}, ["optimizer.learning_rate=2e-6"]),
        ({"under-trained"}, ["training.max_steps=120", "training.validate_every=30"]),
    ],
)
def test_a_wrong_setting_is_named(pairs, tmp_path, expected, sets):
    assert expected & set(diagnosed(tmp_path, *pairs, *sets))


def test_few_pairs_are_learned_by_heart(pairs, tmp_path):
    sets = ["training.max_steps=250", "vocabulary.size=600"]
    assert "data too small" in diagnosed(tmp_path, pairs[0][:150], pairs[1], *sets)


def test_lines_that_do_not_belong_together(pairs, tmp_path):
    sources, targets = zip(*pairs[0], strict=True)
    shuffled = random.Random(1).sample(targets, len(targets))
    made = list(zip(sources, shuffled, strict=True))
    assert "not translating" in diagnosed(tmp_path, made[:2000], pairs[1])


def test_targets_that_are_copies(pairs, tmp_path):
    made = [(a, a) for a, _ in pairs[0]]
    assert "copies the source" in diagnosed(tmp_path, made, pairs[1], "training.max_steps=400")


def test_targets_that_are_cut_short(pairs, tmp_path):
    made = [(a, half(b)) for a, b in pairs[0]]
    assert "output too short" in diagnosed(tmp_path, made, pairs[1])


def test_targets_that_repeat(pairs, tmp_path):
    made = [(a, f"{b.split()[0]} " * 8) for a, b in pairs[0]]
    assert "repetition" in diagnosed(tmp_path, made, pairs[1])


def test_a_validation_set_of_another_kind(pairs, tmp_path):
    other = [("".join(sorted(a)), "".join(sorted(b))) for a, b in pairs[1]]
    assert "validation unlike training" in diagnosed(tmp_path, pairs[0], other)
