"""A stub of each planned use of the nouns; `test_contracts.py` has mypy check that they fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mt.config.yaml_reader import Variant
from mt.errors import ConfigError
from mt.interfaces import (
    BEGIN,
    END,
    Batch,
    Cache,
    Decoder,
    Engine,
    EngineOptions,
    EnginePlugin,
    ExporterPlugin,
    Hypotheses,
    Loss,
    Memory,
    ModelPlugin,
    Objective,
    ObjectivePlugin,
    Pair,
    Request,
    Score,
    Search,
    SearchPlugin,
    Seq2Seq,
    SourceConfig,
    SourcePlugin,
    Teacher,
    Term,
    Translation,
)


class Ensemble:
    """A decoder that averages the log-probabilities of several."""

    def __init__(self, members: Sequence[Decoder]) -> None:
        self.members = members

    def start(self, source: Tensor, beams: int, max_lengths: Tensor) -> list[Any]:
        return [member.start(source, beams, max_lengths) for member in self.members]

    def step(self, state: list[Any], tokens: Tensor) -> Tensor:
        pairs = zip(self.members, state, strict=True)
        return torch.stack([m.step(s, tokens).log_softmax(-1) for m, s in pairs]).mean(0)

    def reorder(self, state: list[Any], beams: Tensor) -> None:
        for member, inner in zip(self.members, state, strict=True):
            member.reorder(inner, beams)

    def keep(self, state: list[Any], sentences: Tensor) -> None:
        for member, inner in zip(self.members, state, strict=True):
            member.keep(inner, sentences)

    def sharpen(self, state: list[Any], ids: Tensor, logits: Tensor) -> Tensor:
        return logits

    def align(self, source: Tensor, tokens: Tensor) -> Tensor:
        return torch.stack([member.align(source, tokens) for member in self.members]).mean(0)


def ensemble(members: Sequence[Decoder]) -> Decoder:
    return Ensemble(members)


class Sampling:
    """A search that draws each token, after the tokens that were forced."""

    def __call__(self, decoder: Decoder, request: Request) -> Hypotheses:
        rows, beams = request.source.shape[0], request.n_best
        random = torch.Generator().manual_seed((request.seeds or [1])[0])
        state = decoder.start(request.source, beams, request.max_lengths)
        drawn = [torch.full((rows, beams), BEGIN)]
        for t in range(int(request.max_lengths.max())):
            chances = decoder.step(state, drawn[-1]).softmax(-1)  # [B, N, V]
            token = torch.multinomial(chances.flatten(0, 1), 1, generator=random)
            drawn.append(token.view(rows, beams))
            for row, prefix in enumerate(request.prefixes or ()):
                if t < len(prefix):
                    drawn[-1][row] = prefix[t]
        tokens = torch.stack(drawn[1:], dim=-1)  # [B, N, T]
        return Hypotheses(tokens, torch.zeros(rows, beams), torch.zeros(tokens.shape))


class SamplingConfig(Variant):
    kind: str = "sampling"
    temperature: float = 1.0


class SamplingPlugin:
    Config: type[Variant] = SamplingConfig

    def build(self, config: SamplingConfig) -> Search:
        return Sampling()


forced = Request(torch.ones(2, 3), torch.tensor([9, 9]), prefixes=[[5, 6], []], seeds=[1, 2])
aligned = Translation("Haus", tokens=("Haus",), alignment=((1.0, 0.0),), prefix="H")


class Distillation(nn.Module):
    """An objective that learns from references and from a teacher."""

    def __init__(self, model: Seq2Seq, teacher: Teacher) -> None:
        super().__init__()
        self.model, self.teacher = model, teacher

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        count = batch.target_lengths.sum()
        return {"cross_entropy": count, "teacher": count}

    def forward(self, batch: Batch) -> Loss:
        hidden = self.model.decode(batch.inputs, self.model.encode(batch.source))  # [B, T, D]
        weight, _ = self.model.output()
        student = (hidden @ weight.T).log_softmax(-1)  # [B, T, V]
        count = batch.target_lengths.sum()
        told = student.gather(-1, batch.labels[..., None]).sum()
        taught = (self.teacher.logits(batch).softmax(-1) * student).sum()
        return Term("cross_entropy", -told, count), Term("teacher", -taught, count, weight=0.5)


class DistillationPlugin:
    Config: type[Variant] = Variant

    def build(
        self, config: Variant, model: Seq2Seq, vocabulary: Any, teacher: Teacher | None
    ) -> Objective:
        assert teacher is not None
        return Distillation(model, teacher)


class Monolingual:
    Config: type[SourceConfig] = SourceConfig

    def read(self, config: SourceConfig) -> Iterable[Pair]:
        language = config.direction.target
        return [Pair(None, "Ein Haus.", language, language, "news:1", weight=0.5)]


class Multilingual:
    Config: type[SourceConfig] = SourceConfig

    def read(self, config: SourceConfig) -> Iterable[Pair]:
        return [
            Pair("A house.", "Ein Haus.", "en", "de", "talks:1"),
            Pair("A house.", "一座房子。", "en", "zh", "talks:2"),
        ]


@dataclass
class RnnCache:
    """All that a recurrent decoder remembers is one state a beam."""

    state: Tensor
    """[B*N, D]."""
    beams: int

    def reorder(self, rows: Tensor) -> None:
        self.state = self.state[rows]

    def keep(self, sentences: Tensor) -> None:
        kept = self.state.view(-1, self.beams, self.state.shape[-1])[sentences]  # [B', N, D]
        self.state = kept.flatten(0, 1)


class Rnn(nn.Module):
    """A model without attention or positions."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.decoder = nn.GRU(width, width, batch_first=True)

    def encode(self, source: Tensor) -> Memory:
        return Memory(self.encoder(self.embedding(source))[0], source != 0)

    def start(self, memory: Memory, beams: int, max_length: int) -> Cache:
        return RnnCache(memory.states[:, -1].repeat_interleave(beams, 0), beams)

    def decode(self, target: Tensor, memory: Memory, cache: Cache | None = None) -> Tensor:
        first = cache.state if isinstance(cache, RnnCache) else memory.states[:, -1]
        hidden, last = self.decoder(self.embedding(target), first[None])
        if isinstance(cache, RnnCache):
            cache.state = last[0]
        assert isinstance(hidden, Tensor)
        return hidden

    def attention(self, source: Tensor, target: Tensor) -> Tensor:
        raise ConfigError("ATTENTION", "alignments", "this model has none", "do without")

    def attentions(self, source: Tensor, target: Tensor) -> Mapping[str, Sequence[Tensor]]:
        raise ConfigError("ATTENTION", "alignments", "this model has none", "do without")

    def output(self) -> tuple[Tensor, Tensor | None]:
        return self.embedding.weight, None

    def blocks(self) -> Iterable[nn.Module]:
        return [self.encoder, self.decoder]


