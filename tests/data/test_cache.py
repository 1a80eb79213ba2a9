"""The cache of encoded corpora goes by content and repairs itself."""

import shutil

import pytest
from prepared_corpora import GOOD, quietly, recipe_of, told_by, write_pairs

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
