# SPDX-License-Identifier: Apache-2.0
"""HealDA's modules. What each computes is written at its C++ class (halcyon/nn, halcyon/model)."""

import json

from . import _C
from ._shell import Module


class AdaLNModulation(Module):
    """adaLN-Zero: c (B, condition_embed_dim) -> 3 * n_blocks tensors (B, embedding_dim): shift, scale, gate, ..."""

    def __init__(self, embedding_dim, condition_embed_dim, n_blocks=1, zero_init=True):
        super().__init__(_C.AdaLNModulation(embedding_dim, condition_embed_dim, n_blocks, zero_init), locals())

    def forward(self, c):
        return tuple(self._cpp.forward(c))


class SelfAttention(Module):
    """Multi-head self-attention over L, with optional norms of q and k: x (N, L, C) -> (N, L, C)."""

    def __init__(self, hidden_size, num_heads, attn_drop_rate=0.0, proj_drop_rate=0.0, qk_norm_type=None,
                 qk_norm_affine=True, is_causal=False):
        super().__init__(_C.SelfAttention(hidden_size, num_heads, attn_drop_rate, proj_drop_rate, qk_norm_type,
                                          qk_norm_affine, is_causal), locals())

    def forward(self, x, attn_mask=None):
        return self._cpp.forward(x, attn_mask)


class SpatialSelfAttention(Module):
    """Self-attention over all HEALPix pixels: x (B, N, embed_dim) -> the same; attn_backend "auto", "sdpa", "manual"."""

    def __init__(self, embed_dim, num_heads, dropout=0.0, bias=True, attn_backend="auto"):
        super().__init__(_C.SpatialSelfAttention(embed_dim, num_heads, dropout, bias, attn_backend), locals())

    def forward(self, x):
        return self._cpp.forward(x)


class TemporalAttention(Module):
    """Attention of each pixel over its own frames: x (B, T, X, C), rotary tables (T, d_head) -> (B, T, X, C)."""

    def __init__(self, *, hidden_size, num_heads, use_rope=True, is_causal=False, linear_attention=True,
                 causal_window=None):
        super().__init__(_C.TemporalAttention(hidden_size, num_heads, use_rope, is_causal, linear_attention,
                                              causal_window), locals())

    def forward(self, x, rope_cos=None, rope_sin=None):
        return self._cpp.forward(x, rope_cos, rope_sin)


class PixelCrossAttention(Module):
    """Each pixel attends to its own observation tokens: hidden_states (B, T, X, C), tokens (N, token_dim)."""

    def __init__(self, hidden_size, token_dim, n_q_heads, n_kv_heads, d_head, use_proj_bias=False):
        super().__init__(_C.PixelCrossAttention(hidden_size, token_dim, n_q_heads, n_kv_heads, d_head, use_proj_bias),
                         locals())

    def forward(self, hidden_states, tokens, cu_seqlens_k, max_seqlen_k, group_map=None):
        return self._cpp.forward(hidden_states, tokens, cu_seqlens_k, max_seqlen_k, group_map)


class ObsTokenizerFiLM(Module):
    """Observations (N,) with metadata (N, meta_dim) and ids (N,) -> tokens (N, out_dim)."""

    def __init__(self, meta_dim, out_dim, n_embed=1024, obs_type_embed_dim=4, channel_embed_dim=None,
                 platform_embed_dim=None, use_fused_mlp=True, hidden_dim=None):
        super().__init__(_C.ObsTokenizerFiLM(meta_dim, out_dim, n_embed, obs_type_embed_dim, channel_embed_dim,
                                             platform_embed_dim, use_fused_mlp, hidden_dim), locals())

    def forward(self, obs, float_metadata, obs_type, channel_ids, platform_ids=None):
        return self._cpp.forward(obs, float_metadata, obs_type, channel_ids, platform_ids)


class CalendarEmbedding(Module):
    """Local time of day and day of year at longitudes lon (X,) degrees -> (B, 4 * embed_channels, T, X)."""

    def __init__(self, lon, embed_channels, include_legacy_bug=False):
        super().__init__(_C.CalendarEmbedding(lon, embed_channels, include_legacy_bug), locals())

    def forward(self, day_of_year, second_of_day):
        return self._cpp.forward(day_of_year, second_of_day)


class EDMConditionEmbedder(Module):
    """Noise level t (B,) and an optional condition (B, condition_dim) -> (B, emb_channels)."""

    def __init__(self, emb_channels, noise_channels, condition_dim=0, condition_dropout=0.0, legacy_condition_bias=False,
                 max_positions=10000):
        super().__init__(_C.EDMConditionEmbedder(emb_channels, noise_channels, condition_dim, condition_dropout,
                                                 legacy_condition_bias, max_positions), locals())

    def forward(self, t, condition=None):
        return self._cpp.forward(t, condition)

    def noise_features(self, t):
        return self._cpp.noise_features(t)


class HEALPixPatchTokenizer(Module):
    """Fine HEALPix fields (B, C, T, X_fine) -> tokens of the coarse pixels (B, T, X, C) or (B, T*X, C)."""

    def __init__(self, *, in_channels, hidden_size, level_fine, level_coarse, separate_time_axis=False):
        super().__init__(_C.HEALPixPatchTokenizer(in_channels, hidden_size, level_fine, level_coarse,
                                                  separate_time_axis), locals())

    def forward(self, x, second_of_day, day_of_year):
        return self._cpp.forward(x, second_of_day, day_of_year)


