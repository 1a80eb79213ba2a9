"""Fixtures of the tests of this folder."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def heads():
    return [torch.randn(3, 2, length, 8, dtype=torch.float64) for length in (5, 7, 7)]
