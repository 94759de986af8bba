# SPDX-License-Identifier: Apache-2.0
"""Cross-attention, blocks and VideoDiT against their parts written out."""

import pytest
import references
import torch
from conftest import near
from references import cu_of, randomise, rejected, rms

import halcyon

COUNTS = [2, 0, 3, 0, 1, 0] * 4   # B 2, T 2, X 6
CROSS = dict(hidden_size=8, token_dim=3, n_q_heads=32, n_kv_heads=2, d_head=2, use_proj_bias=True)
TOKENS = dict(tokens=torch.randn(sum(COUNTS), 3, generator=torch.Generator().manual_seed(4)),
              cu_seqlens_k=cu_of(COUNTS), max_seqlen_k=3)


def compare(module, x, expected_of, bound):
    """Outputs, and gradients of the input and of every parameter."""
    wide = x.detach().double().requires_grad_()
    state = {name: p.detach().double().requires_grad_() for name, p in module.named_parameters()}
    x = x.clone().requires_grad_()
    y, expected = module(x), expected_of(wide, state)
    near(y, expected, bound)
    y.square().sum().backward()
    expected.square().sum().backward()
    near(x.grad, wide.grad, 5 * bound)
    for name, parameter in module.named_parameters():
        near(parameter.grad, state[name].grad, 5 * bound)


class Calls(torch.nn.Module):
    """A module with the arguments after the first bound, so that compare() may call it with one."""

    def __init__(self, module, *args, **kwargs):
        super().__init__()
        self.inner, self.args, self.kwargs = module, args, kwargs

    def named_parameters(self, *args, **kwargs):
        return self.inner.named_parameters(*args, **kwargs)

    def forward(self, x):
        return self.inner(x, *self.args, **self.kwargs)


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-11), (torch.float32, 2e-5)])
@pytest.mark.parametrize("bias", [True, False])
def test_pixel_cross_attention(bias, dtype, bound):
    module = randomise(halcyon.PixelCrossAttention(**(CROSS | dict(use_proj_bias=bias)))).to(dtype)
    biases = {name.split(".")[0] for name in module.state_dict() if name.endswith("bias")}
    assert biases == ({"q_proj", "v_proj", "out_proj"} if bias else set())
    tokens = TOKENS["tokens"].to(dtype)
    call = Calls(module, tokens=tokens, cu_seqlens_k=TOKENS["cu_seqlens_k"], max_seqlen_k=3)
    compare(call, torch.randn(2, 2, 6, 8, dtype=dtype), lambda x, state: references.cross_attention(
        x, state, tokens.double(), TOKENS["cu_seqlens_k"], 32, 2), bound)
    groups = halcyon.build_pixel_group_map(TOKENS["cu_seqlens_k"])
    x = torch.randn(2, 2, 6, 8, dtype=dtype)
    assert torch.equal(module(x, tokens, TOKENS["cu_seqlens_k"], 3, group_map=groups), call(x))


def test_pixel_cross_attention_without_tokens():
    module = randomise(halcyon.PixelCrossAttention(**CROSS))
    x = torch.randn(1, 2, 3, 8, requires_grad=True)
    tokens = torch.zeros(0, 3, requires_grad=True)
    y = module(x, tokens, torch.zeros(7).int(), 0)
    assert torch.equal(y, module.state_dict()["out_proj.bias"].expand_as(y))
    y.sum().backward()
    assert tokens.grad is not None and x.grad is not None and not x.grad.any()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()) == (name == "out_proj.bias")


@pytest.mark.parametrize("options", [dict(n_kv_heads=0), dict(n_kv_heads=3, n_q_heads=48), dict(n_q_heads=33),
                                     dict(n_q_heads=16), dict(d_head=0), dict(token_dim=0)], ids=str)
def test_pixel_cross_attention_refuses_options(options):
    with rejected("PixelCrossAttention"):
        halcyon.PixelCrossAttention(**(CROSS | options))


