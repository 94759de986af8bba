# SPDX-License-Identifier: Apache-2.0
"""What constructors, modules, packed and merged attention, nested operands, the sphere and the switches refuse."""

import math

import pytest
import torch
from references import rejected
from test_neighborhood_errors import not_implemented

import halcyon

AXES = [1, 2, 3]


def refused_each(operation, call, changes, expect=rejected):
    for change in changes:
        try:
            with expect(operation):
                call(**change)
        except BaseException as error:
            raise AssertionError(f"{operation}, {change}: {error!r}"[:600]) from error


@pytest.mark.parametrize("axes", AXES)
def test_constructors(axes):
    name = f"NeighborhoodAttention{axes}D"

    def make(**options):
        return getattr(halcyon, name)(**(dict(dim=8, num_heads=2) | options))
    make()
    too_many, first = [3] * (axes + 1), [True] + [False] * (axes - 1)
    refused_each(name, make, [
        dict(dim=None), dict(embed_dim=8), dict(dim=9), dict(dim=0), dict(dim=-8), dict(dim=8.0), dict(num_heads=0),
        dict(num_heads=3), dict(num_heads=True), dict(num_heads=2.0), dict(kernel_size=0), dict(kernel_size=3.0),
        dict(kernel_size=too_many), dict(kernel_size=True), dict(dilation=0), dict(dilation=too_many),
        dict(dilation=1.5), dict(stride=0), dict(stride=4), dict(stride=too_many), dict(is_causal=1),
        dict(is_causal=[True] * (axes + 1)), dict(periodic=1), dict(rel_pos_bias=1), dict(qkv_bias=1), dict(fused=1),
        dict(attn_drop=-0.1), dict(attn_drop=1.5), dict(proj_drop=-0.1), dict(proj_drop=2), dict(attn_drop=math.nan)])
    refused_each(name, make, [dict(rel_pos_bias=True, is_causal=True), dict(rel_pos_bias=True, is_causal=first),
                              dict(periodic=True, is_causal=True), dict(periodic=True, stride=2)], not_implemented)
    for unknown in (dict(heads=2), dict(is_casual=True), dict(use_experimental_ops=True)):
        with pytest.raises(TypeError):
            make(**unknown)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("fused", [False, True])
def test_forward(axes, fused):
    name = f"NeighborhoodAttention{axes}D"
    module = getattr(halcyon, name)(8, 2, kernel_size=3, dilation=2, fused=fused)
    good = torch.zeros(2, *[6] * axes, 8)
    assert module(good).shape == good.shape
    for x in (good[0], good[None], good[..., :7], good[:, :5], good.long()):
        with rejected():
            module(x)
    with pytest.raises(TypeError):
        module(None)
    ragged = getattr(halcyon, name)(8, 2, dilation=4, kernel_size=1, periodic=True)
    with rejected():
        ragged(good)


def tokens(length, heads, width, batch=1, **options):
    return torch.zeros(batch, length, heads, width, **options)


def test_attention():
    def attend(**change):
        return halcyon.attention(**(dict(query=tokens(7, 4, 3), key=tokens(9, 2, 3), value=tokens(9, 2, 5)) | change))
    attend(seqlens_Q=[3, 4], seqlens_KV=[9, 0])
    refused_each("attention", attend, [
        dict(query=tokens(7, 4, 3)[0]), dict(key=tokens(9, 2, 4)), dict(key=tokens(8, 2, 3)),
        dict(value=tokens(9, 1, 5)), dict(key=tokens(9, 3, 3), value=tokens(9, 3, 5)), dict(query=tokens(7, 4, 3, 2)),
        dict(key=tokens(9, 2, 3).double()), dict(query=tokens(7, 4, 3).long()),
        dict(value=tokens(9, 2, 5, device="meta")), dict(is_causal=1), dict(backend="flash"),
        dict(return_lse=1), dict(seqlens_Q=[3, 4]), dict(seqlens_KV=[9]),
        *[dict(seqlens_Q=q, seqlens_KV=k) for q, k in (
            ([7], [4, 5]), ([3, 3], [4, 5]), ([3, 4], [4, 4]), ([3, 4], [10, -1]), ([8, -1], [4, 5]),
            ([3.0, 4.0], [4, 5]), ([True] * 7, [9] + [0] * 6), (torch.tensor([3.0, 4]), [4, 5]),
            (torch.tensor([[3, 4]]), torch.tensor([[4, 5]])))],
        dict(query=tokens(7, 4, 3, 2), key=tokens(9, 2, 3, 2), value=tokens(9, 2, 5, 2), seqlens_Q=[7],
             seqlens_KV=[9])])
    nested = torch.nested.nested_tensor([tokens(7, 4, 3)[0]])
    refused_each("attention", attend, [dict(query=nested), dict(query=tokens(7, 4, 3).to_sparse())], not_implemented)
    with pytest.raises(TypeError):
        attend(query=None)
    with pytest.raises(TypeError):
        attend(causal=True)


