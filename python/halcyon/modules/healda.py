# SPDX-License-Identifier: Apache-2.0
import json

import torch

from .. import _C
from .attention import HealpixSelfAttention
from .checks import check_rank, check_shape, describe, expect
from .context import Deferred
from .obs_tokenizer import ObsTokenizerFiLM
from .patches import HEALPixPatchDetokenizer, HEALPixPatchTokenizer
from .video_dit import VideoDiT

_NAME = "HealDA"


class HealDA(torch.nn.Module):
    """Observations and static fields -> analysis: x (B, in_channels, T, X_in) -> (B, out_channels, T, X_in)."""

    def __init__(self, in_channels=2, out_channels=74, hidden_size=1536, num_layers=32, num_heads=16, mlp_ratio=4.0,
                 level_in=6, level_model=5, time_length=8, condition_embed_dim=128, noise_channels=128, condition_dim=0,
                 temporal_attention=True, is_causal=True, linear_attention=True, use_rope=True, rope_base=100,
                 max_seq_len=100, temporal_causal_window=None, drop_path=0.1, drop_path_zero_first_n_blocks=4,
                 qk_norm_type="RMSNorm", qk_norm_affine=False, attention_backend="timm", layernorm_backend="torch",
                 obs_token_dim=32, obs_meta_dim=50, obs_type_embed_dim=4, channel_embed_dim=16, platform_embed_dim=8,
                 obs_film_hidden_dim=64, use_fused_obs_mlp=True, pixel_attn_n_q_heads=64, pixel_attn_n_kv_heads=2,
                 pixel_attn_head_dim=32, pixel_attn_use_proj_bias=True, region=None):
        self._arguments = _C.modules.healda_config(json.dumps(
            {k: v for k, v in locals().items() if k not in ("self", "__class__")}))
        super().__init__()
        self.in_channels, self.time_length, self.condition_dim = in_channels, time_length, condition_dim
        self.obs_tokenizer = ObsTokenizerFiLM(
            obs_meta_dim, obs_token_dim, obs_type_embed_dim=obs_type_embed_dim, channel_embed_dim=channel_embed_dim,
            platform_embed_dim=platform_embed_dim, use_fused_mlp=use_fused_obs_mlp, hidden_dim=obs_film_hidden_dim)
        pixels = None if region is None else torch.tensor(list(region), dtype=torch.int64, device="cpu")
        tokenizer = HEALPixPatchTokenizer.of_region(in_channels, hidden_size, level_in, level_model, pixels)
        detokenizer = HEALPixPatchDetokenizer.of_region(hidden_size, out_channels, level_in, level_model, time_length,
                                                        condition_embed_dim, pixels)
        self.pixels_in, self.pixels_model = tokenizer._grid.fine_size, tokenizer._grid.size
        self.dit = VideoDiT(
            tokenizer, detokenizer, hidden_size, num_heads, num_layers, emb_channels=condition_embed_dim,
            noise_channels=noise_channels, condition_dim=condition_dim, temporal_attention=temporal_attention,
            use_rope=use_rope, rope_base=rope_base, max_seq_len=max_seq_len,
            temporal_kwargs=dict(linear_attention=linear_attention, causal_window=temporal_causal_window),
            cross_attention=dict(hidden_size=hidden_size, token_dim=obs_token_dim, n_q_heads=pixel_attn_n_q_heads,
                                 n_kv_heads=pixel_attn_n_kv_heads, d_head=pixel_attn_head_dim,
                                 use_proj_bias=pixel_attn_use_proj_bias),
            is_causal=is_causal, attention_backend=attention_backend, layernorm_backend=layernorm_backend,
            mlp_ratio=mlp_ratio,
            drop_path_rates=[0.0 if i < drop_path_zero_first_n_blocks else drop_path for i in range(num_layers)],
            attn_kwargs=dict(qk_norm_type=qk_norm_type, qk_norm_affine=qk_norm_affine))
        for block in self.dit.blocks:
            if isinstance(block.attention, HealpixSelfAttention):
                block.attention.set_grid(level_model, pixels)

    @property
    def config(self):
        """All constructor arguments, defaults filled in; HealDA(**model.config) builds the same architecture."""
        return json.loads(self._arguments)

    def prepare_inference(self):
        """For analyses at t = 0: embeds that t once, and turns to evaluation. The state stays as it is; train() undoes it.
        halcyon.inference(model) does more."""
        if self.condition_dim > 0:
            raise NotImplementedError("[HealDA] prepare_inference() needs a model without class labels, got condition_dim "
                                      f"{self.condition_dim}")
        self.eval()
        self.dit.prepare_inference()
        return self

    def set_context_parallel(self, mode=None, target=None):
        """From here on every rank of the ProcessGroup target passes its own frames and gets its own: mode "all_to_all"
        (equal parts only) or "redistribute" (of any sizes). None: all frames are here. Copies do not take it with them."""
        self.dit.set_context_parallel(mode, target)

    def _check(self, x, t, second_of_day, day_of_year, obs_ctx, class_labels):
        check_rank(_NAME, "x", x, 4, "(B, C, T, X)")
        expect(x.shape[1] == self.in_channels, _NAME, lambda: f"x of {self.in_channels} channels, got {describe(x)}")
        # under context parallelism all ranks' frames are counted
        expect(self.dit._context is not None or x.shape[2] == self.time_length, _NAME, lambda: (
            f"x of {self.time_length} frames, got {describe(x)}"))
        expect(x.shape[3] == self.pixels_in, _NAME, lambda: f"x of {self.pixels_in} pixels, got {describe(x)}")
        batch, frames = x.shape[0], x.shape[2]
        check_shape(_NAME, "t", t, (batch,))
        check_shape(_NAME, "second_of_day", second_of_day, (batch, frames))
        check_shape(_NAME, "day_of_year", day_of_year, (batch, frames))
        offsets, pixels = obs_ctx.cu_seqlens_k, batch * frames * self.pixels_model
        expect(offsets is not None and tuple(offsets.shape) == (pixels + 1,), _NAME, lambda: (
            f"obs_ctx.cu_seqlens_k of B * T * X + 1 = {pixels + 1} elements, got {describe(offsets)}"))
        if self.condition_dim == 0:
            expect(class_labels is None, _NAME, lambda: (
                f"no class_labels with condition_dim 0, got {describe(class_labels)}"))
        else:
            expect(class_labels is not None, _NAME, lambda: (
                f"class_labels ({batch}, {self.condition_dim}), got none"))
            check_shape(_NAME, "class_labels", class_labels, (batch, self.condition_dim))

    def forward(self, x, t, second_of_day, day_of_year, obs_ctx, class_labels=None):
        def cross_attn_kwargs():
            self._check(x, t, second_of_day, day_of_year, obs_ctx, class_labels)
            # tokens once, for all blocks
            tokens = self.obs_tokenizer(obs_ctx.obs, obs_ctx.float_metadata, obs_ctx.obs_type, obs_ctx.channel,
                                        obs_ctx.platform)
            return {"tokens": tokens, "cu_seqlens_k": obs_ctx.cu_seqlens_k, "max_seqlen_k": obs_ctx.max_seqlen_k,
                    "group_map": obs_ctx.group_map}

        # on several ranks an error in this is one on all of them
        cross = cross_attn_kwargs() if self.dit._context is None else Deferred(_NAME, self.time_length, cross_attn_kwargs)
        return self.dit(x, t, class_labels, None, cross, None,
                        {"second_of_day": second_of_day, "day_of_year": day_of_year})
