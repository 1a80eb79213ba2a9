"""The text that all toolkits train on, segmented into the same pieces, once."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness import say

from peers.environments import home

SPLITS, SIDES = ("train", "valid"), ("source", "target")
MOST_PIECES = 99
"""Pairs with more are left out for all toolkits, since their own limits differ."""
VALID_PAIRS = 50
"""Validation is not measured, and some toolkits cannot skip it."""

Pairs = list[tuple[str, str]]


def folder_pairs(folder: Path, source: str, target: str) -> dict[str, Pairs]:
    """Return the pairs in `train.LANGUAGE` and `val.LANGUAGE` of a folder."""
    found = {}
    for split, name in zip(SPLITS, ("train", "val"), strict=True):
        sides = [read_lines(folder / f"{name}.{language}") for language in (source, target)]
        if len(sides[0]) != len(sides[1]):
            raise SystemExit(f"{folder}/{name}.*: {len(sides[0])} lines against {len(sides[1])}")
        found[split] = list(zip(*sides, strict=True))
    found["valid"] = found["valid"][:VALID_PAIRS]
    return found


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file; only a line feed ends one."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}") from None


def demo_pairs(source: str, target: str, size: int = 29_000) -> dict[str, Pairs]:
    """Return pairs of the `demo` source, as many as Multi30k has."""
    from mt.config.schema import Languages
    from mt.data.sources import demo

    languages = Languages(source=source, target=target)
    found = {}
    for split, count in (("train", size), ("valid", VALID_PAIRS)):
        config = demo.Config(languages=languages, split=split, size=count)
        found[split] = [(pair.source or "", pair.target or "") for pair in demo.read(config)]
    return found


def segment(pairs: dict[str, Pairs], size: int) -> Path:
    """Return the folder of the pieces of a joint BPE, learned from the training pairs."""
    digest = hashlib.sha256(repr((pairs, size, MOST_PIECES)).encode()).hexdigest()[:16]
    folder = home() / "pieces" / digest
    if folder.exists():
        return folder
    say(f"segmenting {len(pairs['train']):,} pairs into pieces in {folder}")
    model = learn_bpe((line for pair in pairs["train"] for line in pair), size)
    hidden = folder.with_name(f".{digest}.{os.getpid()}")
    hidden.mkdir(parents=True)
    for split in SPLITS:
        with (
            open(hidden / f"{split}.source", "w", encoding="utf-8") as source,
            open(hidden / f"{split}.target", "w", encoding="utf-8") as target,
        ):
            for a, b in encode(model, pairs[split]):
                source.write(f"{a}\n")
                target.write(f"{b}\n")
    names = [model.id_to_piece(i) for i in range(4, model.get_piece_size())]
    (hidden / "vocabulary.txt").write_text("".join(f"{n}\n" for n in names), encoding="utf-8")
    hidden.rename(folder)
    return folder


def learn_bpe(lines: Iterable[str], size: int):
    """Learn a SentencePiece BPE; `size` includes the special pieces (ids 0 to 3)."""
    import sentencepiece

    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=content, vocab_size=size, model_type="bpe",
        character_coverage=1.0, pad_id=0, unk_id=1, bos_id=2, eos_id=3, minloglevel=2,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=content.getvalue())


def encode(model, pairs: Pairs) -> Iterator[tuple[str, str]]:
    """Yield the pieces of each pair that is neither blank nor long, a space between them."""
    for pair in pairs:
        source, target = model.encode(list(pair), out_type=str)
        if 0 < len(source) <= MOST_PIECES and 0 < len(target) <= MOST_PIECES:
            yield " ".join(source), " ".join(target)
