"""JoeyNMT: `python -m joeynmt train`."""

import re
from collections.abc import Iterator, Sequence

import yaml

from peers import Command, Job, Line, Peer, Update, sizes

BATCH = round(2.3 * sizes.TOKENS)
"""Tokens of a batch, padding included; it does not sort by length, so fewer than half are real."""
_LINE = re.compile(r"Epoch +\d+, Step: +\d+, .*Tokens per Sec: +(\d+)")


def settings(job: Job) -> dict:
    side = {
        "max_length": 100, "level": "word", "tokenizer_type": "none",
        "voc_file": str(job.pieces / "vocabulary.txt"),
    }  # fmt: skip
    stack = {
        "type": "transformer", "num_layers": sizes.LAYERS, "num_heads": sizes.HEADS,
        "embeddings": {"embedding_dim": sizes.WIDTH, "scale": True, "dropout": sizes.DROPOUT},
        "hidden_size": sizes.WIDTH, "ff_size": sizes.FEED_FORWARD, "dropout": sizes.DROPOUT,
        "layer_norm": "post", "activation": "relu",
    }  # fmt: skip
    names = {"unk": "<unk>", "pad": "<pad>", "bos": "<s>", "eos": "</s>"}
    special = {f"{name}_token": token for name, token in names.items()}
    return {
        "name": "bench", "joeynmt_version": "2.3.0", "model_dir": str(job.work / "model"),
        "use_cuda": False, "fp16": False, "random_seed": sizes.SEED,
        "data": {
            "train": str(job.pieces / "train"), "dev": str(job.pieces / "valid"),
            "dataset_type": "plain",
            "src": {"lang": "source", **side}, "trg": {"lang": "target", **side},
            "special_symbols": special | {f"{name}_id": i for i, name in enumerate(names)},
        },
        "testing": {"n_best": 1, "beam_size": 1, "batch_size": 64, "batch_type": "sentence"},
        "training": {
            "optimizer": "adam", "normalization": "tokens", "adam_betas": [0.9, 0.98],
            "scheduling": "warmupinversesquareroot", "learning_rate_warmup": 200,
            "learning_rate": 0.001, "learning_rate_min": 1e-9, "clip_grad_norm": 1.0,
            "weight_decay": 0.0, "label_smoothing": sizes.SMOOTHING,
            "batch_size": BATCH, "batch_type": "token", "batch_multiplier": 1,
            "early_stopping_metric": "loss", "epochs": 100, "updates": job.updates,
            "validation_freq": 100_000, "logging_freq": 1, "overwrite": True, "shuffle": True,
            "print_valid_sents": [0], "keep_best_ckpts": 1,
        },
        "model": {
            "initializer": "xavier_uniform", "embed_initializer": "xavier_uniform",
            "embed_init_gain": 1.0, "init_gain": 1.0, "bias_initializer": "zeros",
            "tied_embeddings": True, "tied_softmax": True, "encoder": stack, "decoder": stack,
        },
    }  # fmt: skip


def train(job: Job) -> Command:
    path = job.work / "train.yaml"
    path.write_text(yaml.safe_dump(settings(job)), encoding="utf-8")
    return [job.python, "-m", "joeynmt", "train", str(path), "--skip-test"]


def read(lines: Sequence[Line], job: Job) -> Iterator[Update]:
    """Read the target tokens a second of each update, and multiply by its seconds."""
    before = None
    for line in lines:
        if found := _LINE.search(line.text):
            # The first has no beginning here; it is before anything is measured.
            seconds = line.seconds - before if before is not None else 0.0
            before = line.seconds
            yield Update(line.seconds, float(found[1]) * seconds)


PEER = Peer(
    name="joeynmt",
    installs=(("joeynmt==2.3.0",), ("importlib_metadata",)),  # imported and not declared
    train=train,
    read=read,
)
