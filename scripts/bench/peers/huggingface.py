"""Hugging Face transformers: MarianMTModel and Seq2SeqTrainer, which bring no command."""

from pathlib import Path

from peers import Command, Job, Peer, read_json_updates

PROGRAM = Path(__file__).parent / "programs" / "huggingface_train.py"


def train(job: Job) -> Command:
    return [
        job.python, str(PROGRAM), str(job.pieces), str(job.work), "--updates", str(job.updates),
        "--precision", job.precision, "--threads", str(job.threads),
    ]  # fmt: skip


PEER = Peer(
    name="huggingface",
    packages="Hugging Face Seq2SeqTrainer 5.23.0",
    installs=(("transformers==5.23.0", "accelerate==1.15.0"),),
    train=train,
    read=read_json_updates,
    precisions=("fp32", "bf16"),
)
