# SPDX-License-Identifier: Apache-2.0
"""The peers: how each is called, in the memory layout that it likes best, and what it cannot do."""

import dataclasses
from collections.abc import Callable

import torch
from problems import Grid, Sphere

MOST_SCORES = 2 << 30  # bytes of a dense matrix of scores, of which eager flex attention holds several


@dataclasses.dataclass
class Call:
    """run takes and gives tensors as pack makes them of (heads, tokens, channels); unpack is its inverse."""
    pack: Callable
    unpack: Callable
    run: Callable


@dataclasses.dataclass
class Peer:
    name: str
    environment: str  # a folder of bench/peers/setup.sh; empty: halcyon's interpreter
    bind: Callable    # (problem, operation, dtype) -> Call
    refuses: Callable  # (problem, operation, dtype, backward) -> reason or None
    answers: Callable = lambda problem: problem  # the problem that its result is checked against


def heads_first(problem, run):
    axes = getattr(problem, "lengths", (problem.tokens,))
    return Call(lambda t: t.reshape(1, t.size(0), *axes, t.size(-1)).contiguous(),
                lambda t: t.reshape(problem.heads, problem.tokens, t.size(-1)), run)


def flat_heads_first(problem, run):
    return Call(lambda t: t[None].contiguous(), lambda t: t[0], run)


def heads_last(problem, run):
    axes = getattr(problem, "lengths", (problem.tokens,))
    return Call(lambda t: t.transpose(0, 1).reshape(1, *axes, t.size(0), t.size(-1)).contiguous(),
                lambda t: t.reshape(problem.tokens, problem.heads, t.size(-1)).transpose(0, 1), run)


def import_natten_017():
    """0.17.5 asks for a GPU's compute capability, and torch for a private name that 2.11 no longer has."""
    torch.cuda.get_device_capability = lambda device=None: (0, 0)
    torch.cuda._device_t = torch.types.Device
    import natten.functional
    return natten.functional


def _window(problem):
    rank = len(problem.lengths)
    return rank, {"kernel_size": problem.kernels, "dilation": (problem.dilation,) * rank,
                  "is_causal": (problem.causal,) * rank}


def _unfused(problem, operation, module):
    rank, window = _window(problem)
    qk, av = getattr(module, f"na{rank}d_qk"), getattr(module, f"na{rank}d_av")
    return heads_first(problem, {"qk": lambda q, k: qk(q, k, **window), "av": lambda a, v: av(a, v, **window)}[operation])


def natten_017(problem, operation, dtype):
    module = import_natten_017()
    if operation != "attention":
        return _unfused(problem, operation, module)
    qk, av = (_unfused(problem, half, module).run for half in ("qk", "av"))
    scale = problem.channels**-0.5
    return heads_first(problem, lambda q, k, v: av(qk(q * scale, k).softmax(-1), v))


def natten_021(problem, operation, dtype):
    import natten
    rank, window = _window(problem)
    function = getattr(natten, f"na{rank}d")
    return heads_last(problem, lambda q, k, v: function(q, k, v, backend="flex-fna", **window))


def halcyon(problem, operation, dtype):
    import halcyon as module
    if isinstance(problem, Sphere):
        return heads_last(problem, lambda q, k, v: module.neighborhood_attention_healpix(
            q, k, v, level=problem.level, radius_deg=problem.radius))
    if operation != "attention":
        return _unfused(problem, operation, module)
    rank, window = _window(problem)
    function = getattr(module, f"na{rank}d")
    return heads_last(problem, lambda q, k, v: function(q, k, v, **window))


def sdpa(problem, operation, dtype):
    if isinstance(problem, Sphere):
        from sphere import ChunkedAttention
        masks = [problem.rows(part) for part in torch.arange(problem.tokens).split(ChunkedAttention.QUERIES)]
        return flat_heads_first(problem, lambda q, k, v: ChunkedAttention.apply(q, k, v, masks))
    seen = problem.rows(torch.arange(problem.tokens))
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)  # a bool mask is made into this in each call
    attend = torch.nn.functional.scaled_dot_product_attention
    return flat_heads_first(problem, lambda q, k, v: attend(q, k, v, attn_mask=mask))


def dense(problem, operation, dtype):
    return flat_heads_first(problem, torch.nn.functional.scaled_dot_product_attention)


def flex(problem, operation, dtype):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    torch._dynamo.reset()
    compiled = torch.compile(flex_attention, dynamic=False)
    if isinstance(problem, Sphere):
        from sphere import block_mask
        mask = block_mask(problem)
    else:
        mask = create_block_mask(lambda b, h, q, k: problem.sees(q, k), None, None, problem.tokens, problem.tokens, device="cpu")
    shape = 1, problem.heads, problem.tokens, problem.channels
    with torch.no_grad():  # as it will be called; this compiles
        compiled(*(torch.zeros(shape, dtype=dtype) for _ in range(3)), block_mask=mask)
    return flat_heads_first(problem, lambda q, k, v: compiled(q, k, v, block_mask=mask))


def _grids_in_fp32(problem, operation, dtype, backward):
    if not isinstance(problem, Grid):
        return "no sphere"
    return "ends the process on bf16" if dtype == torch.bfloat16 else None


def _attention_in_fp32(problem, operation, dtype, backward):
    if operation != "attention":
        return "its unfused operators are timed as rebuilt only"
    return _grids_in_fp32(problem, operation, dtype, backward)


def _dense_flex(problem, operation, dtype, backward):
    if not isinstance(problem, Grid):
        return "no sphere"
    if operation != "attention":
        return "no unfused operators"
    size = problem.heads * problem.tokens**2 * dtype.itemsize
    return "no backward on a CPU" if backward else f"{size >> 20} MiB of scores" if size > MOST_SCORES else None


def _compiled_flex(problem, operation, dtype, backward):
    return "no backward on a CPU" if backward else _attention(problem, operation, dtype, backward)


def _attention(problem, operation, dtype, backward):
    return None if operation == "attention" else "no unfused operators"


def _sphere(problem, operation, dtype, backward):
    return None if isinstance(problem, Sphere) and operation == "attention" else "timed on the sphere only"


def _everything(problem, operation, dtype, backward):
    return None


PEERS = {peer.name: peer for peer in (
    Peer("natten-0.17.5-pip", "natten-0.17.5-pip", natten_017, _attention_in_fp32),
    Peer("natten-0.17.5-rebuilt", "natten-0.17.5-rebuilt", natten_017, _grids_in_fp32),
    Peer("natten-0.21.7", "natten-0.21.7", natten_021, _dense_flex),
    Peer("sdpa-mask", "natten-0.21.7", sdpa, _attention),
    Peer("sdpa-dense", "natten-0.21.7", dense, _sphere,
         lambda problem: dataclasses.replace(problem, radius=180)),
    Peer("flex-compiled", "natten-0.21.7", flex, _compiled_flex),
    Peer("halcyon", "", halcyon, _everything),
)}
