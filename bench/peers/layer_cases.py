# SPDX-License-Identifier: Apache-2.0
"""The cases of healda.py, named like the rows of bench/: shapes and options of spec section 24."""

import dataclasses
from collections.abc import Callable
from functools import partial

import layers
from layers import KV_HEADS, TOKEN

OBSERVATIONS, PIXELS, MILLION = 65325, 3072, 10**6
PRODUCTION = 98304  # pixels


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    build: Callable     # library -> Layer
    flops: float = 0    # of a forward; a backward is counted as two
    pixels: int = 0     # with observations of their own
    holds: tuple = ()   # layers
    products: Callable | None = None  # linear -> Layer of the matrix products alone
    passes: tuple = ("fwd", "fwd_bwd")
    dtypes: tuple = ("fp32", "bf16")

    @property
    def table(self):
        return "packing" if "fwd_bwd" not in self.passes else self.name.split("/")[0]


def _film():
    per_row = 2 * (layers.META + 4 + 16 + 8) * 64 + 2 * 64 * 2 * TOKEN + 2 * TOKEN
    return Case("ObsTokenizerFiLM/100k", partial(layers.film, rows=100000), 1e5 * per_row)


def _core(heads, width):
    # with the projections to keys and values, which the yardstick finds done
    flops = 4 * OBSERVATIONS * (heads * width + TOKEN * KV_HEADS * width)
    return Case(f"pixel_attention/{PIXELS}px_{heads}q{KV_HEADS}kv{width}",
                partial(layers.pixel_attention, pixels=PIXELS, rows=OBSERVATIONS, heads=heads, width=width), flops, PIXELS)


def _cross_flops(pixels, rows, hidden, heads, width):
    return 4 * (pixels * hidden * heads * width + rows * (TOKEN * KV_HEADS * width + heads * width))


def _cross(pixels, rows, hidden, heads, width):
    return Case(f"PixelCrossAttention/{pixels}px_C{hidden}_{heads}q{KV_HEADS}kv{width}",
                partial(layers.cross_attention, pixels=pixels, rows=rows, hidden=hidden, heads=heads, width=width),
                _cross_flops(pixels, rows, hidden, heads, width), pixels)


def _temporal(frames, width, heads, linear):
    pixels = 768
    flops = 8 * frames * pixels * width**2 + 2 * pixels * frames * (frames + 1) * width
    return Case(f"TemporalAttention/{'linear' if linear else 'softmax'}_T{frames}_X{pixels}_C{width}_H{heads}",
                partial(layers.temporal_attention, frames=frames, pixels=pixels, width=width, heads=heads, linear=linear), flops,
                holds=("TemporalAttention",),
                products=partial(layers.temporal_products, frames=frames, pixels=pixels, width=width))


def _spatial(frames, pixels):
    width, heads = 512, 8
    flops = 8 * frames * pixels * width**2 + 4 * frames * pixels**2 * width
    return Case(f"SelfAttention/{frames}x{pixels}_C{width}_H{heads}",
                partial(layers.spatial_attention, frames=frames, pixels=pixels, width=width, heads=heads), flops)


def _block(cross):
    frames, pixels, width, heads, observed = 4, 768, 512, 8, (OBSERVATIONS, 64, 32)
    flops = frames * pixels * (32 * width**2 + 4 * pixels * width + 2 * (frames + 1) * width)
    if cross:
        flops += _cross_flops(frames * pixels, observed[0], width, *observed[1:])
    return Case(f"VideoDiTBlock/T{frames}_X{pixels}_C{width}_H{heads}{'_cross' if cross else ''}",
                partial(layers.block, frames=frames, pixels=pixels, width=width, heads=heads, cross=observed if cross else None),
                flops, frames * pixels if cross else 0, holds=("TemporalAttention",))


def _packing(name, build, **shape):
    return Case(name, partial(build, rows=MILLION, pixels=PRODUCTION, **shape), passes=("fwd",), dtypes=("fp32",))


CASES = [
    _film(),
    _core(32, 16),
    _core(64, 32),
    _cross(192, 3639, 256, 32, 16),
    _cross(192, 3639, 512, 64, 32),
    _cross(PIXELS, OBSERVATIONS, 256, 32, 16),
    _cross(PIXELS, OBSERVATIONS, 512, 64, 32),
    _temporal(4, 512, 8, linear=True),
    _temporal(4, 512, 8, linear=False),
    _temporal(8, 512, 8, linear=True),
    _temporal(8, 1536, 16, linear=True),
    _spatial(4, 768),
    _spatial(1, 3072),
    _block(cross=False),
    _block(cross=True),
    _packing("sort_and_pack/1M_98304px", layers.sorting),
    _packing("counts_to_cu_seqlens/98304px", layers.offsets),
    _packing("build_pixel_group_map/98304px", layers.group_map),
    _packing("prepare_obs_context/1M_meta30", layers.context, meta=30),
]
