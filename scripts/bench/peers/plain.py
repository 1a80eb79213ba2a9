"""A plain loop around torch.nn.Transformer: the straightforward baseline."""

import sys
from pathlib import Path

from harness import ROOT

from peers import Command, Job, Peer, read_json_updates

PROGRAM = Path(__file__).parent / "programs" / "plain_train.py"


def train(job: Job) -> Command:
    return [
        sys.executable, str(PROGRAM), str(job.pieces), "--updates", str(job.updates),
        "--precision", job.precision, "--threads", str(job.threads),
    ]  # fmt: skip


PEER = Peer(
    name="plain",
    packages="plain torch.nn.Transformer",
    train=train,
    read=read_json_updates,
    variables={"PYTHONPATH": str(ROOT)},
    precisions=("fp32", "bf16"),
    keeps_all=True,
)
