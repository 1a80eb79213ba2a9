"""A recipe whose sizes are not those of its tensors asks for no memory."""

from __future__ import annotations

import resource
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from mt.checkpoints import bundle, tensor_shapes
from mt.checkpoints.run_directory import open_run
from mt.config.plugins import plugin
from mt.errors import ModelError
from mt.runtime import files

GOLDEN = Path(__file__).parents[1] / "golden"
HUGE = [
    {"d_model": 65536}, {"d_ff": 2**20}, {"d_model": 2**20, "d_ff": 2**20}, {"decoder_layers": 60},
    {"max_length": 2**17, "positions": "learned"}, {"n_heads": 2**20, "d_head": 2**20},
]  # fmt: skip
LIMIT = 4 << 30
"""Bytes of address space beyond those in use; 65536 columns of a vocabulary alone take more."""


@pytest.fixture
def little_memory():
    """Address space as of a small machine: what asks for more fails at once."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def resized(folder: Path, sizes: dict) -> Path:
    """A run whose recipe says that its model has these sizes."""
    run = shutil.copytree(GOLDEN / "transformer", folder / "run", symlinks=True)
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    settings["model"] |= sizes
    (run / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return run


@pytest.mark.parametrize("sizes", HUGE, ids=str)
def test_a_run_that_says_it_is_huge_is_refused(sizes, tmp_path, little_memory):
    run = resized(tmp_path, sizes)
    with pytest.raises(ModelError, match="CKPT-SHAPE") as error:
        open_run(run).model()
    assert error.value.exit_code == 4


def test_a_bundle_that_says_it_is_huge_is_refused(tmp_path, little_memory):
    with zipfile.ZipFile(GOLDEN / "transformer.mt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist() if name != "MANIFEST.json"}
    settings = yaml.safe_load(parts["config.yaml"])
    settings["model"]["d_model"] = 65536
    parts["config.yaml"] = yaml.safe_dump(settings).encode()
    manifest = files.as_json({"format": 1, "files": files.describe_parts(parts)})
    path = tmp_path / "huge.mt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {"MANIFEST.json": manifest.encode(), **parts}.items():
            archive.writestr(name, data)
    assert path.stat().st_size < 400_000
    with pytest.raises(ModelError, match="CKPT-SHAPE"):
        bundle.open_loaded_model(path).model()


@pytest.mark.parametrize("name", ["transformer", "heads", "rnn"])
def test_a_model_of_the_right_sizes_is_built_with_the_same_numbers(name):
    """Neither the model nor the random numbers that follow depend on the comparison."""
    opened = open_run(GOLDEN / name)
    torch.manual_seed(3)
    config = opened.recipe.model
    plain = plugin("models", config.kind).build(config, opened.vocabulary)
    expected = torch.rand(1)
    torch.manual_seed(3)
    built = opened.build()
    assert torch.equal(torch.rand(1), expected)
    for one, other in zip(plain.parameters(), built.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [b.device.type for b in built.buffers()] == ["cpu"] * len(list(built.buffers()))


def test_a_module_of_the_user_may_need_numbers_to_be_made(tmp_path):
    def build():
        model = torch.nn.Linear(2, 2)
        model.extra = float(torch.ones(1) * 2)  # not on the meta device
        return model

    shapes = {"weight": (2, 2), "bias": (2,)}
    assert tensor_shapes.build_checked(build, shapes, tmp_path, unchecked=True).extra == 2
    with pytest.raises(ModelError, match="CKPT-SHAPE"):
        tensor_shapes.build_checked(build, shapes, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8, b"\xff" * 16, b"\x02" + b"\0" * 7 + b"[]", b"\x05\0\0\0\0\0\0\0{}"]
)
def test_a_damaged_header_is_an_error(content, tmp_path):
    (tmp_path / "model").write_bytes(content)
    for weights in (content, tmp_path / "model"):
        with pytest.raises(ValueError, match=r"."):
            tensor_shapes.read_shapes(weights)
