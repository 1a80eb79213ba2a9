"""The benchmark scripts start, and read the target tokens that each toolkit prints."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench"

# What each toolkit really printed, and the real target tokens of that update.
PRINTED = {
    "eole": [
        ("[2026-11-21 13:52:19,524 INFO] Step  3/    4; acc: 0.0; ppl: 8134.43; xent: 9.00; "
         "aux: 0.000; mtp: 0.000; attn_ent: 3.135; lr: 6.63e-05; sents:     151; "
         "bsz: 3775/3728/151; 1812/1789 tok/s;     20 sec;", 3728),
        ("[2026-11-21 13:52:21,258 INFO] Step  4/    4; acc: 0.0; ppl: 7608.13; xent: 8.94; "
         "aux: 0.000; mtp: 0.000; attn_ent: 2.914; lr: 8.84e-05; sents:     206; "
         "bsz: 4120/4222/206; 2377/2436 tok/s;     22 sec;", 4222),
    ],
    "opennmt": [
        ("[2026-11-21 14:03:32,472 INFO] Step  3/    4; acc: 0.0; ppl: 7834.3; xent: 9.0; "
         "lr: 0.00009; sents:     151; bsz: 3775/3728/151; 112/110 tok/s;     98 sec;", 3728),
        ("[2026-11-21 14:04:27,691 INFO] Step  4/    4; acc: 0.1; ppl: 7373.8; xent: 8.9; "
         "lr: 0.00011; sents:     206; bsz: 4120/4222/206;  75/ 76 tok/s;    154 sec;", 4222),
    ],
    "fairseq": [
        ('2026-11-21 13:57:31 | INFO | train_inner | {"epoch": 1, "update": 0.025, "loss": '
         '"13.729", "nll_loss": "13.73", "ppl": "13588.5", "wps": "2290", "ups": "0.64", "wpb": '
         '"3600", "bsz": "248", "num_updates": "3", "lr": "1.5e-05", "gnorm": "4.458", "clip": '
         '"100", "train_wall": "2", "wall": "9"}', 3600),
        ('2026-11-21 13:57:32 | INFO | train_inner | {"epoch": 1, "update": 0.033, "loss": '
         '"13.645", "nll_loss": "13.637", "ppl": "12739.1", "wps": "2771.4", "ups": "0.65", '
         '"wpb": "4257", "bsz": "296", "num_updates": "4", "lr": "2e-05", "gnorm": "4.391", '
         '"clip": "100", "train_wall": "2", "wall": "10"}', 4257),
    ],
    "joeynmt": [  # 2 seconds apart in this test
        ("2026-11-21 13:53:56,725 - INFO - joeynmt.training - Epoch   1, Step:        2, "
         "Batch Loss:     7.463960, Batch Acc: 0.063026, Tokens per Sec:      344, Lr: 0.000010",
         0),
        ("2026-11-21 13:54:05,687 - INFO - joeynmt.training - Epoch   1, Step:        3, "
         "Batch Loss:     7.450349, Batch Acc: 0.063186, Tokens per Sec:      458, Lr: 0.000015",
         2 * 458),
    ],
    "sockeye": [('{"update": 3, "target_tokens": 3727}', 3727)],
    "huggingface": [('{"update": 3, "target_tokens": 5889}', 5889)],
    "plain": [('{"update": 1, "target_tokens": 4110, "loss": 9.243}', 4110)],
}  # fmt: skip
BETWEEN = [
    "[2026-11-21 13:52:21,260 INFO] Saving optimizer and weights to step_4, and symlink to model",
    "2026-11-21 13:57:32 | INFO | fairseq_cli.train | done training in 9.5 seconds",
    "2026-11-21 13:53:30,347 - INFO - joeynmt.training - EPOCH 1",
    "",
]


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module
    for name in [n for n in sys.modules if n.split(".")[0] in ("peers", "harness")]:
        del sys.modules[name]


@pytest.mark.parametrize("script", sorted(BENCH.glob("*.py")), ids=lambda path: path.name)
def test_a_script_shows_its_usage(script, python):
    environment = {**os.environ, "PYTHONPATH": str(BENCH.parents[1])}
    done = subprocess.run(
        [python, script, "--help"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout or script.name in ("harness.py", "updates.py", "plain_search.py")


@pytest.mark.parametrize("name", PRINTED)
def test_a_log_is_read_as_real_target_tokens(bench, name):
    peers = bench("peers")
    texts = [text for printed, _ in PRINTED[name] for text in (*BETWEEN, printed)]
    when = [2.0 * texts[: i + 1].count(BETWEEN[0]) for i in range(len(texts))]
    lines = [peers.Line(*pair) for pair in zip(when, texts, strict=True)]
    found = list(peers.load()[name].read(lines, None))
    expected = [(2.0 * (i + 1), tokens) for i, (_, tokens) in enumerate(PRINTED[name])]
    assert [tuple(update) for update in found] == expected


def test_the_log_of_mt_is_its_metrics(bench, tmp_path):
    peers = bench("peers")
    rows = [
        {"step": 1, "target_tokens": 4000, "target_tokens_per_second": 2000.0},
        {"step": 2, "target_tokens": 4100, "target_tokens_per_second": 1025.0},
        {"step": 2, "bleu": 0.0},
    ]
    (tmp_path / "run").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "run" / "metrics.jsonl").write_text(text, encoding="utf-8")
    job = peers.Job(tmp_path, tmp_path, tmp_path, tmp_path, 2, "fp32")
    found = list(peers.load()["mt"].read([], job))
    assert [tuple(update) for update in found] == [(2.0, 4000), (6.0, 4100)]


def test_the_warm_up_does_not_count(bench):
    peers, processes = bench("peers"), bench("peers.processes")
    found = [peers.Update(10.0, 1), peers.Update(20.0, 1), *(
        peers.Update(20.0 + i, 300) for i in (1, 2, 3)
    )]  # fmt: skip
    measured = processes.summarize(found, 2, 3, 1.0, 1.0)
    assert measured.tokens_per_second == 300
    assert measured.tokens_per_update == 300
    with pytest.raises(bench("peers.environments").NoPeer, match="reported 5 updates, not 6"):
        processes.summarize(found, 2, 4, 1.0, 1.0)


def test_every_adapter_installs_pinned_versions_and_gives_a_command(bench, tmp_path):
    peers = bench("peers")
    for peer in peers.load().values():
        assert all("==" in arguments[-1] for arguments in peer.installs[:1])
        folders = [tmp_path / name for name in ("programs", "pieces", "prepared", "work")]
        command = peer.train(peers.Job(*folders[:3], tmp_path, 13, peer.precisions[0]))
        assert command
        assert all(isinstance(word, str) for word in command)


def test_a_line_is_fitted_with_its_goodness(bench):
    fit_line = bench("harness").fit_line
    constant, slope, fit = fit_line([1, 2, 3], [5, 7, 9])
    assert (constant, slope, fit) == pytest.approx((3, 2, 1))
    assert fit_line([1, 2, 3, 4], [1, 0, 0, 1])[2] == pytest.approx(0)
