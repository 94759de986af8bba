# SPDX-License-Identifier: Apache-2.0
"""Every golden of a function: HEALPix, packing, attention, rotary tables, features, quality control, checkpoints."""

import pytest
import torch
from conftest import near

import halcyon

LAYER, GRADIENT = 2e-5, 2e-4


def same(got, expected):
    assert got.dtype == expected.dtype and got.shape == expected.shape
    assert torch.equal(got, expected)


@pytest.mark.parametrize("level", range(4))
def test_healpix_pixels(golden, level):
    g = golden("healpix")
    pixels = torch.arange(halcyon.healpix.npix(level))
    lon, lat = halcyon.healpix.pix2ang(level, pixels)
    near(lon, g[f"out.lon_l{level}"], 1e-12)
    near(lat, g[f"out.lat_l{level}"], 1e-12)
    same(halcyon.healpix.nest_of_padxy(level), g[f"out.nest_of_padxy_l{level}"])
    same(halcyon.healpix.convert(level, pixels, "ring", "nest"), g[f"out.nest_of_ring_l{level}"])


@pytest.mark.parametrize("level", [1, 5, 6, 10])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("key, order", [("nest", "nest"), ("padxy", "pad_xy")])
def test_healpix_places(golden, level, dtype, key, order):
    g = golden("healpix")
    found = halcyon.healpix.ang2pix(level, g[f"in.lon_{dtype}"], g[f"in.lat_{dtype}"], order, rule="healda")
    same(found, g[f"out.pix_{key}_l{level}_{dtype}"])


def test_healpix_reorders(golden):
    g = golden("healpix")
    field = torch.arange(768)
    same(halcyon.healpix.reorder(field, "nest", "pad_xy"), g["out.reorder_nest_to_padxy_l3"])
    same(halcyon.healpix.reorder(field, "pad_xy", "nest"), g["out.reorder_padxy_to_nest_l3"])


def test_packing(golden):
    g = golden("packing")
    for case, config in g.config.items():
        order, counts = halcyon.sort_and_pack(g[f"in.{case}.flat_idx"], config["total_pixels"])
        same(order, g[f"out.{case}.sorted_order_stable"])
        same(counts, g[f"out.{case}.counts"])
        cu_seqlens = halcyon.counts_to_cu_seqlens(counts)
        same(cu_seqlens, g[f"out.{case}.cu_seqlens_k"])
        groups = halcyon.build_pixel_group_map(cu_seqlens)
        same(groups.program_ptr, g[f"out.{case}.program_ptr"])
        same(groups.program_pixels, g[f"out.{case}.program_pixels"])


@pytest.mark.parametrize("multiple", [1.0, 2.0, 3.5])
def test_pixel_group_map(golden, multiple):
    g = golden("pixel_group_map")
    for case in g.config:
        groups = halcyon.build_pixel_group_map(g[f"in.{case}.m{multiple}.cu_seqlens_k"], multiple)
        same(groups.program_ptr, g[f"out.{case}.m{multiple}.program_ptr"])
        same(groups.program_pixels, g[f"out.{case}.m{multiple}.program_pixels"])


def test_prepare_obs_context(golden):
    g = golden("prepare_obs_context")
    context = halcyon.prepare_obs_context(**g.under("in."), total_pixels=g.config["total_pixels"])
    for key, expected in g.under("out_stable.").items():
        same(getattr(context, key), expected)
    same(context.cu_seqlens_k, g["out.cu_seqlens_k"])
    same(context.group_map.program_ptr, g["out.program_ptr"])
    same(context.group_map.program_pixels, g["out.program_pixels"])
    assert context.max_seqlen_k == g.config["max_seqlen_k"]


@pytest.mark.parametrize("name", ["pixel_attention_q16_kv1", "pixel_attention_q32_kv2"])
@pytest.mark.parametrize("double", [False, True])
def test_pixel_attention(golden, name, double):
    g = golden(name)
    x = {k: (t.double() if double and t.is_floating_point() else t) for k, t in g.under("in.").items()}
    for t in x.values():
        t.requires_grad_(t.is_floating_point())
    y = halcyon.pixel_attention(**x, max_seqlen_k=40, n_kv_heads=g.config["n_kv_heads"], scale=g.config["scale"])
    suffix, tolerance = ("64", 1e-10) if double else ("", LAYER)
    near(y, g[f"out{suffix}.y"], tolerance)
    (y * g["gradout.y"]).sum().backward()
    for key, gradient in g.under(f"grad{suffix}.in.").items():
        near(x[key].grad, gradient, tolerance if double else GRADIENT)


def test_adaln_and_masks(golden):
    g = golden("adaln_ops")
    near(halcyon.modulate(g["in.x"], g["in.shift"], g["in.scale"]), g["out.modulate"], 1e-6)
    near(halcyon.gated_residual(g["in.x"], g["in.branch"], g["in.gate"]), g["out.gated_residual"], 1e-6)
    g = golden("mask_causal")
    for window in (None, 1, 2, 4, 9):
        same(halcyon.mask_causal(g["in.attn"], True, window), g[f"out.linear_w{window}"])
        same(halcyon.mask_causal(g["in.attn"], False, window), g[f"out.softmax_w{window}"])


def test_rope(golden):
    g = golden("rope")
    for width, theta in ((16, 100), (8, 100), (8, 10000), (96, 100)):
        cos, sin = halcyon.rope_tables(width, 12, theta)
        near(cos, g[f"out.cos_hd{width}_th{theta}"], 1e-6)
        near(sin, g[f"out.sin_hd{width}_th{theta}"], 1e-6)
    cos, sin = halcyon.rope_tables(8, 12)
    near(halcyon.apply_rope(g["in.x"], cos, sin), g["out.rotated"], 1e-6)
    near(halcyon.apply_rope(g["in.x"].bfloat16(), cos, sin), g["out.rotated_bf16"], 4e-3)


def test_calendar(golden):
    g = golden("calendar_legacy")
    module = halcyon.CalendarEmbedding(g["in.lon"], g.config["embed_channels"], include_legacy_bug=True)
    near(module(g["in.day_of_year"], g["in.second_of_day"]), g["out.calendar"], 1e-6)


def test_features(golden):
    g = golden("obs_features")
    columns = g.under("in.")
    near(halcyon.local_solar_time(columns["lon"], columns["time_ns"]), g["out.local_solar_time"], 1e-6)
    del columns["is_conv"]
    for layout in (28, 30):
        features, expected = halcyon.float_metadata(**columns, layout=layout), g[f"out.features{layout}"]
        assert torch.equal(features.isnan(), expected.isnan())
        near(features.nan_to_num(), expected.nan_to_num(), 2e-6)


def test_quality_control(golden):
    g = golden("datapipe")
    columns = g.under("in.qc.")
    for key, rules in {"none": {}, "qc": {"qc_filter": True}, "uv_insitu": {"conv_uv_in_situ_only": True},
                       "gps_l1": {"conv_gps_level1_only": True},
                       "all": {"qc_filter": True, "conv_uv_in_situ_only": True, "conv_gps_level1_only": True}}.items():
        codes = halcyon.quality_control(columns, **rules)
        same((codes == 0).nonzero().flatten(), g[f"out.qc.kept_{key}"])


def test_checkpoint(golden, shared):
    g = golden("healda_tiny")
    model = halcyon.load_checkpoint(str(shared / "golden" / "healda" / "healda_tiny.mdlus"))
    state = model.state_dict()
    for key, parameter in g.under("param.").items():
        same(state[key], parameter)
