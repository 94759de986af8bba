# SPDX-License-Identifier: Apache-2.0
"""NeighborhoodAttentionHEALPix: the operator between two projections, its state, dropout and windows."""

import inspect

import neighborhood_reference as reference
import pytest
import torch
from conftest import near
from references import randomise
from test_neighborhood_healpix import visible
from torch.nn import functional as F

import halcyon

SIGNATURE = ("dim=None, num_heads=1, level=6, radius_deg=None, rings=None, order='nest', region=None, qkv_bias=True, "
             "qk_scale=None, attn_drop=0.0, proj_drop=0.0, embed_dim=None")


def module_reference(x, state, heads, mask, scale=None):
    q, k, v = F.linear(x, state["qkv.weight"], state.get("qkv.bias")).unflatten(-1, (3, heads, -1)).unbind(2)
    return F.linear(reference.masked_attention(q, k, v, mask, scale)[0].flatten(2), state["proj.weight"],
                    state["proj.bias"])


@pytest.mark.parametrize("options", [
    dict(level=2, radius_deg=31), dict(level=2, rings=1, order="pad_xy"),
    dict(level=1, rings=2, qkv_bias=False, qk_scale=0.3),
    dict(level=2, rings=2, region=torch.tensor([17, 3, 4, 180, 5, 9]))], ids=str)
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-11), (torch.float32, 2e-5), (torch.bfloat16, 3e-2)])
def test_against_the_reference(options, dtype, bound):
    module = randomise(halcyon.NeighborhoodAttentionHEALPix(8, 2, **options)).to(dtype)
    window = {k: v for k, v in options.items() if k in ("level", "radius_deg", "rings", "order", "region")}
    mask = visible(**window)
    x = torch.randn(2, len(mask), 8).to(dtype).requires_grad_()
    wide = x.detach().double().requires_grad_()
    state = {k: p.detach().double().requires_grad_() for k, p in module.named_parameters()}
    without = set() if options.get("qkv_bias", True) else {"qkv.bias"}
    assert set(state) == {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"} - without
    y, wanted = module(x), module_reference(wide, state, 2, mask, options.get("qk_scale"))
    near(y, wanted, bound)
    y.double().square().sum().backward()
    wanted.square().sum().backward()
    near(x.grad, wide.grad, bound)
    for name, parameter in module.named_parameters():
        near(parameter.grad, state[name].grad, bound)


def test_constructor_and_state():
    signature = inspect.signature(halcyon.NeighborhoodAttentionHEALPix)
    plain = signature.replace(parameters=[p.replace(annotation=p.empty) for p in signature.parameters.values()],
                              return_annotation=signature.empty)
    assert str(plain)[1:-1] == SIGNATURE
    module = halcyon.NeighborhoodAttentionHEALPix(embed_dim=8, num_heads=2, level=1, rings=1)
    assert isinstance(module, torch.nn.Module)
    shapes = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    assert shapes == {"qkv.weight": (24, 8), "qkv.bias": (24,), "proj.weight": (8, 8), "proj.bias": (8,)}
    other = halcyon.NeighborhoodAttentionHEALPix(8, 2, 1, None, 1)
    other.load_state_dict(module.state_dict())
    x = torch.randn(1, 48, 8)
    assert torch.equal(module(x), other(x))


def test_attention_dropout():
    """Constant queries give equal weights; one value a pixel shows which of them are left."""
    module = halcyon.NeighborhoodAttentionHEALPix(12, 1, level=0, rings=4, attn_drop=0.25, qkv_bias=False)
    with torch.no_grad():
        module.qkv.weight.zero_()
        module.qkv.weight[24:].copy_(torch.eye(12))
        module.proj.weight.copy_(torch.eye(12))
        module.proj.bias.zero_()
    x = torch.eye(12).expand(200, 12, 12)
    near(module.eval()(x), torch.full_like(x, 1 / 12), 1e-6)
    weights = module.train()(x)
    kept = weights > 0
    near(weights[kept], torch.full_like(weights[kept], 1 / 12 / 0.75), 1e-5)
    assert abs(kept.float().mean() - 0.75) < 0.02
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(module(x), weights)


def test_projection_dropout():
    module = halcyon.NeighborhoodAttentionHEALPix(8, 2, level=1, rings=1, proj_drop=0.5)
    x = torch.randn(1, 48, 8)
    y, full = module(x), module.eval()(x)
    assert ((y == 0) | ((y - 2 * full).abs() < 1e-5)).all() and 0.3 < (y == 0).float().mean() < 0.7
