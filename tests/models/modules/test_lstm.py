"""The LSTM is that of torch, in steps and over packed sequences."""

from __future__ import annotations

import pytest
import torch
from gradients_of_sums import LENGTHS, close, gradients, valid_of
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mt.models.modules import lstm

# ------------------------------------------------------------------------ parts of loops


def test_a_step_and_its_gradients_are_those_of_torchs_cell():
    layer, twin = lstm.LSTM(3, 5).double(), nn.LSTMCell(3, 5).double()
    weights = layer.inputs.weight, layer.state.weight, layer.inputs.bias
    theirs = twin.weight_ih, twin.weight_hh, twin.bias_ih
    with torch.no_grad():
        for ours, other in zip(weights, theirs, strict=True):
            other.copy_(ours)
        twin.bias_hh.zero_()
    x, hidden, cell = (torch.randn(4, n, dtype=torch.double, requires_grad=True) for n in (3, 5, 5))
    found = torch.cat(layer.step(layer.inputs(x), hidden, cell))
    plain = torch.cat(twin(x, (hidden, cell)))
    close(found, plain)
    inputs = x, hidden, cell
    mine, its = gradients(found, (*inputs, *weights)), gradients(plain, (*inputs, *theirs))
    for one, other in zip(mine, its, strict=True):
        close(one, other)


# -------------------------------------------------------------------------------- layers


def torch_twin(layer, width, units):
    """A torch.nn.LSTM with the weights of a bidirectional layer."""
    twin = nn.LSTM(width, units // 2, batch_first=True, bidirectional=True).double()
    with torch.no_grad():
        for part, end in ((layer.ahead, "l0"), (layer.back, "l0_reverse")):
            getattr(twin, f"weight_ih_{end}").copy_(part.inputs.weight)
            getattr(twin, f"weight_hh_{end}").copy_(part.state.weight)
            getattr(twin, f"bias_ih_{end}").copy_(part.inputs.bias)
            getattr(twin, f"bias_hh_{end}").zero_()
    return twin


@pytest.mark.parametrize("half", [None, torch.half, torch.bfloat16], ids=str)
def test_what_cudnn_is_given_lies_in_one_piece_and_is_the_same(half):
    layer, x = lstm.LSTM(6, 8), torch.randn(5, 3, 6)
    weights = [layer.inputs.weight, layer.state.weight, layer.inputs.bias]
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", half is not None)
    torch.set_autocast_dtype("cuda", half or before[1])
    try:
        given, parts = lstm.for_cudnn(x, weights)
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
    dtype = torch.half if half is torch.half else torch.float32
    assert {given.dtype, *(part.dtype for part in parts)} == {dtype}
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1
    ends = [part.storage_offset() + part.numel() for part in parts]
    assert [part.storage_offset() for part in parts] == [0, *ends[:-1]]
    for part, weight in zip(parts, weights, strict=True):
        assert torch.equal(part, weight.to(dtype))
        slope = torch.autograd.grad(part.sum(), weight, retain_graph=True)[0]
        assert torch.equal(slope, torch.ones_like(weight))


@pytest.mark.parametrize("way", ["by_torch", "loop"])
def test_a_bidirectional_layer_is_torchs_over_packed_sequences(way, monkeypatch):
    monkeypatch.setattr(lstm.LSTM, "forward", getattr(lstm.LSTM, way))
    layer = lstm.Bidirectional(6, 8).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    twin = torch_twin(layer, 6, 8)
    x = torch.randn(4, 7, 6, dtype=torch.double, requires_grad=True)
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True)
    theirs, (last, _) = twin(packed)
    theirs, _ = pad_packed_sequence(theirs, batch_first=True)
    ours = layer(x.transpose(0, 1), valid_of(LENGTHS)).transpose(0, 1)
    real = valid_of(LENGTHS)
    close(ours[real], theirs[real])
    close(lstm.last_states(ours, real), torch.cat(tuple(last), dim=1))
    mine = x, layer.ahead.inputs.weight, layer.back.state.weight, layer.back.inputs.bias
    its = x, twin.weight_ih_l0, twin.weight_hh_l0_reverse, twin.bias_ih_l0_reverse
    each = zip(gradients(ours[real], mine), gradients(theirs[real], its), strict=True)
    for one, other in each:
        close(one, other)


def test_in_fp32_no_kernel_is_kept_for_each_size_of_a_batch():
    """oneDNN keeps those of 1,024 sizes: a training in fp32 grew by 600 MB in 500 updates."""
    layer = lstm.LSTM(8, 8)
    with torch.profiler.profile() as profile:
        outputs, _, _ = layer(torch.randn(3, 2, 8), torch.zeros(2, 8), torch.zeros(2, 8))
        outputs.sum().backward()
    names = {event.name for event in profile.events()}
    assert "aten::lstm" in names
    assert [name for name in names if "mkldnn_rnn" in name] == []
