"""An engine and a cache that the tests of decoding share."""

from __future__ import annotations

import pytest
from native_engine import ONE, native

from mt.decoding import shortlist


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small_shortlists(cache, monkeypatch):
    """One cache for the tests of a file, and shortlists of any size."""
    monkeypatch.setenv("MT_CACHE", str(cache))
    monkeypatch.setattr(shortlist, "SIZE_MULTIPLE", 1)


@pytest.fixture(scope="module")
def engine(run):
    return native.open(run, ONE)
