# SPDX-License-Identifier: Apache-2.0
"""HealDA's layers with their inputs, made from either library: both have the same names, arguments and keys (libraries.py).

Inputs are the same in every process, whatever a module draws when it is made.
"""

import dataclasses
from collections.abc import Callable

import torch
from observations import ragged_counts, scattered

TOKEN, KV_HEADS, META, IDS = 32, 2, 50, 500


@dataclasses.dataclass
class Layer:
    run: Callable
    inputs: dict                            # floating: what gets a gradient
    module: torch.nn.Module | None = None   # whose parameters get one too, and which takes over the reference's
    results: Callable = lambda out: {"the output": out}
    # what is compared in its place, where the run starts from inputs that are made beforehand
    verified: "Layer | None" = None

    @property
    def leaves(self):
        return {**self.inputs, **dict(self.module.named_parameters() if self.module else ())}


def film(library, rows):
    module = library.ObsTokenizerFiLM(meta_dim=META, out_dim=TOKEN, obs_type_embed_dim=4, channel_embed_dim=16,
                                      platform_embed_dim=8, hidden_dim=64)
    torch.manual_seed(2)
    obs, meta = torch.randn(rows), torch.randn(rows, META)
    ids = [torch.randint(IDS, (rows,)) for _ in range(3)]
    return Layer(lambda: module(obs, meta, *ids), {"obs": obs, "float_metadata": meta}, module)


def _ragged(library, pixels, rows):
    counts = ragged_counts(pixels, rows)
    return library.counts_to_cu_seqlens(counts), counts.max().item()


def pixel_attention(library, pixels, rows, heads, width):
    torch.manual_seed(2)
    cu, longest = _ragged(library, pixels, rows)
    q, tokens = torch.randn(pixels, heads, width), torch.randn(rows, TOKEN)
    w_k, w_v = (torch.randn(KV_HEADS * width, TOKEN) * TOKEN**-0.5 for _ in range(2))
    b_v = torch.randn(KV_HEADS * width)
    whole = Layer(lambda: library.pixel_attention(q, tokens, w_k, w_v, cu, longest, KV_HEADS, width**-0.5, b_v),
                  {"q": q, "tokens": tokens, "k.weight": w_k, "v.weight": w_v, "v.bias": b_v})
    if not hasattr(library, "Padded"):
        return whole
    padded = library.Padded(q, tokens @ w_k.T, tokens @ w_v.T + b_v, cu, KV_HEADS)
    return Layer(padded.attend, {"q": padded.q, "k": padded.k, "v": padded.v}, verified=whole)


def cross_attention(library, pixels, rows, hidden, heads, width):
    module = library.PixelCrossAttention(hidden, TOKEN, heads, KV_HEADS, width, use_proj_bias=True)
    torch.manual_seed(2)
    cu, longest = _ragged(library, pixels, rows)
    h, tokens = torch.randn(1, 1, pixels, hidden), torch.randn(rows, TOKEN)
    return Layer(lambda: module(h, tokens, cu, longest), {"h": h, "tokens": tokens}, module)