def test_na1d_varlen():
    def attend(**change):
        good = dict(query=tokens(9, 4, 3), key=tokens(9, 2, 3), value=tokens(9, 2, 5), kernel_size=3,
                    seqlens=[5, 0, 4])
        return halcyon.na1d_varlen(**(good | change))
    attend()
    refused_each("na1d_varlen", attend, [
        dict(seqlens=[5, 5]), dict(seqlens=[7, 2]), dict(seqlens=[10, -1]), dict(seqlens=[5.0, 4.0]),
        dict(seqlens=torch.tensor([5.0, 4])), dict(seqlens=torch.tensor([[5, 4]])), dict(seqlens=[]),
        dict(kernel_size=5), dict(kernel_size=0), dict(kernel_size=(3, 3)), dict(dilation=2), dict(stride=4),
        dict(is_causal=1), dict(key=tokens(8, 2, 3)), dict(rpb=torch.zeros(4, 3)),
        dict(periodic=True, dilation=3, kernel_size=1), dict(backend="flash"),
        dict(query=tokens(9, 4, 3, 2), key=tokens(9, 2, 3, 2), value=tokens(9, 2, 5, 2))])
    refused_each("na1d_varlen", attend, [dict(rpb=torch.zeros(4, 5), is_causal=True), dict(periodic=True, stride=2),
                                         dict(periodic=True, is_causal=True)], not_implemented)
    with pytest.raises(TypeError):
        attend(query=[1.0])


def test_merge_attentions():
    def merge(outputs=(tokens(5, 2, 3),) * 2, lses=(torch.zeros(1, 5, 2),) * 2):
        return halcyon.merge_attentions(outputs, lses)
    merge()
    out, lse = tokens(5, 2, 3), torch.zeros(1, 5, 2)
    refused_each("merge_attentions", merge, [
        dict(outputs=[out], lses=[lse]), dict(outputs=[], lses=[]), dict(lses=[lse]), dict(outputs=[out] * 3),
        dict(outputs=[out, tokens(6, 2, 3)]), dict(outputs=[out, tokens(5, 2, 4)]), dict(lses=[lse, lse[:, :4]]),
        dict(lses=[lse, lse[..., None]]), dict(outputs=[out, out.double()]), dict(outputs=[out.long()] * 2),
        dict(outputs=[out, out.to("meta")]), dict(lses=[lse, lse.to("meta")])])
    with pytest.raises(TypeError):
        merge(outputs=[out, None])


@pytest.mark.parametrize("axes", AXES)
def test_nested_operands_of_the_unfused_operators(axes):
    qk, av = getattr(halcyon, f"na{axes}d_qk"), getattr(halcyon, f"na{axes}d_av")
    x, attn, more = torch.zeros(1, 2, *[5] * axes, 3), torch.zeros(1, 2, *[5] * axes, 3**axes), torch.zeros(1, 2, 4, 3)
    nest = torch.nested.nested_tensor
    assert qk(nest([x, x]), nest([x, x]), 3).is_nested
    learnt = nest([x, x], requires_grad=True)
    for call in (lambda: qk(nest([x]), x, 3), lambda: qk(x, nest([x]), 3), lambda: qk(nest([x, x]), nest([x]), 3),
                 lambda: qk(nest([x]), nest([x]), 3, additional_keys=more), lambda: qk(learnt, learnt, 3),
                 lambda: qk(nest([x, x]), learnt, 3), lambda: qk(x, x, 3, additional_keys=nest([more])),
                 lambda: qk(nest([x]), nest([x]), 6), lambda: qk(nest([x]), nest([x[..., :2]]), 3)):
        with rejected(f"na{axes}d_qk"):
            call()
    for call in (lambda: av(nest([attn]), x, 3), lambda: av(attn, nest([x]), 3),
                 lambda: av(nest([attn, attn]), nest([x]), 3),
                 lambda: av(nest([attn] * 2), learnt, 3),
                 lambda: av(nest([attn]), nest([x]), 3, additional_values=more)):
        with rejected(f"na{axes}d_av"):
            call()


