"""The exporter of bundles writes the model as one file that opens as the same model."""

from __future__ import annotations

import torch

from mt.checkpoints import bundle, run_directory
from mt.config.plugins import plugin


def test_an_exported_bundle_opens_as_the_same_model(run, tmp_path):
    exporter = plugin("exporters", "bundle")
    opened = run_directory.open_run(run)
    exporter.check(opened, exporter.Config())
    model = opened.model()
    path = tmp_path / "model.mt"
    exporter.export(model, opened, path, exporter.Config())
    copy = bundle.open_loaded_model(path)
    assert copy.step == opened.step
    assert copy.vocabulary.digest == opened.vocabulary.digest
    weights, theirs = model.state_dict(), copy.model().state_dict()
    assert weights.keys() == theirs.keys()
    assert all(torch.equal(weights[name], theirs[name]) for name in weights)
