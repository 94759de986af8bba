# SPDX-License-Identifier: Apache-2.0
import torch

from .. import _C
from .block import VideoDiTBlock
from .checks import check_rank, check_shape, describe, expect, keywords
from .context import ContextParallel
from .embedders import conditioning_embedder as make_embedder
from .layers import later_linears, state_of
from .patches import HEALPixPatchTokenizer

ops = torch.ops.halcyon
_NAME = "VideoDiT"


class VideoDiT(torch.nn.Module):
    """Tokenizer, blocks, detokenizer: x (B, C, T, X) and noise level t (B,) -> (B, out_channels, T, X)."""

    def __init__(self, tokenizer, detokenizer, hidden_size, num_heads, num_layers, *, emb_channels=None,
                 noise_channels=None, condition_dim=0, temporal_attention=False, use_rope=True, rope_base=100,
                 max_seq_len=100, temporal_kwargs=None, cross_attention=None, is_causal=False, attention_backend="timm",
                 layernorm_backend="torch", mlp_ratio=4.0, drop_path=0.0, drop_path_rates=None,
                 conditioning_embedder="edm", conditioning_embedder_kwargs=None, dit_initialization=True,
                 adaln_zero_init=True, attn_kwargs=None, block_kwargs=None):
        given = ("self", "__class__", "tokenizer", "detokenizer")
        _C.modules.VideoDiT({k: v for k, v in locals().items() if k not in (*given, "given")})
        super().__init__()
        self.condition_dim, self.max_seq_len = condition_dim, max_seq_len
        self._rope = (hidden_size // num_heads, rope_base) if temporal_attention and use_rope else None
        self._zero_init, self._context, self._prepared = adaln_zero_init, None, None
        self.tokenizer, self.detokenizer = tokenizer, detokenizer
        if drop_path_rates is None:
            drop_path_rates = [drop_path * i / max(1, num_layers - 1) for i in range(num_layers)]

        def build():
            self.conditioning_embedder = make_embedder(
                conditioning_embedder, hidden_size, 4 * hidden_size if emb_channels is None else emb_channels,
                hidden_size if noise_channels is None else noise_channels, condition_dim,
                **(conditioning_embedder_kwargs or {}))
            self.blocks = torch.nn.ModuleList(VideoDiTBlock(
                hidden_size, num_heads, condition_embed_dim=self.conditioning_embedder.output_dim,
                attention_backend=attention_backend, layernorm_backend=layernorm_backend, mlp_ratio=mlp_ratio,
                drop_path=rate, temporal_attention=temporal_attention, use_rope=use_rope,
                temporal_kwargs=temporal_kwargs, cross_attention=cross_attention, is_causal=is_causal,
                adaln_zero_init=adaln_zero_init, attn_kwargs=attn_kwargs, **(block_kwargs or {}))
                for rate in drop_path_rates)

        if dit_initialization:
            with later_linears():
                build()
            self.initialize_weights()
        else:
            build()

    def initialize_weights(self):
        """Xavier-uniform linear layers with zero bias; adaLN projections and the detokenizer's modulation at zero."""
        for module in self.modules():
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    torch.nn.init.zeros_(module.bias)
        for module in (self.conditioning_embedder, self.detokenizer):
            if hasattr(module, "initialize_weights"):
                module.initialize_weights()
        if self._zero_init:
            for block in self.blocks:
                for modulation in block.modulations():
                    modulation.zero()

    def set_context_parallel(self, mode=None, target=None):
        """From here on every rank of the ProcessGroup target passes its own frames and gets its own: mode "all_to_all"
        (equal parts only) or "redistribute" (of any sizes). None: all frames are here. Copies do not take it with them."""
        self._context = None if mode is None else ContextParallel(mode, target)

    def prepare_inference(self):
        """For analyses at t = 0 without a condition: embeds that t once, and turns to evaluation; train() undoes it."""
        self.eval()
        like = next((p for p in self.parameters() if p.is_floating_point()), torch.empty(0))
        with torch.no_grad():
            c = self.conditioning_embedder(torch.zeros(1, dtype=like.dtype, device=like.device))
        self._prepared = c, state_of(self.conditioning_embedder)

    def train(self, mode=True):
        if mode:
            self._prepared = None
        return super().train(mode)

    def _embedded(self, t, condition):
        if self._prepared is None:
            return self.conditioning_embedder(t, condition)
        expect(condition is None and bool((t == 0).all()), _NAME, lambda: (
            "t of zeros and no condition after prepare_inference, got others"))
        if self._prepared[1] != state_of(self.conditioning_embedder):  # trained or converted since
            self.prepare_inference()
        return self._prepared[0].expand(t.shape[0], -1)

    def _tables(self, frames, device, given):
        cos, sin = keywords("temporal_attn_kwargs", given, ("rope_cos", "rope_sin"))
        if self._rope is None or (cos is not None and sin is not None):
            return {"rope_cos": cos, "rope_sin": sin}
        expect(frames <= self.max_seq_len, _NAME, lambda: (
            f"at most max_seq_len = {self.max_seq_len} frames, got {frames}"))
        cos, sin = ops.rope_tables(self._rope[0], frames, self._rope[1])
        return {"rope_cos": cos.to(device), "rope_sin": sin.to(device)}

    def _begin(self, x, t, condition, tokenizer_kwargs):
        """The tokens (B, T, X, C) and the condition embedding."""
        check_rank(_NAME, "x", x, 4, "(B, C, T, X)")
        check_shape(_NAME, "t", t, x.shape[:1])
        if condition is not None:
            check_shape(_NAME, "condition", condition, (x.shape[0], self.condition_dim))
        ours = type(self.tokenizer) is HEALPixPatchTokenizer
        expect(not ours or tokenizer_kwargs is not None, "HEALPixPatchTokenizer", lambda: (
            "tokenizer_kwargs second_of_day and day_of_year, got none"))
        h = self.tokenizer(x, **(tokenizer_kwargs or {}))
        check_rank(_NAME, "the tokenizer's output", h, 4, "(B, T, X, C)")
        c = self._embedded(t, condition)
        # the zero embedder has no weights to tell a type
        return h, c if c.numel() > 0 else c.to(h.dtype)

    def forward(self, x, t, condition=None, attn_kwargs=None, cross_attn_kwargs=None, temporal_attn_kwargs=None,
                tokenizer_kwargs=None):
        if self._context is None:
            h, c = self._begin(x, t, condition, tokenizer_kwargs)
            temporal = self._tables(h.shape[1], h.device, temporal_attn_kwargs)
        else:
            layout, h, c, cross_attn_kwargs = self._context.agree(self, x, t, condition, cross_attn_kwargs,
                                                                  temporal_attn_kwargs, tokenizer_kwargs)
            h = layout.joined_to_backward(h)
            temporal = self._tables(layout.frames, h.device, temporal_attn_kwargs)
            temporal["frames_on_ranks"] = layout if layout.is_cut else None
        for block in self.blocks:
            h = block(h, c, attn_kwargs, cross_attn_kwargs, temporal)
        return self.detokenizer(h, c)
