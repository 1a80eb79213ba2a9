"""A new recipe is valid, trains, and says why it is as it is."""

from pathlib import Path

import pytest
from made_archives import zipped
from prepared_corpora import GOOD, write_pairs

from mt.config import recipe
from mt.data.catalogue import find_opus, parse_pair
from mt.data.held_out_split import CorpusFacts
from mt.data.new_recipe import format_recipe, write_new_recipe
from mt.data.prepare import prepare
from mt.data.recipe_choice import Machine, choose
from mt.errors import ConfigError, DataError


def made(paths, origin=None, pair=None, folder=None, minutes=5):
    return list(write_new_recipe(paths, origin, pair, folder, minutes, lambda line: None))


@pytest.mark.parametrize("pairs", [150, 4_000, 60_000, 10**6, 10**7, 10**8])
@pytest.mark.parametrize("is_gpu", [False, True])
@pytest.mark.parametrize("suspects", [{}, {"ratio": 3, "length": 20}])
def test_every_choice_is_a_valid_recipe(pairs, is_gpu, suspects, tmp_path):
    facts = CorpusFacts(pairs, suspects, (12.0, 11.0), 40, 20)
    machine = Machine("a machine", is_gpu, 1e12, 30)
    choice = choose(facts, machine)
    text = format_recipe(choice, facts, machine, parse_pair("en-de"), "mt init")
    (tmp_path / "new.yaml").write_text(text)
    settings, _ = recipe.load(tmp_path / "new.yaml")
    assert settings.batching.tokens == choice.batch
    assert settings.training.max_epochs == choice.epochs
    assert settings.model.dropout == choice.rules.dropout
    assert settings.vocabulary.sampling.source.dropout == choice.rules.bpe_dropout
    assert settings.objective.alignment_weight == choice.rules.alignment_weight
    assert len(settings.data.clean) > 10
    assert max(map(len, text.splitlines())) <= 110


def test_files_become_a_folder_that_can_be_trained(folder, monkeypatch):
    monkeypatch.chdir(folder)
    write_pairs(folder, "all", GOOD)
    lines = made([Path("all.en"), Path("all.de")])
    assert "mt train en-de/en-de.yaml" in lines[-1]
    names = {path.name for path in (folder / "en-de").iterdir()}
    assert names == {
        "en-de.yaml", "train.en", "train.de", "valid.en", "valid.de", "test.en", "test.de"
    }  # fmt: skip
    settings, _ = recipe.load(folder / "en-de" / "en-de.yaml")
    assert settings.languages.target == "de"
    prepared = prepare(settings, lambda line: None)  # few words have few pieces, and the size fits
    assert prepared.vocabulary.size == settings.vocabulary.size < 4_000
    assert Path(settings.data.train[0].source).exists()  # type: ignore[attr-defined]


def test_one_file_of_pairs_is_read_by_its_kind(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "all.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in GOOD))
    made([Path("all.tsv")], pair="en-de", folder=Path("new"))
    total = sum(
        len((folder / "new" / f"{n}.de").read_text().splitlines())
        for n in ("train", "valid", "test")
    )
    assert total == len(GOOD)


@pytest.mark.parametrize(
    ("paths", "origin", "pair", "message"),
    [
        (["a.en", "a.de"], "opus:Tatoeba", "en-de", "give two files"),
        ([], None, None, "what is the text"),
        (["a.en"], None, "en-de", "1 files"),
        (["a", "b"], None, None, "add --pair"),
        (["a.tsv"], None, None, "add --pair"),
        (["a.en", "a.de", "a.fr"], None, "en-de", "3 files"),
        ([], "Tatoeba", "en-de", "opus:NAME"),
    ],
)
def test_a_wrong_command_line_leaves_nothing(tmp_path, monkeypatch, paths, origin, pair, message):
    monkeypatch.chdir(tmp_path)
    for path in paths:
        Path(path).write_text("text\n")
    with pytest.raises(ConfigError, match=message):
        made([Path(path) for path in paths], origin, pair)
    assert {path.name for path in tmp_path.iterdir()} == set(paths)


def test_a_file_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for paths in (["no.tsv"], ["no.en", "no.de"]):
        with pytest.raises(DataError, match=paths[0]):
            made([Path(path) for path in paths], pair="en-de")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_touched(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ConfigError, match="OUTPUT-EXISTS"):
        made([folder / "train.en", folder / "train.de"], folder=folder)


def test_a_corpus_by_name_is_fetched_from_the_catalogue(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = find_opus("Tatoeba", "latest", parse_pair("en-de")).url
    sides = ("".join(f"{line}\n" for line in side).encode() for side in zip(*GOOD, strict=True))
    names = ("Tatoeba.de-en.en", "Tatoeba.de-en.de")
    members = dict(zip(names, sides, strict=True))
    site.mirror(url, zipped(tmp_path / "made", members).read_bytes())
    made([], "opus:Tatoeba", "en-de")
    assert url in (tmp_path / "en-de" / "data.lock").read_text()
    assert "the house" in (tmp_path / "en-de" / "train.en").read_text()
    settings, _ = recipe.load(tmp_path / "en-de" / "en-de.yaml")
    assert settings.data.train[0].kind == "text"  # no network from now on
