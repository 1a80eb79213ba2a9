"""Recurrent translators: LSTMs without attention, with Bahdanau's and with Luong's.

They came before the Transformer, in this order:

| `attention` | is | from |
|---|---|---|
| `none` | all that is known of the source is one vector | Sutskever et al. 2014 |
| `bahdanau` | each step looks, additively, with the state before it | Bahdanau et al. 2015 |
| `dot` | each looks with its own state; what it saw is fed to the next | Luong et al. 2015 |

All read the source from both ends, which Sutskever did not: he reversed it.

Legend: B sentences, N beams, R rows (B, or B*N when decoding), S source length, T target length,
D model width, H units, A width of the additive attention's inner layer, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from mt.config.section import Variant
from mt.errors import ConfigError
from mt.interfaces import Cache, Memory
from mt.models.modules.embedding import WordDropout, WordDropoutConfig, shared_embeddings
from mt.models.modules.layers import Dropout
from mt.models.modules.linear import Linear, once
from mt.models.modules.lstm import (
    LSTM,
    Bidirectional,
    Look,
    Source,
    cell_step,
    for_loop,
    last_states,
    more_rows,
    source_of,
    wide,
)
from mt.special_tokens import PAD

if TYPE_CHECKING:
    from mt.vocabulary.vocabulary import Vocabulary

State = list[Tensor]
"""What a decoder carries from one position to the next, each [R, ...]."""


class Config(Variant):
    """Sizes and choices of a recurrent translator."""

    kind: str = "rnn"
    d_model: int = Field(512, ge=1)
    """Width D of the embeddings and of what is projected to the vocabulary."""
    units: int = Field(1024, ge=2)
    """Units H of a decoder layer; each direction of an encoder layer has half as many."""
    encoder_layers: int = Field(2, ge=1)
    """Layers of the encoder, each reading from both ends."""
    decoder_layers: int = Field(1, ge=1)
    """Layers of the decoder."""
    attention: Literal["bahdanau", "dot", "none"] = "bahdanau"
    """How the decoder looks at the source: by an additive layer, by dot products, not at all."""
    attention_units: int | None = Field(None, ge=1)
    """Width A of the additive attention's inner layer; d_model when left out."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """On embeddings, between layers and on what is projected."""
    word_dropout: WordDropoutConfig = WordDropoutConfig()
    """Whole words that are hidden from encoder and decoder."""
    tie_embeddings: Literal["auto", "all", "decoder", "none"] = "auto"
    """Share weights of source, target and output (all), of target and output (decoder);
    `auto`: all with a joint vocabulary, else decoder."""

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.units % 2:
            raise ValueError(f"units ({self.units}) must be even: half read from either end")
        if self.attention != "bahdanau" and self.attention_units is not None:
            raise ValueError(f"attention_units is of attention: bahdanau, not {self.attention}")
        return self


# ------------------------------------------------------------------------------ decoders


