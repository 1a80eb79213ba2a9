"""What scripts/bench/decoding.py runs, each in a process of its own: a model, lines in, lines out.

    python scripts/bench/decoders.py bare FOLDER --source FILE --out FILE --beams 5 --workers 2

| name | what translates |
|---|---|
| mt | mt's engine of whatever lies at the path, as `mt translate` uses it |
| bare | a plain loop around ctranslate2 and sentencepiece, on a folder of mt export |
| huggingface | generate() of transformers, on a folder of mt export, batches of like length |

It prints one JSON object: seconds from the first import to the model being ready (load) and from
there to the last line written (translate); the most memory that this process had (peak, bytes).
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[2]))  # mt of this checkout


def with_mt(given: argparse.Namespace) -> float:
    from mt.decoding import translate
    from mt.decoding.types import EngineOptions
    from mt.runtime import files

    search = {"kind": "greedy"} if given.beams == 1 else {"kind": "beam", "beams": given.beams}
    options = EngineOptions(  # as mt translate -i FILE -o FILE
        search=search, processes=given.workers, threads=given.threads,
        precision=given.precision, low_latency=False,
    )  # fmt: skip
    engine = translate.open_engine(given.model, options)
    ready = time.perf_counter()
    with files.open_bytes(given.source) as stream, files.open_output(given.out) as out:
        translate.translate_lines(engine, stream, out)
    return ready


def bare(given: argparse.Namespace) -> float:
    import unicodedata

    import ctranslate2
    import sentencepiece

    cutter = sentencepiece.SentencePieceProcessor(model_file=str(given.model / "vocabulary.model"))
    translator = ctranslate2.Translator(
        str(given.model), inter_threads=given.workers, intra_threads=given.threads
    )
    ready = time.perf_counter()
    lines = given.source.read_text(encoding="utf-8").splitlines()
    folded = [" ".join(unicodedata.normalize("NFKC", line).split()) for line in lines]
    found = translator.translate_batch(
        [[*pieces, "</s>"] for pieces in cutter.encode(folded, out_type=str)],
        beam_size=given.beams,
        length_penalty=1 if given.beams > 1 else 0,
        max_batch_size=given.batch_tokens,
        batch_type="tokens",
        max_decoding_length=256,
    )
    texts = cutter.decode([each.hypotheses[0] for each in found])
    given.out.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return ready


def huggingface(given: argparse.Namespace) -> float:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(given.threads * given.workers)
    model = AutoModelForSeq2SeqLM.from_pretrained(given.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    ready = time.perf_counter()
    lines = given.source.read_text(encoding="utf-8").splitlines()
    order = sorted(range(len(lines)), key=lambda i: -len(lines[i]))
    one = {"num_beams": 1, "early_stopping": None, "length_penalty": None}
    settings = one if given.beams == 1 else {"num_beams": given.beams}
    found = [""] * len(lines)
    for start in range(0, len(order), given.sentences):
        rows = order[start : start + given.sentences]
        batch = tokenizer([lines[i] for i in rows], padding=True, return_tensors="pt")
        with torch.inference_mode():
            made = model.generate(**batch, **settings)
        for i, text in zip(
            rows, tokenizer.batch_decode(made, skip_special_tokens=True), strict=True
        ):
            found[i] = text
    given.out.write_text("".join(f"{text}\n" for text in found), encoding="utf-8")
    return ready


PROGRAMS = {"mt": with_mt, "bare": bare, "huggingface": huggingface}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    told = {"load": ready - began, "translate": time.perf_counter() - ready}
    told["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
