"""Recurrent translators: LSTMs without attention, with Bahdanau's and with Luong's.

| `attention` | what the decoder reads of the source | paper |
|---|---|---|
| `none` | only the encoder's last states | Sutskever et al. 2014 |
| `bahdanau` | additive attention with the state before each step | Bahdanau et al. 2015 |
| `dot` | dot products with each step's own state, fed to the next step | Luong et al. 2015 |

All encoders are bidirectional; Sutskever et al. reversed the source instead.

Legend: B sentences, N beams, R rows (B, or B*N when decoding), S source length, T target length,
D model width, H units, A width of the additive attention's inner layer, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mt.config.section import MAX_LAYERS, MAX_WIDTH, Variant
from mt.errors import ConfigError
from mt.interfaces import Cache, Memory
from mt.models.modules.embedding import WordDropout, WordDropoutConfig, shared_embeddings
from mt.models.modules.layers import Dropout, record_attention
from mt.models.modules.linear import Linear, keep_fp32
from mt.models.modules.lstm import (
    LSTM,
    Bidirectional,
    attend,
    last_states,
    pad_batch,
    source_of,
    wide,
)
from mt.special_tokens import PAD

if TYPE_CHECKING:
    from mt.vocabulary.vocabulary import Vocabulary

Tensors = list[Tensor]
"""The state of a decoder, each [R, ...]: hidden and cell of each layer; or its source."""


class Config(Variant):
    """Sizes and options of a recurrent translator."""

    kind: str = "rnn"
    d_model: int = Field(512, ge=1, le=MAX_WIDTH)
    """Width D of the embeddings and of the input of the projection."""
    units: int = Field(1024, ge=2, le=MAX_WIDTH)
    """Units H of a decoder layer; each direction of an encoder layer has half as many."""
    encoder_layers: int = Field(2, ge=1, le=MAX_LAYERS)
    """Bidirectional layers of the encoder."""
    decoder_layers: int = Field(1, ge=1, le=MAX_LAYERS)
    """Layers of the decoder."""
    attention: Literal["bahdanau", "dot", "none"] = "bahdanau"
    """Attention of the decoder to the source: additive, by dot products, or none."""
    attention_units: int | None = Field(None, ge=1, le=MAX_WIDTH)
    """Width A of the additive attention's inner layer; d_model when left out."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """On embeddings, between layers and on the input of the projection."""
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


class RecurrentDecoder(nn.Module):
    """LSTM layers whose first state is a linear map of the encoder's last states.

    The first layer reads `fed` further numbers beside the word and its state. The encoder's last
    states are `encoded` wide.
    """

    def __init__(self, config: Config, fed: int, encoded: int) -> None:
        super().__init__()
        self.layers, units = config.decoder_layers, config.units
        self.bottom = LSTM(config.d_model, units, fed)
        self.upper = nn.ModuleList([LSTM(units, units) for _ in range(self.layers - 1)])
        self.first = Linear(encoded, self.layers * units)
        self.drop = Dropout(config.dropout)
        keep_fp32(self.first)

    def source(self, memory: Memory) -> Tensors:
        """The source as `lstm.attend` takes it."""
        return source_of(memory.states, memory.valid)

    def begin(self, memory: Memory) -> Tensors:
        """The state before the first word: tanh(c) and c, each [B, H], of each layer."""
        return self.begin_with(last_states(memory.states, memory.valid))

    def begin_with(self, encoded: Tensor) -> Tensors:
        """The same from states `encoded`, of which all cells c are one linear map."""
        cells = self.first(encoded)
        layers = cells.to(wide(cells)).chunk(self.layers, dim=-1)
        return [each for cell in layers for each in (cell.tanh(), cell)]

    def through_upper(self, x: Tensor, state: Tensors) -> Tensor:
        """x [T, R, H] through the upper layers, whose states follow those of the first."""
        for n, layer in enumerate(self.upper, start=1):
            x, state[2 * n], state[2 * n + 1] = layer(self.drop(x), state[2 * n], state[2 * n + 1])
        return x


