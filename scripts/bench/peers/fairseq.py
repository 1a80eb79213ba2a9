"""fairseq: `fairseq-preprocess` and `fairseq-train`.

On a CPU only in fp32: with `--bf16` it looks for a TPU and fails.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from peers import Command, Job, Line, Peer, Update, sizes

BATCH = round(1.11 * sizes.TOKENS)
"""Tokens of a batch, padding included, the longer side; about sizes.TOKENS of them are real."""
_LINE = re.compile(r"\| train_inner \| (\{.*\})")


def patch(packages: Path) -> None:
    """Let fairseq 0.12.2 and hydra 1.0.7, of 2022, run with this Python and this numpy.

    Python 3.11 refuses dataclass instances as defaults of dataclass fields, and numpy 1.24
    removed its aliases of builtin types.
    """
    for path in [*(packages / "fairseq").rglob("*.py"), *(packages / "hydra").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        patched = re.sub(
            r"^( +\w+: *)([A-Za-z.]+)( *= *)([A-Z][A-Za-z.]+)\(\)",
            r"\1\2\3field(default_factory=\4)", text, flags=re.M,
        )  # fmt: skip
        patched = re.sub(
            r"field\(default=([A-Z][A-Za-z.]+)\(\)", r"field(default_factory=\1", patched
        )
        if patched != text and not re.search(r"import.*\bfield\b", patched):
            patched = patched.replace(
                "from dataclasses import", "from dataclasses import field,", 1
            )
        patched = re.sub(r"\bnp\.(float|int|bool|object)\b", r"\1", patched)
        if patched != text:
            path.write_text(patched, encoding="utf-8")
    path = packages / "fairseq" / "dataclass" / "initialize.py"
    text = path.read_text(encoding="utf-8")
    old = "v = FairseqConfig.__dataclass_fields__[k].default\n"
    new = (
        "v = FairseqConfig.__dataclass_fields__[k]; "
        "v = v.default_factory() if callable(v.default_factory) else v.default\n"
    )
    path.write_text(text.replace(old, new), encoding="utf-8")


def prepare(job: Job) -> Iterator[Command]:
    words = (job.pieces / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    dictionary = job.prepared / "dictionary.txt"
    dictionary.write_text("".join(f"{word} 1\n" for word in words), encoding="utf-8")
    yield [
        job.program("fairseq-preprocess"), "-s", "source", "-t", "target",
        "--trainpref", str(job.pieces / "train"), "--validpref", str(job.pieces / "valid"),
        "--srcdict", str(dictionary), "--tgtdict", str(dictionary),
        "--destdir", str(job.prepared / "data"), "--workers", "1",
    ]  # fmt: skip


def train(job: Job) -> Command:
    stacks = []
    for stack in ("encoder", "decoder"):
        stacks += [
            f"--{stack}-layers", str(sizes.LAYERS), f"--{stack}-embed-dim", str(sizes.WIDTH),
            f"--{stack}-ffn-embed-dim", str(sizes.FEED_FORWARD),
            f"--{stack}-attention-heads", str(sizes.HEADS),
        ]  # fmt: skip
    return [
        job.program("fairseq-train"), str(job.prepared / "data"), "--cpu",
        "--arch", "transformer", *stacks, "--share-all-embeddings",
        "--dropout", str(sizes.DROPOUT), "--attention-dropout", str(sizes.DROPOUT),
        "--activation-dropout", str(sizes.DROPOUT),
        "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", str(sizes.SMOOTHING),
        "--optimizer", "adam", "--adam-betas", "(0.9,0.98)", "--lr", "1e-3",
        "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "200", "--clip-norm", "1.0",
        "--max-tokens", str(BATCH), "--max-update", str(job.updates),
        "--log-interval", "1", "--log-format", "json", "--disable-validation",
        "--save-dir", str(job.work / "model"), "--no-epoch-checkpoints", "--num-workers", "0",
        "--seed", str(sizes.SEED),
    ]  # fmt: skip


def read(lines: Sequence[Line], job: Job) -> Iterator[Update]:
    """`wpb`: tokens a batch, of the target and without padding, of the one update."""
    for line in lines:
        if found := _LINE.search(line.text):
            yield Update(line.seconds, float(json.loads(found[1])["wpb"]))


PEER = Peer(
    name="fairseq",
    packages="fairseq 0.12.2",
    # Newer versions of pip refuse the metadata of omegaconf 2.0, which it needs.
    installs=(("pip==24.0",), ("fairseq==0.12.2",)),
    patch=patch,
    prepare=prepare,
    train=train,
    read=read,
    variables={"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
)
