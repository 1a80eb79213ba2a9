"""`mt data list` shows names, versions, pairs and sizes, without the network."""

from __future__ import annotations

import socket

import pytest

from mt.cli import main


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a socket is opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_the_corpora_of_a_pair_are_listed_with_their_pairs_and_sizes(capsys):
    assert main.run(["data", "list", "de-en", "--grep", "tatoeba"]) == 0
    out, err = capsys.readouterr()
    line = next(line for line in out.splitlines() if line.startswith("opus:Tatoeba "))
    name, version, *languages, pairs, size, unit = line.split()
    assert (name, languages, unit) == ("opus:Tatoeba", ["de", "en"], "MB")
    assert version.startswith("v20")
    assert int(pairs.replace(",", "")) > 300_000
    assert float(size) > 1
    assert "opustools" in err


def test_without_a_pair_each_corpus_has_one_line(capsys):
    assert main.run(["data", "list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert len(names) == len(set(names)) > 1000


def test_an_unknown_name_is_exit_2_with_the_nearest(capsys):
    assert main.run(["data", "list", "de-en", "--grep", "Tatoba"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Tatoeba" in err
