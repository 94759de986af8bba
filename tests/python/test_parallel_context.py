# SPDX-License-Identifier: Apache-2.0
"""VideoDiT and HealDA with their frames on several ranks, against the same model in one process: output, every gradient."""

import pytest
import torch

from context_models import (DIT, HEALDA, PIXELS, assert_like_one_process, build, fields, forward, frames_of,
                            observations, trained, weight_of, with_foreign_modules)
from ranks import on_ranks, rank, returned, world


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("frames", [1, 5, 8])
@pytest.mark.parametrize("base", [DIT, HEALDA], ids=["video_dit", "healda"])
def test_gradients_redistribute(n, frames, base):
    assert_like_one_process(base | dict(frames=frames), n, "redistribute")


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("base", [DIT, HEALDA], ids=["video_dit", "healda"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_all_to_all(n, base, dtype):
    assert_like_one_process(base | dict(frames=2 * n, dtype=dtype), n, "all_to_all")


@pytest.mark.parametrize("sizes", [[4, 1], [0, 5], [5, 0]])
def test_any_cut_of_the_frames(sizes):
    assert_like_one_process(DIT | dict(frames=5), 2, "redistribute", sizes)
    assert_like_one_process(HEALDA | dict(frames=5, dtype=torch.float32), 2, "redistribute", sizes)


@pytest.mark.parametrize("options", [
    dict(is_causal=True, temporal_kwargs=dict(causal_window=2)),
    dict(is_causal=True, temporal_kwargs=dict(linear_attention=False)),
    dict(temporal_kwargs=dict(linear_attention=False), use_rope=False), dict(temporal_attention=False),
    dict(rope_base=10, drop_path=0.5), dict(attn_kwargs=dict(qk_norm_type="RMSNorm")),
])
def test_options_of_video_dit(options):
    assert_like_one_process(DIT | dict(frames=5, options=options), 3, "redistribute")


@pytest.mark.parametrize("options", [
    dict(temporal_causal_window=2), dict(linear_attention=False, is_causal=False), dict(condition_dim=3),
    dict(drop_path=0.4, drop_path_zero_first_n_blocks=0),
])
def test_options_of_healda(options):
    assert_like_one_process(HEALDA | dict(frames=5, options=options), 3, "redistribute")


def analysed(case, mode=None, prepared=False):
    model = build(case).eval()
    if mode is not None:
        model.set_context_parallel(mode, torch.distributed.group.WORLD)
    if prepared:
        model.prepare_inference()
    with torch.no_grad():
        return [forward(model, case, frames_of(case["frames"], None))[0] for _ in range(2)]


@pytest.mark.parametrize("n, frames", [(2, 4), (3, 5), (4, 8), (4, 2), (8, 8)])
@pytest.mark.parametrize("base, prepared", [(DIT, False), (HEALDA, False), (HEALDA, True)],
                         ids=["video_dit", "healda", "prepared"])
def test_inference(n, frames, prepared, base):
    case = base | dict(frames=frames) | (dict(t=torch.zeros(2, dtype=torch.float64)) if prepared else {})
    expected = analysed(case, None, prepared)[0]
    modes = ["redistribute"] + (["all_to_all"] if frames % n == 0 and PIXELS % n == 0 else [])
    for mode in modes:
        results = returned(on_ranks(n, analysed, case, mode, prepared))
        for again in range(2):
            out = torch.cat([one[again] for one in results], 2)
            assert (out - expected).abs().max() <= 1e-12 * expected.abs().max()


def rounded(case, mode=None):
    """Trained and analysed under autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        return trained(case, mode) + (analysed(case, mode)[0],)


@pytest.mark.parametrize("base", [DIT, HEALDA], ids=["video_dit", "healda"])
def test_autocast(base):
    """What travels is rounded as the attention's projection rounds it: the output is one process' to the last bit."""
    case = base | dict(frames=5, dtype=torch.float32)
    out, dx, grads, inferred = rounded(case)
    results = returned(on_ranks(3, rounded, case, "redistribute"))
    assert torch.equal(torch.cat([one[0] for one in results], 2), out)
    assert torch.equal(torch.cat([one[3] for one in results], 2), inferred)
    torch.testing.assert_close(torch.cat([one[1] for one in results], 2), dx, rtol=0, atol=2e-2 * dx.abs().max().item())
    for name, grad in grads.items():
        difference = sum(one[2][name] for one in results if one[2][name] is not None) - grad
        assert difference.abs().max() <= 2e-2 * grad.abs().max(), name


def reduced(case):
    """A step as a trainer takes it: gradients summed over the ranks by all_reduce."""
    _, _, grads = trained(case, "redistribute")
    for grad in grads.values():
        torch.distributed.all_reduce(grad)
    return grads


def test_reduced_gradients_are_those_of_one_process():
    case = HEALDA | dict(frames=3, dtype=torch.float32)
    expected = trained(case)[2]
    for grads in returned(on_ranks(4, reduced, case)):
        for name, grad in grads.items():
            assert (grad - expected[name]).abs().max() <= 1e-6 * expected[name].abs().max().clamp(min=1e-30), name


@pytest.mark.parametrize("n, mode, pixels, frames", [(4, "redistribute", 2, 3), (8, "all_to_all", 16, 8),
                                                     (3, "all_to_all", 3, 6)])
def test_ranks_without_frames_or_pixels_and_many_ranks(n, mode, pixels, frames):
    out, dx = with_foreign_modules(None, None, pixels, frames)
    results = returned(on_ranks(n, with_foreign_modules, mode, None, pixels, frames))
    torch.testing.assert_close(torch.cat([one[0] for one in results], 2), out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat([one[1] for one in results], 2), dx, rtol=1e-11, atol=1e-11)


def turned_off(case):
    model = build(case)
    model.set_context_parallel("redistribute", torch.distributed.group.WORLD)
    forward(model, case, frames_of(case["frames"], None))
    model.set_context_parallel(None)
    return forward(model, case, slice(0, case["frames"]))[0].detach()


def test_turned_off_it_is_as_before():
    expected = trained(HEALDA)[0]
    for out in returned(on_ranks(2, turned_off, HEALDA)):
        assert torch.equal(out, expected)


def in_a_group_of_one(case):
    alone = [torch.distributed.new_group([r]) for r in range(world())][rank()]
    model = build(case)
    for mode in ("all_to_all", "redistribute"):
        model.set_context_parallel(mode, alone)
        out = forward(model, case, slice(0, case["frames"]))[0].detach()
    return out


def test_groups_of_one():
    expected = trained(HEALDA)[0]
    for out in returned(on_ranks(2, in_a_group_of_one, HEALDA)):
        assert torch.equal(out, expected)


def trained_on_one_frozen(case):
    """Only rank 0's input needs a gradient, no parameter does."""
    model = build(case)
    model.requires_grad_(False)
    model.set_context_parallel("redistribute", torch.distributed.group.WORLD)
    given, own = fields(case["batch"], case["frames"], case["dtype"]), frames_of(case["frames"], None)
    x = given["x"][:, :, own].clone().requires_grad_(rank() == 0)
    out = model(x, given["t"], given["second_of_day"][:, own], given["day_of_year"][:, own],
                observations(case["batch"], case["frames"], own, case["dtype"]))
    (out.sin() * weight_of(case["batch"], case["frames"], case["dtype"])[:, :, own]).sum().backward()
    return x.grad


def test_a_gradient_wanted_on_one_rank_only():
    expected = trained(HEALDA)[1]
    grads = returned(on_ranks(2, trained_on_one_frozen, HEALDA))
    assert grads[1] is None
    torch.testing.assert_close(grads[0], expected[:, :, :2], rtol=1e-11, atol=1e-11)