@pytest.mark.parametrize("change", [
    dict(hidden_states=torch.zeros(2, 12, 8)), dict(hidden_states=torch.zeros(2, 2, 6, 7)),
    dict(tokens=None),
    dict(tokens=torch.zeros(24)), dict(tokens=torch.zeros(24, 4)), dict(tokens=torch.zeros(23, 3)),
    dict(cu_seqlens_k=cu_of(COUNTS[:-1])), dict(cu_seqlens_k=cu_of(COUNTS).float())])
def test_pixel_cross_attention_refuses_inputs(change):
    with rejected():
        halcyon.PixelCrossAttention(**CROSS)(**(TOKENS | dict(hidden_states=torch.zeros(2, 2, 6, 8)) | change))


def make_block(cross, temporal, **options):
    return randomise(halcyon.VideoDiTBlock(
        8, 2, condition_embed_dim=5, temporal_attention=temporal, cross_attention=CROSS if cross else None,
        is_causal=temporal, attn_kwargs=None if temporal else dict(qk_norm_type="RMSNorm", qk_norm_affine=False),
        **options))


@pytest.mark.parametrize("cross, temporal", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_block(cross, temporal, dtype, bound):
    extra = dict(temporal_kwargs=dict(linear_attention=True, causal_window=2)) if temporal else {}
    block = make_block(cross, temporal, mlp_ratio=2.5, **extra).to(dtype)
    assert block.state_dict()["linear.layers.0.weight"].shape == (20, 8)
    cos, sin = halcyon.rope_tables(4, 2)
    tokens = TOKENS["tokens"].to(dtype)
    c = torch.randn(2, 5, dtype=dtype)
    call = Calls(block, c, cross_attn_kwargs=TOKENS | dict(tokens=tokens) if cross else None,
                 temporal_attn_kwargs=dict(rope_cos=cos, rope_sin=sin) if temporal else None)
    over_tokens = (lambda y, s: references.cross_attention(y, s, tokens.double(), TOKENS["cu_seqlens_k"], 32, 2))
    over_frames = (lambda y, s: references.temporal_attention(y, s, 2, cos, sin, True, references.causal(2, 2)))
    norm = (lambda name, q: q) if temporal else (lambda name, q: rms(q))
    compare(call, torch.randn(2, 2, 6, 8, dtype=dtype), lambda x, state: references.block(
        x, c.double(), state, 2, over_tokens if cross else None, over_frames if temporal else None, norm), bound)


@pytest.mark.parametrize("dropout, last", [(0.0, True), (0.5, True), (0.5, False)])
def test_block_keys_and_zero_initialisation(dropout, last):
    block = halcyon.VideoDiTBlock(8, 2, condition_embed_dim=5, cross_attention=CROSS, temporal_attention=True,
                                  mlp_drop_rate=dropout, final_mlp_dropout=last).eval()
    linears = ["attention.attn_op.qkv", "attention.attn_op.proj", "norm1_modulation.modulation.1",
               "cross_attn_modulation.modulation.1", "temporal_attn_modulation.modulation.1", "temporal_attention.qkv",
               "temporal_attention.proj", "linear.layers.0", "linear.layers.3" if dropout else "linear.layers.2",
               "cross_attention.v_proj", "cross_attention.q_proj", "cross_attention.out_proj"]
    keys = {f"{name}.{kind}" for name in linears for kind in ("weight", "bias")} | {"cross_attention.k_proj.weight"}
    assert set(block.state_dict()) == keys
    h = torch.randn(2, 2, 6, 8)
    tables = dict(zip(("rope_cos", "rope_sin"), halcyon.rope_tables(4, 2)))
    assert torch.equal(block(h, torch.randn(2, 5), cross_attn_kwargs=TOKENS, temporal_attn_kwargs=tables), h)
    fresh = halcyon.VideoDiTBlock(8, 2, condition_embed_dim=5, adaln_zero_init=False)
    assert not torch.equal(fresh(h, torch.randn(2, 5)), h)


def test_drop_path_scales_or_drops_the_gate_of_a_sample():
    block = halcyon.VideoDiTBlock(8, 2, condition_embed_dim=5, drop_path=0.25)
    randomise(block)
    with torch.no_grad():
        parameters = dict(block.named_parameters())
        parameters["norm1_modulation.modulation.1.weight"].zero_()
        parameters["norm1_modulation.modulation.1.bias"][:24].zero_()   # no attention branch
    h, c = torch.randn(64, 1, 3, 8), torch.zeros(64, 5)
    branch = block.eval()(h, c) - h
    found = block.train()(h, c) - h
    kept = found.flatten(1).any(1)
    assert 24 < kept.sum() < 64
    near(found[kept], branch[kept] / 0.75, 1e-4)


@pytest.mark.parametrize("arguments", [
    (torch.zeros(2, 6, 8), torch.zeros(2, 5)), (torch.zeros(2, 2, 6, 7), torch.zeros(2, 5)),
    (torch.zeros(2, 2, 6, 8), torch.zeros(2, 4)), (torch.zeros(2, 2, 6, 8), torch.zeros(3, 5)),
    (torch.zeros(2, 2, 6, 8), torch.zeros(2, 1, 5)), (torch.zeros(2, 2, 6, 8), torch.zeros(2, 5))])
def test_block_refuses_inputs(arguments):
    with rejected():
        make_block(True, False)(*arguments)   # the last for want of cross_attn_kwargs


@pytest.mark.parametrize("options", [dict(attention_backend="natten3d"), dict(layernorm_backend="jax"),
                                     dict(mlp_ratio=0.0), dict(drop_path=1.5), dict(drop_path=-0.1),
                                     dict(norm_eps=-1.0), dict(condition_embed_dim=-1), dict(hidden_size=9),
                                     dict(temporal_attention=True, temporal_kwargs=dict(causal_window=2))], ids=str)
def test_block_refuses_options(options):
    with rejected():
        halcyon.VideoDiTBlock(**(dict(hidden_size=8, num_heads=2, condition_embed_dim=5) | options))


@pytest.mark.parametrize("options", [dict(temporal_attention=True, temporal_kwargs=dict(linear=True)),
                                     dict(attn_kwargs=dict(qk_norm="RMSNorm")),
                                     dict(cross_attention=CROSS | dict(heads=2))], ids=str)
def test_unknown_names_in_option_dicts_are_type_errors(options):
    with pytest.raises(TypeError):
        halcyon.VideoDiTBlock(8, 2, condition_embed_dim=5, **options)


def test_an_incomplete_cross_attention_names_what_is_missing():
    given = {name: value for name, value in CROSS.items() if name != "d_head"}
    with pytest.raises(TypeError, match=r"\[cross_attention\] missing the required argument 'd_head'"):
        halcyon.VideoDiTBlock(8, 2, condition_embed_dim=5, cross_attention=given)


@pytest.mark.parametrize("name, bad", [("attn_kwargs", dict(mask=torch.zeros(6, 6))),
                                       ("cross_attn_kwargs", TOKENS | dict(cu=1)),
                                       ("temporal_attn_kwargs", dict(cos=torch.zeros(2, 4)))])
def test_unknown_names_in_call_dicts_are_type_errors(name, bad):
    given = dict(cross_attn_kwargs=TOKENS) | {name: bad}
    with pytest.raises(TypeError):
        make_block(True, False)(torch.zeros(2, 2, 6, 8), torch.zeros(2, 5), **given)


def test_block_passes_the_attention_mask_on():
    block = make_block(False, False)
    h, c, mask = torch.randn(2, 2, 6, 8), torch.randn(2, 5), torch.randn(6, 6)
    found = block(h, c, attn_kwargs=dict(attn_mask=mask))
    state = dict(block.named_parameters())
    expected = references.block(h, c, state, 2, norm=lambda name, q: rms(q), mask=mask)
    near(found, expected, 1e-5)
    assert not torch.equal(found, block(h, c))
