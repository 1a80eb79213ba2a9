"""The objects of a run: which weights translate, and what identifies its data."""

from __future__ import annotations

import dataclasses

import torch

from mt.training.step import accumulate_micro_batch


def test_the_average_translates_where_there_is_one(built):
    run, _ = built
    assert run.eval_module() is run.average.module
    assert dataclasses.replace(run, average=None).eval_module() is run.module


def test_a_sharded_run_translates_with_a_whole_copy_of_the_weights(built):
    run, _ = built
    import copy

    whole = copy.deepcopy(run.module)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.zero_()
    sharded = dataclasses.replace(run, average=None, unsharded_copy=whole)
    assert sharded.eval_module() is whole
    for ours, theirs in zip(whole.parameters(), run.module.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_manifest_names_the_hashes_of_data_and_of_a_teacher_if_any(built):
    run, _ = built
    prepared = run.data.prepared
    hashes = {
        "data": prepared.digest, "valid": prepared.valid.digest,
        "vocabulary": prepared.vocabulary.digest,
    }  # fmt: skip
    assert run.metadata == hashes
    assert dataclasses.replace(run, teacher_digest="t").metadata == {**hashes, "teacher": "t"}


def test_without_graphs_micro_batches_run_plainly(built):
    run, _ = built
    assert run.step_runner is accumulate_micro_batch
    assert not run.keeps_gradients
    assert run.sync_every == 1
