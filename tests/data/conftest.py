"""Corpora that the tests of data share."""

import pytest
from prepared_corpora import GOOD, HELD, write_pairs


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
