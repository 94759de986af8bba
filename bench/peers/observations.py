# SPDX-License-Identifier: Apache-2.0
"""Observations as they lie on the sphere, like bench/support/observations.cpp: many pixels have none, most few, some many."""

import torch

LONGEST, EMPTY_SHARE = 200, 0.45


def _quantiles(filled, scale):
    u = (torch.arange(filled, dtype=torch.float64) + 0.5) / filled
    return (-scale * torch.log1p(-u)).round().long().clamp(1, LONGEST)


def ragged_counts(pixels, rows):
    """How many each pixel has, in random order: exponentially distributed, but for the empty ones; rows in all."""
    filled = pixels - int(EMPTY_SHARE * pixels)
    low, high = 0.0, 1e6
    for _ in range(60):
        scale = (low + high) / 2
        low, high = (low, scale) if _quantiles(filled, scale).sum() > rows else (scale, high)
    counts = _quantiles(filled, low)
    free = (counts < LONGEST).nonzero().flatten()
    counts[free[:rows - counts.sum()]] += 1  # what rounding has left over
    return torch.cat([counts, counts.new_zeros(pixels - filled)])[torch.randperm(pixels)]


def scattered(counts):
    """The pixel of each observation in random order."""
    pixels = torch.repeat_interleave(counts)
    return pixels[torch.randperm(len(pixels))]
