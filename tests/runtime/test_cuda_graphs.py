"""Recording and replaying the passes of a decoder, with a recorder in the place of CUDA."""

from __future__ import annotations

import torch
from recording import Recorder
from static_decoding import CPU, made, refuse, request, same, searched

from mt.decoding.decoders import ModelDecoder
from mt.decoding.static_shapes import StaticShapeDecoder, StaticShapeModel
from mt.runtime.cuda_graphs import GraphCache


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
