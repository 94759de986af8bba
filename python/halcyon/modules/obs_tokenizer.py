# SPDX-License-Identifier: Apache-2.0
import torch

from .. import _C
from .checks import check_input, check_rank, check_shape, describe, expect
from .layers import Linear, is_plain

ops = torch.ops.halcyon
_NAME = "ObsTokenizerFiLM"
_EPS = 1e-5
_MAX_CHANNELS = _MAX_PLATFORMS = 1024  # room for the ids of every observing system


class ObsTokenizerFiLM(torch.nn.Module):
    """Observations (N,) with metadata (N, meta_dim) and ids (N,) -> tokens (N, out_dim)."""

    def __init__(self, meta_dim, out_dim, n_embed=1024, obs_type_embed_dim=4, channel_embed_dim=None,
                 platform_embed_dim=None, use_fused_mlp=True, hidden_dim=None):
        _C.modules.ObsTokenizerFiLM(meta_dim, out_dim, n_embed, obs_type_embed_dim, channel_embed_dim, platform_embed_dim,
                                    use_fused_mlp, hidden_dim)
        super().__init__()
        self.meta_dim, self.use_fused_mlp = meta_dim, use_fused_mlp
        channel_width = obs_type_embed_dim if channel_embed_dim is None else channel_embed_dim
        platform_width = platform_embed_dim or 0
        if hidden_dim is None:
            hidden_dim = 2 * out_dim if out_dim <= 64 else out_dim
        self.embed_table = torch.nn.Embedding(n_embed, obs_type_embed_dim)
        self.channel_embedding = torch.nn.Embedding(_MAX_CHANNELS, channel_width)
        self.platform_embedding = torch.nn.Embedding(_MAX_PLATFORMS, platform_width) if platform_width > 0 else None
        width = meta_dim + obs_type_embed_dim + channel_width + platform_width
        self.cond_mlp = torch.nn.Sequential(Linear(width, hidden_dim), torch.nn.LayerNorm(hidden_dim, eps=_EPS),
                                            torch.nn.SiLU(), Linear(hidden_dim, 2 * out_dim))

    def forward(self, obs, float_metadata, obs_type, channel_ids, platform_ids=None):
        check_rank(_NAME, "obs", obs, 1, "(N,)")
        n = obs.shape[0]
        check_shape(_NAME, "float_metadata", float_metadata, (n, self.meta_dim))
        check_shape(_NAME, "obs_type", obs_type, (n,))
        check_shape(_NAME, "channel_ids", channel_ids, (n,))
        if self.platform_embedding is not None:
            expect(platform_ids is not None, _NAME, lambda: "platform_ids, got none")
            check_shape(_NAME, "platform_ids", platform_ids, (n,))
        whole = isinstance(self.cond_mlp, torch.nn.Sequential) and len(self.cond_mlp) == 4
        first, norm, _, second = self.cond_mlp if whole else (None,) * 4
        check_input(_NAME, "obs", obs, first)
        check_input(_NAME, "float_metadata", float_metadata, first)
        if self.use_fused_mlp and obs.is_cuda and isinstance(norm, torch.nn.LayerNorm):
            # the fused device kernel works on whole powers of two
            hidden = norm.weight.numel()
            expect(hidden & (hidden - 1) == 0, _NAME, lambda: (
                f"hidden_dim a power of two with use_fused_mlp, got {hidden}, {describe(obs)}"))
        tables = [self.embed_table, self.channel_embedding]
        ids = [obs_type, channel_ids]
        if self.platform_embedding is not None:
            tables.append(self.platform_embedding)
            ids.append(platform_ids)
        if not self._is_plain(tables):
            parts = [float_metadata] + [table(i) for table, i in zip(tables, ids)]
            return ops.film(obs, self.cond_mlp(torch.cat(parts, 1)))
        platform = {} if self.platform_embedding is None else dict(platform_embedding=self.platform_embedding.weight)
        return ops.film_tokenizer(
            obs, float_metadata, obs_type, channel_ids, platform_ids if platform else None,
            embed_table=self.embed_table.weight, channel_embedding=self.channel_embedding.weight, **platform,
            weight1=first.weight, bias1=first.bias, norm_weight=norm.weight, norm_bias=norm.bias, weight2=second.weight,
            bias2=second.bias, eps=norm.eps)

    def _is_plain(self, tables):
        """Whether the one operator of all layers may stand for them."""
        kinds = (Linear, torch.nn.LayerNorm, torch.nn.SiLU, Linear)
        return (all(is_plain(table, torch.nn.Embedding) and table.max_norm is None and table.padding_idx is None
                    and not (table.scale_grad_by_freq or table.sparse) for table in tables)
                and is_plain(self.cond_mlp, torch.nn.Sequential) and len(self.cond_mlp) == len(kinds)
                and all(is_plain(layer, kind) for layer, kind in zip(self.cond_mlp, kinds)))
