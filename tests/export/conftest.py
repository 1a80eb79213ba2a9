"""Fixtures of the tests of this folder."""

from __future__ import annotations

import pytest
import tiny_run

from mt.config.schema import Languages, VocabularyConfig
from mt.vocabulary.learn import learn_vocabulary


@pytest.fixture(scope="module")
def subwords():
    """A joint vocabulary, and one a side."""
    languages = Languages(source="en", target="de")
    found = {}
    for joint in (True, False):
        config = VocabularyConfig(size=408 if joint else 370, joint=joint)
        texts = (tiny_run.SOURCES, tiny_run.TARGETS)
        found[joint] = learn_vocabulary(config, languages, *texts)
    return found
