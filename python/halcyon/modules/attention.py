# SPDX-License-Identifier: Apache-2.0
"""Self-attention within a frame, over the whole sphere or the pixels around, and within a pixel over its frames."""

import torch
import torch.nn.functional as F

from .. import _C
from ..neighborhood_modules import attend_healpix
from .checks import check_input, check_rank, check_shape, check_width, describe, expect
from .layers import Linear, RMSNorm, is_plain

ops = torch.ops.halcyon
_RMS_EPS, _LAYER_EPS = 1e-6, 1e-5


class _AttentionOperator(torch.nn.Module):
    """The projections, the norms of queries and keys, and what stands between them: x (N, L, C) -> (N, L, C)."""

    def __init__(self, hidden_size, num_heads, attn_drop_rate, proj_drop_rate, qk_norm_type, qk_norm_affine, qk_norm_eps,
                 is_causal):
        super().__init__()
        self.num_heads, self.d_head, self.is_causal = num_heads, hidden_size // num_heads, is_causal
        self.attn_drop_rate, self.proj_drop_rate = attn_drop_rate, proj_drop_rate
        self.norm_type = qk_norm_type
        own_eps = _RMS_EPS if qk_norm_type == "RMSNorm" else _LAYER_EPS
        self.norm_eps = own_eps if qk_norm_eps is None else qk_norm_eps
        self.qkv = Linear(hidden_size, 3 * hidden_size)
        if qk_norm_type is not None and qk_norm_affine:
            norm = RMSNorm if qk_norm_type == "RMSNorm" else torch.nn.LayerNorm
            self.q_norm, self.k_norm = (norm(self.d_head, eps=self.norm_eps) for _ in range(2))
        self.proj = Linear(hidden_size, hidden_size)

    def forward(self, x, attn_mask=None):
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.d_head))
        y = self.proj(self._mix(qkv, attn_mask).flatten(-2))
        return F.dropout(y, self.proj_drop_rate, self.training)

    def _weight_dropout(self):
        return self.attn_drop_rate if self.training else 0.0

    def _norms(self):
        return getattr(self, "q_norm", None), getattr(self, "k_norm", None)

    def _normalised(self, qkv):
        q, k, v = qkv.unbind(2)
        q_norm, k_norm = self._norms()
        if q_norm is not None:
            return q_norm(q), k_norm(k), v
        if self.norm_type == "RMSNorm":
            return (*(ops.rms_norm(t, None, self.norm_eps) for t in (q, k)), v)
        if self.norm_type == "LayerNorm":
            return (*(F.layer_norm(t, (self.d_head,), eps=self.norm_eps) for t in (q, k)), v)
        return q, k, v

    def _mix(self, qkv, attn_mask):
        """(N, L, 3, H, d) -> (N, L, H, d); the operator norms queries and keys itself where nobody else must see them."""
        norms = self._norms()
        eps = self.norm_eps if self.norm_type is not None else None
        fused = self.norm_type is None or norms[0] is None and self.norm_type == "RMSNorm"
        if all(is_plain(norm, RMSNorm) for norm in norms) and norms[0].eps == norms[1].eps:
            fused, eps = True, norms[0].eps
        if attn_mask is None and self._weight_dropout() == 0 and fused:
            weights = (norm.weight if norm is not None else None for norm in norms)
            return ops.self_attention(qkv, *weights, eps, self.is_causal)
        q, k, v = self._normalised(qkv)
        return ops.masked_attention(q, k, v, attn_mask, self._weight_dropout(), self.is_causal)


class _HealpixOperator(_AttentionOperator):
    """The same in which a token sees the HEALPix pixels around it; without a grid the number of tokens tells the level."""

    def __init__(self, window, *options):
        super().__init__(*options)
        self.window, self.level, self.region = window, None, None

    def _mix(self, qkv, attn_mask):
        q, k, v = self._normalised(qkv)
        level = self.level if self.level is not None else _level_of(q.shape[1])
        radius_deg, rings, order = self.window
        region = self.region if self.region is None else self.region.to(q.device)
        # under autocast norms may leave q and k in float
        return attend_healpix(q.to(v.dtype), k.to(v.dtype), v, (level, radius_deg, rings, order), region,
                              self.d_head**-0.5, self._weight_dropout())


def _level_of(tokens):
    level = 0
    while 12 * 4**level < tokens:
        level += 1
    return level


class SelfAttention(torch.nn.Module):
    """Multi-head self-attention over L, with optional norms of q and k: x (N, L, C) -> (N, L, C)."""

    def __init__(self, hidden_size, num_heads, attn_drop_rate=0.0, proj_drop_rate=0.0, qk_norm_type=None,
                 qk_norm_affine=True, is_causal=False):
        options = (hidden_size, num_heads, attn_drop_rate, proj_drop_rate, qk_norm_type, qk_norm_affine)
        _C.modules.SelfAttention(*options, is_causal)
        super().__init__()
        self._set("SelfAttention", _AttentionOperator(*options, None, is_causal))

    @classmethod
    def _around(cls, operator):
        """Around an operator whose options the caller has checked."""
        attention = cls.__new__(cls)
        torch.nn.Module.__init__(attention)
        attention._set("SelfAttention", operator)
        return attention

    def _set(self, name, operator):
        self._name, self.attn_op = name, operator
        self.num_heads, self.is_causal = operator.num_heads, operator.is_causal
        self.hidden_size = operator.num_heads * operator.d_head

    def forward(self, x, attn_mask=None):
        self._check_tokens(x)
        if attn_mask is not None:
            self._check_mask(x, attn_mask)
        return self.attn_op(x, attn_mask)

    def _check_tokens(self, x):
        check_rank(self._name, "x", x, 3, "(N, L, C)")
        check_width(self._name, "x", x, self.hidden_size)
        check_input(self._name, "x", x, getattr(self.attn_op, "qkv", None))

    def _check_mask(self, x, mask):
        expect(not self.is_causal, self._name, lambda: "no attn_mask with is_causal, got both")
        shape = (x.shape[0], self.num_heads, x.shape[1], x.shape[1])
        fits = mask.dim() <= 4 and all(m in (1, n) for m, n in zip(mask.shape[::-1], shape[::-1]))
        expect((mask.is_floating_point() or mask.dtype == torch.bool) and fits, self._name, lambda: (
            f"attn_mask bool or floating, broadcastable to {shape}, got {describe(mask)}"))
        expect(mask.device == x.device, self._name, lambda: f"attn_mask on {x.device}, got {describe(mask)}")


