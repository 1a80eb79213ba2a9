"""EOLE, the successor of OpenNMT-py: `eole train`."""

import yaml

from peers import Command, Job, Peer, sizes
from peers.opennmt import corpora, read

BATCH = round(1.11 * sizes.TOKENS)
"""Tokens of a batch, padding included, the longer side; about sizes.TOKENS of them are real."""


def settings(job: Job) -> dict:
    vocabulary = str(job.pieces / "vocabulary.txt")
    return {
        "seed": sizes.SEED, "share_vocab": True,
        "src_vocab": vocabulary, "tgt_vocab": vocabulary,
        "src_vocab_size": 1_000_000, "tgt_vocab_size": 1_000_000, "report_every": 1,
        "data": corpora(job),
        "model": {
            "architecture": "transformer", "layers": sizes.LAYERS, "heads": sizes.HEADS,
            "hidden_size": sizes.WIDTH, "transformer_ff": sizes.FEED_FORWARD,
            "share_embeddings": True, "share_decoder_embeddings": True,
            "embeddings": {
                "word_vec_size": sizes.WIDTH, "position_encoding_type": "SinusoidalInterleaved",
            },
        },
        "training": {
            "model_path": str(job.work / "model"), "keep_checkpoint": 1,
            "save_checkpoint_steps": job.updates, "train_steps": job.updates,
            "valid_steps": 100_000, "bucket_size": 262_144, "num_workers": 0, "world_size": 1,
            "gpu_ranks": [], "batch_type": "tokens", "batch_size": BATCH, "accum_count": [1],
            "normalization": "tokens", "compute_dtype": job.precision,
            # On a CPU its autocast does nothing; bf16 means the whole model in it.
            "use_amp": False,
            "optim": "adam", "adam_beta2": 0.98, "learning_rate": 1, "warmup_steps": 200,
            "decay_method": "noam", "max_grad_norm": 1, "label_smoothing": sizes.SMOOTHING,
            "param_init_method": "xavier_uniform",
            "dropout_steps": [0], "dropout": [sizes.DROPOUT], "attention_dropout": [sizes.DROPOUT],
        },
    }  # fmt: skip


def train(job: Job) -> Command:
    path = job.work / "train.yaml"
    path.write_text(yaml.safe_dump(settings(job)), encoding="utf-8")
    return [job.program("eole"), "train", "-config", str(path)]


PEER = Peer(
    name="eole",
    installs=(("eole==0.6.4",), ("aiohttp",)),  # imported and not declared
    train=train,
    read=read,
    precisions=("fp32", "bf16"),
)
