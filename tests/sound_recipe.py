"""A sound recipe and its data."""

from pathlib import Path

RECIPE = """\
languages: {source: en, target: de}
data:
  train: [{kind: text, source: train.en, target: train.de}]
  valid: {kind: text, source: valid.en, target: valid.de}
  test: {small: {kind: text, source: valid.en, target: valid.de}}
  max_length: 64
  processes: 1
vocabulary: {size: 365}
model: {d_model: 16, n_heads: 2, d_ff: 32, encoder_layers: 1, decoder_layers: 1}
schedule: {kind: constant, warmup_steps: 0}
batching: {tokens: 256, micro_tokens: 256}
training: {max_steps: 2}
runtime: {device: cpu, precision: fp32, threads: 1}
"""

NOUNS = ["house:Haus", "tree:Baum", "river:Fluss", "bridge:Brücke", "market:Markt", "garden:Garten"]

VERBS = ["sees:sieht", "paints:malt", "sells:verkauft", "finds:findet", "loves:liebt"]

LINES = [
    (f"The {a} {v} the {b}.", f"Das {x} {w} das {y}.")
    for a, x in (n.split(":") for n in NOUNS)
    for v, w in (n.split(":") for n in VERBS)
    for b, y in (n.split(":") for n in NOUNS)
]

DATA = {
    "train.en": "".join(source + "\n" for source, _ in LINES[10:]),
    "train.de": "".join(target + "\n" for _, target in LINES[10:]),
    "valid.en": "".join(source + "\n" for source, _ in LINES[:10]),
    "valid.de": "".join(target + "\n" for _, target in LINES[:10]),
}


def write(files):
    for name, content in files.items():
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
