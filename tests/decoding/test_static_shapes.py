"""Decoding in static shapes finds what the plain decoder finds, replayed or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny_run
import torch
from recording import Recorder

import mt.decoding.candidates
import mt.decoding.torch_searcher
from mt.config.plugins import plugin, plugins
from mt.decoding import shortlist
from mt.decoding.candidates import top_k_in_blocks
from mt.decoding.decoders import ModelDecoder, ensemble
from mt.decoding.shortlist import Shortlist
from mt.decoding.static_shapes import StaticShapeDecoder, StaticShapeModel, with_static_shapes
from mt.decoding.types import EngineOptions, Request
from mt.errors import ModelError
from mt.models.modules import linear
from mt.models.modules.static_kv_cache import BufferPool, StaticShape
from mt.runtime.cuda_graphs import GraphCache
from mt.special_tokens import BEGIN, FIRST_PIECE

CPU = torch.device("cpu")
SIZE = 120
SETTINGS = {
    "beam": {"beams": 4, "no_repeat_ngram": 3},
    "diverse": {"beams": 4, "groups": 2},
    "greedy": {},
    "mbr": {"samples": 4, "candidates": {"kind": "sampling", "top_p": 0.9}},
    "sampling": {"temperature": 0.8},
}


def refuse(line):
    raise AssertionError(line)


def made(seed=1, **more):
    """A model that ends soon, and at different times, for all that it is not trained."""
    transformer = plugin("models", "transformer")
    sizes = {"d_model": 16, "n_heads": 2, "d_ff": 32, "encoder_layers": 1, "decoder_layers": 2}
    config = transformer.Config(**{**sizes, "dropout": 0.0, "tie_embeddings": "none", **more})
    torch.manual_seed(seed)
    known = type("Known", (), {"joint": False, "source_size": SIZE, "target_size": SIZE})
    model = transformer.build(config, known).eval()
    with torch.no_grad():
        model.projection.weight *= 4
        model.projection.bias[3] = 2
    return model


def request(sentences=9, longest=38, n_best=1, seed=1, **more):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 22, (sentences,), generator=generator)
    source = torch.randint(FIRST_PIECE, SIZE, (sentences, 22), generator=generator)
    source[torch.arange(22) >= lengths[:, None]] = 0
    limits = torch.randint(5, longest + 1, (sentences,), generator=generator)
    texts = lambda ids: ["".join(chr(97 + t % 7) for t in each) for each in ids]  # noqa: E731
    seeds = list(range(sentences))
    return Request(source, limits, n_best=n_best, seeds=seeds, texts=texts, **more)


def searched(kind, decoder, asked, **settings):
    module = plugin("search", kind)
    with torch.inference_mode():
        config = module.Config(**{**SETTINGS[kind], **settings})
        return module.build(config)(decoder, asked)


def same(found, expected):
    """Equal tokens, and scores equal but for the order of sums."""
    width = min(found.tokens.shape[-1], expected.tokens.shape[-1])
    assert not found.tokens[..., width:].any()
    assert torch.equal(found.tokens[..., :width], expected.tokens[..., :width])
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(
        found.log_probabilities[..., :width], expected.log_probabilities[..., :width],
        atol=1e-4, rtol=1e-5,
    )  # fmt: skip


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
def test_asking_less_often_changes_nothing(kind, monkeypatch):
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


class Failing(Recorder):
    """A device whose capture fails."""

    def capture(self, work):
        raise RuntimeError("out of luck\nand more")


def test_when_capturing_fails_one_line_is_printed_and_all_runs_plainly():
    told, model, asked = [], made(), request()
    decoder = StaticShapeDecoder(StaticShapeModel(model, CPU, Failing(), told.append))
    expected = searched("beam", ModelDecoder(model), asked)
    for _ in range(2):
        same(searched("beam", decoder, asked), expected)
    assert told == [
        "mt: warning[GRAPHS] no CUDA graph of a step of decoding (out of luck); running without"
    ]


def test_waiting_for_the_device_in_a_step_cannot_be_recorded():
    """The stand-in is as strict as a device: the tests above would notice."""
    told, values = [], torch.ones(3)
    replays = GraphCache(Recorder(), told.append)
    for _ in range(3):
        replays("a key", lambda: values.mul_(1 + bool(values.any())))
    assert len(told) == 1
    assert values.tolist() == [8.0] * 3


def test_a_replay_repeats_what_the_first_pass_decided():
    """The stand-in, too, knows no Python: a number that changes must lie in a tensor."""
    values, number = torch.zeros(1), torch.zeros(1)
    replays, host = GraphCache(Recorder(), refuse), []
    for _ in range(4):
        host.append(1.0)
        number.add_(1)
        replays("key", lambda: values.add_(number + len(host)))
    assert values.item() == (1 + 1) + (2 + 2) + (3 + 2) + (4 + 2)


def test_shapes_are_few():
    frames = {
        StaticShape.rounded_up(sentences, 5, source, tokens)
        for sentences in range(1, 257)
        for source in (1, 16, 17, 64)
        for tokens in (1, 33, 128)
    }
    assert len({frame.sentences for frame in frames}) == 10
    assert {frame.source for frame in frames} == {16, 32, 64}
    assert {frame.tokens for frame in frames} == {16, 64, 128}
    assert all(
        StaticShape.rounded_up(count, 1, length, length).sentences >= count
        and StaticShape.rounded_up(count, 1, length, length).source >= length
        for count in range(1, 600)
        for length in (1, 15, 16, 17, 100)
    )


def test_a_buffer_stays_where_it_is_until_it_is_too_small():
    pool = BufferPool(CPU)
    small = pool.view("a", (4, 5), torch.float32)
    assert pool.view("a", (2, 3), torch.float32).data_ptr() == small.data_ptr()
    moved = pool.moved
    assert pool.view("a", (100,), torch.float32).data_ptr() != small.data_ptr()
    assert pool.moved == moved + 1


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
