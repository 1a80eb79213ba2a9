"""Several processes train what one would, stop together, and lose nothing with one of them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from fork_server import client_script
from resumable_run import RECIPE, bits
from safetensors.torch import load_file

from mt.config import recipe
from mt.config.schema import Languages
from mt.data.sources import demo
from mt.errors import ConfigError
from mt.training import loop

ROOT = Path(__file__).parents[2]

STEPS = 8

# AdamW which does something to its own process, or to the launcher, after a given update:
# HURT=rank:update:what; `oom` comes in the backward pass of that update.
OPTIMIZER = """
import os
import signal
import sys

import torch

from mt.errors import DataError
from mt.training.optimizers import adamw


class Config(adamw.Config):
    kind: str = "hurting.optimizer"


def build(config, named_parameters):
    optimizer = adamw.build(config, named_parameters)
    rank, update, what = os.environ.get("HURT", "none:0:none").split(":")
    if rank == os.environ.get("RANK"):
        optimizer.register_step_post_hook(lambda *_: count(optimizer, int(update), what))
        if what == "oom":
            named_parameters[0][1].register_hook(lambda _: exhaust(int(update)))
    return optimizer


seen = 0


def exhaust(update):
    if seen + 1 == update:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def count(optimizer, update, what):
    global seen
    seen += 1
    if seen != update or what == "oom":
        return
    if what == "raise":
        raise DataError("DATA-MADE-UP", "shard 7", "made up", "nothing to do")
    if what == "poison":
        weight = optimizer.param_groups[0]["params"][0]
        hook = weight.register_hook(lambda g: (hook.remove(), g * float("nan"))[1])
        return
    if what != "launcher":
        os.kill(os.getpid(), getattr(signal, what))
        return
    come, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told)
    os.kill(int(os.environ["MT_TEST_PARENT"]), signal.SIGTERM)
    os.read(come, 1)  # until the launcher has passed it on
    signal.set_wakeup_fd(-1)


# Training as on a CUDA device: static shapes, no wait for a size, and with `replayed` recorded
# operations in place of its graphs.
if os.environ.get("STEPS"):
    import torch
    from recording import Recorder

    from mt.models.modules import attention
    from mt.special_tokens import PAD
    from mt.training import autotune, loop, losses, setup
    from mt.training.graphed_step import GraphedStep
    from mt.training.session import TrainingRun

    def attend(query, key, value, valid, causal, dropout):  # without a look at `valid`
        weights = attention.attention_weights(query, key, valid, causal)
        return attention.byte_dropout(weights, dropout) @ value

    attention._plain_attention = attend
    pick, cuda, recorder = autotune.pick_static_shapes, torch.device("cuda"), Recorder()
    autotune.pick_static_shapes = lambda data, tokens, device: pick(data, tokens, cuda)
    losses.select_real_positions = lambda x, y: (x.flatten(0, 1), y.flatten(), PAD)
    TrainingRun.sync_every = 3
    if os.environ["STEPS"] == "replayed":
        setup.capture_graphs = lambda recipe, module, device, report, sharded: GraphedStep(
            module, report.log, recorder
        )
        finish = loop.finish_run

        def finish_and_count(run, state):
            print("replays:", recorder.replayed, file=sys.stderr, flush=True)
            finish(run, state)

        loop.finish_run = finish_and_count
"""


# `mt`, for which a silent process is lost after some seconds, of the variable MT_TEST_TIMEOUT.
MT = """
import os
from datetime import timedelta
from mt.cli.main import run
from mt.runtime import distributed
distributed.TIMEOUT = timedelta(seconds=float(os.environ.get("MT_TEST_TIMEOUT", 600)))
code = run(arguments)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, fork_server):
    """The recipes `exact` (without dropout) and `noisy`, and a cache that all runs share."""
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "bin").mkdir()
    programs = {
        "mt": MT,
        "torchrun": "from torch.distributed.run import main; main(arguments)",
    }
    for name, program in programs.items():
        client_script(folder / "bin" / name, fork_server, program)
    (folder / "hurting").mkdir()
    (folder / "hurting" / "optimizer.py").write_text(OPTIMIZER)
    for name, dropout, save_every in (("exact", 0.0, 100), ("noisy", 0.1, 1)):
        values = json.loads(json.dumps(RECIPE))
        values["model"] |= {"dropout": dropout, "attention_dropout": dropout}
        values["optimizer"] = {"kind": "hurting.optimizer"}
        # 3 or 4 micro-batches an update: whole rounds of two, and sometimes one that is cut.
        values["batching"] = {"tokens": 500, "micro_tokens": 300, "window": 4}
        values["training"] |= {
            "max_steps": STEPS, "max_epochs": None, "report_every": 1, "validate_every": 4,
            "save_every": save_every, "keep_last": 10, "validate_sentences": 5,
        }  # fmt: skip
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MT_CACHE", str(folder / "cache"))
        patch.syspath_prepend(str(folder))
        yield folder