SPHERE = [dict(radius_deg=None), dict(rings=1), dict(radius_deg=0), dict(radius_deg=-1), dict(radius_deg=180.5),
          dict(radius_deg=math.nan), dict(radius_deg=None, rings=-1), dict(radius_deg=None, rings=1.0),
          dict(radius_deg=None, rings=True), dict(order="ring"), dict(order="NEST"), dict(level=-1), dict(level=1.0),
          dict(level=40), dict(region=torch.tensor([3, 3])), dict(region=torch.tensor([0, 12])),
          dict(region=torch.tensor([-1, 3])), dict(region=torch.tensor([0.0, 1])),
          dict(region=torch.tensor([0, 1]).int()), dict(region=torch.tensor([[0, 1]]))]


def test_sphere():
    def attend(x=tokens(12, 2, 3), **change):
        arguments = dict(q=x, k=x, v=x, level=0, radius_deg=60) | change
        region = arguments.get("region")
        if region is not None and region.dim() == 1:   # so that only the region is wrong
            arguments |= dict.fromkeys("qkv", tokens(len(region), 2, 3))
        return halcyon.neighborhood_attention_healpix(**arguments)
    attend()
    refused_each("neighborhood_attention_healpix", attend, SPHERE + [
        dict(q=tokens(12, 2, 3)[0]), dict(k=tokens(11, 2, 3)), dict(k=tokens(12, 2, 4)), dict(v=tokens(12, 1, 3)),
        dict(x=tokens(48, 2, 3)), dict(k=tokens(12, 3, 3), v=tokens(12, 3, 3)), dict(k=tokens(12, 2, 3).double()),
        dict(x=tokens(12, 2, 3).long()), dict(v=tokens(12, 2, 3, device="meta"))])


def test_sphere_stats_and_module():
    good = dict(level=0, radius_deg=60)
    refused_each("neighborhood_attention_healpix_stats",
                 lambda **change: halcyon.neighborhood_attention_healpix_stats(**(good | change)), SPHERE)
    name = "NeighborhoodAttentionHEALPix"

    def make(**change):
        return halcyon.NeighborhoodAttentionHEALPix(**(dict(dim=8, num_heads=2) | good | change))
    refused_each(name, make, SPHERE + [dict(dim=None), dict(embed_dim=8), dict(num_heads=3), dict(num_heads=0),
                                       dict(attn_drop=1.5), dict(qkv_bias=1)])
    for x in (torch.zeros(1, 11, 8), torch.zeros(1, 12, 9), torch.zeros(12, 8)):
        with rejected():
            make()(x)
    for call in (make, lambda **c: halcyon.neighborhood_attention_healpix_stats(**good, **c)):
        for wrong in (dict(radius=3), dict(region=[0, 1])):
            with pytest.raises(TypeError):
                call(**wrong)


def test_switches_and_counts():
    refused_each("set_memory_usage_preference", halcyon.set_memory_usage_preference,
                 [dict(pref="large"), dict(pref="")])
    refused_each("use_fused_na", halcyon.use_fused_na, [dict(mode=1), dict(kv_parallel=1)])
    refused_each("use_autotuner", halcyon.use_autotuner, [dict(forward_pass=1), dict(steps_forward=-1),
                                                          dict(steps_backward=1.5)])
    good = dict(q_shape=[1, 9, 2, 4], k_shape=[1, 9, 2, 4], v_shape=[1, 9, 2, 4], kernel_size=3, dilation=1,
                is_causal=False, is_heads_last=True)
    assert halcyon.fna_flop_count(**good) > 0
    refused_each("fna_flop_count", lambda **c: halcyon.fna_flop_count(**(good | c)), [
        dict(q_shape=[1, 9, 2]), dict(k_shape=[1, 9, 2, 5]), dict(v_shape=[1, 9, 9, 2, 4]), dict(kernel_size=(3, 3)),
        dict(kernel_size=0), dict(is_heads_last=1)])