class HEALPixPatchDetokenizer(Module):
    """Tokens of the coarse pixels -> fine HEALPix fields (B, out_channels, T, X_fine)."""

    def __init__(self, *, hidden_size, out_channels, level_coarse, level_fine, time_length=1, condition_dim=None):
        super().__init__(_C.HEALPixPatchDetokenizer(hidden_size, out_channels, level_coarse, level_fine, time_length,
                                                    condition_dim), locals())

    def forward(self, x, c):
        return self._cpp.forward(x, c)


class VideoDiTBlock(Module):
    """Spatial attention, cross-attention, temporal attention and MLP, each with adaLN-Zero and a gated residual."""

    def __init__(self, hidden_size, num_heads, *, condition_embed_dim, attention_backend="timm",
                 layernorm_backend="torch", mlp_ratio=4.0, norm_eps=1e-6, attn_drop_rate=0.0, proj_drop_rate=0.0,
                 mlp_drop_rate=0.0, final_mlp_dropout=True, drop_path=0.0, temporal_attention=False, use_rope=True,
                 temporal_kwargs=None, cross_attention=None, is_causal=False, adaln_zero_init=True, attn_kwargs=None):
        arguments = _arguments(locals())
        super().__init__(_C.VideoDiTBlock(arguments), arguments)

    def forward(self, hidden_states, c, attn_kwargs=None, cross_attn_kwargs=None, temporal_attn_kwargs=None):
        return self._cpp.forward(hidden_states, c, attn_kwargs, cross_attn_kwargs, temporal_attn_kwargs)


class VideoDiT(Module):
    """Tokenizer, blocks, detokenizer: x (B, C, T, X) and noise level t (B,) -> (B, out_channels, T, X)."""

    def __init__(self, tokenizer, detokenizer, hidden_size, num_heads, num_layers, *, emb_channels=None,
                 noise_channels=None, condition_dim=0, temporal_attention=False, use_rope=True, rope_base=100,
                 max_seq_len=100, temporal_kwargs=None, cross_attention=None, is_causal=False, attention_backend="timm",
                 layernorm_backend="torch", mlp_ratio=4.0, drop_path=0.0, drop_path_rates=None,
                 conditioning_embedder="edm", conditioning_embedder_kwargs=None, dit_initialization=True,
                 adaln_zero_init=True, attn_kwargs=None, block_kwargs=None):
        arguments = _arguments(locals())
        options = {k: v for k, v in arguments.items() if k not in ("tokenizer", "detokenizer")}
        super().__init__(_C.VideoDiT(tokenizer, detokenizer, options), arguments,
                         children={"tokenizer": tokenizer, "detokenizer": detokenizer})

    def set_context_parallel(self, mode=None, target=None):
        """From here on every rank of the ProcessGroup target passes its own frames and gets its own: mode "all_to_all"
        (equal parts only) or "redistribute" (of any sizes). None: all frames are here. Copies do not take it with them."""
        self._cpp.set_context_parallel(mode, target)

    def forward(self, x, t, condition=None, attn_kwargs=None, cross_attn_kwargs=None, temporal_attn_kwargs=None,
                tokenizer_kwargs=None):
        return self._cpp.forward(x, t, condition, attn_kwargs, cross_attn_kwargs, temporal_attn_kwargs, tokenizer_kwargs)


class HealDA(Module):
    """Observations and static fields -> analysis: x (B, in_channels, T, X_in) -> (B, out_channels, T, X_in)."""

    def __init__(self, in_channels=2, out_channels=74, hidden_size=1536, num_layers=32, num_heads=16, mlp_ratio=4.0,
                 level_in=6, level_model=5, time_length=8, condition_embed_dim=128, noise_channels=128, condition_dim=0,
                 temporal_attention=True, is_causal=True, linear_attention=True, use_rope=True, rope_base=100,
                 max_seq_len=100, temporal_causal_window=None, drop_path=0.1, drop_path_zero_first_n_blocks=4,
                 qk_norm_type="RMSNorm", qk_norm_affine=False, attention_backend="timm", layernorm_backend="torch",
                 obs_token_dim=32, obs_meta_dim=50, obs_type_embed_dim=4, channel_embed_dim=16, platform_embed_dim=8,
                 obs_film_hidden_dim=64, use_fused_obs_mlp=True, pixel_attn_n_q_heads=64, pixel_attn_n_kv_heads=2,
                 pixel_attn_head_dim=32, pixel_attn_use_proj_bias=True, region=None):
        arguments = _arguments(locals())
        super().__init__(_C.HealDA(json.dumps(arguments)), arguments)

    @classmethod
    def _around(cls, cpp, arguments):
        """The Python half of a model that C++ has built."""
        model = cls.__new__(cls)
        Module.__init__(model, cpp, arguments)
        return model

    @property
    def config(self):
        """All constructor arguments, defaults filled in; HealDA(**model.config) builds the same architecture."""
        return json.loads(self._cpp.config())

    def prepare_inference(self):
        """For analyses at t = 0: computes once what depends on t alone, and turns to evaluation. The state stays as it is;
        train() undoes it."""
        self.eval()
        self._cpp.prepare_inference()
        return self

    def set_context_parallel(self, mode=None, target=None):
        """From here on every rank of the ProcessGroup target passes its own frames and gets its own: mode "all_to_all"
        (equal parts only) or "redistribute" (of any sizes). None: all frames are here. Copies do not take it with them."""
        self._cpp.set_context_parallel(mode, target)

    def forward(self, x, t, second_of_day, day_of_year, obs_ctx, class_labels=None):
        return self._cpp.forward(x, t, second_of_day, day_of_year, obs_ctx, class_labels)


def _arguments(local):
    return {k: v for k, v in local.items() if k not in ("self", "__class__")}
