"""A copy on the host has the values of its moment."""

from __future__ import annotations

import pytest
import torch

from mt.runtime.host_copy import HostCopy

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_a_copy_is_read_as_it_was(device):
    flags = torch.tensor([True, False], device=device)
    copy = HostCopy(torch.stack((flags[0], flags[1])))
    flags.fill_(True)
    assert copy.read() == [True, False]
