# SPDX-License-Identifier: Apache-2.0
"""Activation checkpointing and hooks on saved tensors: the gradients stay, what is kept becomes less."""

import functools

import pytest
import torch
from conftest import near
from habits import CASES, WHOLE, gradients, loss, one_thread, same  # noqa: F401
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (apply_activation_checkpointing,
                                                                         checkpoint_wrapper)
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

import halcyon


def kept_bytes(model, run):
    """Of the tensors that one forward saves for its backward."""
    seen = {}

    def pack(t):
        seen[t.data_ptr()] = t.numel() * t.element_size()
        return t

    with saved_tensors_hooks(pack, lambda t: t):
        run(model)
    return sum(seen.values())


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_checkpointed_forward(name, reentrant):
    case = CASES[name]
    expected, model = gradients(case.make(), case.run), case.make()
    args, kwargs = case.given(torch.float64)
    if reentrant:  # it asks for an input that needs a gradient, and takes no names
        leaf = torch.ones((), dtype=torch.float64, requires_grad=True)

        def run(m):
            y = checkpoint(lambda _: m(*args, **kwargs), leaf, use_reentrant=True)
            return torch.cat(y, -1) if isinstance(y, tuple) else y
    else:
        def run(m):
            y = checkpoint(m, *args, use_reentrant=False, **kwargs)
            return torch.cat(y, -1) if isinstance(y, tuple) else y
    near(run(model), case.run(model), 1e-12)
    same(gradients(model, run), expected, 1e-11)


@pytest.mark.parametrize("name", ["VideoDiT", "HealDA"])
def test_checkpointed_blocks(name):
    case = CASES[name]
    expected, calls = gradients(case.make(), case.run), []
    model = case.make()
    plain = kept_bytes(model, case.run)
    apply_activation_checkpointing(model, checkpoint_wrapper_fn=checkpoint_wrapper,
                                   check_fn=lambda m: isinstance(m, halcyon.VideoDiTBlock))
    assert "_checkpoint_wrapped_module.linear" in " ".join(dict(model.named_modules()))
    for m in model.modules():
        if isinstance(m, halcyon.SelfAttention):
            m.register_forward_hook(lambda *a: calls.append(1))
    found = gradients(model, case.run)
    assert len(calls) == 4  # two blocks, each forward twice
    same({key.replace("_checkpoint_wrapped_module.", ""): g for key, g in found.items()}, expected, 1e-11)
    assert kept_bytes(model, case.run) < 0.7 * plain
    assert model.state_dict().keys() == case.build().state_dict().keys()


def test_checkpointed_dropout_and_drop_path_draw_the_same_again():
    options = dict(condition_embed_dim=5, drop_path=0.4, mlp_drop_rate=0.3, proj_drop_rate=0.2)
    x, c = torch.randn(6, 1, 3, 8), torch.randn(6, 5)
    grads = []
    for again in (False, True):
        torch.manual_seed(1)
        block = halcyon.VideoDiTBlock(8, 2, **options, adaln_zero_init=False).train()
        run = functools.partial(checkpoint, block, use_reentrant=False) if again else block
        grads.append(gradients(block, lambda m, run=run: run(x, c)))
    same(grads[1], grads[0], 1e-6)


def test_selective_checkpointing():
    """Matrix products are kept, the rest is computed again."""
    case = CASES["HealDA"]
    expected, model = gradients(case.make(), case.run), case.make()
    asked = []

    def policy(ctx, op, *args, **kwargs):
        asked.append(str(op))
        keep = op in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    contexts = functools.partial(create_selective_checkpoint_contexts, policy)
    run = (lambda m: checkpoint(m, *case.given(torch.float64)[0], use_reentrant=False, context_fn=contexts,
                                **case.given(torch.float64)[1]))
    same(gradients(model, run), expected, 1e-11)
    assert any(op.startswith("halcyon.") for op in asked)


@pytest.mark.parametrize("name", CASES)
def test_saved_tensors_pass_through_hooks(name):
    """Packed to numpy and back: equal gradients, and every tensor that was packed can be unpacked."""
    case = CASES[name]
    expected, packed = gradients(case.make(), case.run), []

    def pack(t):
        packed.append(t.shape)
        return t.detach().numpy().copy(), t.requires_grad

    with saved_tensors_hooks(pack, lambda kept: torch.from_numpy(kept[0])):
        found = gradients(case.make(), case.run)
    assert packed
    same(found, expected, 1e-12)  # numpy lays transposed tensors out anew


@pytest.mark.parametrize("name", WHOLE)
def test_all_that_is_large_and_saved_passes_through_hooks(name):
    """Zeros in place of what was saved make other gradients everywhere: nothing is kept aside from the hooks."""
    case = CASES[name]
    expected = gradients(case.make(), case.run)
    model = case.make()
    with saved_tensors_hooks(lambda t: t, lambda t: torch.zeros_like(t) if t.is_floating_point() else t):
        y = case.run(model)
        y.backward(torch.ones_like(y))
    rest = [key for key, p in model.named_parameters() if p.grad.any()]
    # biases of the last layers alone: their gradients are sums of the output's
    assert len(rest) < 0.2 * len(expected), rest


@pytest.mark.parametrize("name", WHOLE)
def test_save_on_cpu(name):
    case = CASES[name]
    expected = gradients(case.make(), case.run)
    with save_on_cpu():
        found = gradients(case.make(), case.run)
    for key in expected:
        assert torch.equal(found[key], expected[key]), key


def test_nested_checkpoints():
    case = CASES["VideoDiTBlock"]
    expected, model = gradients(case.make(), case.run), case.make()
    args, kwargs = case.given(torch.float64)

    def inner(*args):
        return checkpoint(model, *args, use_reentrant=False, **kwargs)

    model.zero_grad()
    loss(checkpoint(inner, *args, use_reentrant=False)).backward()
    same({key: p.grad for key, p in model.named_parameters()}, expected, 1e-11)