class PlainDecoder(RecurrentDecoder):
    """Sutskever et al. 2014. Only words are fed back, so each layer reads all positions at once."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, 0, config.units)
        self.readout = Linear(config.units, config.d_model)

    def source(self, memory: Memory) -> Tensors:
        """Nothing."""
        return []

    def forward(self, x: Tensor, source: Tensors, state: Tensors, weights: Tensors) -> Tensor:
        """Hidden [T, R, D] of embeddings x [T, R, D]; advances `state`.

        Appends the attention weights [B, N, S] of each step to `weights`.
        """
        x, state[0], state[1] = self.bottom(x, *state[:2])
        hidden: Tensor = self.drop(self.readout(self.drop(self.through_upper(x, state))))
        return hidden


class BahdanauDecoder(RecurrentDecoder):
    """Bahdanau et al. 2015, with an LSTM where they have a GRU.

    Step i attends with the state s_{i-1} before it (section 3.1): s_i = LSTM(y_{i-1}, c_i; s_{i-1})
    with the context c_i. The output is a maxout layer (Goodfellow et al. 2013) of s_i, c_i and
    y_{i-1}, as in equation 4; appendix A.2.2 has s_{i-1} there. s_0 = tanh(W_s h_1), where h_1 is
    the last state of the encoder's backward direction (A.2.2); W_s h_1 is the cell. Further
    layers, which the paper does not have, read the states of the first.
    """

    def __init__(self, config: Config) -> None:
        units, inner = config.units, config.attention_units or config.d_model
        super().__init__(config, units, units // 2)
        self.query = Linear(units, inner, bias=False)
        self.key = Linear(units, inner)
        self.score = nn.Parameter(torch.empty(inner))
        self.readout = Linear(2 * units + config.d_model, 2 * config.d_model)
        keep_fp32(self.key)

    def source(self, memory: Memory) -> Tensors:
        """The source with keys U h."""
        return source_of(memory.states, memory.valid, self.key(memory.states))

    def begin(self, memory: Memory) -> Tensors:
        """The state before the first word, from the backward direction only."""
        return self.begin_with(memory.states[:, 0].chunk(2, dim=-1)[1])

    def forward(self, x: Tensor, source: Tensors, state: Tensors, weights: Tensors) -> Tensor:
        """See `PlainDecoder.forward`."""
        hidden, cell = state[:2]
        outputs, contexts = [], []
        for word in self.bottom.inputs(x).unbind(0):  # [R, 4H]
            context, step_weights = attend(source, self.query(hidden), self.score)  # [R, H]
            contexts.append(context.to(word.dtype))
            hidden, cell = self.bottom.step(word, torch.cat((hidden, contexts[-1]), -1), cell)
            outputs.append(hidden)
            weights.append(step_weights)
        state[:2] = hidden, cell
        top = self.drop(self.through_upper(torch.stack(outputs), state))
        pairs = self.readout(torch.cat((top, torch.stack(contexts), x), dim=-1))  # [T, R, 2D]
        return self.drop(torch.maximum(*pairs.chunk(2, dim=-1)))


class LuongDecoder(RecurrentDecoder):
    """Luong et al. 2015: global attention by dot products (section 3.1), with input feeding (3.3).

    Step t attends with its own top state h_t. tanh(W_c [c_t; h_t]) is projected, and fed to the
    first layer at the next step, beside the word.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.d_model, config.units)
        self.readout = Linear(2 * config.units, config.d_model, bias=False)

    def begin(self, memory: Memory) -> Tensors:
        """The state before the first word, and zeros as the first fed input."""
        state = super().begin(memory)
        return [*state, state[1].new_zeros(len(state[1]), self.readout.out_features)]

    def forward(self, x: Tensor, source: Tensors, state: Tensors, weights: Tensors) -> Tensor:
        """See `PlainDecoder.forward`."""
        outputs = []
        for word in self.bottom.inputs(x).unbind(0):  # [R, 4H]
            below = torch.cat((state[0], state[-1].to(state[0].dtype)), dim=-1)
            state[:2] = self.bottom.step(word, below, state[1])
            for n, layer in enumerate(self.upper, start=1):
                upper, at = cast(LSTM, layer), slice(2 * n, 2 * n + 2)
                state[at] = upper.step(upper.inputs(self.drop(state[2 * n - 2])), *state[at])
            context, step_weights = attend(source, state[-3])  # [R, H]
            state[-1] = self.readout(torch.cat((context.to(word.dtype), state[-3]), -1)).tanh()
            outputs.append(state[-1])
            weights.append(step_weights)
        return self.drop(torch.stack(outputs))


