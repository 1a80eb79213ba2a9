"""Rule: pairs that are in a validation or test set."""

import tarfile

import pytest
from filter_checks import check

HELD = [("A house.", "Ein Haus."), ("A tree.", "Ein Baum.")]
PAIRS = [("A house.", "Ein Haus."), ("a  HOUSE", "ein Haus!"), ("A house.", "Ein Baum."),
         ("A dog.", "Ein Baum."), ("A tree.", "Der Baum."), ("A dog.", "Ein Hund.")]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({}, [0, 1]),
        ({"form": "exact"}, [0]),
        ({"sides": "source"}, [0, 1, 2, 4]),
        ({"sides": "target"}, [0, 1, 2, 3]),
        ({"sides": "either"}, [0, 1, 2, 3, 4]),
    ],
)
def test_held_out_pairs_are_found(settings, rows):
    values = check("overlap", *PAIRS, held_out=HELD, **settings)
    assert [row for row, value in enumerate(values) if value is not None] == rows


def test_without_any_it_says_so_and_keeps_all():
    notes = []
    assert check("overlap", *PAIRS, notes=notes) == [None] * 6
    assert len(notes) == 1


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "leaked"), [("enzh", 262), ("zhen", 206)])
def test_the_leaked_test_pairs_of_msctd_are_found(shared_data, name, leaked):
    """Exactly those that a plain set of pairs finds."""

    def pairs(archive, part):
        files = (archive.extractfile(f"msctd-en-zh/{name}.{part}.{code}") for code in ("en", "zh"))
        return list(zip(*(file.read().decode().split("\n")[:-1] for file in files), strict=True))

    with tarfile.open(shared_data / "msctd-en-zh.tar.xz") as archive:
        train, test = pairs(archive, "train"), pairs(archive, "test")
    values = check("overlap", *train, held_out=test, form="exact", source="en", target="zh")
    found = {pair for pair, value in zip(train, values, strict=True) if value is not None}
    assert found == set(train) & set(test)
    assert sum(pair in found for pair in test) == leaked
