"""COMET (Rei et al. 2022), for a metric of `kind: command`.

Its packages do not fit beside those of mt, so it has an environment of its own, in two lines:

    python -m venv comet
    comet/bin/pip install unbabel-comet==2.2.7

and in the recipe, with another model of COMET as a last entry of `run` if you like:

    evaluation:
      metrics: [bleu, chrf, {kind: command, name: comet,
                             run: [comet/bin/python, scripts/metrics/comet.py]}]

The model, 2.3 GB, is downloaded once. Larger is better.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version

from json_lines import Row, mean_over_references, serve

MODEL = "Unbabel/wmt22-comet-da"
BATCH = 16


def start() -> tuple[str, Callable[[list[Row]], list[float]]]:
    """Load the model."""
    sys.path.pop(0)  # where this file has the name of the package
    import comet
    import torch

    name = sys.argv[1] if len(sys.argv) > 1 else MODEL
    model = comet.load_from_checkpoint(comet.download_model(name))
    gpus = 1 if torch.cuda.is_available() else 0

    def score(rows: list[Row]) -> list[float]:
        samples = [
            {"src": row["source"], "mt": row["hypothesis"], "ref": row["reference"]} for row in rows
        ]
        found = model.predict(samples, batch_size=BATCH, gpus=gpus, progress_bar=False)
        return list(found.scores)

    made_by = f"{version('unbabel-comet')}/{name}"
    return made_by, lambda rows: mean_over_references(rows, score)


if __name__ == "__main__":
    serve(start)
