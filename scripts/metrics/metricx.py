"""MetricX-24 (Juraska et al. 2024), for a metric of `kind: command`.

Its code is a repository, with an environment of its own, in two lines:

    git clone https://github.com/google-research/metricx && python -m venv metricx/env
    metricx/env/bin/pip install -r metricx/requirements.txt

and in the recipe, with another model of MetricX-24 as a last entry of `run` if you like:

    evaluation:
      metrics: [bleu, chrf, {kind: command, name: metricx, better: lower,
                             run: [metricx/env/bin/python, scripts/metrics/metricx.py, metricx]}]

The model, 5 GB, is downloaded once. A score is the expected penalty, 0 to 25: smaller is better.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from json_lines import Row, mean_over_references, serve

MODEL, TOKENIZER = "google/metricx-24-hybrid-large-v2p6", "google/mt5-xl"
LONGEST = 1536
"""Pieces of source, translation and reference together."""


def start() -> tuple[str, Callable[[list[Row]], list[float]]]:
    """Load the model, with the code in the folder that is the first argument."""
    repository, *others = sys.argv[1:]
    sys.path.insert(0, repository)
    import torch
    import transformers
    from metricx24 import models

    name = others[0] if others else MODEL
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = transformers.AutoTokenizer.from_pretrained(TOKENIZER)
    model = models.MT5ForRegression.from_pretrained(name).to(device).eval()

    def score_row(row: Row) -> float:
        text = f"source: {row['source']} candidate: {row['hypothesis']}"
        text += f" reference: {row['reference']}"
        ids = tokenizer(text, max_length=LONGEST, truncation=True)["input_ids"]
        ids = torch.tensor([ids[:-1]], device=device)  # the model was trained without an end
        with torch.inference_mode():
            found = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        return float(found.predictions[0])

    def score(rows: list[Row]) -> list[float]:
        return [score_row(row) for row in rows]

    return f"24/{name}", lambda rows: mean_over_references(rows, score)


if __name__ == "__main__":
    serve(start)
