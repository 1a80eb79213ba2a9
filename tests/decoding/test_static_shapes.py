"""Decoding in static shapes finds what the plain decoder finds, replayed or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny_run
import torch
from recording import Recorder
from static_decoding import CPU, SETTINGS, made, refuse, request, same, searched

import mt.decoding.candidates
import mt.decoding.torch_searcher
from mt.config.plugins import plugin, plugins
from mt.decoding import shortlist
from mt.decoding.candidates import top_k_in_blocks
from mt.decoding.decoders import ModelDecoder, ensemble
from mt.decoding.shortlist import Shortlist
from mt.decoding.static_shapes import StaticShapeDecoder, StaticShapeModel, with_static_shapes
from mt.decoding.types import EngineOptions
from mt.errors import ModelError
from mt.models.modules import linear
from mt.special_tokens import BEGIN


def in_static_shapes(model, recorder=None):
    return StaticShapeDecoder(StaticShapeModel(model, CPU, recorder, refuse))


every_search = pytest.mark.parametrize("kind", plugins("search"))


def test_all_searches_are_tried():
    assert sorted(SETTINGS) == sorted(plugins("search"))


@every_search
def test_a_search_finds_the_same_in_static_shapes(kind):
    """Batches of several shapes one after another: shapes are left, outgrown and met again."""
    model, recorder = made(), Recorder()
    plain, frames = ModelDecoder(model), in_static_shapes(model)
    replayed = in_static_shapes(model, recorder)
    for seed, sentences, longest in [(1, 9, 38), (2, 17, 38), (3, 2, 9), (4, 9, 38), (4, 9, 38)]:
        asked = request(sentences, longest, n_best=1 if kind == "greedy" else 3, seed=seed)
        expected = searched(kind, plain, asked)
        assert expected.tokens.shape[-1] > min(longest, 20) // 2
        same(searched(kind, replayed, asked), expected)
        if seed < 3:
            same(searched(kind, frames, asked), expected)
    assert recorder.recorded > 4
    assert recorder.replayed > 2 * recorder.recorded


@every_search
def test_checking_less_often_changes_nothing(kind, monkeypatch):
    model = made()
    asked = request(n_best=1 if kind == "greedy" else 3)
    expected = searched(kind, ModelDecoder(model), asked)
    for steps in (3, 1000):
        monkeypatch.setitem(mt.decoding.candidates.SYNC_EVERY, "cpu", steps)
        same(searched(kind, in_static_shapes(model, Recorder()), asked), expected)


@every_search
def test_prefixes_are_honoured_in_static_shapes(kind):
    model = made()
    prefixes = [[70, 71, 72], [], [80]] * 3
    asked = request(n_best=1 if kind == "greedy" else 2, prefixes=prefixes)
    found = searched(kind, in_static_shapes(model, Recorder()), asked)
    same(found, searched(kind, ModelDecoder(model), asked))
    for row, prefix in enumerate(prefixes):
        assert found.tokens[row, 0, : len(prefix)].tolist() == prefix


@pytest.mark.parametrize("kind", ["beam", "greedy", "sampling"])
def test_an_ensemble_of_static_shapes_is_an_ensemble(kind):
    models = [made(), made(2)]
    asked = request()
    plain = ensemble([ModelDecoder(model) for model in models])
    frames = ensemble([in_static_shapes(model, Recorder()) for model in models])
    for _ in range(2):
        same(searched(kind, frames, asked), searched(kind, plain, asked))


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "pre", "norm_kind": "rms", "activation": "swiglu"},
        {"positions": "learned", "max_length": 40},
        {"positions": "none", "n_heads": 1},
    ],
    ids=lambda options: next(iter(options)),
)
def test_each_kind_of_model_is_the_same_in_static_shapes(options):
    model = made(**options)
    asked = request()
    expected = searched("beam", ModelDecoder(model), asked)
    same(searched("beam", in_static_shapes(model, Recorder()), asked), expected)


def test_packed_weights_are_replayed():
    model = made()
    if not linear.can_pack():
        pytest.skip("this torch or processor packs nothing")
    linear.pack(model, torch.bfloat16)
    asked = request()
    plain = searched("beam", ModelDecoder(model, torch.bfloat16), asked)
    frames = StaticShapeModel(model, CPU, Recorder(), refuse)
    found = searched("beam", StaticShapeDecoder(frames, torch.bfloat16), asked)
    agreeing = (found.tokens == plain.tokens).all(dim=-1).float().mean()
    assert agreeing > 0.8  # in few bits another order of sums may decide


def test_a_table_of_positions_that_grows_is_captured_again():
    model = made()
    decoder, plain = in_static_shapes(model, Recorder()), ModelDecoder(model)
    model.target_positions.table = model.target_positions.table[:20].clone()
    for longest in (15, 18, 38, 38):
        asked = request(longest=longest)
        same(searched("beam", decoder, asked), searched("beam", plain, asked))


def test_weights_that_move_are_captured_again():
    model = made()
    decoder, asked = in_static_shapes(model, Recorder()), request()
    before = searched("beam", decoder, asked)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter)
    found = searched("beam", decoder, asked)
    same(found, searched("beam", ModelDecoder(model), asked))
    assert not torch.equal(found.scores, before.scores)


def test_a_batch_that_is_not_the_last_one_is_refused():
    decoder, asked = in_static_shapes(made()), request(3)
    with torch.inference_mode():
        old = decoder.start(asked.source, 2, asked.max_lengths)
        decoder.start(asked.source, 2, asked.max_lengths)
        with pytest.raises(RuntimeError, match="not the last one"):
            decoder.step(old, torch.full((3, 2), BEGIN))


def test_one_sentence_that_diverged_does_not_spoil_the_next_batch():
    model = made()
    decoder, asked = in_static_shapes(model), request()
    weight = model.target_embedding.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
        state = decoder.start(asked.source, 4, asked.max_lengths)
        for _ in range(12):
            decoder.step(state, torch.full((9, 4), BEGIN))
        weight.copy_(kept)
    same(searched("beam", decoder, asked), searched("beam", ModelDecoder(model), asked))


def test_of_the_same_logits_any_number_of_candidates_is_found():
    decoder, asked = in_static_shapes(made(), Recorder()), request(3)
    with torch.inference_mode():
        state = decoder.start(asked.source, 2, asked.max_lengths)
        for _ in range(4):
            logits = decoder.step(state, torch.full((3, 2), BEGIN))
            for count in (2, 5):
                gains, ids = top_k_in_blocks(logits, count)
                found = decoder.top_k(state, logits, count)
                assert torch.equal(found[1], ids)
                torch.testing.assert_close(found[0], gains)
            assert decoder.top_k(state, logits + 1, 2) is None


def test_a_model_without_keys_and_values_is_decoded_plainly():
    class Other(torch.nn.Module):
        def encode(self, source): ...

    other = Other()
    assert with_static_shapes(other, torch.device("cuda")) is other
    model = made()
    assert with_static_shapes(model, CPU) is model


def test_the_engine_translates_in_static_shapes(tmp_path, monkeypatch):
    """As it will on a CUDA device, with and without a shortlist."""
    native = plugin("engines", "native")
    run = tiny_run.make(tmp_path)
    options = EngineOptions(threads=1, precision="fp32", alignments=True, n_best=2)
    listed = replace(options, search={"shortlist": True})
    lines = [*tiny_run.SOURCES, "", "Dogs."]
    plain = native.open(run, options)
    pieces = np.arange(68, 408, dtype=np.int32)[None].repeat(408, 0)[:, ::2]
    few = Shortlist(pieces.copy(), np.arange(68, dtype=np.int32), 408)
    shortlist.save_shortlist(few, run, plain.vocabulary.digest)
    expected = [list(plain.translate(lines, each)) for each in (options, listed)]
    recorders = []

    def on_a_device(model, device):
        recorders.append(Recorder())
        return StaticShapeModel(model, device, recorders[-1], refuse)

    monkeypatch.setattr(mt.decoding.torch_searcher, "with_static_shapes", on_a_device)
    engine = native.open(run, options)
    for each, wanted in zip((options, listed), expected, strict=True):
        found = list(engine.translate(lines, each))
        assert [one.text for one in found] == [one.text for one in wanted]
        assert [one.score for one in found] == pytest.approx([one.score for one in wanted])
    assert recorders[0].replayed > 0
    with torch.no_grad():
        next(engine.searcher.models[0].parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="MODEL-NAN"):
        list(engine.translate(["Dogs."]))
