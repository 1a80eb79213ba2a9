"""The translators that scripts/bench/decoding.py compares, each run in a process of its own.

    python scripts/bench/decoders.py bare FOLDER --source FILE --out FILE --beams 5 --workers 2

| name | what translates |
|---|---|
| mt | mt's engine for the path, as `mt translate` uses it |
| bare | a plain loop around ctranslate2 and sentencepiece, on a folder of mt export |
| huggingface | generate() of transformers, on a folder of mt export, batches of like length |

Prints one JSON object: seconds from the first import until the model is ready (load) and from there
until the last line is written (translate), and the peak memory of this process (peak, bytes).
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import harness


def translate_with_mt(given: argparse.Namespace) -> float:
    from mt.decoding import translate
    from mt.decoding.types import EngineOptions
    from mt.runtime import output, text_files

    search = {"kind": "greedy"} if given.beams == 1 else {"kind": "beam", "beams": given.beams}
    options = EngineOptions(  # as mt translate -i FILE -o FILE
        search=search, processes=given.workers, threads=given.threads,
        precision=given.precision, low_latency=False,
    )  # fmt: skip
    engine = translate.open_engine(given.model, options)
    ready = time.perf_counter()
    with text_files.open_bytes(given.source) as stream, output.open_output(given.out) as out:
        translate.translate_lines(engine, stream, out)
    return ready


def translate_with_ctranslate2(given: argparse.Namespace) -> float:
    import unicodedata

    import ctranslate2
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(given.model / "vocabulary.model"))
    translator = ctranslate2.Translator(
        str(given.model), inter_threads=given.workers, intra_threads=given.threads
    )
    ready = time.perf_counter()
    lines = harness.read_lines(given.source)
    folded = [" ".join(unicodedata.normalize("NFKC", line).split()) for line in lines]
    found = translator.translate_batch(
        [[*line, "</s>"] for line in pieces.encode(folded, out_type=str)],
        beam_size=given.beams,
        length_penalty=1 if given.beams > 1 else 0,
        max_batch_size=given.batch_tokens,
        batch_type="tokens",
        max_decoding_length=256,
    )
    write_lines(given.out, pieces.decode([each.hypotheses[0] for each in found]))
    return ready


def translate_with_transformers(given: argparse.Namespace) -> float:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(given.threads * given.workers)
    model = AutoModelForSeq2SeqLM.from_pretrained(given.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    ready = time.perf_counter()
    lines = harness.read_lines(given.source)
    order = sorted(range(len(lines)), key=lambda i: -len(lines[i]))
    greedy = {"num_beams": 1, "early_stopping": None, "length_penalty": None}
    settings = greedy if given.beams == 1 else {"num_beams": given.beams}
    found = [""] * len(lines)
    for start in range(0, len(order), given.sentences):
        rows = order[start : start + given.sentences]
        batch = tokenizer([lines[i] for i in rows], padding=True, return_tensors="pt")
        with torch.inference_mode():
            ids = model.generate(**batch, **settings)
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        for i, text in zip(rows, texts, strict=True):
            found[i] = text
    write_lines(given.out, found)
    return ready


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


PROGRAMS = {
    "mt": translate_with_mt,
    "bare": translate_with_ctranslate2,
    "huggingface": translate_with_transformers,
}


def main() -> None:
    parser = harness.make_parser(__doc__)
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("model", type=Path)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", help="of mt")
    parser.add_argument("--batch-tokens", type=int, default=1024, help="of bare")
    parser.add_argument("--sentences", type=int, default=64, help="in a batch of huggingface")
    given = parser.parse_args()
    began = time.perf_counter()
    ready = PROGRAMS[given.program](given)
    result = {"load": ready - began, "translate": time.perf_counter() - ready}
    result["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
