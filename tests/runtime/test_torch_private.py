"""Private functions of torch do what public ones do, and so do their fallbacks."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch.nn import functional as F

from mt.runtime import torch_private


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_packed_product_is_that_of_torch(private, activation, with_bias, monkeypatch):
    if not private:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    elif not torch_private.can_pack():
        pytest.skip("this torch or processor packs nothing")
    x, weight = torch.randn(5, 24), torch.randn(12, 24)
    bias = torch.randn(12) if with_bias else None
    packed = torch_private.pack_weight(weight, 5)
    assert packed.is_mkldnn is private
    product = torch_private.packed_linear(x, packed, bias, activation)
    plain = F.linear(x, weight, bias)
    torch.testing.assert_close(product, plain.relu() if activation == "relu" else plain)


def test_a_type_without_a_kernel_stays_unpacked(monkeypatch):
    """An x86 CPU without AVX-512 packs fp32 only; bf16 is then multiplied by torch."""

    def refuse(weight, rows):
        raise RuntimeError("bf16 path needs the cpu support avx_ne_convert or avx512bw")

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", refuse, raising=False)
    weight = torch.randn(4, 8, dtype=torch.bfloat16)
    packed = torch_private.pack_weight(weight, 1)
    x = torch.randn(2, 8, dtype=torch.bfloat16)
    product = torch_private.packed_linear(x, packed, None, "none")
    torch.testing.assert_close(product, torch.nn.functional.linear(x, weight))


def test_fused_optimizers_skip_an_update_by_found_inf():
    weight = torch.nn.Parameter(torch.ones(2))
    assert not torch_private.skips_by_found_inf(torch.optim.SGD([weight], 0.1))
    fused = torch.optim.AdamW([weight], 0.1, fused=True)
    if torch_private.skips_by_found_inf(fused):  # else an update is undone: tests/test_step.py
        weight.grad = torch.ones(2)
        fused.found_inf = torch.ones(())
        fused.step()
        assert weight.tolist() == [1.0, 1.0]
        fused.found_inf = torch.zeros(())
        fused.step()
        assert weight.tolist() != [1.0, 1.0]


@pytest.mark.parametrize("lerp", [torch_private.lerp_all, torch_private.lerp_all_fused])
def test_lerp_moves_each_tensor_by_the_same_share(lerp):
    tensors, ends = [torch.zeros(3), torch.ones(2, 2)], [torch.ones(3), torch.zeros(2, 2)]
    lerp(tensors, ends, torch.tensor(0.0))
    assert not tensors[0].any()
    lerp(tensors, ends, torch.tensor(0.25))
    assert tensors[0].tolist() == [0.25] * 3
    assert tensors[1].tolist() == [[0.75] * 2] * 2


def test_compilations_are_counted():
    before = torch_private.num_compilations()
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
    assert torch_private.num_compilations() == before + 1


def test_without_onednn_its_kernels_are_off_until_the_block_ends():
    assert torch._C._get_mkldnn_enabled()
    with contextlib.suppress(KeyError), torch_private.without_onednn():
        assert not torch._C._get_mkldnn_enabled()
        raise KeyError
    assert torch._C._get_mkldnn_enabled()
