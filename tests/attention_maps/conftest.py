"""Fixtures of the tests of this folder."""

from __future__ import annotations

import pytest
from shown_maps import PLAIN, SOURCE

from mt.attention_maps import extract


@pytest.fixture(scope="module")
def engine(run):
    return extract.open_with_attention(run, PLAIN)


@pytest.fixture(scope="module")
def sights(engine):
    return extract.extract(engine, SOURCE)
