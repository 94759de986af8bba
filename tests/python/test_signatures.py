# SPDX-License-Identifier: Apache-2.0
"""Every public name with its arguments in their order, which of them are keywords only, and the defaults."""

import inspect
import re
import subprocess
import sys
import types

import pytest
import torch
from conftest import BUILD

import halcyon

CLASSES = {
    "AdaLNModulation": "embedding_dim, condition_embed_dim, n_blocks=1, zero_init=True",
    "SelfAttention": "hidden_size, num_heads, attn_drop_rate=0.0, proj_drop_rate=0.0, qk_norm_type=None, "
                     "qk_norm_affine=True, is_causal=False",
    "TemporalAttention": "*, hidden_size, num_heads, use_rope=True, is_causal=False, linear_attention=True, "
                         "causal_window=None",
    "PixelCrossAttention": "hidden_size, token_dim, n_q_heads, n_kv_heads, d_head, use_proj_bias=False",
    "ObsTokenizerFiLM": "meta_dim, out_dim, n_embed=1024, obs_type_embed_dim=4, channel_embed_dim=None, "
                        "platform_embed_dim=None, use_fused_mlp=True, hidden_dim=None",
    "CalendarEmbedding": "lon, embed_channels, include_legacy_bug=False",
    "EDMConditionEmbedder": "emb_channels, noise_channels, condition_dim=0, condition_dropout=0.0, "
                            "legacy_condition_bias=False, max_positions=10000",
    "HEALPixPatchTokenizer": "*, in_channels, hidden_size, level_fine, level_coarse, separate_time_axis=False",
    "HEALPixPatchDetokenizer": "*, hidden_size, out_channels, level_coarse, level_fine, time_length=1, "
                               "condition_dim=None",
    "VideoDiTBlock": "hidden_size, num_heads, *, condition_embed_dim, attention_backend='timm', "
                     "layernorm_backend='torch', mlp_ratio=4.0, norm_eps=1e-06, attn_drop_rate=0.0, "
                     "proj_drop_rate=0.0, mlp_drop_rate=0.0, final_mlp_dropout=True, drop_path=0.0, "
                     "temporal_attention=False, use_rope=True, temporal_kwargs=None, cross_attention=None, "
                     "is_causal=False, adaln_zero_init=True, attn_kwargs=None",
    "VideoDiT": "tokenizer, detokenizer, hidden_size, num_heads, num_layers, *, emb_channels=None, "
                "noise_channels=None, condition_dim=0, temporal_attention=False, use_rope=True, rope_base=100, "
                "max_seq_len=100, temporal_kwargs=None, cross_attention=None, is_causal=False, "
                "attention_backend='timm', layernorm_backend='torch', mlp_ratio=4.0, drop_path=0.0, "
                "drop_path_rates=None, conditioning_embedder='edm', conditioning_embedder_kwargs=None, "
                "dit_initialization=True, adaln_zero_init=True, attn_kwargs=None, block_kwargs=None",
    "HealDA": "in_channels=2, out_channels=74, hidden_size=1536, num_layers=32, num_heads=16, mlp_ratio=4.0, "
              "level_in=6, level_model=5, time_length=8, condition_embed_dim=128, noise_channels=128, "
              "condition_dim=0, temporal_attention=True, is_causal=True, linear_attention=True, use_rope=True, "
              "rope_base=100, max_seq_len=100, temporal_causal_window=None, drop_path=0.1, "
              "drop_path_zero_first_n_blocks=4, qk_norm_type='RMSNorm', qk_norm_affine=False, "
              "attention_backend='timm', layernorm_backend='torch', obs_token_dim=32, obs_meta_dim=50, "
              "obs_type_embed_dim=4, channel_embed_dim=16, platform_embed_dim=8, obs_film_hidden_dim=64, "
              "use_fused_obs_mlp=True, pixel_attn_n_q_heads=64, pixel_attn_n_kv_heads=2, pixel_attn_head_dim=32, "
              "pixel_attn_use_proj_bias=True",
}

FORWARDS = {
    "AdaLNModulation": "c",
    "SelfAttention": "x, attn_mask=None",
    "TemporalAttention": "x, rope_cos=None, rope_sin=None",
    "PixelCrossAttention": "hidden_states, tokens, cu_seqlens_k, max_seqlen_k, group_map=None",
    "ObsTokenizerFiLM": "obs, float_metadata, obs_type, channel_ids, platform_ids=None",
    "CalendarEmbedding": "day_of_year, second_of_day",
    "EDMConditionEmbedder": "t, condition=None",
    "HEALPixPatchTokenizer": "x, second_of_day, day_of_year",
    "HEALPixPatchDetokenizer": "x, c",
    "VideoDiTBlock": "hidden_states, c, attn_kwargs=None, cross_attn_kwargs=None, temporal_attn_kwargs=None",
    "VideoDiT": "x, t, condition=None, attn_kwargs=None, cross_attn_kwargs=None, temporal_attn_kwargs=None, "
                "tokenizer_kwargs=None",
    "HealDA": "x, t, second_of_day, day_of_year, obs_ctx, class_labels=None",
}

