# SPDX-License-Identifier: Apache-2.0
"""Sorting observations into pixels, offsets, programs of pixels and the context that holds them."""

import copy
import pickle

import pytest
import references
import torch
from references import cu_of, rejected

import halcyon


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("n, pixels", [(0, 3), (1, 1), (40, 5), (3000, 700), (1000, 1)])
def test_sort_and_pack_is_stable(n, pixels, dtype):
    flat = torch.randint(pixels, (n,), generator=torch.Generator().manual_seed(n), dtype=dtype)
    order, counts = halcyon.sort_and_pack(flat, pixels)
    assert order.dtype == torch.int32 and counts.dtype == torch.int64
    assert torch.equal(order.long(), torch.sort(flat, stable=True).indices)
    assert torch.equal(counts, torch.bincount(flat, minlength=pixels))
    for ours, registered in zip((order, counts), torch.ops.halcyon.sort_and_pack(flat, pixels)):
        assert torch.equal(ours, registered)


def test_sort_and_pack_takes_strided_ids_and_no_pixels():
    flat = torch.tensor([[2, 9], [0, 9], [2, 9], [1, 9]])[:, 0]
    assert halcyon.sort_and_pack(flat_idx=flat, total_pixels=3)[0].tolist() == [1, 3, 0, 2]
    order, counts = halcyon.sort_and_pack(torch.zeros(0).int(), 0)
    assert order.shape == counts.shape == (0,)


@pytest.mark.parametrize("flat, pixels", [(torch.tensor([0, 3]), 3), (torch.tensor([-1]), 3), (torch.tensor([0]), 0),
                                          (torch.tensor([2**40]), 3), (torch.tensor([0.0]), 3), (torch.tensor(0), 3),
                                          (torch.tensor([[0]]), 3), (torch.tensor([True]), 3), (torch.tensor([0]), -1),
                                          (torch.tensor([0]), 2**31), (torch.zeros(0).int(), 2**62)])
def test_sort_and_pack_refuses(flat, pixels):
    with rejected("sort_and_pack"):
        halcyon.sort_and_pack(flat, pixels)


@pytest.mark.parametrize("counts", [[5, 0, 3, 4], [], [0], [0, 0, 7]], ids=str)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_counts_to_cu_seqlens(counts, dtype):
    counts = torch.tensor(counts, dtype=dtype)
    cu = halcyon.counts_to_cu_seqlens(counts)
    assert cu.dtype == torch.int32 and torch.equal(cu, cu_of(counts.tolist()))
    assert torch.equal(cu, torch.ops.halcyon.counts_to_cu_seqlens(counts))


@pytest.mark.parametrize("counts", [torch.tensor([[1]]), torch.tensor([1.0]), torch.tensor(1), torch.tensor([2, -1]),
                                    torch.tensor([2**31])], ids=str)
def test_counts_to_cu_seqlens_refuses(counts):
    with rejected("counts_to_cu_seqlens"):
        halcyon.counts_to_cu_seqlens(counts)


@pytest.mark.parametrize("counts", [[5, 0, 3, 4, 200], [], [0, 0], [1], [2, 4, 8, 1, 1, 9, 0, 3], [1, 2], [2, 1, 1, 2],
                                    [7] * 5], ids=str)
@pytest.mark.parametrize("mult", [0.5, 1.0, 2.0, 1.5])
def test_group_map(counts, mult):
    ours = halcyon.build_pixel_group_map(cu_of(counts), thresh_mult=mult)
    ptr, pixels = references.group_map(counts, mult)
    assert ours.program_ptr.tolist() == ptr and ours.program_pixels.tolist() == pixels
    assert ours.program_ptr.dtype == ours.program_pixels.dtype == torch.int32
    registered = torch.ops.halcyon.build_pixel_group_map(cu_of(counts), mult)
    assert torch.equal(registered[0], ours.program_ptr) and torch.equal(registered[1], ours.program_pixels)


def test_group_map_of_the_specification():
    ours = halcyon.build_pixel_group_map(cu_of([5, 0, 3, 4, 200]))
    assert ours.program_ptr.tolist() == [0, 1, 3, 4] and ours.program_pixels.tolist() == [4, 0, 2, 3]


@pytest.mark.parametrize("cu", [torch.zeros(2, 2).int(), torch.zeros(3), torch.tensor([0, 2, 1])])
def test_group_map_refuses(cu):
    with rejected("build_pixel_group_map"):
        halcyon.build_pixel_group_map(cu)


def prepared(n=20, pixels=6, **options):
    torch.manual_seed(2)
    x = dict(obs=torch.randn(n), float_metadata=torch.randn(n, 3), obs_type=torch.arange(n).int(),
             channel=torch.arange(n), platform=torch.arange(n).flip(0), flat_idx=torch.randint(pixels, (n,)))
    x.update(options)
    return x, halcyon.prepare_obs_context(**x, total_pixels=pixels)


