# SPDX-License-Identifier: Apache-2.0
import torch

from .. import _C
from .adaln import AdaLNModulation
from .attention import TemporalAttention, spatial_attention
from .checks import check_input, check_rank, check_shape, check_width, expect, keywords
from .cross_attention import PixelCrossAttention
from .layers import GELU, Linear, at, is_plain

ops = torch.ops.halcyon
_NAME = "VideoDiTBlock"


class _MLP(torch.nn.Module):
    """Linear, GELU, linear, with dropout after each linear layer where there is any."""

    def __init__(self, hidden_size, width, drop_rate, final_dropout):
        super().__init__()
        layers = [Linear(hidden_size, width), GELU(), Linear(width, hidden_size)]
        if drop_rate > 0:
            layers.insert(2, torch.nn.Dropout(drop_rate))
            if final_dropout:
                layers.append(torch.nn.Dropout(drop_rate))
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, x):
        layers = list(self.layers) if is_plain(self.layers, torch.nn.Sequential) else []
        plain = (len(layers) > 2 and is_plain(layers[0], Linear) and is_plain(layers[1], GELU)
                 and layers[1].approximate == "tanh")
        if not plain:
            return self.layers(x)
        # the activation costs less within the operator
        x = ops.linear(x, layers[0].weight, layers[0].bias, "gelu_tanh")
        for layer in layers[2:]:
            x = layer(x)
        return x


class VideoDiTBlock(torch.nn.Module):
    """Spatial attention, cross-attention, temporal attention and MLP, each with adaLN-Zero and a gated residual."""

    def __init__(self, hidden_size, num_heads, *, condition_embed_dim, attention_backend="timm",
                 layernorm_backend="torch", mlp_ratio=4.0, norm_eps=1e-6, attn_drop_rate=0.0, proj_drop_rate=0.0,
                 mlp_drop_rate=0.0, final_mlp_dropout=True, drop_path=0.0, temporal_attention=False, use_rope=True,
                 temporal_kwargs=None, cross_attention=None, is_causal=False, adaln_zero_init=True, attn_kwargs=None):
        _C.modules.VideoDiTBlock({k: v for k, v in locals().items() if k not in ("self", "__class__")})
        super().__init__()
        self.hidden_size, self.condition_embed_dim = hidden_size, condition_embed_dim
        self.norm_eps, self.drop_path = norm_eps, drop_path

        def modulation(n_blocks):
            return AdaLNModulation(hidden_size, condition_embed_dim, n_blocks, adaln_zero_init)

        norm = {"qk_norm_type": None, "qk_norm_affine": True, "qk_norm_eps": None} | (attn_kwargs or {})
        self.attention = spatial_attention(attention_backend, hidden_size, num_heads, attn_drop_rate, proj_drop_rate,
                                           **norm)
        self.norm1_modulation = modulation(2)
        self.cross_attention = self.temporal_attention = None
        if cross_attention is not None:
            self.cross_attention = PixelCrossAttention(**cross_attention)
            self.cross_attn_modulation = modulation(1)
        if temporal_attention:
            self.temporal_attention = TemporalAttention(hidden_size=hidden_size, num_heads=num_heads, use_rope=use_rope,
                                                        is_causal=is_causal, **(temporal_kwargs or {}))
            self.temporal_attn_modulation = modulation(1)
        self.linear = _MLP(hidden_size, int(hidden_size * mlp_ratio), mlp_drop_rate, final_mlp_dropout)

    def modulations(self):
        """The projections that adaln_zero_init sets to zero."""
        return [getattr(self, name) for name in ("norm1_modulation", "cross_attn_modulation", "temporal_attn_modulation")
                if hasattr(self, name)]

    def _check(self, hidden_states, c, cross_attn_kwargs):
        check_rank(_NAME, "hidden_states", hidden_states, 4, "(B, T, X, C)")
        check_width(_NAME, "hidden_states", hidden_states, self.hidden_size)
        check_shape(_NAME, "c", c, (hidden_states.shape[0], self.condition_embed_dim))
        expect(self.cross_attention is None or cross_attn_kwargs is not None, _NAME, lambda: (
            "cross_attn_kwargs for the cross_attention, got none"))
        check_input(_NAME, "hidden_states", hidden_states, at(getattr(self.norm1_modulation, "modulation", None), -1))

    def _added(self, h, modulation, branch):
        """h plus the gated branch of its modulated norm."""
        shift, scale, gate = modulation
        y = branch(ops.norm_modulate(h, shift, scale, self.norm_eps))
        if self.training and self.drop_path > 0:
            gate = ops.drop_rows(gate, self.drop_path, True)
        return ops.gated_residual(h, y, gate)

    def forward(self, hidden_states, c, attn_kwargs=None, cross_attn_kwargs=None, temporal_attn_kwargs=None):
        attn_mask, = keywords("attn_kwargs", attn_kwargs, ("attn_mask",))
        tokens, cu_seqlens_k, max_seqlen_k, group_map = keywords(
            "cross_attn_kwargs", cross_attn_kwargs, ("tokens", "cu_seqlens_k", "max_seqlen_k", "group_map"))
        rope_cos, rope_sin, frames = keywords("temporal_attn_kwargs", temporal_attn_kwargs,
                                              ("rope_cos", "rope_sin", "frames_on_ranks"))
        self._check(hidden_states, c, cross_attn_kwargs)
        # all modulations first: c is of samples, the same for the pixels of all frames
        both = self.norm1_modulation(c)
        of_tokens = self.cross_attn_modulation(c) if self.cross_attention is not None else None
        of_frames = self.temporal_attn_modulation(c) if self.temporal_attention is not None else None

        h = self._added(hidden_states, both[:3],
                        lambda x: self.attention(x.flatten(0, 1), attn_mask).view(x.shape))
        if of_tokens is not None:
            h = self._added(h, of_tokens, lambda x: self.cross_attention(x, tokens, cu_seqlens_k, max_seqlen_k or 0,
                                                                         group_map))
        if of_frames is not None:
            h = self._added(h, of_frames, lambda x: self._over_frames(x, rope_cos, rope_sin, frames))
        return self._added(h, both[3:], self.linear)

    def _over_frames(self, x, rope_cos, rope_sin, frames):
        """frames: how they lie on several ranks; the attention then gets all frames of some pixels."""
        if frames is None:
            return self.temporal_attention(x, rope_cos, rope_sin)
        return frames.to_time(self.temporal_attention(frames.to_space(x), rope_cos, rope_sin))
