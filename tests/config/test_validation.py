# ruff: noqa: E501 (a message stands on one line, however long it is)
"""What is wrong with a config, a data file or a command line is told in exactly these lines."""

import contextlib
import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sound_recipe import DATA, LINES, RECIPE, write

from mt.cli import main

ROOT = Path(__file__).parents[2]

MEND = "mend the configuration; `mt config --schema` prints all keys"

YAML = "mend the YAML there; spaces indent, `key: value` pairs, no tabs"


def changed(old, new):
    """The recipe with a line of it changed."""
    assert RECIPE.count(old) == 1
    return {"recipe.yaml": RECIPE.replace(old, new)}


def train_from(source):
    """The recipe with another source of training data."""
    return changed("{kind: text, source: train.en, target: train.de}", source)


CONFIG = "config recipe.yaml"

PREPARE = "prepare recipe.yaml"

TRANSLATE = "translate runs/recipe -i valid.en"

EVAL = "eval runs/recipe"

STEP = "runs/recipe/checkpoints/step-00000002"

TSV = train_from("{kind: tsv, file: train.tsv}")

JSONL = train_from("{kind: jsonl, file: train.jsonl}")

HUB = "{kind: huggingface, files: [train.parquet]}"


# (name, files beside the sound ones, command line, what standard error ends with, exit code)
TABLE = [
    # ------------------------------------------------------------------ the YAML file
    ("no such config", {}, "config nowhere.yaml", [
        "mt: error[CONFIG-FILE] nowhere.yaml: no such file",
        "give the path of a YAML recipe, such as configs/demo.yaml",
    ], 2),
    ("a folder for a config", {}, "config .", [
        "mt: error[CONFIG-FILE] .: Is a directory",
        "give the path of a YAML recipe, such as configs/demo.yaml",
    ], 2),
    ("empty config", {"recipe.yaml": ""}, CONFIG, [
        "mt: error[CONFIG] recipe.yaml: languages: missing; it must be given",
        "mt: error[CONFIG] recipe.yaml: data: missing; it must be given",
        "mt: error[CONFIG] recipe.yaml: training: missing; it must be given",
        MEND,
    ], 2),
    ("a list for a config", {"recipe.yaml": "- a\n- b\n"}, CONFIG, [
        "mt: error[CONFIG] recipe.yaml:1: the top level must be a mapping of sections, not a list",
        "begin with, say, `languages: {...}`",
    ], 2),
    ("binary config", {"recipe.yaml": b"\x00\x01\xff\xfe"}, CONFIG, [
        "mt: error[CONFIG] recipe.yaml: not UTF-8 text (byte 2)",
        "give the path of a YAML recipe, such as configs/demo.yaml",
    ], 2),
    ("NUL in the config", {"recipe.yaml": b"a: \x00\n"}, CONFIG, [
        "mt: error[CONFIG-YAML] recipe.yaml: unacceptable character #x0000: special characters are not allowed",
        YAML,
    ], 2),
    ("tabs", {"recipe.yaml": "languages:\n\tsource: en\n"}, CONFIG, [
        "mt: error[CONFIG-YAML] recipe.yaml:2: while scanning for the next token, found character '\\t' that cannot start any token",
        YAML,
    ], 2),
    ("unclosed bracket", {"recipe.yaml": "data: [1, 2\n"}, CONFIG, [
        "mt: error[CONFIG-YAML] recipe.yaml:2: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'",
        YAML,
    ], 2),
    ("two documents", {"recipe.yaml": "a: 1\n---\nb: 2\n"}, CONFIG, [
        "mt: error[CONFIG-YAML] recipe.yaml:2: expected a single document in the stream, but found another document",
        YAML,
    ], 2),
    ("duplicate key", changed("training:", "data: {}\ntraining:"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:12: data: given twice (first at recipe.yaml:2)",
        "keep one of the two",
    ], 2),
    ("alias", {"recipe.yaml": "a: &x {b: 1}\nc: *x\n"}, CONFIG, [
        "mt: error[CONFIG] recipe.yaml:1: anchors and aliases are not supported",
        "write the value out",
    ], 2),
    ("tag", {"recipe.yaml": "a: 1\nb: !!python/name:os.system x\n"}, CONFIG, [
        "mt: error[CONFIG] recipe.yaml:2: the tag tag:yaml.org,2002:python/name:os.system is not supported",
        "write a plain value",
    ], 2),
    ("half a character", {"recipe.yaml": 'a: 1\nb: "\\ud800"\n'}, CONFIG, [
        "mt: error[CONFIG] recipe.yaml:2: half a surrogate pair, which is no character",
        "write the character itself",
    ], 2),
    ("too deep", {"recipe.yaml": "a: " + "[" * 40 + "]" * 40}, CONFIG, [
        "mt: error[CONFIG] recipe.yaml:1: nested too deep or too large",
        YAML,
    ], 2),
    ("too large", {"recipe.yaml": "#" * (1 << 20) + "\na: 1\n"}, CONFIG, [
        "mt: error[CONFIG] recipe.yaml: larger than 1 MiB",
        "give the path of a YAML recipe, such as configs/demo.yaml",
    ], 2),
    ("a list for a key", {"recipe.yaml": "? [a, b]\n: 1\n"}, CONFIG, [
        "mt: error[CONFIG] recipe.yaml:1: a key must be a word",
        "write `key: value`",
    ], 2),
    # ------------------------------------------------------------------- single values
    ("unknown key", changed("n_heads: 2", "n_head: 2"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:9: model.n_head: unknown key (did you mean n_heads?)",
        MEND,
    ], 2),
    ("unknown section", changed("training:", "trainings:"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml: training: missing; it must be given",
        "mt: error[CONFIG] recipe.yaml:12: trainings: unknown key (did you mean training?)",
        MEND,
    ], 2),
    ("three problems at once",
        {"recipe.yaml": RECIPE.replace("d_model: 16", "d_modle: 16").replace("max_steps: 2", "max_steps: -2").replace("tokens: 256,", "tokens: many,")},
        CONFIG, [
        "mt: error[CONFIG] recipe.yaml:9: model.d_modle: unknown key (did you mean d_model?)",
        "mt: error[CONFIG] recipe.yaml:11: batching.tokens: should be a valid integer, got 'many'",
        "mt: error[CONFIG] recipe.yaml:12: training.max_steps: should be greater than or equal to 1, got -2",
        MEND,
    ], 2),
    ("a word for a number", changed("d_model: 16", "d_model: sixteen"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:9: model.d_model: should be a valid integer, got 'sixteen'",
        MEND,
    ], 2),
    ("a fraction for a count", changed("d_model: 16", "d_model: 16.5"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:9: model.d_model: should be a valid integer, got 16.5",
        MEND,
    ], 2),
    ("a truth for a number", changed("d_model: 16", "d_model: true"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:9: model.d_model: should be a valid integer, got true",
        MEND,
    ], 2),
    ("a number for a section", changed("training: {max_steps: 2}", "training: 2"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:12: training: should be a mapping of keys, got 2",
        MEND,
    ], 2),
    ("a list for a number", changed("d_model: 16", "d_model: [16]"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:9: model.d_model: should be a valid integer, got a list",
        MEND,
    ], 2),
    ("out of range", changed("d_ff: 32", "dropout: 1.5"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:9: model.dropout: should be less than 1, got 1.5",
        MEND,
    ], 2),
    ("not a number", changed("d_ff: 32", "dropout: .nan"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:9: model.dropout: should be a valid number, got '.nan'",
        MEND,
    ], 2),
    ("too few entries", {}, CONFIG + " --set optimizer.betas=[0.9]", [
        "mt: error[CONFIG] --set optimizer.betas=[0.9]: optimizer.betas.1: missing; it must be given",
        "mend the configuration; `mt config --schema` prints all keys",
    ], 2),
    ("infinity", {}, CONFIG + " --set optimizer.learning_rate=1e999", [
        "mt: error[CONFIG] --set optimizer.learning_rate=1e999: optimizer.learning_rate: should be a finite number, got inf",
        MEND,
    ], 2),
    ("a path that is empty", changed("source: train.en", "source: ''"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:3: data.train.0.source: should be a path, got ''",
        MEND,
    ], 2),
    ("missing required", changed("training: {max_steps: 2}\n", ""), CONFIG, [
        "mt: error[CONFIG] recipe.yaml: training: missing; it must be given",
        MEND,
    ], 2),
    ("missing target", train_from("{kind: text, source: train.en}"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:3: data.train.0: has its source side only, from which objective.kind: cross_entropy cannot learn; denoising can",
        MEND,
    ], 2),
    ("no training corpus", changed("[{kind: text, source: train.en, target: train.de}]", "[]"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:3: data.train: should have at least 1 entry",
        MEND,
    ], 2),
    ("one corpus without its dash", changed("[{kind: text, source: train.en, target: train.de}]", "{kind: text, source: train.en, target: train.de}"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:3: data.train: should be a list, got a mapping",
        MEND,
    ], 2),
    ("unknown kind", train_from("{kind: txt, source: train.en, target: train.de}"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:3: data.train.0: unknown kind 'txt' (did you mean text?)",
        MEND,
    ], 2),
    ("no kind", train_from("{source: train.en, target: train.de}"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:3: data.train.0: kind: missing; one of demo, huggingface, jsonl, moses, mtdata, opus, po, sacrebleu, text, tmx, tsv, url, xliff",
        MEND,
    ], 2),
    ("a dotted kind that is not there", changed("d_model: 16", "kind: my_lab.conv"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:9: model: my_lab.conv cannot be imported: No module named 'my_lab'",
        MEND,
    ], 2),
    ("a dotted kind that is no plug-in", changed("d_model: 16", "kind: os.path"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:9: model: os.path has no Config and so is no plug-in",
        MEND,
    ], 2),
    ("unknown schedule", changed("kind: constant", "kind: cosin"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:10: schedule.kind: should be 'inverse_sqrt', 'linear', 'cosine' or 'constant', got 'cosin'",
        MEND,
    ], 2),
    ("unknown device", changed("device: cpu", "device: gpu"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:13: runtime.device: unknown device 'gpu'; one of auto, cpu, cuda, cuda:N",
        MEND,
    ], 2),
    # ------------------------------------------------------------------ values that disagree
    ("heads do not divide the width", changed("n_heads: 2", "n_heads: 3"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:9: model: d_model (16) is not divisible by n_heads (3)",
        MEND,
    ], 2),
    ("a head of odd width cannot turn", changed("n_heads: 2", "n_heads: 16, positions: rotary"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:9: model: a head's width (d_head, else d_model / n_heads: 1) must be even for rotary positions",
        MEND,
    ], 2),
    ("half a unit from either end", changed("{d_model: 16, n_heads: 2, d_ff: 32, encoder_layers: 1, decoder_layers: 1}", "{kind: rnn, units: 7}"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:9: model: units (7) must be even: half read from either end",
        MEND,
    ], 2),
    ("nothing ends the training", changed("max_steps: 2", "seed: 1"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:12: training: one of max_steps, max_epochs, max_minutes must be given",
        MEND,
    ], 2),
    ("a line to zero without its end",
        {"recipe.yaml": RECIPE.replace("kind: constant", "kind: linear").replace("max_steps: 2", "max_minutes: 2")}, CONFIG, [
        "mt: error[CONFIG] recipe.yaml:10: schedule.kind: linear falls to zero at the end and so needs training.max_steps or training.max_epochs",
        MEND,
    ], 2),
    ("warm-up longer than training", changed("warmup_steps: 0", "warmup_steps: 2"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:10: schedule.warmup_steps (2) must be below training.max_steps (2)",
        MEND,
    ], 2),
    ("sentences longer than positions", changed("d_ff: 32", "positions: learned, max_length: 32"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:6: data.max_length (64) is more than model.max_length (32)",
        MEND,
    ], 2),
    ("micro-batch below one pair", changed("micro_tokens: 256", "micro_tokens: 100"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:11: batching.micro_tokens (100) must hold one pair of the longest sides: at least 2 * data.max_length (128)",
        MEND,
    ], 2),
    # ------------------------------------------------------------------------ --set
    ("--set without a value", {}, CONFIG + " --set model.d_model", [
        "mt: error[CONFIG-SET] --set model.d_model: not of the form section.key=value",
        "for instance --set training.max_steps=100",
    ], 2),
    ("--set without a key", {}, CONFIG + " --set =3", [
        "mt: error[CONFIG-SET] --set =3: not of the form section.key=value",
        "for instance --set training.max_steps=100",
    ], 2),
    ("--set of an unknown key", {}, CONFIG + " --set model.depth=3", [
        "mt: error[CONFIG] --set model.depth=3: model.depth: unknown key (did you mean dropout?)",
        MEND,
    ], 2),
    ("--set of a wrong type", {}, CONFIG + " --set model.d_model=big", [
        "mt: error[CONFIG] --set model.d_model=big: model.d_model: should be a valid integer, got 'big'",
        MEND,
    ], 2),
    ("--set through a value", {}, CONFIG + " --set model.d_model.x=3", [
        "mt: error[CONFIG-SET] --set model.d_model.x=3: x: there is no such entry in 16",
        "see `mt config` for what there is",
    ], 2),
    ("--set beyond a list", {}, CONFIG + " --set data.train.3.source=x", [
        "mt: error[CONFIG-SET] --set data.train.3.source=x: 3: there is no such entry in a list",
        "see `mt config` for what there is",
    ], 2),
    ("--explain of an unknown key", {}, CONFIG + " --explain model.d_modl", [
        "mt: error[CONFIG-KEY] --explain model.d_modl: there is no key d_modl (did you mean d_model?)",
        "`mt config CONFIG` prints every key",
    ], 2),
    ("--explain below a value", {}, CONFIG + " --explain model.d_model.x", [
        "mt: error[CONFIG-KEY] --explain model.d_model.x: there is no key x",
        "`mt config CONFIG` prints every key",
    ], 2),
    # ------------------------------------------------------------------ the command line
    ("unknown command", {}, "trane recipe.yaml", [
        "mt: error[USAGE] mt: No such command 'trane'. Did you mean 'train', 'translate', 'prune'?",
        "see mt --help",
    ], 2),
    ("unknown option", {}, "train recipe.yaml --steps 5", [
        "mt: error[USAGE] mt train: No such option: --steps (Possible options: --help, --set)",
        "see mt train --help",
    ], 2),
    ("no config", {}, "train", [
        "mt: error[USAGE] mt train: Missing argument 'CONFIG'.",
        "see mt train --help",
    ], 2),
    ("no config to show", {}, "config", [
        "mt: error[USAGE] mt config: Missing argument 'CONFIG'.",
        "see mt config --help",
    ], 2),
    ("an option without its value", {}, "train recipe.yaml --run", [
        "mt: error[USAGE] mt: Option '--run' requires an argument.",
        "see mt --help",
    ], 2),
    ("one argument too many", {}, "train recipe.yaml again.yaml", [
        "mt: error[USAGE] mt train: Got unexpected extra argument(s) (again.yaml)",
        "see mt train --help",
    ], 2),
    # ------------------------------------------------------------------------- the machine
    ("no such GPU", {}, "train recipe.yaml --set runtime.device=cuda:77", [
        "mt: error[NO-GPU] runtime.device: cuda:77 is not there; torch X sees N CUDA devices",
        "set runtime.device=cpu or auto",
    ], 5),
    # --------------------------------------------------------------------------- the data
    ("missing file", train_from("{kind: text, source: train.en, target: nowhere.de}"), PREPARE, [
        "mt: error[DATA-FILE] HERE/nowhere.de: no such file",
        "check its name; in a recipe it is relative to the folder of the recipe",
    ], 3),
    ("a folder for a file", train_from("{kind: text, source: train.en, target: .}"), PREPARE, [
        "mt: error[DATA-FILE] HERE: a folder, not a file",
        "check its name; in a recipe it is relative to the folder of the recipe",
    ], 3),
    ("files of unequal length", {"train.de": DATA["train.de"] + "Zu viel.\n"}, PREPARE, [
        "mt: error[DATA-LINES] HERE/train.en and HERE/train.de: 170 lines against 171",
        "line n of one must translate line n of the other; mend the files",
    ], 3),
    ("not UTF-8", {"train.de": "Tür\n".encode("latin-1") + DATA["train.de"].encode()[4:]}, PREPARE, [
        "mt: error[DATA-UTF8] HERE/train.de:1: invalid byte 0xfc at column 2",
        "the text must be UTF-8; mend the line, or convert: iconv -f CP1252 -t UTF-8",
    ], 3),
    ("UTF-16", {"train.de": DATA["train.de"].encode("utf-16")}, PREPARE, [
        "mt: error[DATA-ENCODING] HERE/train.de:1: looks like UTF-16, not UTF-8",
        "convert it: iconv -f UTF-16 -t UTF-8",
    ], 3),
    ("gzip of two bytes", {"train.de": b"\x1f\x8b"}, PREPARE, [
        "mt: error[DATA-COMPRESSED] HERE/train.de:1: the compressed data are damaged or cut short (Compressed file ended before the end-of-stream marker was reached)",
        "fetch or compress the file again",
    ], 3),
    ("damaged bzip2", {"train.de": b"BZh9 and no more"}, PREPARE, [
        "mt: error[DATA-COMPRESSED] HERE/train.de:1: the compressed data are damaged or cut short (Invalid data stream)",
        "fetch or compress the file again",
    ], 3),
    ("gzip cut short", {"train.de": gzip.compress(DATA["train.de"].encode())[:-40]}, PREPARE, [
        "mt: error[DATA-COMPRESSED] HERE/train.de:157: the compressed data are damaged or cut short (Compressed file ended before the end-of-stream marker was reached)",
        "fetch or compress the file again",
    ], 3),
    ("empty files", {"train.en": "", "train.de": ""}, PREPARE, [
        "mt: error[DATA-EMPTY] data.train.0 (HERE/train.en, HERE/train.de): there are no pairs in it",
        "see the corpus in the recipe: is it the right file?",
    ], 3),
    ("empty validation files", {"valid.en": "", "valid.de": ""}, PREPARE, [
        "mt: error[DATA-EMPTY] data.valid (HERE/valid.en, HERE/valid.de): none of 0 pairs is left; 0 dropped as empty",
        "see the corpus in the recipe: is it the right file, or column?",
    ], 3),
    ("nothing is left", {"train.de": "\n" * (len(LINES) - 10)}, PREPARE, [
        "mt: error[DATA-EMPTY] vocabulary: there is no text to learn it from",
        "see data.train: is there text in it?",
    ], 3),
    ("all is too long", changed("max_length: 64", "max_length: 2"), PREPARE, [
        "mt: error[DATA-EMPTY] data.train.0 (HERE/train.en, HERE/train.de): none of 170 pairs is left; 170 dropped as too_long",
        "raise data.max_length, or split the lines into sentences",
    ], 3),
    ("vocabulary larger than the text allows", changed("size: 365", "size: 9000"), PREPARE, [
        "mt: error[VOCAB-TOO-BIG] vocabulary.size: 9000 is too large for this text; the largest possible is 377",
        "set vocabulary.size=377 or less, or train on more text",
    ], 2),
    ("vocabulary smaller than its reserved pieces", changed("size: 365", "size: 100"), PREPARE, [
        "mt: error[VOCAB-TOO-SMALL] vocabulary.size: 100 is too small for the characters of this text; it takes 354",
        "set vocabulary.size=354 or more, or lower vocabulary.character_coverage",
    ], 2),
    ("no such vocabulary", changed("{size: 365}", "{path: nowhere}"), PREPARE, [
        "mt: error[VOCAB-NONE] HERE/nowhere: there is no vocabulary there",
        "see vocabulary.path: a SentencePiece .model, or a run directory",
    ], 4),
    # ------------------------------------------------------------------- other data sources
    ("too few fields", {**TSV, "train.tsv": "A house.\tEin Haus.\nA tree.\n"}, PREPARE, [
        "mt: error[DATA-FIELDS] HERE/train.tsv:2: 1 field, but 2 in the first line",
        "each line holds the same number of fields, parted by tabs; mend the file",
    ], 3),
    ("no second column", {**TSV, "train.tsv": "A house.\nA tree.\n"}, PREPARE, [
        "mt: error[DATA-FIELDS] HERE/train.tsv:1: 1 field; column 2 is asked for",
        "each line holds the same number of fields, parted by tabs; mend the file",
    ], 3),
    ("no such column", {**train_from("{kind: tsv, file: train.tsv, source: en, target: du}"), "train.tsv": "en\tde\nA house.\tEin Haus.\n"}, PREPARE, [
        "mt: error[DATA-COLUMN] HERE/train.tsv:1: there is no column 'du'; there are: en, de",
        "name columns as the first line does",
    ], 3),
    ("column nought", train_from("{kind: tsv, file: train.tsv, source: 0}"), PREPARE, [
        "mt: error[CONFIG] recipe.yaml:3: data.train.0.source: should be greater than or equal to 1, or should be a valid string, got 0",
        MEND,
    ], 2),
    ("bad JSON", {**JSONL, "train.jsonl": '{"en": "A house.", "de": "Ein Haus."}\n{"en": "A tr\n'}, PREPARE, [
        "mt: error[DATA-JSON] HERE/train.jsonl:2: not JSON: Unterminated string starting at: line 1 column 8 (char 7)",
        "each line must be one JSON object",
    ], 3),
    ("JSON that is no object", {**JSONL, "train.jsonl": '["A house.", "Ein Haus."]\n'}, PREPARE, [
        "mt: error[DATA-JSON] HERE/train.jsonl:1: a JSON list, not an object",
        'write {"source": "...", "target": "..."}',
    ], 3),
    ("a language that is not there", {**JSONL, "train.jsonl": '{"translation": {"en": "A house.", "fr": "Une maison."}}\n'}, PREPARE, [
        "mt: error[DATA-COLUMN] HERE/train.jsonl:1: there is no key 'de'; there are: en, fr",
        "name the keys with source and target",
    ], 3),
    ("a number for a text", {**JSONL, "train.jsonl": '{"en": "A house.", "de": [7]}\n'}, PREPARE, [
        "mt: error[DATA-JSON] HERE/train.jsonl:1: de is no text but [\"7\"]",
        "name the keys with source and target",
    ], 3),
    ("neither hub nor files", train_from("{kind: huggingface, split: train}"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:3: data.train.0: give either dataset, an id on the hub, or files",
        MEND,
    ], 2),
    ("an id that is a URL", train_from("{kind: huggingface, dataset: 'https://x/y/z'}"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:3: data.train.0.dataset: string should match pattern '^\\w[\\w.-]*(/\\w[\\w.-]*)?$', got 'https://x/y/z'",
        MEND,
    ], 2),
    ("parquet that is none", {**train_from(HUB), "train.parquet": "PAR0"}, PREPARE, [
        "mt: error[DATA-FILE] HERE/train.parquet: cannot be read (Parquet file size is 4 bytes, smaller than the minimum file footer (8 bytes))",
        "see whether the file is what its name says",
    ], 3),
    ("demo in a language that it does not speak", {"recipe.yaml": RECIPE.replace("{source: en, target: de}", "{source: en, target: fr}").replace("{kind: text, source: train.en, target: train.de}", "{kind: demo, split: train, size: 100, seed: 1}")}, PREPARE, [
        "mt: error[DEMO-LANGUAGE] languages: the demo source does not speak 'fr'; it speaks en, de, zh",
        "choose two of these",
    ], 2),
    ("demo of an unknown split", train_from("{kind: demo, split: tain, size: 100}"), CONFIG, [
        "mt: error[CONFIG] recipe.yaml:3: data.train.0.split: should be 'train', 'valid' or 'test', got 'tain'",
        MEND,
    ], 2),
    # ------------------------------------------------------------------------- a trained run
    ("no such run", {}, "translate runs/nowhere -i valid.en", [
        "mt: error[RUN-NONE] runs/nowhere: no such run",
        "give a run directory, a checkpoint folder in it, or what mt export made",
    ], 4),
    ("not a run", {}, "translate . -i valid.en", [
        "mt: error[RUN-NONE] .: not a run (no checkpoints in it)",
        "give a run directory, a checkpoint folder in it, or what mt export made",
    ], 4),
    ("no such run to score", {}, "eval runs/nowhere", [
        "mt: error[RUN-NONE] runs/nowhere: no such run",
        "give a run directory, a checkpoint folder in it, or what mt export made",
    ], 4),
    ("damaged weights", {f"{STEP}/model.safetensors": "junk"}, TRANSLATE, [
        "mt: error[CKPT-HASH] runs/recipe/checkpoints/step-00000002: model.safetensors size 4, manifest says N",
        "choose another with --checkpoint, or restore the files from a copy",
    ], 4),
    ("damaged manifest", {f"{STEP}/MANIFEST.json": "{"}, TRANSLATE, [
        "mt: error[CKPT-HASH] runs/recipe/checkpoints/step-00000002: MANIFEST.json is damaged",
        "choose another with --checkpoint, or restore the files from a copy",
    ], 4),
    ("damaged recipe of a run", {"runs/recipe/config.yaml": "languages: {"}, TRANSLATE, [
        "mt: error[CONFIG-YAML] runs/recipe/config.yaml:1: while parsing a flow node, expected the node content, but found '<stream end>'",
        YAML,
    ], 4),
    ("damaged vocabulary of a run", {"runs/recipe/vocabulary.model": "junk"}, TRANSLATE, [
        "mt: error[VOCAB-DAMAGED] runs/recipe/vocabulary.model: its sha256 is HASH, not HASH",
        "prepare again, or give vocabulary.path a good one",
    ], 4),
    ("unknown checkpoint", {}, TRANSLATE + " --checkpoint newest", [
        "mt: error[CKPT-NONE] runs/recipe: no checkpoint newest; there are: step-00000002",
        "choose one with --checkpoint best|last|average|step-N, or train first",
    ], 4),
    ("no such step", {}, TRANSLATE + " --checkpoint step-77", [
        "mt: error[CKPT-NONE] runs/recipe: no checkpoint step-77; there are: step-00000002",
        "choose one with --checkpoint best|last|average|step-N, or train first",
    ], 4),
    ("no such average", {}, TRANSLATE + " --checkpoint average", [
        "mt: error[CKPT-NONE] runs/recipe: no checkpoint average; there are: step-00000002",
        "choose one with --checkpoint best|last|average|step-N, or train first",
    ], 4),
    ("a device that is none", {}, TRANSLATE + " --device gpu", [
        "mt: error[CONFIG] --device gpu: runtime.device: unknown device 'gpu'; one of auto, cpu, cuda, cuda:N",
        MEND,
    ], 2),
    ("a device that is not there", {}, TRANSLATE + " --device cuda:77", [
        "mt: error[NO-GPU] runtime.device: cuda:77 is not there; torch X sees N CUDA devices",
        "set runtime.device=cpu or auto",
    ], 5),
    ("a model cannot be changed", {}, TRANSLATE + " --set model.d_model=32", [
        "mt: error[CONFIG-SET] --set model.d_model=32: a trained model has its own; only search.* and runtime.* can be set here",
        "for instance --set search.beams=8",
    ], 2),
    ("unknown search key", {}, TRANSLATE + " --set search.beam=3", [
        "mt: error[CONFIG] --set search.beam=3: search.beam: unknown key (did you mean beams?)",
        MEND,
    ], 2),
    ("no beams", {}, TRANSLATE + " --set search.beams=0", [
        "mt: error[CONFIG] --set search.beams=0: search.beams: should be greater than or equal to 1, got 0",
        MEND,
    ], 2),
    ("unknown search", {}, TRANSLATE + " --set search.kind=bem", [
        "mt: error[CONFIG] --set search.kind=bem: search: unknown kind 'bem' (did you mean beam?)",
        MEND,
    ], 2),
    ("no such input", {}, "translate runs/recipe -i nowhere.en", [
        "mt: error[DATA-FILE] nowhere.en: no such file",
        "check its name; in a recipe it is relative to the folder of the recipe",
    ], 3),
    ("input that is not UTF-8", {"bad.en": b"T\xfcr\n"}, "translate runs/recipe -i bad.en", [
        "mt: error[DATA-UTF8] bad.en:1: invalid byte 0xfc at column 2",
        "the text must be UTF-8; mend the line, or convert: iconv -f CP1252 -t UTF-8",
    ], 3),
    ("output into no folder", {}, TRANSLATE + " -o nowhere/out.de", [
        "mt: error[OUTPUT] nowhere/out.de: there is no folder nowhere",
        "create it, or choose another file",
    ], 2),
    ("unknown test set", {}, EVAL + " --on smal", [
        "mt: error[TEST-NONE] --on smal: no such test set (did you mean small?)",
        "there are: small",
    ], 2),
    ("source without reference", {}, EVAL + " --source valid.en", [
        "mt: error[USAGE] --source: there is no --reference to go with it",
        "give both --source FILE and --reference FILE",
    ], 2),
    ("reference without source", {}, EVAL + " --reference valid.de", [
        "mt: error[USAGE] --reference: there is no --source to go with it",
        "give both --source FILE and --reference FILE",
    ], 2),
    ("a reference that is shorter", {"short.de": "Das Haus.\n"}, EVAL + " --source valid.en --reference short.de", [
        "mt: error[TEST-LINES] short.de: 1 lines, valid.en has 10",
        "line n of one must translate line n",
    ], 3),
    ("resumed with another model", {}, "train recipe.yaml --set model.d_model=32", [
        "mt: error[RESUME-CONFIG] runs/recipe/config.yaml: model.d_model: 16 -> 32",
        "undo the change, train into another folder with --run, or start over with --fresh",
    ], 2),
    ("resumed with other data", {"train.de": DATA["train.de"].replace("Haus", "Maus")}, "train recipe.yaml", [
        "mt: error[RESUME-DATA] HERE/train.de: changed since step-00000002: sha256 HASH -> HASH",
        "restore the data and their files, or start over with --fresh",
    ], 3),
    ("resumed from a damaged checkpoint", {f"{STEP}/model.safetensors": "junk"}, "train recipe.yaml", [
        "mt: error[CKPT-NONE] runs/recipe/checkpoints/step-00000002: model.safetensors size 4, manifest says N",
        "restore one from a copy, or start over with --fresh",
    ], 4),
    ("a run that is in use", {}, "train recipe.yaml", [
        "mt: error[RUN-LOCKED] runs/recipe: in use by process N",
        "wait for it to end, or train into another folder with --run",
    ], 5),
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two updates."""
    here = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("MT_CACHE", str(here / "cache"))
        write({"recipe.yaml": RECIPE, **DATA})
        assert main.run(["train", "recipe.yaml"]) == 0
    return here


VARYING = {
    r"process \d+ on .* since [-\d]+ [:\d]+": "process N",
    r"torch \S+ sees \d+": "torch X sees N",
    r"\b([0-9a-f]{16}|[0-9a-f]{64})\b": "HASH",
    r"manifest says \d+": "manifest says N",
}


def told(stderr, folder):
    """Standard error from its first error line on, without what differs from run to run."""
    text = stderr.replace(str(folder), "HERE")
    for pattern, name in VARYING.items():
        text = re.sub(pattern, name, text)
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("mt: error")), 0)
    return lines[first:]


@pytest.mark.parametrize(
    ("name", "files", "line", "expected", "code"), TABLE, ids=[row[0] for row in TABLE]
)
def test_each_failure_is_reported_in_these_lines(
    request, folder, capsys, name, files, line, expected, code
):
    if name.startswith("resumed"):
        assert main.run(["train", "recipe.yaml"]) == 0
    elif "runs/recipe" in line or "in use" in name:
        shutil.copytree(request.getfixturevalue("trained") / "runs", folder / "runs", symlinks=True)
    write(files)
    with locked(folder / "runs/recipe/.lock", "in use" in name):
        capsys.readouterr()
        status = main.run(line.split())
    out, err = capsys.readouterr()
    assert told(err, folder) == expected
    assert status == code
    assert out == ""
    assert "Traceback" not in err


@contextlib.contextmanager
def locked(path, needed):
    """Another process that holds the lock of a run."""
    if not needed:
        yield
        return
    code = "import fcntl, sys; f = open(sys.argv[1], 'a+'); fcntl.flock(f, 2); f.write('process 1 on x since 2026-01-01 00:00:00'); f.flush(); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.stdin.close()


@pytest.mark.parametrize("name", ["unknown key", "unknown option", "files of unequal length"])
def test_a_process_of_its_own_reports_the_same(folder, python, name):
    (row,) = [row for row in TABLE if row[0] == name]
    _, files, line, expected, code = row
    write(files)
    done = subprocess.run(
        [sys.executable if name == "unknown key" else python, "-m", "mt", *line.split()],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert told(done.stderr, folder) == expected
    assert (done.returncode, done.stdout) == (code, "")