def temporal_attention(library, frames, pixels, width, heads, linear):
    module = library.TemporalAttention(hidden_size=width, num_heads=heads, is_causal=True, linear_attention=linear)
    torch.manual_seed(2)
    x, tables = torch.randn(1, frames, pixels, width), library.rope_tables(width // heads, frames)
    return Layer(lambda: module(x, *tables), {"x": x}, module)


def temporal_products(linear, frames, pixels, width):
    """The two linear layers of temporal attention; what lies between them takes no part."""
    torch.manual_seed(2)
    inputs = {"x": torch.randn(frames * pixels, width), "attended": torch.randn(frames * pixels, width)}
    for name, out in ("qkv", 3 * width), ("proj", width):
        inputs[f"{name}.weight"], inputs[f"{name}.bias"] = torch.randn(out, width) * width**-0.5, torch.randn(out)
    x, attended, *parameters = inputs.values()
    return Layer(lambda: (linear(x, *parameters[:2]), linear(attended, *parameters[2:])), inputs,
                 results=lambda out: {"q, k and v": out[0], "the projection": out[1]})


def spatial_attention(library, frames, pixels, width, heads):
    module = library.SelfAttention(width, heads, qk_norm_type="RMSNorm", qk_norm_affine=False)
    torch.manual_seed(2)
    x = torch.randn(frames, pixels, width)
    return Layer(lambda: module(x), {"x": x}, module)


def block(library, frames, pixels, width, heads, cross):
    """cross: None, or rows, heads and their width."""
    condition = 128
    rows, *observed = cross or (0,)
    attention = library.cross_attention(hidden_size=width, token_dim=TOKEN, n_q_heads=observed[0], n_kv_heads=KV_HEADS,
                                        d_head=observed[1], use_proj_bias=True) if cross else None
    # adaln_zero_init would multiply every branch by zero
    module = library.VideoDiTBlock(width, heads, condition_embed_dim=condition, temporal_attention=True, is_causal=True,
                                   adaln_zero_init=False, attn_kwargs={"qk_norm_type": "RMSNorm", "qk_norm_affine": False},
                                   cross_attention=attention)
    torch.manual_seed(2)
    inputs = {"h": torch.randn(1, frames, pixels, width), "c": torch.randn(1, condition)}
    cos, sin = library.rope_tables(width // heads, frames)
    options = {"temporal_attn_kwargs": {"rope_cos": cos, "rope_sin": sin}}
    if cross:
        cu, longest = _ragged(library, frames * pixels, rows)
        inputs["tokens"] = torch.randn(rows, TOKEN)
        options["cross_attn_kwargs"] = {"tokens": inputs["tokens"], "cu_seqlens_k": cu, "max_seqlen_k": longest}
    return Layer(lambda: module(inputs["h"], inputs["c"], **options), inputs, module)


def sorting(library, rows, pixels):
    torch.manual_seed(2)
    flat_idx = scattered(ragged_counts(pixels, rows))

    def results(out):  # the order within a pixel is not defined
        order, counts = out[0].long(), out[1]
        return {"the pixels": flat_idx[order], "the order": (flat_idx[order] * rows + order).sort().values, "the counts": counts}
    return Layer(lambda: library.sort_and_pack(flat_idx, pixels), {}, results=results)


def offsets(library, rows, pixels):
    torch.manual_seed(2)
    counts = ragged_counts(pixels, rows)
    return Layer(lambda: library.counts_to_cu_seqlens(counts), {})


def _programs(group_map):
    return {"the programs": group_map.program_ptr, "their pixels": group_map.program_pixels}


def group_map(library, rows, pixels):
    torch.manual_seed(2)
    cu, _ = _ragged(library, pixels, rows)
    return Layer(lambda: library.build_pixel_group_map(cu), {}, results=_programs)


def context(library, rows, pixels, meta):
    torch.manual_seed(2)
    obs, features = torch.randperm(rows).float(), torch.randn(rows, meta)  # all observations differ, and so can be found again
    ids = [torch.randint(IDS, (rows,)) for _ in range(3)]
    flat_idx = scattered(ragged_counts(pixels, rows))

    def results(out):  # the order within a pixel is not defined
        counts = out.cu_seqlens_k.diff().long()
        order = (torch.repeat_interleave(counts) * rows + out.obs.long()).argsort()
        columns = ("obs", "float_metadata", "obs_type", "channel", "platform")
        return {"the counts": counts, "the longest": torch.tensor(out.max_seqlen_k), **_programs(out.group_map),
                **{f"the column {name}": getattr(out, name)[order] for name in columns}}
    return Layer(lambda: library.prepare_obs_context(obs, features, *ids, flat_idx, pixels), {}, results=results)