class HealpixSelfAttention(SelfAttention):
    """SelfAttention in which each token sees the HEALPix pixels around its own only: the backends disk:R and rings:k."""

    def __init__(self, name, *options):
        torch.nn.Module.__init__(self)
        kind, _, argument = name.partition(":")
        order = "nest" if kind.endswith("-nest") else "pad_xy"
        window = (None, int(argument), order) if kind.startswith("rings") else (float(argument), None, order)
        self._set(name, _HealpixOperator(window, *options))
        self._tokens = None

    def set_grid(self, level, region):
        """The tokens are these pixels, of a region, or all of this level."""
        self.attn_op.level, self.attn_op.region = level, region
        self._tokens = 12 * 4**level if region is None else region.numel()

    def forward(self, x, attn_mask=None):
        self._check_tokens(x)
        if attn_mask is not None:
            raise NotImplementedError(f"[{self._name}] expected no attn_mask, got {describe(attn_mask)}")
        tokens = x.shape[1]
        if self._tokens is not None:
            expect(tokens == self._tokens, self._name, lambda: f"x of {self._tokens} tokens, got {describe(x)}")
        else:
            expect(12 * 4**_level_of(tokens) == tokens, self._name, lambda: (
                f"x of 12 * 4^level tokens, got {describe(x)}"))
        return self.attn_op(x)


def spatial_attention(backend, hidden_size, num_heads, attn_drop_rate, proj_drop_rate, qk_norm_type, qk_norm_affine,
                      qk_norm_eps):
    """The spatial attention of a block by its backend's name, which the C++ block has checked."""
    options = (hidden_size, num_heads, attn_drop_rate, proj_drop_rate, qk_norm_type, qk_norm_affine, qk_norm_eps, False)
    if backend == "timm":
        return SelfAttention._around(_AttentionOperator(*options))
    return HealpixSelfAttention(backend, *options)


class SpatialSelfAttention(torch.nn.Module):
    """Self-attention over all HEALPix pixels: x (B, N, embed_dim) -> the same; attn_backend "auto", "sdpa", "manual"."""

    def __init__(self, embed_dim, num_heads, dropout=0.0, bias=True, attn_backend="auto"):
        _C.modules.SpatialSelfAttention(embed_dim, num_heads, dropout, bias, attn_backend)
        super().__init__()
        self.embed_dim, self.num_heads, self.dropout, self.attn_backend = embed_dim, num_heads, dropout, attn_backend
        self.qkv_proj = Linear(embed_dim, 3 * embed_dim, bias)
        self.out_proj = Linear(embed_dim, embed_dim, bias)

    def forward(self, x):
        check_rank("SpatialSelfAttention", "x", x, 3, "(B, N, embed_dim)")
        check_width("SpatialSelfAttention", "x", x, self.embed_dim)
        check_input("SpatialSelfAttention", "x", x, self.qkv_proj)
        d = self.embed_dim // self.num_heads
        q, k, v = self.qkv_proj(x).unflatten(-1, (3, self.num_heads, d)).permute(2, 0, 3, 1, 4)
        if self.attn_backend == "manual":
            weights = F.dropout((q @ k.mT / d**0.5).softmax(-1), self.dropout, self.training)
            y = weights @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class TemporalAttention(torch.nn.Module):
    """Attention of each pixel over its own frames: x (B, T, X, C), rotary tables (T, d_head) -> (B, T, X, C)."""

    def __init__(self, *, hidden_size, num_heads, use_rope=True, is_causal=False, linear_attention=True,
                 causal_window=None):
        _C.modules.TemporalAttention(hidden_size, num_heads, use_rope, is_causal, linear_attention, causal_window)
        super().__init__()
        self.hidden_size, self.num_heads, self.d_head = hidden_size, num_heads, hidden_size // num_heads
        self.use_rope, self.is_causal = use_rope, is_causal
        self.linear_attention, self.causal_window = linear_attention, causal_window
        self.qkv = Linear(hidden_size, 3 * hidden_size)
        self.proj = Linear(hidden_size, hidden_size)

    def forward(self, x, rope_cos=None, rope_sin=None):
        name = "TemporalAttention"
        check_rank(name, "x", x, 4, "(B, T, X, C)")
        check_width(name, "x", x, self.hidden_size)
        check_input(name, "x", x, self.qkv)
        if self.use_rope:
            for key, table in (("rope_cos", rope_cos), ("rope_sin", rope_sin)):
                expect(table is not None, name, lambda key=key: f"{key} with use_rope, got none")
                check_shape(name, key, table, (x.shape[1], self.d_head))
        tables = (rope_cos, rope_sin) if self.use_rope else (None, None)
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.d_head))
        y = ops.temporal_attention(qkv, self.linear_attention, self.is_causal, self.causal_window, *tables)
        return self.proj(y.flatten(-2))
