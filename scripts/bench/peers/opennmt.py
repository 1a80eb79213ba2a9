"""OpenNMT-py: `onmt_train`."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from peers import Command, Job, Line, Peer, Update, sizes

BATCH = round(1.11 * sizes.TOKENS)
"""Tokens of a batch, padding included, the longer side; about sizes.TOKENS of them are real."""
_LINE = re.compile(r"Step +(\d+)/ *\d+;.*sents: *\d+; bsz: *\d+/ *(\d+)/ *\d+;")


def settings(job: Job) -> dict:
    vocabulary = str(job.pieces / "vocabulary.txt")
    return {
        "save_data": str(job.work / "saved"), "save_model": str(job.work / "model"),
        "src_vocab": vocabulary, "tgt_vocab": vocabulary, "share_vocab": True,
        "src_vocab_size": 1_000_000, "tgt_vocab_size": 1_000_000, "seed": sizes.SEED,
        "data": corpora(job),
        "train_steps": job.updates, "save_checkpoint_steps": job.updates, "valid_steps": 100_000,
        "report_every": 1, "bucket_size": 262_144, "num_workers": 0,
        "batch_type": "tokens", "batch_size": BATCH, "accum_count": [1],
        "normalization": "tokens", "model_dtype": "fp32",
        "optim": "adam", "adam_beta2": 0.98, "learning_rate": 1, "warmup_steps": 200,
        "decay_method": "noam", "max_grad_norm": 1, "label_smoothing": sizes.SMOOTHING,
        "param_init": 0, "param_init_glorot": True, "position_encoding": True,
        "encoder_type": "transformer", "decoder_type": "transformer",
        "layers": sizes.LAYERS, "heads": sizes.HEADS, "hidden_size": sizes.WIDTH,
        "word_vec_size": sizes.WIDTH, "transformer_ff": sizes.FEED_FORWARD,
        "share_embeddings": True, "share_decoder_embeddings": True,
        "dropout_steps": [0], "dropout": [sizes.DROPOUT], "attention_dropout": [sizes.DROPOUT],
    }  # fmt: skip


def corpora(job: Job) -> dict:
    return {
        name: {
            "path_src": str(job.pieces / f"{split}.source"),
            "path_tgt": str(job.pieces / f"{split}.target"),
        }
        for name, split in (("corpus_1", "train"), ("valid", "valid"))
    }


def patch(packages: Path) -> None:
    """Delete two unused transforms that need packages that are large or must be compiled."""
    for name in ("clean", "terminology"):  # fasttext; spacy
        (packages / "onmt" / "transforms" / f"{name}.py").unlink()


def train(job: Job) -> Command:
    path = job.work / "train.yaml"
    path.write_text(yaml.safe_dump(settings(job)), encoding="utf-8")
    return [job.program("onmt_train"), "-config", str(path)]


def read(lines: Sequence[Line], job: Job) -> Iterator[Update]:
    """Read `bsz: a/b/c`, where b counts the target tokens of the update without padding."""
    for line in lines:
        if found := _LINE.search(line.text):
            yield Update(line.seconds, float(found[2]))


PEER = Peer(
    name="opennmt",
    # It requires torch<2.3, so its other requirements are named here.
    installs=(
        ("--no-deps", "OpenNMT-py==3.5.1"),
        ("configargparse", "ctranslate2", "flask", "pyahocorasick", "pyonmttok", "pyyaml",
         "rapidfuzz", "sentencepiece", "six", "tensorboard", "waitress"),
    ),
    patch=patch,
    train=train,
    read=read,
    variables={"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
)  # fmt: skip
