"""The parts of recurrent translators: LSTM layers, attention of one step, and lean loops.

What a loop over positions need not do is done for all positions at once, before it or after it:
products with its inputs, and the gradients of its weights.

Legend: R rows (B sentences, or B*N when decoding with N beams), S source length, T target length,
E input width, H units, C width of the source's states, A width of the attention's inner layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mt.models.modules.linear import STEP, Linear

ROWS = 32
"""Rows of a loop come in multiples of this when training in bf16 on a CPU: see `mt.linear`."""

Product = Callable[[Tensor], Tensor]
"""x [..., K] -> [..., N]."""


def in_bf16(device: torch.device) -> bool:
    """Whether products are taken in bf16 on a CPU, with gradients."""
    return (
        device.type == "cpu"
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


def more_rows(x: Tensor) -> Tensor:
    """x [B, ...], its first row repeated below until products like their number.

    Nothing may come of the rows added: whoever adds them cuts them off again.
    """
    extra = -len(x) % ROWS if in_bf16(x.device) else 0
    return torch.cat((x, x[:1].expand(extra, *x.shape[1:]))) if extra else x


# --------------------------------------------------------------- gradients after the loop


class _Late(torch.autograd.Function):
    """Something that a loop uses at each step; its gradient is told once, after all of them."""

    @staticmethod
    def forward(ctx, x: Tensor, finish: Callable[[], Tensor]) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.set_materialize_grads(False)
        ctx.finish = finish
        return x.view_as(x)

    @staticmethod
    def backward(ctx, _: None) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return ctx.finish(), None


class _Product(torch.autograd.Function):
    """x W^T whose backward pass only notes what the gradient of W is made of."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, noted: list[tuple[Tensor, Tensor]]) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        ctx.noted = noted
        return x @ weight.mT

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        ctx.noted.append((slope, x.detach()))
        return slope @ weight, None, None