DECODERS = {"none": PlainDecoder, "bahdanau": BahdanauDecoder, "dot": LuongDecoder}


@dataclass
class RecurrentCache:
    """States with a row per beam, and the source with a row per sentence."""

    source: Tensors
    state: Tensors
    beams: int
    fresh: bool = True
    """Whether nothing was decoded yet: then the states have a row per sentence."""

    def spread(self) -> None:
        """Repeat the rows of a fresh cache for each beam."""
        if self.fresh:
            self.state = [x.repeat_interleave(self.beams, dim=0) for x in self.state]
        self.fresh = False

    def reorder(self, rows: Tensor) -> None:
        """Replace row r by row `rows[r]` [B*N]."""
        self.spread()
        self.state = [x[rows] for x in self.state]

    def select_sentences(self, sentences: Tensor) -> None:
        """Keep only these sentences [B'], with their beams."""
        beams = 1 if self.fresh else self.beams
        self.state = [x.unflatten(0, (-1, beams))[sentences].flatten(0, 1) for x in self.state]
        self.source = [x[sentences] for x in self.source]


class Recurrent(nn.Module):
    """Embeddings, a bidirectional encoder and one of the decoders."""

    recorded_weights: list[Tensor] | None = None
    """See `layers.record_attention`."""

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
        keep_fp32(self.encoder)
        initialise(self)

    def encode(self, source: Tensor) -> Memory:
        """Source ids [B, S] to memory [B, S, H]."""
        count, source = len(source), pad_batch(source)
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
        count = len(target)
        if cache is None:
            target = pad_batch(target)
            cache = self.start(Memory(pad_batch(memory.states), pad_batch(memory.valid)), 1, 0)
        past = cast(RecurrentCache, cache)
        if len(target) > len(past.state[0]):
            past.spread()
        x = self.drop(self.target_words(self.target_embedding, target.t()) * self.scale)
        weights: Tensors = []
        hidden: Tensor = self.decoder(x, past.source, past.state, weights)  # [T, R, D]
        if self.recorded_weights is not None:
            self.recorded_weights.append(torch.stack(weights, dim=2)[:count])
        past.spread()
        return hidden.transpose(0, 1)[:count]

    def record_alignment(self) -> AbstractContextManager[list[Tensor]]:
        """Record the attention [B, 1, T, S] of each `decode`, as one head.

        Raises:
            ConfigError: the model has none.
        """
        if not self.alignable:
            what = "a model with attention: none looks at no source word and so aligns none"
            advice = (
                "ask for no alignments, no coverage and no objective.alignment_weight, or train "
                "one with attention: bahdanau"
            )
            raise ConfigError("ATTENTION", "model.attention", what, advice)
        return record_attention([self])

    def attention(self, source: Tensor, target: Tensor) -> Tensor:
        """The attention [B, T, S] of the step that predicts the word after each target input."""
        with self.record_alignment() as weights:
            self.decode(target, self.encode(source))
        return weights[0][:, 0]

    def attentions(self, source: Tensor, target: Tensor) -> Mapping[str, Sequence[Tensor]]:
        """The weights of `attention` as one head; see `mt.interfaces.Seq2Seq`."""
        return {"cross": [self.attention(source, target)[:, None]]}  # [B, 1, T, S]

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The projection weight [V, D] and its bias: logits = hidden W^T + b."""
        if self.projection is not None:
            return self.projection.weight, self.projection.bias
        return self.target_embedding.weight, None

    def blocks(self) -> Iterable[nn.Module]:
        """None: a loop over positions would compile again for each length."""
        return []


@torch.no_grad()
def initialise(model: nn.Module) -> None:
    """Draw the weights from torch's generator.

    | weight | drawn from |
    |---|---|
    | embeddings, v of additive attention | normal, deviation D^-0.5 |
    | recurrent products of LSTMs | orthogonal, each gate separately (Saxe et al. 2014) |
    | other linear layers | Xavier uniform, each gate of an LSTM separately |
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
    """Build the model; its weights come from torch's generator.

    Raises:
        ConfigError: the embeddings cannot be shared because the vocabulary is not joint.
    """
    tie = shared_embeddings(config.tie_embeddings, vocabulary.joint)
    return Recurrent(config, vocabulary.source_size, vocabulary.target_size, tie)