def launch(
    folder, name, run, *sets, hurt="none:0:none", fault="", processes=2, steps="", limit=300
):
    """`torchrun` of a recipe; what it said and its exit code."""
    command = [str(folder / "bin" / "torchrun"), "--standalone", "--nproc-per-node"]
    command += [str(processes), "--no-python", "--", str(folder / "bin" / "mt"), "train"]
    command += [str(folder / f"{name}.yaml"), "--run", str(folder / run)]
    command += [part for each in sets for part in ("--set", each)]
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "HURT": hurt, "STEPS": steps, "MT_FAULT": fault,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", folder))),
        "MT_TEST_NAME": process_name(folder / run),
    }  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=limit)
    assert done.stdout == ""
    assert orphans(folder / run) == []
    return done


def process_name(run):
    """The name of the processes that work on a run, as long as Linux allows."""
    return hashlib.sha256(str(run).encode()).hexdigest()[:15]


def orphans(run):
    """The processes that still work on a run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() == process_name(run):
                found.append(process.name)
        except OSError:
            continue
    return found


def ours(done):
    """What mt itself said, without what the launcher adds."""
    return done.stderr.split("torch/distributed/elastic")[0]


def trace(run):
    """The figures of each update and each validation that cannot depend on the machine."""
    kept = ("step", "epoch", "loss", "grad_norm", "target_tokens", "total_target_tokens")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key in kept or key.startswith("valid_")}
        for line in lines
    ]


def assert_same_training(run, other):
    assert len(trace(run)) == len(trace(other))
    for mine, theirs in zip(trace(run), trace(other), strict=True):
        undefined = {key for key, value in theirs.items() if value is None}
        assert {key for key, value in mine.items() if value is None} == undefined
        numbers = theirs.keys() - undefined
        assert {key: mine[key] for key in numbers} == pytest.approx(
            {key: theirs[key] for key in numbers}, rel=1e-5
        )
    last = f"checkpoints/step-{STEPS:08d}"
    for name in ("model.safetensors", "training.safetensors"):
        mine, theirs = load_file(run / last / name), load_file(other / last / name)
        assert mine.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert (mine[key].dtype, mine[key].shape) == (tensor.dtype, tensor.shape)
            # A key's bias changes no attention weight: its gradient is rounding, which Adam
            # makes as large as any.
            if not key.endswith("key_value.bias"):
                torch.testing.assert_close(mine[key], tensor, rtol=1e-3, atol=1e-4)


def stopped(folder, name, run, *, hurt):
    """Train in one process until a signal."""
    command = [folder / "bin" / "mt", "train", folder / f"{name}.yaml", "--run", run]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "HURT": hurt}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**environment, "RANK": "0"}, timeout=300
    )
    assert done.returncode == 143


@pytest.fixture(scope="module")
def alone(folder):
    """The recipe without dropout, trained by one process."""
    loop.train(recipe.load(folder / "exact.yaml")[0], folder / "alone")
    return folder / "alone"


def test_two_copies_train_what_one_process_does(folder, alone):
    done = launch(folder, "exact", "copies")
    assert done.returncode == 0, done.stderr
    assert_same_training(folder / "copies", alone)
    assert done.stderr.count("finished: ") == 1
    assert "Warning" not in done.stderr


def test_two_copies_of_a_recurrent_model_train_what_one_process_does(folder):
    values = yaml.safe_load((folder / "exact.yaml").read_text())
    values["model"] = {"kind": "rnn", "d_model": 12, "units": 16, "dropout": 0.0}
    (folder / "recurrent.yaml").write_text(yaml.safe_dump(values))
    loop.train(recipe.load(folder / "recurrent.yaml")[0], folder / "recurrent")
    done = launch(folder, "recurrent", "recurrent-copies")
    assert done.returncode == 0, done.stderr
    assert_same_training(folder / "recurrent-copies", folder / "recurrent")


def test_shards_take_up_and_hand_on_what_one_process_does(folder, alone):
    """One process, then two that share the weights, then one again: the same training."""
    run = folder / "shards"
    stopped(folder, "exact", run, hurt="0:2:SIGTERM")
    done = launch(folder, "exact", "shards", "runtime.sharding=fsdp", hurt="1:4:SIGTERM")
    assert "processes 1 -> 2, sharding none -> fsdp" in done.stderr
    assert "stopped by SIGTERM at step 6" in done.stderr
    assert set(re.findall(r"exitcode +: (-?\d+)", done.stderr)) == {"143"}
    assert "Warning" not in done.stderr
    assert sorted(path.name[-1] for path in run.glob("checkpoints/step-*")) == ["4", "6"]
    loop.train(recipe.load(folder / "exact.yaml")[0], run)
    assert json.loads((run / "resolved.json").read_text())["processes"] == 1
    assert_same_training(run, alone)


def test_replayed_steps_of_two_processes_train_what_plain_ones_of_one_do(folder):
    """The processes' gradients are summed between two graphs, in one buffer that both know."""
    alone = launch(folder, "exact", "plain-alone", processes=1, steps="plain")
    assert alone.returncode == 0, alone.stderr
    both = launch(folder, "exact", "replayed", steps="replayed")
    assert both.returncode == 0, both.stderr
    assert all(int(count) > 0 for count in re.findall(r"replays: (\d+)", both.stderr))
    assert both.stderr.count("replays: ") == 2
    assert_same_training(folder / "replayed", folder / "plain-alone")


