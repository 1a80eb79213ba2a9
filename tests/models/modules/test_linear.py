"""Linear maps with rows rounded up against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mt.models.modules import linear as maps
from mt.models.modules.linear import ROW_MULTIPLE, linear, pad_rows


@pytest.mark.parametrize("rows", [1, ROW_MULTIPLE - 1, ROW_MULTIPLE, ROW_MULTIPLE + 1])
@pytest.mark.parametrize("with_bias", [False, True])
def test_rounding_rows_up_changes_neither_product_nor_gradient(rows, with_bias):
    x = torch.randn(rows, 3, 32)
    weight, bias = torch.randn(16, 32), torch.randn(16) if with_bias else None
    results = []
    for function in (linear, F.linear):
        inputs = [None if t is None else t.clone().requires_grad_() for t in (x, weight, bias)]
        with torch.autocast("cpu", torch.bfloat16):
            y = function(*inputs)
        assert y.dtype == torch.bfloat16
        (y.float() ** 2).sum().backward()
        results.append([y.detach(), *(t.grad for t in inputs if t is not None)])
    for fast, plain in zip(*results, strict=True):
        assert fast.dtype == plain.dtype
        error = (fast - plain).float().norm() / plain.float().norm()
        assert error < 0.005  # bf16 sums of another order


def test_rounded_rows_are_a_multiple_and_the_rest_is_zero():
    found = pad_rows(torch.ones(5, 30, 8), torch.bfloat16)
    assert found.shape == (2 * ROW_MULTIPLE, 8)
    assert found.sum() == 5 * 30 * 8


def test_in_fp32_nothing_is_rounded():
    x, weight, bias = torch.randn(5, 8), torch.randn(4, 8), torch.randn(4)
    torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias), rtol=0, atol=0)
    assert pad_rows(x, torch.float32).shape == (5, 8)


packs = pytest.mark.skipif(not maps.can_pack(), reason="this torch or processor packs nothing")


def drawn(rows, width=32, size=48):
    torch.manual_seed(rows)
    return torch.randn(rows, width), torch.randn(size, width) / width**0.5, torch.randn(size)


@packs
@pytest.mark.parametrize("rows", [1, 5, 33, 511, 513, 700])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)], ids=["fp32", "bf16"]
)
def test_a_packed_product_is_the_plain_one(rows, dtype, tolerance):
    x, weight, bias = drawn(rows)
    packed = maps.PrepackedWeight(weight, bias, dtype)
    plain = F.linear(x, weight, bias)
    torch.testing.assert_close(packed(x).float(), plain, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(packed(x, "relu"), packed(x).relu())
    assert packed(x[:, None]).shape == (rows, 1, 48)


@packs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_result_of_a_row_does_not_depend_on_the_number_of_rows(dtype):
    x, weight, bias = drawn(700)
    packed = maps.PrepackedWeight(weight, bias, dtype)
    every = packed(x)
    for rows in (1, 7, 40, 512, 600):
        assert torch.equal(packed(x[:rows]), every[:rows])


@packs
def test_a_packed_model_trains_as_before_and_is_unpacked_again():
    model = torch.nn.Sequential(maps.Linear(8, 8), maps.Linear(8, 4))
    maps.keep_fp32(model[0])
    x = torch.randn(3, 8)
    plain = model(x)
    maps.pack(model, torch.bfloat16)
    assert torch.equal(model(x), plain), "with gradients the weights themselves are used"
    with torch.no_grad():
        assert model[0](x).dtype == torch.float32
        assert model(x).dtype == torch.bfloat16
        maps.pack(model, None)
        assert torch.equal(model(x), plain)