@pytest.mark.parametrize("n", [20, 1, 0])
def test_prepare_obs_context(n):
    x, context = prepared(n)
    order = torch.sort(x["flat_idx"], stable=True).indices
    for name in ("obs", "float_metadata", "obs_type", "channel", "platform"):
        assert torch.equal(getattr(context, name), x[name][order])
        assert getattr(context, name).dtype == x[name].dtype
    counts = torch.bincount(x["flat_idx"], minlength=6).tolist()
    assert torch.equal(context.cu_seqlens_k, cu_of(counts)) and context.max_seqlen_k == max(counts)
    assert type(context.max_seqlen_k) is int
    assert (context.group_map.program_ptr.tolist(), context.group_map.program_pixels.tolist()) == (
        references.group_map(counts))


def test_prepare_obs_context_options_and_gradients():
    assert prepared(build_group_map=False)[1].group_map is None
    x, context = prepared(group_thresh_mult=1.0)
    counts = torch.bincount(x["flat_idx"], minlength=6).tolist()
    assert context.group_map.program_pixels.tolist() == references.group_map(counts, 1.0)[1]
    obs = torch.randn(20, requires_grad=True)
    context = prepared(obs=obs)[1]
    (context.obs * torch.arange(20.0)).sum().backward()
    order = torch.sort(prepared()[0]["flat_idx"], stable=True).indices
    assert torch.equal(obs.grad[order], torch.arange(20.0))


@pytest.mark.parametrize("name, bad", [
    ("obs", torch.zeros(20, 1)), ("obs", torch.zeros(19)), ("float_metadata", torch.zeros(20)),
    ("float_metadata", torch.zeros(19, 3)), ("obs_type", torch.zeros(20)), ("obs_type", torch.zeros(21).int()),
    ("channel", torch.zeros(20, 1).long()), ("platform", torch.zeros(2).long()), ("flat_idx", torch.zeros(20)),
    ("flat_idx", torch.full((20,), 6)), ("flat_idx", torch.full((20,), -1)), ("flat_idx", torch.zeros(19).long())])
def test_prepare_obs_context_refuses(name, bad):
    with rejected():
        prepared(**{name: bad})


def test_context_fields_are_settable():
    context = prepared()[1]
    for name in ("obs", "float_metadata", "obs_type", "channel", "platform", "cu_seqlens_k"):
        setattr(context, name, getattr(context, name).clone())
        held = getattr(context, name)
        held.zero_()
        assert not getattr(context, name).any()
    context.max_seqlen_k, context.group_map = 9, None
    assert context.max_seqlen_k == 9 and context.group_map is None
    groups = halcyon.PixelGroupMap(program_ptr=torch.tensor([0, 1]).int(), program_pixels=torch.tensor([4]).int())
    groups.program_pixels = torch.tensor([5]).int()
    context.group_map = groups
    assert context.group_map.program_pixels.tolist() == [5]


@pytest.mark.parametrize("arguments", [((torch.float64,), {}), ((), {"dtype": torch.float64}),
                                       (("cpu", torch.float64), {}), ((torch.device("cpu"), torch.float64, False), {}),
                                       ((), dict(device="cpu", dtype=torch.float64, non_blocking=False))], ids=str)
def test_to_casts_floating_tensors_of_a_copy(arguments):
    context = prepared()[1]
    moved = context.to(*arguments[0], **arguments[1])
    assert moved.obs.dtype == moved.float_metadata.dtype == torch.float64 and context.obs.dtype == torch.float32
    assert moved.obs_type.dtype == torch.int32 and moved.channel.dtype == torch.int64
    assert moved.cu_seqlens_k.dtype == moved.group_map.program_ptr.dtype == torch.int32
    assert torch.equal(moved.obs, context.obs.double()) and moved.max_seqlen_k == context.max_seqlen_k
    groups = context.group_map.to(*arguments[0], **arguments[1])
    assert groups.program_pixels.dtype == torch.int32
    assert torch.equal(groups.program_pixels, context.group_map.program_pixels)


def test_to_of_another_device():
    moved = prepared()[1].to("meta")
    assert {t.device.type for t in (moved.obs, moved.channel, moved.cu_seqlens_k, moved.group_map.program_ptr)} == {
        "meta"}


def test_context_refuses_offsets_of_rank_two():
    x = prepared()[1]
    with rejected("ObsContext"):
        halcyon.ObsContext(x.obs, x.float_metadata, x.obs_type, x.channel, x.platform, x.cu_seqlens_k[None], 3)


@pytest.mark.parametrize("copied", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
def test_context_travels_between_processes(copied):
    context = prepared()[1]
    there = copied(context)
    for name in ("obs", "float_metadata", "obs_type", "channel", "platform", "cu_seqlens_k"):
        assert torch.equal(getattr(there, name), getattr(context, name))
    assert there.max_seqlen_k == context.max_seqlen_k
    assert torch.equal(there.group_map.program_ptr, context.group_map.program_ptr)
    assert torch.equal(there.group_map.program_pixels, context.group_map.program_pixels)
    context.group_map = None
    assert copied(context).group_map is None
