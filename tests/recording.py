"""Stands for a CUDA graph where there is none: operations recorded with their tensors, replayed.

As on a device, recording runs nothing that lasts, what Python decides is decided once, the memory
that was touched is touched again, and whoever waits for a value while recording is refused.
"""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map


def tensors_of(tree):
    every = [each for each in tree_flatten(tree)[0] if isinstance(each, torch.Tensor)]
    return [each for each in every if not each.is_mkldnn]  # packed weights have no storage


def address(value):
    """The memory of a tensor, whatever becomes of the tensor."""
    known = isinstance(value, torch.Tensor) and not value.is_mkldnn
    return value.detach() if known else value


class Recording(TorchDispatchMode):
    """The operations that ran within, and how to run them again."""

    def __init__(self):
        super().__init__()
        self.operations, self.before = [], {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.Tag.data_dependent_output in function.tags or function.name() == "aten::equal":
            raise RuntimeError("operation not permitted when stream is capturing")
        given = tensors_of((args, kwargs))
        for each in given if function._schema.is_mutable else ():
            storage = each.untyped_storage()
            self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        result = function(*args, **kwargs)
        storages = {each.untyped_storage().data_ptr() for each in given}
        fresh = [
            each for each in tensors_of(result)
            if each.untyped_storage().data_ptr() not in storages
        ]  # fmt: skip
        args, kwargs = tree_map(address, (args, kwargs))
        self.operations.append((function, args, kwargs, tensors_of(result), fresh))
        return result

    def undo(self):
        """Memory as it was before."""
        for storage, kept in self.before.values():
            storage.copy_(kept)

    def replay(self):
        for function, args, kwargs, results, fresh in self.operations:
            again = tensors_of(function(*args, **kwargs))
            for old, new in zip(results, again, strict=True):
                if any(old is each for each in fresh):
                    old.copy_(new)


class Recorder:
    """A `mt.runtime.cuda_graphs.GraphCapturer` for a CPU; counts what it did."""

    def __init__(self):
        self.warmed = self.recorded = self.replayed = 0

    def warm_up(self, work):
        self.warmed += 1
        return work()

    def capture(self, work):
        self.recorded += 1
        recording, random = Recording(), torch.get_rng_state()
        try:
            with recording:
                result = work()
        finally:
            recording.undo()
            torch.set_rng_state(random)

        def replay():
            self.replayed += 1
            recording.replay()

        return replay, result
