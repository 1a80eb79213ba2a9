"""The native engine: order, blank and long lines, scores, settings, what it refuses."""

from __future__ import annotations

import math

import pytest
import tiny_run
import torch
from native_engine import LINES, ONE, native, options, texts

from mt.checkpoints import checkpoint, run_directory
from mt.decoding.decoders import ModelDecoder
from mt.errors import ConfigError, MachineError, ModelError
from mt.special_tokens import BEGIN, FIRST_PIECE


def test_the_decoder_gives_what_full_decoding_gives(engine):
    """Cache, reordering and dropping, as a search uses them, against no cache at all."""
    source = torch.randint(FIRST_PIECE, 408, (4, 6), generator=torch.Generator().manual_seed(1))
    source[2, 4:] = 0
    model, width, steps = engine.searcher.models[0].eval(), 3, 7
    decoder = ModelDecoder(model)
    generator = torch.Generator().manual_seed(2)
    with torch.inference_mode():
        state = decoder.start(source, width, torch.full((4,), steps))
        prefixes = torch.empty((4, width, 0), dtype=torch.long)
        for step in range(steps):
            tokens = torch.randint(FIRST_PIECE, 408, prefixes.shape[:2], generator=generator)
            if step == 0:
                tokens.fill_(BEGIN)
            prefixes = torch.cat((prefixes, tokens[..., None]), dim=2)
            logits = decoder.step(state, tokens)
            rows = source.repeat_interleave(width, dim=0)
            full = model(rows, prefixes.flatten(0, 1))[:, -1]
            torch.testing.assert_close(logits.flatten(0, 1), full, atol=1e-5, rtol=1e-5)
            beams = torch.randint(0, width, tokens.shape, generator=generator)
            if step == 3:
                kept = torch.tensor([0, 2])
                decoder.select_sentences(state, kept)
                source, prefixes, beams = source[kept], prefixes[kept], beams[kept]
            decoder.reorder(state, beams)
            prefixes = prefixes.gather(1, beams[..., None].expand_as(prefixes))


def test_settings_replace_those_of_the_run(engine):
    greedy = texts(engine, LINES, search={"kind": "greedy"})
    assert texts(engine, LINES, search={"beams": 1}) == greedy
    assert greedy != texts(engine, LINES)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"beems": 8},
            "mt: error[CONFIG] --set search.beems=8: search.beems: unknown key "
            "(did you mean beams?)",
        ),
        (
            {"beams": 0},
            "mt: error[CONFIG] --set search.beams=0: search.beams: should be greater than or "
            "equal to 1, got 0",
        ),
        (
            {"kind": "bean"},
            "mt: error[CONFIG] --set search.kind=bean: search: unknown kind 'bean' "
            "(did you mean beam?)",
        ),
    ],
)
def test_a_wrong_setting_is_reported_by_its_key(run, engine, settings, line):
    with pytest.raises(ConfigError) as at_open:
        native.open(run, options(search=settings))
    with pytest.raises(ConfigError) as at_call:
        list(engine.translate(["Dogs."], options(search=settings)))
    assert str(at_open.value).splitlines()[0] == str(at_call.value).splitlines()[0] == line


@pytest.mark.parametrize(
    "more",
    [
        {"target_language": "zh"},
        {"n_best": 4},
        {"search": {"kind": "greedy"}, "n_best": 2},
    ],
)
def test_what_is_not_there_yet_is_refused(engine, more):
    with pytest.raises(ConfigError):
        list(engine.translate(["Dogs."], options(**more)))


def test_bf16_translates_and_leaves_the_weights_alone(run):
    engine = native.open(run, options(precision="bf16"))
    before = {k: v.clone() for k, v in engine.searcher.models[0].state_dict().items()}
    assert len(texts(engine, LINES)) == len(LINES)
    assert engine.searcher.models[0].output()[0].dtype == torch.float32
    assert all(torch.equal(v, before[k]) for k, v in engine.searcher.models[0].state_dict().items())


def test_a_model_in_training_is_translated_without_dropout_and_trains_on(run, engine):
    expected = texts(engine, LINES)
    device = torch.device("cpu")
    live = native.native_engine(
        engine.searcher.models[0], engine.vocabulary, run_directory.read_recipe(run), device, "fp32"
    )
    engine.searcher.models[0].train()
    try:
        assert texts(live, LINES) == expected
        assert engine.searcher.models[0].training
        loss = (
            engine.searcher.models[0](torch.full((1, 2), 70), torch.full((1, 2), 70))
            .logsumexp(-1)
            .sum()
        )
        loss.backward()
    finally:
        engine.searcher.models[0].eval()
        engine.searcher.models[0].zero_grad()


def test_a_model_that_diverged_is_reported(run):
    engine = native.open(run, ONE)
    with torch.no_grad():
        next(engine.searcher.models[0].parameters()).fill_(math.nan)
    with pytest.raises(ModelError, match="MODEL-NAN"):
        list(engine.translate(["Dogs."]))


def test_a_run_and_its_checkpoint_are_accepted_and_nothing_else(run, tmp_path):
    folder = run / "checkpoints" / "step-00000007"
    assert native.accepts(run)
    assert native.accepts(folder)
    assert not native.accepts(tmp_path)
    assert not native.accepts(tmp_path / "nowhere")
    assert texts(native.open(folder, ONE), LINES) == texts(native.open(run, ONE), LINES)


def test_weights_of_another_shape_are_reported_by_name(tmp_path):
    run = tiny_run.make(tmp_path)
    config = (run / "config.yaml").read_text().replace("d_ff: 32", "d_ff: 48")
    (run / "config.yaml").write_text(config)
    with pytest.raises(ModelError, match=r"feed_forward.*\(32.*\(48") as error:
        native.open(run, ONE)
    assert error.value.exit_code == 4


def test_a_damaged_checkpoint_is_not_translated_with(tmp_path):
    run = tiny_run.make(tmp_path)
    path = run / "checkpoints" / checkpoint.checkpoint_name(7) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="CKPT-HASH"):
        native.open(run, ONE)


def test_a_device_that_is_not_there_is_reported(run):
    with pytest.raises(MachineError, match="NO-GPU"):
        native.open(run, options(device="cuda:97"))
