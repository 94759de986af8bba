# SPDX-License-Identifier: Apache-2.0
"""The cost model of docs/scaling.md: what all ranks of a group together send in an operation."""

import itertools
import math
from typing import NamedTuple

KIB, MIB = 1 << 10, 1 << 20


class Sent(NamedTuple):
    """By all ranks of a group together."""
    messages: int = 0
    bytes: int = 0

    def __add__(self, other):
        return Sent(self.messages + other.messages, self.bytes + other.bytes)

    def times(self, n):
        return Sent(self.messages * n, self.bytes * n)


# The formulas. n: ranks; e: bytes of an element.

def parts(length, n):
    """torch.tensor_split: the first length % n ranks hold one more."""
    return [length // n + (r < length % n) for r in range(n)]


def starts(sizes):
    return [0, *itertools.accumulate(sizes)]


def sent_by_agreement(n, attached=0):
    """One header of 512 bytes to every other rank; attached: bytes that ride along."""
    return Sent(n * (n - 1), 512 * n * (n - 1) + attached)


def sent_by_rows(needs, owned, row_bytes):
    """Rank r needs rows [lo, hi) of the axis and owns [owned[r], owned[r + 1]): a message from each other owner."""
    total = Sent()
    for r, (lo, hi) in enumerate(needs):
        for other in range(len(needs)):
            rows = min(hi, owned[other + 1]) - max(lo, owned[other])
            if other != r and rows > 0:
                total += Sent(1, rows * row_bytes)
    return total


def sent_by_halo(n, width, row_bytes):
    """halo_exchange forward; its backward is sent_by_seams. Small halos ride with the headers, on lines of 64 bytes."""
    halo = width * row_bytes
    if halo + 64 > MIB:
        return sent_by_agreement(n) + sent_by_seams(n, width, row_bytes)
    return sent_by_agreement(n, 2 * (n - 1) * 64 * math.ceil(halo / 64))


def sent_by_seams(n, width, row_bytes):
    """width rows both ways over each of the n - 1 seams of an axis with two ends."""
    return Sent(2 * (n - 1), 2 * (n - 1) * width * row_bytes)


def conv_needs(rows, n, kernel, stride, padding, dilation=1):
    """Which input rows the output rows of each rank reach. An output of the input's length keeps the input's cut."""
    extent = dilation * (kernel - 1) + 1
    outputs = starts(parts((rows + 2 * padding - extent) // stride + 1, n))
    return [(first * stride - padding, (last - 1) * stride - padding + extent) if last > first else (0, 0)
            for first, last in itertools.pairwise(outputs)]


def sent_by_conv(rows, n, row_bytes, kernel, stride=1, padding=0, dilation=1):
    """Of conv's forward, after its agreement, and once more of its backward where x needs a gradient."""
    return sent_by_rows(conv_needs(rows, n, kernel, stride, padding, dilation), starts(parts(rows, n)), row_bytes)


def neighborhood_needs(rows, n, kernel, dilation):
    """Rows that the windows of each rank's queries reach: shifted inwards at both ends of the axis."""
    owned = starts(parts(rows, n))

    def first_of(query):
        group, length = query // dilation, len(range(query % dilation, rows, dilation))
        return min(max(group - kernel // 2, 0), length - kernel) * dilation + query % dilation

    needs = []
    for begin, end in itertools.pairwise(owned):
        lo = min([begin, *(first_of(q) for q in range(begin, min(begin + dilation, end)))]) // dilation * dilation
        hi = max([end, *(first_of(q) + (kernel - 1) * dilation + 1 for q in range(max(begin, end - dilation), end))])
        hi = min(max(hi, lo + kernel * dilation), rows)
        needs.append((min(lo, (hi - kernel * dilation) // dilation * dilation), hi))
    return needs


def sent_by_neighborhood(rows, n, kv_row_bytes, kernel, dilation=1):
    """Of na1d, na2d and na3d: rows of keys and values side by side."""
    return sent_by_rows(neighborhood_needs(rows, n, kernel, dilation), starts(parts(rows, n)), kv_row_bytes)


def sent_by_pixel_neighborhood(pixels, n, rings, kv_pixel_bytes):
    """About: a rank's pixels as a square with a frame of so many rings."""
    return Sent(0, round(n * (4 * math.sqrt(pixels / n) * rings + 4 * rings**2) * kv_pixel_bytes))


def sent_by_reshard(n, b, t, x, c, e):
    """shard_x or shard_t, after its agreement: all but the part that stays. Frames of 256 KiB go by themselves."""
    total = Sent()
    for r, frames in enumerate(parts(t, n)):
        for p, pixels in enumerate(parts(x, n)):
            block, count = b * frames * pixels * c * e, b * frames
            if r != p and block:
                total += Sent(count if block >= count * 256 * KIB else 1, block)
    return total


def reshard_bytes_of_a_rank(n, b, t, x, c, e):
    """The same for equal parts."""
    return (n - 1) / n**2 * b * t * x * c * e


def sent_by_context_parallel(layers, n, b, t, x, c, e, backward):
    """HealDA or VideoDiT: one agreement a forward, two reshards a block each way."""
    way = sent_by_reshard(n, b, t, x, c, e)  # shard_t sends the same blocks the other way
    return sent_by_agreement(n) + way.times(2 * layers * (2 if backward else 1))


def sent_by_sum(n, numel, e):
    """sum_in_place over gloo."""
    if numel * e <= 16 * KIB:
        return Sent(n * (n - 1), n * (n - 1) * numel * e)
    return Sent(2 * n * (n - 1), 2 * (n - 1) * numel * e)


def cut_in_buckets(numels, e, bucket_bytes):
    buckets, filled = [], bucket_bytes + 1
    for numel in numels:
        if filled + numel * e > bucket_bytes:
            buckets.append([])
            filled = 0
        buckets[-1].append(numel)
        filled += numel * e
    return buckets


def sent_by_data_parallel(n, numels, e, bucket_bytes=25 * MIB):
    """A backward: 16 bytes of weights to every rank; buckets, which carry one more element a parameter."""
    total = Sent(n * (n - 1), 16 * n * (n - 1))
    for bucket in cut_in_buckets(numels[::-1], e, bucket_bytes):
        total += sent_by_sum(n, sum(bucket) + len(bucket), e)
    return total


def sent_from_owners(n, numels, e):
    """Each tensor from its owner to all others: DataParallel from rank 0 when it is made, ZeRO-1 after each step."""
    return sent_by_agreement(n) + Sent((n - 1) * len(numels), (n - 1) * sum(numels) * e)
