"""Parts of recurrent translators: LSTM layers, and attention at one step.

Legend: R rows (B sentences, or B*N when decoding with N beams), S source length, T target length,
E input width, H units, C width of the source's states, A width of the attention's inner layer.
"""

from __future__ import annotations

import functools
import math
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from mt.models.modules.linear import Linear, trains_in_bf16
from mt.runtime.torch_private import without_onednn

ROWS = 32
"""In bf16 training on a CPU the rows are padded to a multiple of this; see `linear`."""


def pad_batch(x: Tensor) -> Tensor:
    """Repeat the first row of x [B, ...] up to a multiple of ROWS where products gain from it."""
    extra = -len(x) % ROWS if trains_in_bf16(x.device) else 0
    return torch.cat((x, x[:1].expand(extra, *x.shape[1:]))) if extra else x


class LSTM(nn.Module):
    """One layer in one direction (Hochreiter and Schmidhuber 1997), E inputs and H units wide.

    It has a forget gate (Gers et al. 2000) and the gates in torch's order: i, f, g, o. At each step
    `fed` further numbers extend its state.
    """

    def __init__(self, width: int, units: int, fed: int = 0) -> None:
        super().__init__()
        self.units = units
        self.inputs = Linear(width, 4 * units)
        self.state = Linear(units + fed, 4 * units, bias=False)

    def step(self, inputs: Tensor, state: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Advance one position; return the hidden state and the cell, each [R, H].

        Args:
            inputs: [R, 4H] `self.inputs` of the position.
            state: [R, H + fed] the previous hidden state, and the fed input.
            cell: [R, H] the previous cell, in fp32 at least: it accumulates over all positions.
        """
        product = self.state(state)
        i, f, g, o = (inputs.to(cell.dtype) + product).chunk(4, dim=-1)
        cell = torch.addcmul(f.sigmoid() * cell, i.sigmoid(), g.tanh())
        return (o.sigmoid() * cell.tanh()).to(product.dtype), cell

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read all positions x [T, R, E] from states [R, H]; hidden [T, R, H] and the last states.

        Packed weights loop over positions, so the result does not depend on the number of rows.
        """
        if self.state.packed is not None and not torch.is_grad_enabled():
            return self.loop(x, hidden, cell)
        return self.by_torch(x, hidden, cell)

    def loop(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`forward` by `step`."""
        outputs = []
        for inputs in self.inputs(x).unbind(0):
            hidden, cell = self.step(inputs, hidden, cell)
            outputs.append(hidden)
        return torch.stack(outputs), hidden, cell

    def by_torch(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`forward` by the kernel of `torch.nn.LSTM`."""
        weights = [self.inputs.weight, self.state.weight, self.inputs.bias]
        weights.append(torch.zeros_like(weights[-1]))  # torch adds two biases
        device = x.device.type
        by_cudnn = device == "cuda"
        if by_cudnn:
            x, weights = for_cudnn(x, weights)
        elif not cpu_has_bf16_lstm():
            x = x.to(wide(x))
        states = hidden.to(x.dtype)[None], cell.to(x.dtype)[None]
        with ExitStack() as stack:
            if by_cudnn or not cpu_has_bf16_lstm():
                stack.enter_context(torch.autocast(device, enabled=False))
            if device == "cpu" and not torch.is_autocast_enabled("cpu"):
                # oneDNN is no faster in fp32, and keeps memory for each size of a batch.
                stack.enter_context(without_onednn())
            outputs, hidden, last = torch.lstm(
                x, states, weights, True, 1, 0.0, self.training, False, False
            )
        return outputs, hidden[0], last[0].to(cell.dtype)


@functools.cache
def cpu_has_bf16_lstm() -> bool:
    """Whether this CPU has torch's LSTM under bf16 autocast; without AVX-512 it has none."""
    x = state = torch.zeros(1, 1, 1)
    weights = [x.new_zeros(4, 1), x.new_zeros(4, 1), x.new_zeros(4), x.new_zeros(4)]
    try:
        with torch.autocast("cpu", torch.bfloat16):
            torch.lstm(x, (state, state), weights, True, 1, 0.0, False, False, False)
    except RuntimeError:
        return False
    return True


def for_cudnn(x: Tensor, weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Convert input and weights for cuDNN's LSTM: one dtype, the weights contiguous.

    cuDNN has no bf16, and autocast would use fp16 instead, whose range needs a scaler. So with bf16
    autocast the LSTM runs in fp32 (TF32 on tensor cores).
    """
    half = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.half
    dtype = torch.half if half else wide(x)
    whole = torch.cat([each.flatten() for each in weights]).to(dtype)
    parts = whole.split([each.numel() for each in weights])
    return x.to(dtype), [part.view_as(each) for part, each in zip(parts, weights, strict=True)]


def wide(x: Tensor) -> torch.dtype:
    """The type of sums over all steps: fp32, or x's type if wider."""
    return torch.promote_types(x.dtype, torch.float32)


def reverse_valid(x: Tensor, valid: Tensor) -> Tensor:
    """Reverse the real positions [R, S] of each row of x [S, R, C]; padding keeps its place."""
    positions = torch.arange(len(x), device=x.device)[:, None]  # [S, 1]
    lengths = valid.sum(dim=1)  # [R]
    places = torch.where(positions < lengths, lengths - 1 - positions, positions)
    return x.gather(0, places[..., None].expand_as(x))


class Bidirectional(nn.Module):
    """A bidirectional layer (Schuster and Paliwal 1997), half of its units in each direction.

    Each direction begins at a real position, so padding changes nothing.
    """

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.ahead, self.back = LSTM(width, units // 2), LSTM(width, units // 2)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x [S, R, E], valid [R, S] -> [S, R, H]."""
        zeros = x.new_zeros(x.size(1), self.ahead.units, dtype=wide(x))
        ahead, *_ = self.ahead(x, zeros, zeros)
        back, *_ = self.back(reverse_valid(x, valid), zeros, zeros)
        return torch.cat((ahead, reverse_valid(back, valid)), dim=-1)


def last_states(states: Tensor, valid: Tensor) -> Tensor:
    """The last state [B, C] of each direction of a bidirectional layer, of states [B, S, C]."""
    half = states.size(-1) // 2
    end = valid.sum(dim=1) - 1  # [B]
    rows = torch.arange(len(states), device=states.device)
    return torch.cat((states[rows, end, :half], states[:, 0, half:]), dim=-1)


def source_of(states: Tensor, valid: Tensor, keys: Tensor | None = None) -> list[Tensor]:
    """Prepare states [B, S, C], where they are valid [B, S], for `attend`.

    Returns:
        In fp32 at least: the states; a bias [B, 1, S], -inf at padding; keys [B, S, A], if any.
    """
    dtype = wide(states)
    zeros = torch.zeros(valid.shape, dtype=dtype, device=states.device)
    bias = zeros.masked_fill_(~valid, -math.inf)[:, None]
    return [states.to(dtype), bias, *([] if keys is None else [keys.to(dtype)])]


def attend(
    source: list[Tensor], query: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attend from rows to their sentences; return contexts [R, C] and weights [B, N, S].

    Args:
        source: from `source_of`.
        query: [R, A], or [R, C] without a weight.
        weight: v [A] of additive attention (Bahdanau et al. 2015, appendix A.1.2); None: scores
            are dot products (Luong et al. 2015, section 3.1).
    """
    states, bias, *keys = source
    with torch.autocast(query.device.type, enabled=False):
        queries = query.to(states.dtype).unflatten(0, (len(states), -1))  # [B, N, ...]
        if weight is None:
            scores = queries @ states.mT
        else:
            inner = (queries[:, :, None] + keys[0][:, None]).tanh()  # [B, N, S, A]
            # One product per sentence: a single one would round by the number of sentences.
            each = weight.to(inner.dtype)[:, None].expand(len(inner), -1, 1)  # [B, A, 1]
            scores = (inner.flatten(1, 2) @ each).view(inner.shape[:3])
        weights = (scores + bias).softmax(dim=-1)  # [B, N, S]
        return (weights @ states).flatten(0, 1), weights
