# SPDX-License-Identifier: Apache-2.0
"""The yardstick for ragged attention: torch's fused attention over each pixel's keys and values padded to the longest pixel.

The query heads of a key and value head stand where torch has the queries of a sequence. A pixel without observations sees one
row of zeros.
"""

import functools

import torch
from torch.nn.functional import linear, scaled_dot_product_attention


@functools.lru_cache(maxsize=1)  # as the tensor is the same, not its values; a model makes it once for all layers
def padding(cu_seqlens):
    """(rows by pixel and place, what of them is used (pixels, longest), empty pixels)."""
    first, last = cu_seqlens[:-1, None].long(), cu_seqlens[1:, None].long()
    index = first + torch.arange((last - first).max().item())
    valid = index < last
    empty = ~valid.any(1)
    index = torch.where(valid, index, 0).flatten()
    valid[:, 0] |= empty
    return index, valid, empty


class Padded:
    """q (pixels, heads, width), k and v (rows, kv heads * width), in the layout of torch's kernel."""

    def __init__(self, q, k, v, cu_seqlens, kv_heads):
        pixels, heads, width = q.shape
        index, valid, empty = padding(cu_seqlens)
        pad = lambda rows: rows[index].view(pixels, -1, kv_heads, width).transpose(1, 2).contiguous()
        self.q = q.view(pixels, kv_heads, heads // kv_heads, width)
        self.k, self.v = pad(k), pad(v).masked_fill(empty.view(-1, 1, 1, 1), 0)
        self._mask = valid[:, None, None]

    def attend(self):
        return scaled_dot_product_attention(self.q, self.k, self.v, self._mask)


def pixel_attention(q, tokens, w_k, w_v, cu_seqlens, kv_heads, scale, B_v=None):
    """In the place of the peer's reference, called as it is; the scale is torch's own."""
    out = Padded(q, linear(tokens, w_k), linear(tokens, w_v, B_v), cu_seqlens, kv_heads).attend()
    return out.reshape(q.shape)
