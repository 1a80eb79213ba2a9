"""A plain loop around torch.nn.Transformer: what anyone would write first."""

import sys
from pathlib import Path

from peers import Command, Job, Peer, jsonlines
from peers.ours import ROOT

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
    read=jsonlines.read,
    variables={"PYTHONPATH": str(ROOT)},
    precisions=("fp32", "bf16"),
    keeps_all=True,
)