class PlainDecoder(nn.Module):
    """Sutskever et al. 2014: layers of LSTM that begin with what the encoder ended with.

    They begin with a linear map of it, where theirs take over its states. Nothing is fed back but
    the words, so each layer is one kernel over all positions.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = config.decoder_layers
        self.bottom, self.upper = LSTM(config.d_model, config.units), upper_layers(config)
        self.first = Linear(config.units, self.layers * config.units)
        self.readout = Linear(config.units, config.d_model)
        self.drop = Dropout(config.dropout)
        once(self.first)

    def source(self, memory: Memory) -> Source | None:
        """What is attended to: nothing."""
        return None

    def begin(self, memory: Memory) -> State:
        """Hidden state and cell [B, H] of each layer before the first word."""
        return begin(self.first(last_states(memory.states, memory.valid)), self.layers)

    def forward(
        self, x: Tensor, source: Source | None, state: State, watch: list[Tensor] | None = None
    ) -> Tensor:
        """Hidden [T, R, D] of embeddings [T, R, D]; `state` becomes that after them.

        Args:
            x: the embeddings.
            source: what to attend to.
            state: where to begin.
            watch: gets the weights [B, N, S] of each step.
        """
        x, state[0], state[1] = self.bottom(x, *state[:2])
        top = self.drop(through(self.upper, x, state, self.drop))
        hidden: Tensor = self.drop(self.readout(top))
        return hidden


class BahdanauDecoder(nn.Module):
    """Bahdanau et al. 2015, with an LSTM where they have a GRU.

    Step i looks with the state s_{i-1} before it (section 3.1); the context c_i that it finds
    enters its recurrence and its output: s_i = LSTM(y_{i-1}, c_i; s_{i-1}), and a maxout layer
    (Goodfellow et al. 2013; appendix A.2.2) of s_i, c_i and y_{i-1} is what is projected. The
    appendix has s_{i-1} there; we follow equation 4. Their projection has a matrix of its own,
    ours is as `tie_embeddings` says. s_0 = tanh(W_s h_1), h_1 being what the encoder's backward
    direction ended with (appendix A.2.2); W_s h_1 is the cell. Further layers, which they have
    not, read the states of the first.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        units, inner = config.units, config.attention_units or config.d_model
        self.layers = config.decoder_layers
        self.bottom, self.upper = LSTM(config.d_model, units, fed=units), upper_layers(config)
        self.first = Linear(units // 2, self.layers * units)
        self.query = Linear(units, inner, bias=False)
        self.key = Linear(units, inner)
        self.score = nn.Parameter(torch.empty(inner))
        self.readout = Linear(2 * units + config.d_model, 2 * config.d_model)
        self.drop = Dropout(config.dropout)
        once(self.first)
        once(self.key)

    def source(self, memory: Memory) -> Source | None:
        """What is attended to, each state with its key U h."""
        return source_of(memory.states, memory.valid, self.key(memory.states))

    def begin(self, memory: Memory) -> State:
        """See `PlainDecoder.begin`."""
        first = memory.states[:, 0]  # [B, H], its second half of the backward direction
        return begin(self.first(first[:, first.size(1) // 2 :]), self.layers)

    def forward(
        self, x: Tensor, source: Source | None, state: State, watch: list[Tensor] | None = None
    ) -> Tensor:
        """See `PlainDecoder.forward`."""
        assert source is not None, "it attends to a source"
        look = Look(source, self.score)
        query, product = for_loop(self.query), for_loop(self.bottom.state)
        given = self.bottom.inputs(x)  # [T, R, 4H]
        hidden, cell = state[:2]
        seen, contexts = [], []
        for now in given.unbind(0):
            context, weights = look(query(hidden))  # [R, H]
            context = context.to(given.dtype)
            hidden, cell = cell_step(now, product(torch.cat((hidden, context), dim=-1)), cell)
            seen.append(hidden)
            contexts.append(context)
            if watch is not None:
                watch.append(weights)
        state[:2] = hidden, cell
        top = self.drop(through(self.upper, torch.stack(seen), state, self.drop))
        pairs = self.readout(torch.cat((top, torch.stack(contexts), x), dim=-1))  # [T, R, 2D]
        return self.drop(torch.maximum(*pairs.chunk(2, dim=-1)))


class LuongDecoder(nn.Module):
    """Luong et al. 2015: global attention by dot products (section 3.1), with input feeding (3.3).

    Step t looks with its own top state h_t; what is projected, tanh(W_c [c_t; h_t]), is fed to the
    first layer at the next step, beside the word. The layers begin with a linear map of what the
    encoder ended with, where theirs take over its states.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        units, self.d_model = config.units, config.d_model
        self.layers = config.decoder_layers
        self.bottom, self.upper = LSTM(config.d_model, units, self.d_model), upper_layers(config)
        self.first = Linear(units, self.layers * units)
        self.readout = Linear(2 * units, config.d_model, bias=False)
        self.drop = Dropout(config.dropout)
        once(self.first)

    def source(self, memory: Memory) -> Source | None:
        """What is attended to."""
        return source_of(memory.states, memory.valid)

    def begin(self, memory: Memory) -> State:
        """See `PlainDecoder.begin`; last of all what is fed."""
        state = begin(self.first(last_states(memory.states, memory.valid)), self.layers)
        return [*state, state[1].new_zeros(len(state[1]), self.d_model)]

    def forward(
        self, x: Tensor, source: Source | None, state: State, watch: list[Tensor] | None = None
    ) -> Tensor:
        """See `PlainDecoder.forward`."""
        assert source is not None, "it attends to a source"
        look, readout, product = Look(source), for_loop(self.readout), for_loop(self.bottom.state)
        upper = [cast(LSTM, layer).for_loop() for layer in self.upper]
        given = self.bottom.inputs(x)  # [T, R, 4H]
        seen = []
        for now in given.unbind(0):
            below = torch.cat((state[0], state[-1].to(state[0].dtype)), dim=-1)
            state[:2] = cell_step(now, product(below), state[1])
            for n, layer in enumerate(upper):
                at = slice(2 * n + 2, 2 * n + 4)
                state[at] = layer(self.drop(state[2 * n]), *state[at])
            context, weights = look(state[-3])  # [R, H]
            both = torch.cat((context.to(given.dtype), state[-3]), dim=-1)
            state[-1] = readout(both).tanh()
            seen.append(state[-1])
            if watch is not None:
                watch.append(weights)
        return self.drop(torch.stack(seen))


def upper_layers(config: Config) -> nn.ModuleList:
    """The decoder's layers above the first."""
    units = config.units
    return nn.ModuleList([LSTM(units, units) for _ in range(config.decoder_layers - 1)])


def begin(cells: Tensor, layers: int) -> State:
    """Hidden states tanh(c) and cells c of layers, given all cells [B, layers * H]."""
    return [each for c in cells.to(wide(cells)).chunk(layers, dim=-1) for each in (c.tanh(), c)]


def through(layers: nn.ModuleList, x: Tensor, state: State, drop: Dropout) -> Tensor:
    """x [T, R, H] through the upper layers, whose states follow those of the first."""
    for n, layer in enumerate(layers, start=1):
        x, state[2 * n], state[2 * n + 1] = layer(drop(x), state[2 * n], state[2 * n + 1])
    return x


RecurrentDecoder = PlainDecoder | BahdanauDecoder | LuongDecoder
DECODERS: dict[str, type[RecurrentDecoder]] = {
    "none": PlainDecoder, "bahdanau": BahdanauDecoder, "dot": LuongDecoder,
}  # fmt: skip


# --------------------------------------------------------------------------------- model


@dataclass
class RecurrentCache:
    """What decoding remembers: states, one row a beam, and the source, one row a sentence."""

    source: Source | None
    state: State
    beams: int
    fresh: bool = True
    """Whether nothing was decoded yet: one row a sentence stands for all its beams."""

    def spread(self) -> None:
        """Give each beam its own row."""
        if self.fresh:
            self.state = [x.repeat_interleave(self.beams, dim=0) for x in self.state]
        self.fresh = False

    def reorder(self, rows: Tensor) -> None:
        """Row r becomes what row `rows[r]` [B*N] was."""
        self.spread()
        self.state = [x[rows] for x in self.state]

    def keep(self, sentences: Tensor) -> None:
        """Keep only these sentences [B'], with their beams."""
        beams = 1 if self.fresh else self.beams
        self.state = [x.unflatten(0, (-1, beams))[sentences].flatten(0, 1) for x in self.state]
        if self.source is not None:
            self.source.keep(sentences)


class Recurrent(nn.Module):
    """Embeddings, a bidirectional encoder and one of the decoders."""

    def __init__(self, config: Config, source_size: int, target_size: int, tie: str) -> None:
        super().__init__()
        self.scale, self.alignable = math.sqrt(config.d_model), config.attention != "none"
        # The target embedding comes first: it owns the weights that are shared.
        self.target_embedding = nn.Embedding(target_size, config.d_model)
        self.source_embedding = None if tie == "all" else nn.Embedding(source_size, config.d_model)
        self.projection = nn.Linear(config.d_model, target_size) if tie == "none" else None
        self.drop = Dropout(config.dropout)
        words = config.word_dropout
        self.source_words = WordDropout(words.source, words.by)
        self.target_words = WordDropout(words.target, words.by)
        widths = [config.d_model] + [config.units] * (config.encoder_layers - 1)
        self.encoder = nn.ModuleList([Bidirectional(width, config.units) for width in widths])
        self.decoder: RecurrentDecoder = DECODERS[config.attention](config)
        once(self.encoder)
        initialise(self)

    def encode(self, source: Tensor) -> Memory:
        """Source ids [B, S] to memory [B, S, H]."""
        count, source = len(source), more_rows(source)
        valid = source != PAD  # [B, S]
        table = self.source_embedding or self.target_embedding
        x = self.source_words(table, source.t()) * self.scale  # [S, B, D]
        for layer in self.encoder:
            x = layer(self.drop(x), valid)
        return Memory(x.transpose(0, 1)[:count].contiguous(), valid[:count])

    def start(self, memory: Memory, beams: int, max_length: int) -> Cache:
        """A cache for any number of tokens; the keys of the source computed once."""
        return RecurrentCache(self.decoder.source(memory), self.decoder.begin(memory), beams)

    def decode(self, target: Tensor, memory: Memory, cache: Cache | None = None) -> Tensor:
        """Hidden states [B, T, D] of target inputs [B, T]; with a cache, of the new ones only."""
        if cache is None:
            return self._decode(target, memory, None)
        kept = cast(RecurrentCache, cache)
        if not kept.fresh or len(target) > len(memory.states):
            kept.spread()
        hidden: Tensor = self.decoder(self._embedded(target), kept.source, kept.state)
        kept.spread()
        return hidden.transpose(0, 1)

    def _decode(self, target: Tensor, memory: Memory, watch: list[Tensor] | None) -> Tensor:
        """All positions from the first."""
        count, target = len(target), more_rows(target)
        memory = Memory(more_rows(memory.states), more_rows(memory.valid))
        source, state = self.decoder.source(memory), self.decoder.begin(memory)
        hidden: Tensor = self.decoder(self._embedded(target), source, state, watch)
        return hidden.transpose(0, 1)[:count]

    def _embedded(self, target: Tensor) -> Tensor:
        """[T, R, D] of target inputs [R, T]."""
        words = self.target_words(self.target_embedding, target.t())  # [T, R, D]
        embedded: Tensor = self.drop(words * self.scale)
        return embedded

    def attention(self, source: Tensor, target: Tensor) -> Tensor:
        """The attention [B, T, S] of the step that says the word after each target input.

        Raises:
            ConfigError: the model has none.
        """
        if not self.alignable:
            what = "a model with attention: none looks at no source word and so aligns none"
            advice = "ask for no alignments and no coverage, or train one with attention: bahdanau"
            raise ConfigError("ATTENTION", "model.attention", what, advice)
        seen: list[Tensor] = []
        self._decode(target, self.encode(source), seen)
        return torch.cat(seen, dim=1)[: len(source)]

    def attentions(self, source: Tensor, target: Tensor) -> Mapping[str, Sequence[Tensor]]:
        """The one that `attention` tells, of one head; see `mt.contracts.Seq2Seq`."""
        return {"cross": [self.attention(source, target)[:, None]]}  # [B, 1, T, S]

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The projection weight [V, D] and its bias: logits = hidden W^T + b."""
        if self.projection is not None:
            return self.projection.weight, self.projection.bias
        return self.target_embedding.weight, None

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits [B, T, V] of target inputs [B, T], each position seeing those before it."""
        weight, bias = self.output()
        return F.linear(self.decode(target, self.encode(source)), weight, bias)

    def blocks(self) -> Iterable[nn.Module]:
        """None: a loop over positions would be compiled anew for each length."""
        return []


@torch.no_grad()
def initialise(model: nn.Module) -> None:
    """Draw the weights.

    | weight | drawn from |
    |---|---|
    | embeddings, v of additive attention | normal, deviation D^-0.5 |
    | recurrent products of LSTMs | orthogonal, each gate for itself (Saxe et al. 2014) |
    | other linear layers | Xavier uniform, each gate of an LSTM for itself |
    | biases | 0, those of forget gates 1 (Jozefowicz et al. 2015) |
    """
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, BahdanauDecoder):
            nn.init.normal_(module.score, std=len(module.score) ** -0.5)
    for module in model.modules():
        if isinstance(module, LSTM):
            for gate in module.inputs.weight.chunk(4):
                nn.init.xavier_uniform_(gate)
            for gate in module.state.weight.chunk(4):
                nn.init.orthogonal_(gate[:, : module.units])
                if gate.size(1) > module.units:
                    nn.init.xavier_uniform_(gate[:, module.units :])
            nn.init.ones_(module.inputs.bias.chunk(4)[1])


def build(config: Config, vocabulary: Vocabulary) -> Recurrent:
    """The model, its weights drawn from torch's generator.

    Raises:
        ConfigError: the embeddings cannot be shared because the vocabulary is not joint.
    """
    tie = shared_embeddings(config.tie_embeddings, vocabulary.joint)
    return Recurrent(config, vocabulary.source_size, vocabulary.target_size, tie)
