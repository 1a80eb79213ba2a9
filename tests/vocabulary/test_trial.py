"""A SentencePiece model is used in a child process first: one that kills it is refused."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import damages
import pytest

from mt.errors import ModelError
from mt.vocabulary import trial
from mt.vocabulary.vocabulary import open_tokenizer

MODEL = (Path(__file__).parents[1] / "golden" / "transformer" / "vocabulary.model").read_bytes()
WAYS = {"fork": trial._use_in_fork, "python": trial._use_in_python}


@pytest.fixture(autouse=True)
def _nothing_tried(monkeypatch):
    monkeypatch.setattr(trial, "_tried", set())


def die(content):
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize("way", WAYS)
def test_a_good_model_and_an_ordinary_error_do_not_kill_the_child(way):
    assert 0 <= WAYS[way](MODEL) <= 255
    assert 0 <= WAYS[way](b"no model") <= 255


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")
def test_a_model_that_kills_the_child_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(trial, "use", die)
    for _ in range(2):  # it is not tried only once
        with pytest.raises(ModelError, match=r"error\[VOCAB-DAMAGED\] here: .* dies") as error:
            open_tokenizer("sentencepiece", MODEL, "here")
    assert error.value.exit_code == 4


def test_a_model_that_kills_another_python_is_refused(monkeypatch):
    monkeypatch.setattr(trial, "_CODE", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(sys, "platform", "other")
    with pytest.raises(ModelError, match="dies"):
        open_tokenizer("sentencepiece", MODEL, "here")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")
def test_a_model_that_hangs_is_refused(monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 1)
    monkeypatch.setattr(trial, "use", lambda content: signal.pause())
    with pytest.raises(ModelError, match="dies"):
        open_tokenizer("sentencepiece", MODEL, "here")


def test_a_python_that_hangs_or_is_missing(monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 1)
    monkeypatch.setattr(trial, "_CODE", "import select; select.select([], [], [])")
    assert trial._use_in_python(MODEL) < 0
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert trial._use_in_python(MODEL) == 0


def test_a_model_is_tried_once_and_one_of_this_process_never(monkeypatch):
    tried = []
    monkeypatch.setattr(trial, "_use_in_fork", lambda content: tried.append(content) or 0)
    monkeypatch.setattr(trial, "_use_in_python", trial._use_in_fork)
    for _ in range(2):
        open_tokenizer("sentencepiece", MODEL, "here")
    assert tried == [MODEL]
    trial.mark_sound(b"own")
    trial.try_model(b"own", "here", "")
    assert tried == [MODEL]


def fuzz(seed, count):
    """Damaged models load as before or are refused with the name of the file."""
    refused = 0
    for number in range(count):
        content = damages.changed_bytes(MODEL, random.Random(f"{seed} {number}"))
        try:
            tokenizer = open_tokenizer("sentencepiece", content, "here")
        except ModelError:
            refused += 1
        else:
            tokenizer.decode(tokenizer.encode(["A boy eats an apple."]))
    return refused


def test_damaged_models_are_refused_or_work():
    assert fuzz(1, 50) > 10


@pytest.mark.torture
def test_many_damaged_models_are_refused_or_work(seed, figure):
    figure(f"SentencePiece models: {fuzz(seed, 1000)} of 1000 damaged ones refused")
