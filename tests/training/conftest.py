"""Fixtures of the tests of this folder."""

from __future__ import annotations

import pytest
from small_steps import made


@pytest.fixture
def step(vocabulary):
    return made(vocabulary)
