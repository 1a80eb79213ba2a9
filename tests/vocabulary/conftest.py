"""Fixtures of the tests of this folder."""

import pytest
from learned_vocabularies import learned


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def known(request):
    return learned(model=request.param)
