"""What the tests of attention maps share: a sentence and the command."""

from __future__ import annotations

import json
import re

import numpy as np

from mt.cli import main
from mt.decoding.types import EngineOptions

SOURCE = "Two dogs play in the grass!"

PLAIN = EngineOptions(precision="fp32", threads=1, device="cpu")


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def data_of(page):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]
    return json.loads(text)


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\u2028{{data}}"

ABOUT = {"model": EVIL, "text": EVIL, "source": "en", "target": "zh", "forced": False}


# ------------------------------------------------------------------------------ the command


def shown(arguments, capsys):
    code = main.run(["attention", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err
