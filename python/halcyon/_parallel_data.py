# SPDX-License-Identifier: Apache-2.0
"""One model on every rank, each with samples of its own; see halcyon/parallel/data_parallel.h."""

import contextlib

import torch

from . import _C
from ._parallel_agreed import refuse


class DataParallel(torch.nn.Module):
    """module, whose gradients become their mean over the ranks during backward.

    sample_count: this rank's number of samples, by which its gradients are weighted; None: every rank counts alike.
    Parameters and buffers are those of rank 0 at the beginning."""

    def __init__(self, module, group=None, *, bucket_bytes=25 << 20, find_unused_parameters=False):
        super().__init__()
        if not isinstance(module, torch.nn.Module):
            refuse("DataParallel", group,
                   TypeError(f"[DataParallel] expected module as a torch.nn.Module, got {type(module).__name__}"))
        self.module = module
        parameters = [(name, one) for name, one in module.named_parameters() if one.requires_grad]
        others = [one for one in module.parameters() if not one.requires_grad] + list(module.buffers())
        try:
            self._core = _C.parallel.DataParallel(parameters, group, bucket_bytes, find_unused_parameters, others)
        except TypeError as error:
            refuse("DataParallel", group, error)

    @property
    def sample_count(self):
        return self._core.sample_count

    @sample_count.setter
    def sample_count(self, count):
        self._core.sample_count = count

    def forward(self, *args, **kwargs):
        if torch.is_grad_enabled():
            self._core.begin_forward()
        return self.module(*args, **kwargs)

    @contextlib.contextmanager
    def no_sync(self):
        """A backward inside accumulates on this rank; the next one outside reduces what was accumulated."""
        before, self._core.synchronise = self._core.synchronise, False
        try:
            yield
        finally:
            self._core.synchronise = before
