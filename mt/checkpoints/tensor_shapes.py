"""The shapes of a model's tensors, compared with its recipe before memory is allocated.

The recipe of a small file may say that its model is huge. The header of the safetensors says what
there is, and a model on torch's meta device, which holds no numbers, what the recipe wants.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from mt.errors import ModelError
from mt.runtime import model_files

MAX_HEADER = 100 << 20
"""Most bytes of a header of safetensors, by their specification."""
Shapes = Mapping[str, tuple[int, ...]]


def read_shapes(weights: Path | bytes) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of safetensors, from their header alone.

    Raises:
        ValueError: it is damaged.
    """
    if isinstance(weights, bytes):
        return _read_header(io.BytesIO(weights))
    with open(weights, "rb") as stream:
        return _read_header(stream)


def _read_header(stream: BinaryIO) -> dict[str, tuple[int, ...]]:
    size = int.from_bytes(stream.read(8), "little")
    if size > MAX_HEADER:
        raise ValueError(f"a header of {size} bytes")
    content = stream.read(size)
    if len(content) < size:
        raise ValueError("its header is cut short")
    header = model_files.parse_json(content.decode("utf-8"))
    if not isinstance(header, dict):
        raise ValueError("its header is none")
    shapes = {}
    for name, facts in header.items():
        if name == "__metadata__":
            continue
        shape = facts.get("shape") if isinstance(facts, dict) else None
        if not isinstance(shape, list) or not all(type(each) is int for each in shape):
            raise ValueError(f"{name} has no shape")
        shapes[name] = tuple(shape)
    return shapes


def check_shapes(wanted: Shapes, given: Shapes, where: Path) -> None:
    """Raise a ModelError that names the tensors that are missing, surplus or of another shape."""
    problems = [(where, f"{key}: missing") for key in wanted.keys() - given.keys()]
    problems += [(where, f"{key}: unknown") for key in given.keys() - wanted.keys()]
    for key in wanted.keys() & given.keys():
        if given[key] != wanted[key]:
            problems.append((where, f"{key}: is {given[key]}, the model wants {wanted[key]}"))
    if problems:
        (place, what), *others = sorted(problems, key=lambda p: p[1])[:10]
        advice = "the run's config.yaml and its checkpoints do not belong together"
        raise ModelError("CKPT-SHAPE", place, what, advice, others)


class _WithoutDraws(TorchFunctionMode):
    """Leaves tensors as they are where random numbers would fill them.

    On the meta device torch would import its compiler for that, which takes a second or two.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith(("normal_", "uniform_")):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build_checked(
    build: Callable[[], nn.Module], given: Shapes, where: Path, unchecked: bool = False
) -> nn.Module:
    """Return the model that `build` makes, whose parameters must have the `given` shapes.

    With `unchecked` a model that cannot be made on the meta device is made all the same.

    Raises:
        ModelError: they have other shapes; the memory of the model has not been asked for then.
    """
    try:
        with torch.device("meta"), _WithoutDraws(), torch.random.fork_rng(devices=[]):
            wanted = {name: tuple(p.shape) for name, p in build().named_parameters()}
    except RuntimeError as error:  # sizes that overflow, or a module that needs numbers
        if unchecked:
            return build()
        what = f"its recipe makes no model ({str(error).splitlines()[0]})"
        raise ModelError("CKPT-SHAPE", where, what, "restore config.yaml from a copy") from None
    check_shapes(wanted, given, where)
    return build()
