# SPDX-License-Identifier: Apache-2.0
"""The sphere's mask, too large for one call (2.4 GB at level 6): SDPA by chunks of queries, flex attention by blocks."""

import torch
from torch.nn.attention.flex_attention import BlockMask

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _numbers(mask, dtype):
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, -torch.inf)[None, None]


class ChunkedAttention(torch.autograd.Function):
    """The flash kernel wants the mask as numbers, 4 bytes a pair in fp32, which are made for one chunk of queries at a time,
    in the forward and again in the backward: a few percent of the time."""
    QUERIES = 4096

    @staticmethod
    def forward(ctx, query, key, value, masks):
        parts = [_forward(part, key, value, attn_mask=_numbers(mask, query.dtype))
                 for part, mask in zip(query.split(ChunkedAttention.QUERIES, 2), masks)]
        outs, lses = zip(*parts)
        ctx.save_for_backward(query, key, value, *outs, *lses)
        ctx.masks = masks
        return torch.cat(outs, 2)

    @staticmethod
    def backward(ctx, grad):
        query, key, value, *saved = ctx.saved_tensors
        outs, lses = saved[:len(saved) // 2], saved[len(saved) // 2:]
        size = ChunkedAttention.QUERIES
        grads = []
        grad_key, grad_value = (torch.zeros(t.shape) for t in (key, value))  # sums of many: in fp32
        for part, grad_part, out, lse, mask in zip(query.split(size, 2), grad.split(size, 2), outs, lses, ctx.masks):
            ours = _backward(grad_part, part, key, value, out, lse, 0.0, False, attn_mask=_numbers(mask, query.dtype))
            grads.append(ours[0])
            grad_key += ours[1]
            grad_value += ours[2]
        return torch.cat(grads, 2), grad_key.to(key.dtype), grad_value.to(value.dtype), None


def block_mask(problem, size=128):
    """What flex attention's create_block_mask makes, without a matrix of all pairs."""
    some, all_ = (torch.stack(blocks) for blocks in zip(*(
        (rows.any(0).view(-1, size).any(1), rows.all(0).view(-1, size).all(1))
        for rows in (problem.rows(part) for part in torch.arange(problem.tokens).split(size)))))
    x, y, z = (c.contiguous() for c in problem.centres.unbind(1))
    limit = problem.limit

    def sees(b, h, q, k):
        return x[q] * x[k] + y[q] * y[k] + z[q] * z[k] >= limit

    def ordered(blocks):
        counts = blocks.sum(1, dtype=torch.int32)
        return counts[None, None], blocks.int().argsort(dim=1, descending=True, stable=True).int()[None, None]

    return BlockMask.from_kv_blocks(*ordered(some & ~all_), *ordered(all_), BLOCK_SIZE=size, mask_mod=sees,
                                    seq_lengths=(problem.tokens, problem.tokens))
