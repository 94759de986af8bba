# SPDX-License-Identifier: Apache-2.0
"""Attention over frames and attention over pixels."""

import math

import pytest
import references
import torch
from conftest import near
from references import rejected, rms, under
from torch.nn import functional as F

import halcyon


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.float64, 1e-6), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("is_causal, window", [(False, None), (True, None), (True, 2)])
@pytest.mark.parametrize("linear, rope", [(True, True), (False, True), (True, False), (False, False)])
def test_temporal_attention(linear, rope, is_causal, window, dtype, bound):
    module = halcyon.TemporalAttention(hidden_size=8, num_heads=2, use_rope=rope, is_causal=is_causal,
                                       linear_attention=linear, causal_window=window)
    references.randomise(module).to(dtype)
    assert set(module.state_dict()) == {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"}
    cos, sin = halcyon.rope_tables(4, 5) if rope else (None, None)
    x = torch.randn(2, 5, 3, 8, dtype=dtype, requires_grad=True)
    wide = x.detach().double().requires_grad_()
    state = {k: p.detach().double().requires_grad_() for k, p in module.named_parameters()}
    visible = references.causal(5, window) if is_causal else torch.ones(5, 5, dtype=torch.bool)
    y = module(x, rope_cos=cos, rope_sin=sin)
    expected = references.temporal_attention(wide, state, 2, cos, sin, linear, visible)
    assert y.dtype == dtype
    near(y, expected, bound)
    y.double().square().sum().backward()
    expected.square().sum().backward()
    near(x.grad, wide.grad, 3 * bound)
    for name, parameter in module.named_parameters():
        near(parameter.grad, state[name].grad, 3 * bound)


def test_temporal_attention_gradcheck():
    module = halcyon.TemporalAttention(hidden_size=4, num_heads=2, use_rope=False, is_causal=True).double()
    x = torch.randn(1, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *module.parameters()))


@pytest.mark.parametrize("options", [dict(causal_window=2), dict(num_heads=3), dict(is_causal=True, causal_window=0),
                                     dict(num_heads=0), dict(hidden_size=0), dict(hidden_size=2)], ids=str)
def test_temporal_attention_refuses_options(options):
    with rejected("TemporalAttention"):
        halcyon.TemporalAttention(**(dict(hidden_size=8, num_heads=2) | options))


@pytest.mark.parametrize("shape, rows", [((2, 3, 8), 3), ((2, 3, 4, 6), 3), ((2, 3, 4, 8), 0), ((2, 3, 4, 8), 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_temporal_attention_refuses_inputs(shape, rows, dtype):
    tables = halcyon.rope_tables(4, rows) if rows else ()
    with rejected("TemporalAttention"):
        halcyon.TemporalAttention(hidden_size=8, num_heads=2)(torch.zeros(shape, dtype=dtype), *tables)


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.float64, 1e-12), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("norm, affine", [(None, True), ("RMSNorm", True), ("RMSNorm", False), ("LayerNorm", True),
                                          ("LayerNorm", False)])
def test_self_attention(norm, affine, dtype, bound):
    module = halcyon.SelfAttention(8, 2, qk_norm_type=norm, qk_norm_affine=affine)
    extra = {None: [], "RMSNorm": ["weight"], "LayerNorm": ["weight", "bias"]}[norm] if affine else []
    keys = [f"{layer}.{kind}" for layer in ("qkv", "proj") for kind in ("weight", "bias")]
    keys += [f"{layer}.{kind}" for layer in ("q_norm", "k_norm") for kind in extra]
    assert set(module.state_dict()) == {"attn_op." + key for key in keys}
    references.randomise(module).to(dtype)
    state = {k: p.detach().double().requires_grad_() for k, p in under(module, "attn_op.").items()}

    def normalise(name, q):
        weight, bias = state.get(name + ".weight"), state.get(name + ".bias")
        return {None: lambda: q, "RMSNorm": lambda: rms(q, weight),
                "LayerNorm": lambda: F.layer_norm(q, (4,), weight, bias, 1e-5)}[norm]()

    x = torch.randn(3, 5, 8, dtype=dtype, requires_grad=True)
    wide = x.detach().double().requires_grad_()
    y, expected = module(x), references.spatial_attention(wide, state, 2, normalise)
    assert y.dtype == dtype
    near(y, expected, bound)
    y.double().square().sum().backward()
    expected.square().sum().backward()
    near(x.grad, wide.grad, 4 * bound)
    for name, parameter in under(module, "attn_op.").items():
        if name == "k_norm.bias":  # the same for every key, so that softmax cancels it
            assert parameter.grad.abs().max() <= 4 * bound * x.grad.abs().max()
        else:
            near(parameter.grad, state[name].grad, 4 * bound)


def test_self_attention_masks():
    module = references.randomise(halcyon.SelfAttention(8, 2, is_causal=True))
    free = references.randomise(halcyon.SelfAttention(8, 2))
    state, x = under(free, "attn_op."), torch.randn(3, 5, 8)
    seen = references.causal(5)
    causal = torch.zeros(5, 5).masked_fill(~seen, -math.inf)
    expected = references.spatial_attention(x, state, 2, mask=causal)
    near(module(x), expected, 1e-5)
    near(free(x, attn_mask=seen), expected, 1e-5)
    near(free(x, attn_mask=causal), expected, 1e-5)
    bias = torch.randn(5, 5)
    near(free(x, bias), references.spatial_attention(x, state, 2, mask=bias), 1e-5)
    with rejected("SelfAttention"):
        module(x, attn_mask=seen)


@pytest.mark.parametrize("options", [dict(num_heads=3), dict(num_heads=0), dict(hidden_size=-8),
                                     dict(qk_norm_type="BatchNorm"), dict(attn_drop_rate=1.5),
                                     dict(proj_drop_rate=-0.1)], ids=str)
def test_self_attention_refuses_options(options):
    with rejected("SelfAttention"):
        halcyon.SelfAttention(**(dict(hidden_size=8, num_heads=2) | options))


@pytest.mark.parametrize("x, mask", [(torch.zeros(5, 8), None), (torch.zeros(3, 5, 6), None),
                                     (torch.zeros(3, 5, 8).int(), None), (torch.zeros(3, 5, 8), torch.zeros(4, 5)),
                                     (torch.zeros(3, 5, 8, dtype=torch.float64), None),
                                     (torch.zeros(3, 5, 8, device="meta"), None),
                                     (torch.zeros(3, 5, 8), torch.zeros(5, 5).long())])
def test_self_attention_refuses_inputs(x, mask):
    with rejected("SelfAttention"):
        halcyon.SelfAttention(8, 2)(x, mask)


def test_dropout_acts_in_training_only():
    module = references.randomise(halcyon.SelfAttention(8, 2, proj_drop_rate=0.5))
    x = torch.randn(3, 5, 8)
    clean = module.eval()(x)
    dropped = module.train()(x)
    zero = dropped == 0
    assert 0 < zero.sum() < zero.numel()
    near(dropped[~zero], 2 * clean[~zero], 1e-5)
    assert torch.equal(module.eval()(x), clean)
