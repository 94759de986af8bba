# SPDX-License-Identifier: Apache-2.0
"""Ranks as a mesh data x context x domain, and a training step of them against the same step of one process.

    mesh = Mesh(data=2, domain=4)                    # on every rank; the world holds one mesh or several equal ones
    group = mesh.group("domain")                     # the ranks that differ from this one in their domain index only
    rows = mesh.own([7, 6, 4, 3], "domain")          # this rank's slice of an axis cut so"""

import datetime
import math

import numpy
import torch

from ranks import on_ranks, rank, returned, world

AXES = ("data", "context", "domain")
_groups = {}  # this process's of the last mesh, by its shape and axes: each has connections and shared memory


def even(total, parts):
    return [len(one) for one in torch.empty(total).tensor_split(parts)]


class Mesh:
    """Rank g stands at ((data * context_size) + context) * domain_size + domain."""

    def __init__(self, data=1, context=1, domain=1):
        self.shape = (data, context, domain)
        self.ranks = torch.arange(math.prod(self.shape)).view(self.shape)
        here = (self.ranks == rank() % self.ranks.numel()).nonzero()[0].tolist()
        self.size, self.index = dict(zip(AXES, self.shape)), dict(zip(AXES, here))
        for key in [one for one in _groups if one[0] != self.shape]:
            torch.distributed.destroy_process_group(_groups.pop(key))

    def group(self, *axes):
        """Collective over the world: c10d wants every group made by every rank, in one order."""
        key = self.shape, axes
        if key not in _groups:
            last = [i for i, axis in enumerate(AXES) if axis in axes]
            first = [i for i in range(3) if i not in last]
            members = self.ranks.permute(first + last).flatten(0, len(first) - 1) if first else self.ranks[None]
            for start in range(0, world(), self.ranks.numel()):
                for one in members.flatten(1):
                    ranks = (one + start).tolist()
                    made = torch.distributed.new_group(ranks, timeout=datetime.timedelta(seconds=60))
                    if rank() in ranks:
                        _groups[key] = made
        return _groups[key]

    def own(self, sizes, axis):
        start = sum(sizes[:self.index[axis]])
        return slice(start, start + sizes[self.index[axis]])


def numbers(named):
    """Of tensors by name: arrays, which a pipe carries faster."""
    return {name: one.detach().numpy().copy() for name, one in named}


def after_a_step(model, loss):
    """What a step leaves: the loss (of a rank: its share), gradients, weights after one step of each optimizer."""
    weights = [one.detach().clone() for one in model.parameters()]
    # Adam's step is g / (|g| + eps): where a gradient is rounding alone (the keys' biases), an eps below that rounding
    # would make it a step of either sign, in whatever order the sums are
    made = dict(sgd=torch.optim.SGD(model.parameters(), 0.1), adamw=torch.optim.AdamW(
        model.parameters(), 1e-4, eps=1e-3 if weights[0].dtype == torch.float32 else 1e-8, weight_decay=0.1))
    found = dict(loss=numbers([("", loss)]), statistics=numbers(model.named_buffers()),
                 gradient=numbers((name, one.grad) for name, one in model.named_parameters()))
    for name, optimizer in made.items():
        optimizer.step()
        found[name] = numbers(model.named_parameters())
        with torch.no_grad():
            for one, before in zip(model.parameters(), weights):
                one.copy_(before)
    return found


def difference(found, wanted):
    """{kind: {name: the largest |found - wanted|, of the tensor's largest |wanted|}}"""
    errors = {}
    for kind, arrays in wanted.items():
        assert arrays.keys() == found[kind].keys()
        for name, one in arrays.items():
            mine = found[kind][name]
            assert mine.shape == one.shape and numpy.isfinite(mine).all() and numpy.isfinite(one).all(), (kind, name)
            error = numpy.abs(mine.astype(float) - one).max()
            errors.setdefault(kind, {})[name] = error / numpy.abs(one.astype(float)).max() if error else 0.0
    return errors


def step_on(mesh, function, *args):
    """The step of a mesh: the loss summed over its ranks, the rest of rank 0, which every other rank has bit for bit.
    A mesh of one stands twice in a world of two, each in groups of one."""
    count = math.prod(mesh.values())
    results = returned(on_ranks(max(count, 2), function, mesh, *args))
    for one in results:
        for kind in one.keys() - {"loss"}:
            for name, array in one[kind].items():
                assert array.tobytes() == results[0][kind][name].tobytes(), (kind, name)
    return results[0] | {"loss": {"": sum(one["loss"][""] for one in results[:count])}}


# of a tensor's largest element
BOUNDS = {torch.float32: 1e-6, torch.float64: 1e-12}


def assert_same_step(mesh, alone, function, *args, dtype):
    """alone: the step of one process, by dtype. float64 shows that float32's differences are sums in another order, and
    how far one process is off by them (1e-6 too): the gradients of many may be off by that from those of one."""
    errors = difference(step_on(mesh, function, *args, dtype), alone(dtype))
    rounding = difference(alone(dtype), alone(torch.float64))["gradient"] if dtype == torch.float32 else {}
    worst = {kind: max((error, name) for name, error in one.items()) for kind, one in errors.items() if one}
    print(f"\n{function.__name__} {mesh}:", *(f"{kind} {error:.1e} {name}," for kind, (error, name) in worst.items()),
          f"(gradients of one process: {max(rounding.values(), default=0.0):.1e})", end=" ")
    for kind, one in errors.items():
        for name, error in one.items():
            bound = BOUNDS[dtype] + (rounding.get(name, 0.0) if kind == "gradient" else 0.0)
            assert error <= bound, (kind, name, error, bound)