def test_what_is_not_finite_in_one_process_is_skipped_in_all(folder):
    done = launch(folder, "exact", "poisoned", hurt="1:3:poison")
    assert done.returncode == 0, done.stderr
    assert "the gradient is not finite at step 4; update skipped (1 so far)" in done.stderr
    assert done.stderr.count("NONFINITE") == 1


def test_replayed_steps_stop_together_and_resume_to_the_bit(folder):
    rarely = "training.save_every=100"
    assert launch(folder, "noisy", "whole-replayed", rarely, steps="replayed").returncode == 0
    first = launch(folder, "noisy", "part-replayed", rarely, hurt="1:5:SIGTERM", steps="replayed")
    assert ours(first).count("stopped by SIGTERM at step 6") == 1  # where all processes agree
    assert launch(folder, "noisy", "part-replayed", rarely, steps="replayed").returncode == 0
    assert bits(folder / "part-replayed") == bits(folder / "whole-replayed")


def test_streams_are_shared_out_and_resumed_to_the_bit(folder):
    """Three shards for two processes: each reads every second pair."""
    pairs = demo.read(demo.Config(size=300, languages=Languages(source="en", target="de")))
    lines = [json.dumps({"en": pair.source, "de": pair.target}) + "\n" for pair in pairs]
    for number in range(3):
        shard = "".join(lines[100 * number : 100 * (number + 1)])
        (folder / f"{number}.jsonl").write_text(shard)
    values = yaml.safe_load((folder / "noisy.yaml").read_text())
    source = {"kind": "huggingface", "files": [f"{n}.jsonl" for n in range(3)]}
    values["data"] |= {"train": [source], "streaming": True}
    values["vocabulary"]["sample"] = 200
    (folder / "streamed.yaml").write_text(yaml.safe_dump(values))
    assert launch(folder, "streamed", "streamed-whole").returncode == 0
    assert launch(folder, "streamed", "streamed", hurt="1:3:SIGTERM").returncode != 0
    assert launch(folder, "streamed", "streamed").returncode == 0
    assert bits(folder / "streamed") == bits(folder / "streamed-whole")
    settled, _ = recipe.load(folder / "streamed.yaml")
    with pytest.raises(ConfigError, match="left by 2 processes, and there are 1"):
        loop.train(settled, folder / "streamed")


