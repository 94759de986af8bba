# SPDX-License-Identifier: Apache-2.0
"""What VideoDiT and HealDA refuse of frames on several ranks: the same error on each, and the group stays usable."""

import pytest
import torch

import halcyon
from context_models import (DIT, HEALDA, assert_like_one_process, build, fields, forward, frames_of, observations,
                            trained, weight_of, with_foreign_modules)
from ranks import Raised, on_ranks, rank, returned, world


def refused(case, mode, change=None):
    """Two forwards, the first with a mistake on some ranks."""
    model = build(case)
    model.set_context_parallel(mode, torch.distributed.group.WORLD)
    own = frames_of(case["frames"], case.get("sizes"))
    try:
        forward(change(model, rank()) if change else model, case, own)
    except Exception as error:  # noqa: BLE001  handed back
        first = Raised(type(error), str(error), "")
    else:
        first = None
    model.set_context_parallel("redistribute", torch.distributed.group.WORLD)
    forward(model, case, own)  # the group stays usable
    return [first]


def assert_refused(results, *texts, same=True):
    assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
    for text in texts:
        assert all(text in one.text for one in results), results
    if same:
        assert len({one.text for one in results}) == 1, results


@pytest.mark.parametrize("n, case", [(2, DIT | dict(frames=5)), (3, HEALDA | dict(frames=4)), (8, DIT | dict(frames=8)),
                                     (4, HEALDA | dict(frames=2)), (2, DIT | dict(sizes=[3, 1]))])
def test_all_to_all_needs_equal_parts(n, case):
    results = returned(on_ranks(n, refused, case, "all_to_all"))
    assert_refused([one[0] for one in results], "expected", '"redistribute"')


class Changed:
    """A model that is called with other arguments."""

    def __init__(self, model, change):
        self.model, self.change = model, change

    def __call__(self, *args, **kwargs):
        return self.model(*self.change(list(args)), **kwargs)


def other_batch(model, r):
    return Changed(model, lambda args: [args[0][:1], args[1][:1], args[2][:1], *args[3:]] if r == 1 else args)


def other_channels(model, r):
    return Changed(model, lambda args: [args[0][:, :1], *args[1:]] if r == 1 else args)


def other_pixels(model, r):
    return Changed(model, lambda args: [args[0][..., :16], *args[1:]] if r == 0 else args)


def other_level(model, r):
    return Changed(model, lambda args: [args[0], args[1] + r, *args[2:]])


def other_condition(model, r):
    return Changed(model, lambda args: args[:2] + [args[2] * (1 + r)])


def no_condition(model, r):
    return Changed(model, lambda args: args[:2] if r == 1 else args)


def other_mode(model, r):
    return model.train(r == 0)


def frozen(model, r):
    if r == 0:
        next(model.parameters()).requires_grad_(False)
    return model


def refused_once(case, change):
    model = build(case)
    model.set_context_parallel("redistribute", torch.distributed.group.WORLD)
    own = frames_of(case["frames"], None)
    try:
        forward(change(model, rank()), case, own)
        first = None
    except Exception as error:  # noqa: BLE001
        first = Raised(type(error), str(error), "")
    ranks = halcyon.parallel.gather(torch.full((1, 1), rank()), 0)  # the group stays usable
    assert ranks.flatten().tolist() == list(range(world()))
    return [first]


@pytest.mark.parametrize("change, text", [
    (other_batch, ""), (other_channels, ""), (other_pixels, ""), (other_level, "the same t on every rank"),
    (other_condition, "the same condition on every rank"), (no_condition, "condition"), (other_mode, "training mode"),
    (frozen, "parameters"),
])
def test_mismatch_is_an_error_on_every_rank(change, text):
    results = returned(on_ranks(3, refused_once, DIT, change))
    assert_refused([one[0] for one in results], "expected", text, same=False)


def too_few_frames(case):
    model = build(case | dict(frames=case["frames"] + 1))
    model.set_context_parallel("redistribute", torch.distributed.group.WORLD)
    return forward(model, case, frames_of(case["frames"], None))


def too_many_for_the_tables(case):
    return trained(case | dict(options=dict(max_seq_len=4)), "redistribute")


def one_rank_mispacked(case):
    model = build(case)
    model.set_context_parallel("redistribute", torch.distributed.group.WORLD)
    own = frames_of(case["frames"], None)
    given = fields(case["batch"], case["frames"], case["dtype"])
    packed = observations(case["batch"], case["frames"], slice(0, 4) if rank() == 1 else own, case["dtype"])
    return model(given["x"][:, :, own], given["t"], given["second_of_day"][:, own], given["day_of_year"][:, own], packed)


def test_a_foreign_tokenizer_that_fails_on_one_rank():
    assert_refused(on_ranks(2, with_foreign_modules, "redistribute", 1), "[VideoDiT]", "no such channel")


def test_refusals_of_one_text():
    for results, text in ((on_ranks(2, too_few_frames, HEALDA), "[HealDA] expected x of 5 frames"),
                          (on_ranks(2, too_many_for_the_tables, DIT | dict(frames=5)), "max_seq_len = 4"),
                          (on_ranks(2, one_rank_mispacked, HEALDA), "cu_seqlens_k")):
        assert_refused(results, text)


def test_arguments():
    for model in (build(DIT), build(HEALDA)):
        for mode in ("shardtensor", "", "ALL_TO_ALL", 3):
            with pytest.raises(ValueError, match='expected a context parallel mode "all_to_all", "redistribute"'):
                model.set_context_parallel(mode, None)
        for target in ("gloo", 3, None, object()):
            with pytest.raises(TypeError, match="ProcessGroup"):
                model.set_context_parallel("redistribute", target)
        model.set_context_parallel()
        model.set_context_parallel(None, None)


def second_derivatives(case, mode=None):
    model = build(case)
    if mode is not None:
        model.set_context_parallel(mode, torch.distributed.group.WORLD)
    own = frames_of(case["frames"], None)
    out, x = forward(model, case, own)
    first, = torch.autograd.grad((out.pow(2) * weight_of(case["batch"], case["frames"], case["dtype"])[:, :, own]).sum(), x,
                                 create_graph=True)
    second, = torch.autograd.grad(first.pow(2).sum(), x)
    return second


def test_second_derivatives_are_refused_as_by_one_process():
    with pytest.raises(Exception, match="create_graph") as refusal:
        second_derivatives(DIT)
    for result in on_ranks(3, second_derivatives, DIT, "redistribute"):
        assert isinstance(result, Raised) and result.kind is refusal.type and result.text == str(refusal.value)
    assert_like_one_process(DIT, 3, "redistribute")  # the group stays usable
