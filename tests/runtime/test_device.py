"""Devices, threads and precision."""

from __future__ import annotations

import os

import pytest
import torch

from mt.errors import ConfigError, MachineError
from mt.runtime import device
from mt.runtime.device import autocast, physical_cores, pick_device, use_threads
from mt.runtime.distributed import World


def test_a_device_that_is_not_there_is_refused_with_the_number_of_devices():
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with pytest.raises(MachineError, match=rf"cuda:{count} is not there.*sees {count} "):
        pick_device(f"cuda:{count}")


def test_one_named_device_is_refused_for_several_processes():
    with pytest.raises(ConfigError, match="one device for the 2 processes"):
        pick_device("cuda:0", World(0, 2, 0, 2))
    assert pick_device("cpu", World(1, 2, 1, 2)) == torch.device("cpu")


def test_a_cuda_device_is_taken_without_attention_that_plans_for_each_shape(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        assert pick_device("auto") == torch.device("cuda", 0)
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_processes_of_a_machine_share_its_cores():
    before = torch.get_num_threads()
    try:
        assert use_threads("auto") == torch.get_num_threads() == physical_cores()
        assert use_threads("auto", World(0, 64, 0, 64)) == max(1, physical_cores() // 64)
        assert use_threads(3) == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_products_are_of_the_precision_and_weights_are_not():
    weight = torch.ones(2, 2)
    with autocast(torch.device("cpu"), "bf16"):
        assert (weight @ weight).dtype == torch.bfloat16
    with autocast(torch.device("cpu"), "fp32"):
        assert (weight @ weight).dtype == torch.float32
    assert weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("flags", "saturates"),
    [
        ("sse2 avx avx2 fma", True), ("avx2 avx512f avx512_vnni", False), ("avx2 avx_vnni", False),
        ("asimd", False), ("", False),
    ],
)  # fmt: skip
def test_8_bit_products_overflow_on_x86_without_vnni(flags, saturates, monkeypatch):
    monkeypatch.setattr(device, "_cpu_flags", lambda: set(flags.split()))
    monkeypatch.delenv("CT2_USE_MKL", raising=False)
    assert device.saturates_int8() is saturates
    device.choose_int8_library()
    assert os.environ.get("CT2_USE_MKL") == ("1" if saturates else None)