class RnnPlugin:
    Config: type[Variant] = Variant

    def build(self, config: Variant, vocabulary: Any) -> Seq2Seq:
        return Rnn(vocabulary.target_size, 8)


class CTranslate2Engine:
    """An engine that needs no torch."""

    def __init__(self, translator: Any) -> None:
        self.translator = translator

    def translate(
        self, lines: Iterable[str], options: EngineOptions | None = None
    ) -> Iterator[Translation]:
        wanted = (options or EngineOptions()).n_best
        for line in lines:
            texts: list[str] = self.translator.translate(line, wanted)
            rest = tuple(Translation(text) for text in texts)
            yield Translation(texts[0], alternatives=rest if wanted > 1 else ())

    def score(self, pairs: Iterable[Pair]) -> Iterator[Score]:
        for pair in pairs:
            values: list[float] = self.translator.score(pair.source, pair.target)
            yield Score(sum(values), len(values), tuple(values))


class CTranslate2Plugin:
    def accepts(self, path: Path) -> bool:
        return (path / "model.bin").is_file()

    def open(self, path: Path, options: EngineOptions) -> Engine:
        return CTranslate2Engine(path)


class Exporter:
    Config: type[Variant] = Variant

    def check(self, opened: Any, config: Variant) -> None:
        if opened.recipe.model.kind != "transformer":
            raise ConfigError("EXPORT-KIND", "model.kind", "cannot be expressed", "take another")

    def export(self, model: Seq2Seq, opened: Any, path: Path, config: Variant) -> None:
        weight, _ = model.output()
        path.write_bytes(bytes(weight.numel()))


models: list[ModelPlugin] = [RnnPlugin()]
objectives: list[ObjectivePlugin] = [DistillationPlugin()]
searches: list[SearchPlugin] = [SamplingPlugin()]
sources: list[SourcePlugin] = [Monolingual(), Multilingual()]
exporters: list[ExporterPlugin] = [Exporter()]
engines: list[EnginePlugin] = [CTranslate2Plugin()]
translation_ends_with = END