def test_stopped_killed_and_resumed_equals_uninterrupted(folder):
    assert launch(folder, "noisy", "whole").returncode == 0
    first = launch(folder, "noisy", "broken", hurt="0:2:SIGTERM")
    assert first.returncode != 0
    assert ours(first).count("stopped by SIGTERM at step 2") == 1
    killed = launch(folder, "noisy", "broken", hurt="1:3:SIGKILL")
    assert killed.returncode != 0
    assert "rank 0: mt: error[RANK-LOST] rank 0 of 2: another process is gone" in killed.stderr
    assert re.search(r"Root Cause.*rank +: 1 .*Signal 9 \(SIGKILL\)", killed.stderr, re.DOTALL)
    assert "Traceback" not in ours(killed)
    ended = launch(folder, "noisy", "broken", hurt="0:3:launcher")
    assert "stopped by SIGTERM at step 7" in ended.stderr
    assert launch(folder, "noisy", "broken").returncode == 0
    assert bits(folder / "broken") == bits(folder / "whole")


def test_the_process_that_fails_reports_the_failure(folder):
    done = launch(folder, "exact", "failing", hurt="1:2:raise")
    assert done.returncode != 0
    told = [line for line in ours(done).splitlines() if "error" in line]
    assert told == ["rank 1: mt: error[DATA-MADE-UP] shard 7: made up"]
    assert set(re.findall(r"exitcode +: (-?\d+)", done.stderr)) == {"3"}
    assert "Traceback" not in ours(done)


def test_memory_that_one_process_lacks_ends_all_of_them(folder):
    done = launch(folder, "exact", "cramped", hurt="1:2:oom")
    said = [line for line in ours(done).splitlines() if "error" in line]
    (error,) = said
    assert error.startswith("rank 1: mt: error[OOM] batching.micro_tokens: CUDA out of memory")
    assert set(re.findall(r"exitcode +: (-?\d+)", done.stderr)) == {"5"}
    assert "Traceback" not in ours(done)


HURTS = ["SIGKILL", "SIGKILL", "SIGSTOP", "SIGTERM", "raise", "oom", "launcher"]
SECONDS_LOST, SECONDS_STOPPED = 10, 75
"""After which a silent process is lost, and after which all has ended: torchrun waits for 30."""


@pytest.mark.torture
@pytest.mark.parametrize("part", [1, 2, 3, 4])
def test_ten_processes_hurt_at_random(folder, part, seed, monkeypatch, figure):
    """One of two is killed, stopped, out of memory, or fails; rank 0 also within a save."""
    chance, hurts, runs = random.Random(f"{seed}/{part}"), [], 0
    monkeypatch.setenv("MT_TEST_TIMEOUT", str(SECONDS_LOST))
    if not (folder / "whole").exists():
        assert launch(folder, "noisy", "whole").returncode == 0
    while len(hurts) < 10:
        run = f"hurt-{part}-{runs}"
        for _ in range(2):
            if chance.random() < 0.25:
                point = chance.choice(["fsync", "write", "renamed", "trash"])
                hurt, fault = "none:0:none", f"{point}:{chance.randint(1, 12)}:kill"
            else:
                what = chance.choice(HURTS)
                hurt, fault = f"{chance.randrange(2)}:{chance.randint(1, 3)}:{what}", ""
            done = launch(folder, "noisy", run, hurt=hurt, fault=fault, limit=SECONDS_STOPPED)
            assert "Traceback" not in ours(done), (hurt, fault, done.stderr)
            if done.returncode == 0:
                break  # it had ended before
            hurts.append(fault or hurt)
        assert launch(folder, "noisy", run).returncode == 0, hurts
        assert bits(folder / run) == bits(folder / "whole"), hurts
        runs += 1
    figure(f"{len(hurts)} ranks hurt, {runs} runs (seed {seed}/{part}): all bit-identical")


# ---------------------------------------------------------------------------- the clusters


def test_the_cluster_scripts_are_well_formed():
    folder = ROOT / "scripts" / "cluster"
    subprocess.run(["bash", "-n", str(folder / "slurm.sh")], check=True)
    job = yaml.safe_load((folder / "kubernetes.yaml").read_text())
    for replicas in job["spec"]["pytorchReplicaSpecs"].values():
        (container,) = replicas["template"]["spec"]["containers"]
        (command,) = container["args"]
        assert container["name"] == "pytorch"
        subprocess.run(["bash", "-n", "-c", command], check=True)
