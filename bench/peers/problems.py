# SPDX-License-Identifier: Apache-2.0
"""The cases of spec section 15 and one on the sphere: which keys a query sees, and how many pairs that makes.

Tokens are numbered row-major over the axes, pixels in HEALPix's NEST order.
"""

import dataclasses
import functools
import math

import torch


@dataclasses.dataclass(frozen=True)
class Grid:
    """Windows on axes, shifted to stay inside (spec section 1)."""
    name: str
    lengths: tuple
    kernels: tuple
    heads: int
    channels: int
    dilation: int = 1
    causal: bool = False

    @property
    def tokens(self):
        return math.prod(self.lengths)

    @property
    def window(self):
        return math.prod(self.kernels)

    @property
    def pairs(self):
        return self.tokens * self.window

    def sees(self, query, key):
        """Whether this token attends to that one, element by element."""
        seen = None
        for length, kernel in zip(reversed(self.lengths), reversed(self.kernels)):
            one = self._within(query % length, key % length, length, kernel)
            seen = one if seen is None else seen & one
            query, key = query // length, key // length
        return seen

    def _within(self, query, key, length, kernel):
        step = self.dilation
        if step > 1:
            same = query % step == key % step
            size = (length - query % step + step - 1) // step
            query, key = query // step, key // step
            first = torch.minimum((query - kernel // 2).clamp(min=0), size - kernel)
        else:
            first = (query - kernel // 2).clamp(0, length - kernel)
        if self.causal:
            first = query - kernel + 1
        inside = (key >= first) & (key < first + kernel)
        return inside & same if step > 1 else inside

    def rows(self, queries):
        """(queries, tokens), bool."""
        return self.sees(queries[:, None], torch.arange(self.tokens)[None])

    def slots(self, queries):
        """(queries, window): the keys by slot, and whether the slot is used; the unused are last (one causal axis)."""
        rows = self.rows(queries)
        keys = rows.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :self.window]
        return keys, rows.gather(1, keys)


@dataclasses.dataclass(frozen=True)
class Sphere:
    """All pixels with their centres in a radius around the query's."""
    name: str
    level: int
    radius: float
    heads: int
    channels: int

    @property
    def tokens(self):
        return 12 * 4**self.level

    @functools.cached_property
    def centres(self):
        import healpix
        return torch.stack([torch.as_tensor(x) for x in healpix.pix2vec(2**self.level, range(self.tokens), nest=True)], 1)

    @functools.cached_property
    def pairs(self):
        return sum(int(self.rows(part).sum()) for part in torch.arange(self.tokens).split(4096))

    @property
    def limit(self):
        """The cosine that a visible pixel reaches; of a whole sphere less than any."""
        return math.cos(math.radians(self.radius)) if self.radius < 180 else -2

    def rows(self, queries):
        return self.centres[queries] @ self.centres.mT >= self.limit


CASES = [
    Grid("2d_56_k7", (56, 56), (7, 7), 4, 32),
    Grid("2d_56_k13", (56, 56), (13, 13), 4, 32),
    Grid("2d_64_k7", (64, 64), (7, 7), 8, 64),
    Grid("2d_64_k13", (64, 64), (13, 13), 8, 64),
    Grid("2d_64_k21", (64, 64), (21, 21), 8, 64),
    Grid("2d_64_k7_d4", (64, 64), (7, 7), 8, 64, dilation=4),
    Grid("2d_128_k7", (128, 128), (7, 7), 4, 32),
    Grid("2d_128_k13", (128, 128), (13, 13), 4, 32),
    Grid("2d_128_k7_h16", (128, 128), (7, 7), 16, 32),
    Grid("1d_4096_k127", (4096,), (127,), 8, 64),
    Grid("1d_4096_k127_causal", (4096,), (127,), 8, 64, causal=True),
    Grid("3d_8x32x32", (8, 32, 32), (3, 7, 7), 4, 32),
    Sphere("sphere_5", 5, 10.46, 12, 128),
    Sphere("sphere_6", 6, 10.46, 12, 128),
    # small ones, to see in seconds that all peers work
    Grid("small_1d", (256,), (9,), 2, 32, causal=True),
    Grid("small_2d", (16, 16), (5, 5), 2, 32, dilation=2),
    Grid("small_3d", (4, 8, 8), (3, 5, 5), 2, 32),
    Sphere("small_sphere", 3, 20, 2, 32),
]
