"""Sockeye: `sockeye-prepare-data` and `sockeye.train`."""

from collections.abc import Iterator
from pathlib import Path

from peers import Command, Job, Peer, read_json_updates, sizes

PROGRAM = Path(__file__).parent / "programs" / "sockeye_train.py"
BATCH = round(1.29 * sizes.TOKENS)
"""Target tokens of a batch, padded to the bucket; about sizes.TOKENS of them are real."""


def prepare(job: Job) -> Iterator[Command]:
    yield [
        job.program("sockeye-prepare-data"), "-s", str(job.pieces / "train.source"),
        "-t", str(job.pieces / "train.target"), "-o", str(job.prepared / "data"),
        "--shared-vocab", "--max-seq-len", "100", "--bucket-width", "8",
    ]  # fmt: skip


def train(job: Job) -> Command:
    def both(value: object) -> str:
        return f"{value}:{value}"

    return [
        job.python, str(PROGRAM), "-d", str(job.prepared / "data"),
        "-vs", str(job.pieces / "valid.source"), "-vt", str(job.pieces / "valid.target"),
        "-o", str(job.work / "model"), "--use-cpu", "--shared-vocab",
        "--weight-tying-type", "src_trg_softmax", "--num-layers", both(sizes.LAYERS),
        "--transformer-model-size", both(sizes.WIDTH), "--num-embed", both(sizes.WIDTH),
        "--transformer-attention-heads", both(sizes.HEADS),
        "--transformer-feed-forward-num-hidden", both(sizes.FEED_FORWARD),
        "--transformer-dropout-attention", both(sizes.DROPOUT),
        "--transformer-dropout-act", both(sizes.DROPOUT),
        "--transformer-dropout-prepost", both(sizes.DROPOUT),
        "--label-smoothing", str(sizes.SMOOTHING), "--label-smoothing-impl", "torch",
        "--optimizer", "adam", "--optimizer-betas", "0.9:0.98",
        "--initial-learning-rate", "0.001", "--learning-rate-scheduler-type", "inv-sqrt-decay",
        "--learning-rate-warmup", "200", "--gradient-clipping-type", "norm",
        "--gradient-clipping-threshold", "1", "--batch-type", "max-word",
        "--batch-size", str(BATCH), "--update-interval", "1",
        "--max-seq-len", "100", "--bucket-width", "8", "--max-updates", str(job.updates),
        "--checkpoint-interval", str(job.updates), "--decode-and-evaluate", "0",
        "--seed", str(sizes.SEED),
    ]  # fmt: skip


PEER = Peer(
    name="sockeye",
    # It requires torch<1.14, so its other requirements are named here.
    installs=(("--no-deps", "sockeye==3.1.34"), ("numpy<2", "psutil", "pyyaml", "sacrebleu")),
    prepare=prepare,
    train=train,
    read=read_json_updates,
)
