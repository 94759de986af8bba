# SPDX-License-Identifier: Apache-2.0
"""Every module golden: forward, and the gradient of every input and parameter, through the Python module."""

import pytest
import torch
from conftest import near

import halcyon

LAYER, MODEL, GRADIENT, BF16 = 2e-5, 1e-4, 2e-4, 2e-2


def block(config):
    return halcyon.VideoDiTBlock(**config)


def video_dit(config):
    levels = {key: config.pop(key) for key in ("level_fine", "level_coarse")}
    tokenizer = halcyon.HEALPixPatchTokenizer(in_channels=config.pop("in_channels"), hidden_size=config["hidden_size"],
                                              separate_time_axis=True, **levels)
    detokenizer = halcyon.HEALPixPatchDetokenizer(hidden_size=config["hidden_size"],
                                                  out_channels=config.pop("out_channels"),
                                                  condition_dim=config["emb_channels"], **levels)
    return halcyon.VideoDiT(tokenizer, detokenizer, **config)


def healda(config):
    config.pop("max_seqlen_k"), config.pop("batch")
    return halcyon.HealDA(**config)


def without(*names):
    return lambda make: lambda config: make(**{k: v for k, v in config.items() if k not in names})


CASES = {
    "adaln_modulation_1block": lambda c: halcyon.AdaLNModulation(**c),
    "adaln_modulation_2block": lambda c: halcyon.AdaLNModulation(**c),
    "spatial_attn_nonorm": lambda c: halcyon.SelfAttention(**c),
    "spatial_attn_rms_noaffine": lambda c: halcyon.SelfAttention(**c),
    "temporal_linear_causal_rope": without("rope_theta")(halcyon.TemporalAttention),
    "temporal_linear_causal_window2_rope": without("rope_theta")(halcyon.TemporalAttention),
    "temporal_softmax_causal_rope": without("rope_theta")(halcyon.TemporalAttention),
    "pixel_cross_attention_q32_kv2": without("max_seqlen_k")(halcyon.PixelCrossAttention),
    "pixel_cross_attention_q16_kv1": without("max_seqlen_k")(halcyon.PixelCrossAttention),
    "pixel_cross_attention_no_tokens": without("max_seqlen_k")(halcyon.PixelCrossAttention),
    "obs_tokenizer_film_platform": lambda c: halcyon.ObsTokenizerFiLM(**c),
    "edm_embedder_cond5": lambda c: halcyon.EDMConditionEmbedder(**c),
    "edm_embedder_nocond": lambda c: halcyon.EDMConditionEmbedder(**c),
    "edm_embedder_legacybias": lambda c: halcyon.EDMConditionEmbedder(**c),
    "hpx_tokenizer_2to1": lambda c: halcyon.HEALPixPatchTokenizer(**c),
    "hpx_tokenizer_3to1": lambda c: halcyon.HEALPixPatchTokenizer(**c),
    "hpx_detokenizer_1to2": lambda c: halcyon.HEALPixPatchDetokenizer(**c),
    "hpx_detokenizer_1to3": lambda c: halcyon.HEALPixPatchDetokenizer(**c),
    "block_full": block,
    "block_plain": block,
    "block_temporal_only": block,
    "video_dit_tiny": video_dit,
    "healda_tiny": healda,
}


def call(name, module, x, config):
    """The module's outputs by the golden's names."""
    if name.startswith("adaln"):
        names = [f"{kind}{i}" for i in range(config["n_blocks"]) for kind in ("shift", "scale", "gate")]
        return dict(zip(names, module(x["c"])))
    if name.startswith("spatial"):
        return {"y": module(x["x"])}
    if name.startswith("temporal"):
        return {"y": module(x["x"], x["rope_cos"], x["rope_sin"])}
    if name.startswith("pixel_cross"):
        return {"y": module(x["hidden_states"], x["tokens"], x["cu_seqlens_k"], config.get("max_seqlen_k", 0))}
    if name.startswith("obs_tokenizer"):
        return {"y": module(x["obs"], x["float_metadata"], x["obs_type"], x["channel"], x["platform"])}
    if name.startswith("edm"):
        return {"emb": module(x["t"], x.get("condition")), "noise_features": module.noise_features(x["t"])}
    if name.startswith("hpx_tokenizer"):
        return {"y": module(x["x"], x["second_of_day"], x["day_of_year"])}
    if name.startswith("hpx_detokenizer"):
        return {"y": module(x["x"], x["c"])}
    if name.startswith("block"):
        has_tokens = "tokens" in x
        cross = {"tokens": x["tokens"], "cu_seqlens_k": x["cu_seqlens_k"], "max_seqlen_k": 40} if has_tokens else None
        temporal = {"rope_cos": x["rope_cos"], "rope_sin": x["rope_sin"]} if "rope_cos" in x else None
        return {"y": module(x["hidden_states"], x["c"], cross_attn_kwargs=cross, temporal_attn_kwargs=temporal)}
    if name == "video_dit_tiny":
        calendar = {"second_of_day": x["second_of_day"], "day_of_year": x["day_of_year"]}
        return {"y": module(x["x"], x["t"], tokenizer_kwargs=calendar)}
    groups = halcyon.PixelGroupMap(x["program_ptr"], x["program_pixels"])
    context = halcyon.ObsContext(x["obs"], x["float_metadata"], x["obs_type"], x["channel"], x["platform"],
                                 x["cu_seqlens_k"], config["max_seqlen_k"], groups)
    return {"y": module(x["x"], x["t"], x["second_of_day"], x["day_of_year"], context)}


@pytest.mark.parametrize("name", CASES)
def test_forward_and_gradients(golden, name):
    g = golden(name)
    module = CASES[name](dict(g.config)).eval()
    module.load_state_dict(g.under("param."))
    wanted = g.under("grad.in.")
    x = {key: t.clone().requires_grad_(key in wanted) for key, t in g.under("in.").items()}
    outputs = call(name, module, x, g.config)
    tolerance = MODEL if name == "healda_tiny" else LAYER
    total = 0
    for key, weight in g.under("gradout.").items():
        near(outputs[key], g[f"out.{key}"], tolerance)
        total = total + (outputs[key] * weight).sum()
    total.backward()
    for key, gradient in wanted.items():
        near(x[key].grad, gradient, GRADIENT)
    parameters = dict(module.named_parameters())
    for key, gradient in g.under("grad.param.").items():
        near(parameters[key].grad, gradient, GRADIENT)


@pytest.mark.parametrize("name", CASES)
def test_double(golden, name):
    """Against the golden's double outputs, or, where it has none, closer to its single ones than single may be."""
    g = golden(name)
    module = CASES[name](dict(g.config)).eval().double()
    module.load_state_dict({key: t.double() for key, t in g.under("param.").items()})
    x = {key: t.double() if t.is_floating_point() else t for key, t in g.under("in.").items()}
    for key, output in call(name, module, x, g.config).items():
        assert output.dtype == torch.float64
        if f"out64.{key}" in g:
            near(output, g[f"out64.{key}"], 1e-10)
        else:
            near(output, g[f"out.{key}"], LAYER)


def test_bf16_autocast_of_the_model(golden):
    g = golden("healda_tiny")
    module = CASES["healda_tiny"](dict(g.config)).eval()
    module.load_state_dict(g.under("param."))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        near(call("healda_tiny", module, g.under("in."), g.config)["y"], g["out.y_autocast_bf16"], BF16)
