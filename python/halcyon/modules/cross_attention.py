# SPDX-License-Identifier: Apache-2.0
import torch

from .. import _C
from ..observations import group_map_tensors
from .checks import check_input, check_rank, check_width, describe, expect
from .layers import Linear, is_plain

ops = torch.ops.halcyon
_NAME = "PixelCrossAttention"


class PixelCrossAttention(torch.nn.Module):
    """Each pixel attends to its own observation tokens: hidden_states (B, T, X, C), tokens (N, token_dim)."""

    def __init__(self, hidden_size, token_dim, n_q_heads, n_kv_heads, d_head, use_proj_bias=False):
        _C.modules.PixelCrossAttention(hidden_size, token_dim, n_q_heads, n_kv_heads, d_head, use_proj_bias)
        super().__init__()
        self.hidden_size, self.token_dim, self.d_head = hidden_size, token_dim, d_head
        self.n_q_heads, self.n_kv_heads = n_q_heads, n_kv_heads
        self.q_proj = Linear(hidden_size, n_q_heads * d_head, use_proj_bias)
        self.k_proj = Linear(token_dim, n_kv_heads * d_head, False)
        self.v_proj = Linear(token_dim, n_kv_heads * d_head, use_proj_bias)
        self.out_proj = Linear(n_q_heads * d_head, hidden_size, use_proj_bias)

    def _keys_and_values(self, tokens):
        """Tokens and the weights by which the operator makes keys and values of them, as it reads them. Where somebody
        has put something else in a projection's place, or watches it, the projections are called, and the operator gets
        their results side by side with weights that pick the one and the other."""
        if is_plain(self.k_proj, Linear) and is_plain(self.v_proj, Linear):
            return tokens, self.k_proj.weight, self.v_proj.weight, self.k_proj.bias, self.v_proj.bias
        both = torch.cat([self.k_proj(tokens), self.v_proj(tokens)], -1)
        pick = torch.eye(both.shape[-1], dtype=both.dtype, device=both.device)
        return both, *pick.chunk(2), None, None

    def forward(self, hidden_states, tokens, cu_seqlens_k, max_seqlen_k, group_map=None):
        check_rank(_NAME, "hidden_states", hidden_states, 4, "(B, T, X, C)")
        check_width(_NAME, "hidden_states", hidden_states, self.hidden_size)
        check_input(_NAME, "hidden_states", hidden_states, self.q_proj)
        check_rank(_NAME, "tokens", tokens, 2, "(N, token_dim)")
        check_width(_NAME, "tokens", tokens, self.token_dim)
        check_input(_NAME, "tokens", tokens, self.k_proj)
        pixels = hidden_states.shape[:3].numel()
        expect(cu_seqlens_k is not None and tuple(cu_seqlens_k.shape) == (pixels + 1,), _NAME, lambda: (
            f"cu_seqlens_k of B * T * X + 1 = {pixels + 1} elements, got {describe(cu_seqlens_k)}"))
        q = self.q_proj(hidden_states).flatten(0, 2).unflatten(-1, (self.n_q_heads, self.d_head))
        source, w_k, w_v, b_k, b_v = self._keys_and_values(tokens)
        y = ops.pixel_attention(q, source, w_k, w_v, cu_seqlens_k, max_seqlen_k, self.n_kv_heads, self.d_head**-0.5, b_k,
                                b_v, False, *group_map_tensors(group_map))
        return self.out_proj(y.view(*hidden_states.shape[:3], self.n_q_heads * self.d_head))