FUNCTIONS = {
    "pixel_attention": "Q tokens W_k W_v cu_seqlens_k max_seqlen_k n_kv_heads=1 scale=None B_k=None B_v=None "
                       "force_fp32=False group_map=None",
    "film_tokenizer": "obs float_metadata obs_type channel platform * embed_table channel_embedding "
                      "platform_embedding=None weight1 bias1 norm_weight norm_bias weight2 bias2 eps=1e-05",
    "sort_and_pack": "flat_idx total_pixels",
    "counts_to_cu_seqlens": "counts",
    "build_pixel_group_map": "cu_seqlens_k thresh_mult=2.0",
    "prepare_obs_context": "obs float_metadata obs_type channel platform flat_idx total_pixels * "
                           "build_group_map=True group_thresh_mult=2.0",
    "modulate": "x shift scale",
    "norm_modulate": "x shift scale eps",
    "gated_residual": "residual branch gate",
    "mask_causal": "attn linear=True window=None",
    "rope_tables": "head_dim seq_len theta=100.0",
    "apply_rope": "x cos sin",
    "float_metadata": "* target_time_sec time_ns lon lat height pressure scan_angle sat_zenith_angle "
                      "sol_zenith_angle layout=30",
    "local_solar_time": "lon time_ns",
    "quality_control": "columns * qc_filter=False conv_uv_in_situ_only=False conv_gps_level1_only=False",
    "healpix.npix": "level",
    "healpix.ang2pix": "level lon lat order='pad_xy' rule='standard'",
    "healpix.pix2ang": "level pix order='pad_xy'",
    "healpix.convert": "level pix from_order to_order",
    "healpix.nest_of_padxy": "level",
    "healpix.reorder": "data from_order to_order dim=-1",
    "healpix.parent": "level pix up=1 order='pad_xy'",
    "healpix.neighbours": "level pix order='pad_xy'",
    "PixelGroupMap": "program_ptr program_pixels",
    "ObsContext": "obs float_metadata obs_type channel platform cu_seqlens_k max_seqlen_k group_map=None",
}


def arguments(function, skip_self=False):
    """The arguments without annotations, as "a, *, b=1", of a Python function."""
    signature = inspect.signature(function)
    plain = [p.replace(annotation=p.empty) for p in list(signature.parameters.values())[skip_self:]]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))[1:-1]


@pytest.mark.parametrize("name", CLASSES)
def test_constructor(name):
    # Later arguments may follow: an extension that leaves every call of the specification as it was.
    assert (arguments(getattr(halcyon, name)) + ",").startswith(CLASSES[name] + ",")
    assert issubclass(getattr(halcyon, name), torch.nn.Module)


@pytest.mark.parametrize("name", FORWARDS)
def test_forward(name):
    assert arguments(getattr(halcyon, name).forward, skip_self=True) == FORWARDS[name]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name):
    """The documentation of a compiled function begins with its signature; help() and editors show it."""
    function = halcyon
    for part in name.split("."):
        function = getattr(function, part)
    if isinstance(function, (type, types.FunctionType)):  # written in Python
        given = arguments(function).replace(", ", " ")
        assert given == FUNCTIONS[name]
        return
    text = function.__doc__.split("\n")[0]
    inside = re.sub(r"\[[^\[\]]*\]", "", text[text.index("(") + 1:text.rindex(") ->")])
    found = [re.sub(r":[^=]*?( = |$)", r"\1", part.strip()).replace(" = ", "=") for part in inside.split(", ")]
    assert " ".join(part for part in found if part != "self") == FUNCTIONS[name]


def test_unknown_keywords_are_type_errors():
    for make in (lambda: halcyon.SelfAttention(8, 2, heads=2), lambda: halcyon.HealDA(depth=2),
                 lambda: halcyon.sort_and_pack(flat_idx=torch.zeros(1).long(), pixels=2),
                 lambda: halcyon.TemporalAttention(8, 2)):
        with pytest.raises(TypeError):
            make()


def test_the_specifications_names_are_exported():
    for name in ("load_checkpoint", "save_checkpoint", "qc_reasons", "healpix", *CLASSES):
        assert hasattr(halcyon, name)
    assert arguments(halcyon.load_checkpoint) == "path"
    assert arguments(halcyon.save_checkpoint) == "model, path"


def test_import_changes_no_global_setting():
    code = ("import torch\n"
            "def seen():\n"
            "    return [torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),\n"
            "            torch.are_deterministic_algorithms_enabled(), torch.initial_seed(),\n"
            "            torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32]\n"
            "torch.manual_seed(7)\n"
            "before, rng = seen(), torch.get_rng_state()\n"
            "import halcyon, sys\n"
            "assert seen() == before and torch.equal(rng, torch.get_rng_state())\n")
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(BUILD / "python")}, timeout=60)


def test_operators_are_registered():
    groups = {"build_pixel_group_map": 2, "sort_and_pack": 2, "counts_to_cu_seqlens": 1, "pixel_attention": 1,
              "film_tokenizer": 1}
    for name, outputs in groups.items():
        assert len(getattr(torch.ops.halcyon, name).default._schema.returns) == outputs
