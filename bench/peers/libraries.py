# SPDX-License-Identifier: Apache-2.0
"""HealDA's layers in both libraries under the same names, and who times what of them."""

import dataclasses
import functools
import types
from collections.abc import Callable

import products

MOST_PIXELS = 192  # that the peer's backward is asked for: it copies the whole result for each pixel and head


def physicsnemo():
    from absent import stand_ins
    with stand_ins():
        from physicsnemo.experimental.models.healda import attention_layers, obs_context, obs_tokenizer, video_dit
        from physicsnemo.nn import RotaryEmbedding1DTables
        from physicsnemo.nn.module.dit_layers import TimmSelfAttention

    return types.SimpleNamespace(
        ObsTokenizerFiLM=obs_tokenizer.ObsTokenizerFiLM, SelfAttention=TimmSelfAttention,
        TemporalAttention=attention_layers.TemporalAttention, VideoDiTBlock=video_dit.VideoDiTBlock,
        PixelCrossAttention=attention_layers.PixelCrossAttention,
        cross_attention=functools.partial(functools.partial, attention_layers.PixelCrossAttention),
        rope_tables=lambda width, frames: RotaryEmbedding1DTables(head_dim=width, max_seq_len=frames, theta=100)(frames),
        sort_and_pack=obs_context.sort_and_pack, counts_to_cu_seqlens=obs_context.counts_to_cu_seqlens,
        build_pixel_group_map=obs_context.build_pixel_group_map, prepare_obs_context=obs_context.prepare_obs_context)


def padded_sdpa():
    """The same, but for its loop over pixels."""
    import padded
    library = physicsnemo()
    from physicsnemo.experimental.models.healda import attention_layers
    attention_layers._pixel_attention_reference = padded.pixel_attention
    library.Padded = padded.Padded
    library.pixel_attention = lambda q, tokens, w_k, w_v, cu_seqlens, longest, kv_heads, scale, b_v: padded.pixel_attention(
        q, tokens, w_k, w_v, cu_seqlens, kv_heads, scale, b_v)
    return library


def halcyon():
    import halcyon as module
    names = ("ObsTokenizerFiLM", "SelfAttention", "TemporalAttention", "VideoDiTBlock", "PixelCrossAttention", "rope_tables",
             "sort_and_pack", "counts_to_cu_seqlens", "build_pixel_group_map", "prepare_obs_context")
    return types.SimpleNamespace(
        pixel_attention=lambda *arguments: module.pixel_attention(*arguments[:8], None, arguments[8]), cross_attention=dict,
        **{name: getattr(module, name) for name in names})


@dataclasses.dataclass
class Peer:
    name: str
    environment: str   # a folder of bench/peers/setup.sh; empty: halcyon's interpreter
    library: Callable  # makes it in the peer's process; None where linear is given
    refuses: Callable  # (case, backward) -> reason or None
    linear: Callable | None = None  # times the layer's two products by this
    compiles: bool = False
    variables: dict = dataclasses.field(default_factory=dict)  # of its process

    @property
    def work(self):
        """Results of the same work are compared."""
        return "products" if self.linear else "layer"


def _but_for_the_loop(case, backward):
    if case.table == "pixel_attention":
        return "its reference is timed within PixelCrossAttention"
    return (f"its reference's backward of more than {MOST_PIXELS} pixels takes minutes"
            if backward and case.pixels > MOST_PIXELS else None)


def _compiled(case, backward):
    if "TemporalAttention" not in case.holds:
        return "nothing of it is compiled"
    return _but_for_the_loop(case, backward)


def _ragged(case, backward):
    return None if case.pixels else "no ragged attention"


def _products(case, backward):
    return None if case.products else "timed for TemporalAttention only"


def _nothing(case, backward):
    return None


# The first that runs a case gives its parameters to the others, and the results to compare theirs with.
PEERS = {peer.name: peer for peer in (
    Peer("physicsnemo", "physicsnemo", physicsnemo, _but_for_the_loop, variables={"TORCHDYNAMO_DISABLE": "1"}),
    Peer("physicsnemo-compiled", "physicsnemo", physicsnemo, _compiled, compiles=True),
    Peer("padded-sdpa", "physicsnemo", padded_sdpa, _ragged, variables={"TORCHDYNAMO_DISABLE": "1"}),
    Peer("gemms-aten", "", None, _products, products.aten),
    Peer("gemms-onednn", "", None, _products, products.onednn),
    Peer("halcyon", "", halcyon, _nothing),
)}