def _stacked(parts: list[Tensor]) -> Tensor:
    """[..., M, K] each, one below the other; zeros below, so that products like their number."""
    rows = sum(part.size(-2) for part in parts)
    first = parts[0]
    step = STEP if first.dtype == torch.bfloat16 and first.device.type == "cpu" else 1
    stacked = first.new_empty(*first.shape[:-2], -(-rows // step) * step, first.size(-1))
    torch.cat(parts, dim=-2, out=stacked[..., :rows, :])
    stacked[..., rows:, :] = 0
    return stacked


def _weight_gradient(noted: list[tuple[Tensor, Tensor]]) -> Tensor:
    slopes, inputs = zip(*noted, strict=True)
    noted.clear()
    return _stacked(list(slopes)).mT @ _stacked(list(inputs))


class Repeated:
    """One matrix for all steps of a loop: x [..., M, K] -> [..., M, N].

    Its gradient is one product over all steps, not a product and a sum at each of them.

    Args:
        weight: [..., N, K].
        dtype: the type that products are taken in.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.noted: list[tuple[Tensor, Tensor]] = []
        # The list alone is shared with the graph: a way back to `self` would keep both alive.
        finish = partial(_weight_gradient, self.noted)
        self.weight: Tensor = _Late.apply(weight.to(dtype), finish)  # type: ignore[no-untyped-call]

    def __call__(self, x: Tensor) -> Tensor:
        """[..., M, K] -> [..., M, N]."""
        product: Tensor = _Product.apply(x.to(self.weight.dtype), self.weight, self.noted)  # type: ignore[no-untyped-call]
        return product


def repeated(weight: Tensor) -> Repeated:
    """A weight [N, K] for a loop, in the type of the autocast where there is one."""
    device = weight.device.type
    half = torch.is_autocast_enabled(device)
    return Repeated(weight, torch.get_autocast_dtype(device) if half else weight.dtype)


def for_loop(layer: Linear) -> Product:
    """A layer without bias, as a loop multiplies with it."""
    return repeated(layer.weight) if torch.is_grad_enabled() else layer


# ------------------------------------------------------------------------------------ LSTM


class _Cell(torch.autograd.Function):
    """The part of an LSTM (Hochreiter and Schmidhuber 1997) that works on single numbers.

    With a forget gate (Gers et al. 2000), its gates in torch's order: i, f, g, o.
    """

    @staticmethod
    def forward(ctx, given: Tensor, product: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        gates = given.to(cell.dtype) + product  # [R, 4H]
        units = cell.size(-1)
        gates[:, : 2 * units].sigmoid_()
        gates[:, 2 * units : 3 * units].tanh_()
        gates[:, 3 * units :].sigmoid_()
        i, f, g, o = gates.chunk(4, dim=-1)
        now = torch.addcmul(f * cell, i, g)
        squashed = now.tanh()
        ctx.save_for_backward(gates, cell, squashed)
        ctx.types = given.dtype, product.dtype
        return (o * squashed).to(product.dtype), now

    @staticmethod
    def backward(ctx, of_hidden: Tensor, of_cell: Tensor):  # type: ignore[no-untyped-def]
        gates, cell, squashed = ctx.saved_tensors
        i, f, g, o = gates.chunk(4, dim=-1)
        slope = torch.empty_like(gates)
        of_i, of_f, of_g, of_o = slope.chunk(4, dim=-1)
        of_hidden = of_hidden.to(cell.dtype)
        of_cell = of_cell + torch.ops.aten.tanh_backward(of_hidden * o, squashed)
        torch.mul(of_cell, g, out=of_i)
        torch.mul(of_cell, cell, out=of_f)
        torch.mul(of_cell, i, out=of_g)
        torch.mul(of_hidden, squashed, out=of_o)
        for part, gate in ((of_i, i), (of_f, f), (of_o, o)):
            torch.ops.aten.sigmoid_backward.grad_input(part, gate, grad_input=part)
        torch.ops.aten.tanh_backward.grad_input(of_g, g, grad_input=of_g)
        return *(slope.to(dtype) for dtype in ctx.types), of_cell * f


def cell_step(given: Tensor, product: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: the hidden state [R, H] in the product's type, and the new cell [R, H].

    Args:
        given: [R, 4H] what comes of the inputs, and the bias.
        product: [R, 4H] what comes of the states.
        cell: [R, H] that of the step before, fp32 at least: it adds up over all steps.
    """
    stepped: tuple[Tensor, Tensor] = _Cell.apply(given, product, cell)  # type: ignore[no-untyped-call]
    return stepped


class LSTM(nn.Module):
    """One layer that reads in one direction.

    Args:
        width: E of its inputs.
        units: H.
        fed: width of what a loop feeds it besides, at each step.
    """

    def __init__(self, width: int, units: int, fed: int = 0) -> None:
        super().__init__()
        self.units = units
        self.inputs = Linear(width, 4 * units)
        self.state = Linear(units + fed, 4 * units, bias=False)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All positions of x [T, R, E] after states [R, H]; hidden [T, R, H], the last states.

        By torch's own kernel for all positions; but where the weights are packed, whose products
        do not depend on how many rows there are, by `loop`.
        """
        packed = self.state.packed is not None and not torch.is_grad_enabled()
        return (self.loop if packed else self.by_torch)(x, hidden, cell)

    def loop(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `forward`; position for position."""
        given = self.inputs(x)  # [T, R, 4H]
        product, seen = for_loop(self.state), []
        for now in given.unbind(0):
            hidden, cell = cell_step(now, product(hidden), cell)
            seen.append(hidden)
        return torch.stack(seen), hidden, cell

    def for_loop(self) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """One step of it, for a loop: x [R, E], hidden [R, H] and cell [R, H] to the next two."""
        if not torch.is_grad_enabled():
            return lambda x, hidden, cell: cell_step(self.inputs(x), self.state(hidden), cell)
        inputs, state = repeated(self.inputs.weight), repeated(self.state.weight)
        bias = self.inputs.bias  # not of the products' type, in which its gradients would be added
        return lambda x, hidden, cell: cell_step(
            bias.expand(len(x), -1), inputs(x) + state(hidden), cell
        )

    def by_torch(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `forward`; all positions in one kernel."""
        weights = [self.inputs.weight, self.state.weight, self.inputs.bias]
        weights.append(torch.zeros_like(weights[-1]))  # torch has two biases, the same to us
        by_cudnn = x.device.type == "cuda"
        if by_cudnn:
            x, weights = for_cudnn(x, weights)
        states = hidden.to(x.dtype)[None], cell.to(x.dtype)[None]
        with torch.autocast("cuda", enabled=False) if by_cudnn else nullcontext():
            seen, hidden, last = torch._VF.lstm(
                x, states, weights, True, 1, 0.0, self.training, False, False
            )
        return seen, hidden[0], last[0].to(cell.dtype)


def for_cudnn(x: Tensor, weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Input and weights as cuDNN's LSTM wants them: the weights in one piece of memory.

    It knows no bf16, and autocast would take fp16 in its place, whose range needs a scaler: where
    products are in bf16 this one is in fp32 (on tensor cores as TF32).
    """
    half = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.half
    dtype = torch.half if half else wide(x)
    whole = torch.cat([each.flatten() for each in weights]).to(dtype)
    parts = whole.split([each.numel() for each in weights])
    return x.to(dtype), [part.view_as(each) for part, each in zip(parts, weights, strict=True)]


def wide(x: Tensor) -> torch.dtype:
    """The type of sums over all steps: fp32, or x's where that is wider."""
    return torch.promote_types(x.dtype, torch.float32)


class _Reversed(torch.autograd.Function):
    """x [S, R, ...] taken at `places` [S, R], which are their own inverse."""

    @staticmethod
    def forward(ctx, x: Tensor, places: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(places)
        return x[places, torch.arange(x.size(1), device=x.device)]

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        (places,) = ctx.saved_tensors
        return slope[places, torch.arange(slope.size(1), device=slope.device)], None


def backwards(x: Tensor, valid: Tensor) -> Tensor:
    """x [S, R, ...] with each row's real positions [R, S] in reverse; padding stays where it is."""
    positions = torch.arange(len(x), device=x.device)[:, None]  # [S, 1]
    lengths = valid.sum(dim=1)  # [R]
    places = torch.where(positions < lengths, lengths - 1 - positions, positions)
    reverse: Tensor = _Reversed.apply(x, places)  # type: ignore[no-untyped-call]
    return reverse


class Bidirectional(nn.Module):
    """One layer that reads from both ends (Schuster and Paliwal 1997): half its units from each.

    Each direction begins at the first position that is real, so padding changes nothing.
    """

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.ahead, self.back = LSTM(width, units // 2), LSTM(width, units // 2)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x [S, R, E], valid [R, S] -> [S, R, H]."""
        nothing = x.new_zeros(x.size(1), self.ahead.units, dtype=wide(x))
        ahead, *_ = self.ahead(x, nothing, nothing)
        back, *_ = self.back(backwards(x, valid), nothing, nothing)
        return torch.cat((ahead, backwards(back, valid)), dim=-1)


def last_states(states: Tensor, valid: Tensor) -> Tensor:
    """What each direction of a bidirectional layer ended with: [B, C] of states [B, S, C]."""
    half = states.size(-1) // 2
    end = valid.sum(dim=1) - 1  # [B]
    rows = torch.arange(len(states), device=states.device)
    return torch.cat((states[rows, end, :half], states[:, 0, half:]), dim=-1)


# ------------------------------------------------------------------------------- attention


class _AdditiveScores(torch.autograd.Function):
    """v . tanh(query + keys), whose tanh is computed again in the backward pass, not kept."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, query: Tensor, keys: Tensor, weight: Tensor, noted: list[Tensor]
    ) -> Tensor:
        ctx.save_for_backward(query, keys, weight)
        ctx.noted = noted
        return (query[:, :, None] + keys[:, None]).tanh_() @ weight

    @staticmethod
    def backward(ctx, slope: Tensor):  # type: ignore[no-untyped-def]
        query, keys, weight = ctx.saved_tensors
        inner = (query[:, :, None] + keys[:, None]).tanh_()  # [B, N, S, A]
        of_weight = inner.flatten(0, 2).t() @ slope.flatten()
        of_inner = torch.ops.aten.tanh_backward(slope[..., None] * weight, inner)
        of_keys = of_inner.sum(dim=1) if inner.size(1) > 1 else of_inner[:, 0]
        of_query = of_inner.sum(dim=2)
        if ctx.noted:
            ctx.noted[0].add_(of_keys)
        else:
            ctx.noted.append(of_keys.contiguous())
        return of_query, None, of_weight, None


@dataclass
class Source:
    """What a decoder attends to: computed once a sentence, and kept while decoding."""

    states: Tensor
    """[B, S, C], fp32 at least."""
    bias: Tensor
    """[B, 1, S] added to scores: 0, or -inf at padding."""
    keys: Tensor | None = None
    """[B, S, A] of additive attention, fp32 at least."""

    def keep(self, sentences: Tensor) -> None:
        """Keep only these sentences [B']."""
        self.states, self.bias = self.states[sentences], self.bias[sentences]
        self.keys = None if self.keys is None else self.keys[sentences]


def source_of(states: Tensor, valid: Tensor, keys: Tensor | None = None) -> Source:
    """To attend to states [B, S, C] where they are valid [B, S], with keys [B, S, A]."""
    dtype = wide(states)
    nothing = torch.zeros(valid.shape, dtype=dtype, device=states.device)
    bias = nothing.masked_fill_(~valid, -math.inf)[:, None]
    return Source(states.to(dtype), bias, None if keys is None else keys.to(dtype))


class Look:
    """The attention of a loop: rows [R, ...] of B sentences look at their sources.

    Args:
        source: what they look at.
        weight: v [A] of additive attention (Bahdanau et al. 2015); None: scores are dot products
            (Luong et al. 2015, section 3.1).
    """

    def __init__(self, source: Source, weight: Tensor | None = None) -> None:
        self.source, self.weight = source, weight
        states, keys = source.states, source.keys
        if not torch.is_grad_enabled():
            self.mix: Product = lambda x: x @ states
            self.products: Product = lambda x: x @ states.mT
            return
        self.mix = Repeated(states.mT, states.dtype)
        if weight is None:
            self.products = Repeated(states, states.dtype)
        else:
            assert keys is not None, "additive attention has keys"
            self.noted: list[Tensor] = []
            self.keys: Tensor = _Late.apply(keys, self.noted.pop)  # type: ignore[no-untyped-call]

    def __call__(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """What queries [R, A or C] find: contexts [R, C], and the weights [B, N, S].

        With one row a sentence when gradients are wanted, else any number N.
        """
        states = self.source.states
        asked = query.to(states.dtype).unflatten(0, (len(states), -1))  # [B, N, ...]
        with torch.autocast(query.device.type, enabled=False):
            additive = self.weight is not None
            scores = self.additive(asked) if additive else self.products(asked)
            weights = (scores + self.source.bias).softmax(dim=-1)  # [B, N, S]
            return self.mix(weights).flatten(0, 1), weights

    def additive(self, query: Tensor) -> Tensor:
        """v . tanh(query + keys) (Bahdanau et al. 2015, appendix A.1.2): [B, N, S]."""
        assert self.weight is not None, "additive attention has a weight"
        weight = self.weight.to(query.dtype)
        if torch.is_grad_enabled():
            scores: Tensor = _AdditiveScores.apply(query, self.keys, weight, self.noted)  # type: ignore[no-untyped-call]
            return scores
        assert self.source.keys is not None, "additive attention has keys"
        return additive_scores(query, self.source.keys, weight)


def additive_scores(query: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    """v . tanh(W s + U h) (Bahdanau et al. 2015, appendix A.1.2): [B, N, S].

    Args:
        query: W s, [B, N, A].
        keys: U h, [B, S, A].
        weight: v, [A].
    """
    return (query[:, :, None] + keys[:, None]).tanh() @ weight
