# SPDX-License-Identifier: Apache-2.0
"""Times the Python modules beside their C++ twins on the same weights, in turns: what calling layer by layer costs.

    PYTHONPATH=build/python .venv/bin/python bench/python/modules.py [--rounds 15] [--threads 2]

Each round runs both, in an order that changes; the table gives the least and the median of each, and the ratio of the
medians. Results are compared before anything is timed."""

import argparse
import statistics
import sys
import time

import torch

import halcyon
from halcyon import _C

FRAMES, PIXELS, WIDTH, HEADS, CONDITION, ROWS, TOKEN = 4, 768, 512, 8, 128, 65325, 32
CROSS = dict(hidden_size=WIDTH, token_dim=TOKEN, n_q_heads=64, n_kv_heads=2, d_head=32, use_proj_bias=True)


def filled(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.02)
    return module


def block(cross):
    """The layer of bench/model/block_bench.cpp."""
    options = dict(hidden_size=WIDTH, num_heads=HEADS, condition_embed_dim=CONDITION, temporal_attention=True, is_causal=True,
                   attn_kwargs=dict(qk_norm_type="RMSNorm", qk_norm_affine=False), cross_attention=CROSS if cross else None)
    module = filled(halcyon.VideoDiTBlock(**options))
    twin = _C.modules.VideoDiTBlock(options)
    twin.assign({key: value.clone() for key, value in module.state_dict().items()})
    h, c = torch.randn(1, FRAMES, PIXELS, WIDTH).requires_grad_(), torch.randn(1, CONDITION)
    tables = halcyon.rope_tables(WIDTH // HEADS, FRAMES)
    tokens = offsets = None
    if cross:
        pixel = torch.randint(FRAMES * PIXELS, (ROWS,))
        offsets = halcyon.counts_to_cu_seqlens(halcyon.sort_and_pack(pixel, FRAMES * PIXELS)[1])
        tokens = torch.randn(ROWS, TOKEN)
    kwargs = dict(temporal_attn_kwargs=dict(zip(("rope_cos", "rope_sin"), tables)),
                  cross_attn_kwargs=dict(tokens=tokens, cu_seqlens_k=offsets, max_seqlen_k=99) if cross else None)
    parameters = list(twin.tensors().values())
    return (lambda: module(h, c, **kwargs), lambda: twin.forward(h, c, tokens, offsets, *tables),
            list(module.parameters()), parameters)


def model():
    """A HealDA of two layers with 20,000 observations. Inference: forward of the module and of halcyon.inference()."""
    healda = filled(halcyon.HealDA(hidden_size=256, num_layers=2, num_heads=8, level_in=5, level_model=4, time_length=4,
                                   obs_meta_dim=30, drop_path=0.0)).eval()
    n, total = 20000, 4 * 3072
    ids = [torch.randint(60, (n,)) for _ in range(3)]
    context = halcyon.prepare_obs_context(torch.randn(n), torch.randn(n, 30), *ids, torch.randint(total, (n,)), total)
    given = (torch.randn(1, 2, 4, 12288), torch.zeros(1), torch.zeros(1, 4), torch.zeros(1, 4), context)
    run = halcyon.inference(healda)
    return (lambda: healda(*given), lambda: run(*given), list(healda.parameters()), None)


def seconds(f):
    begin = time.perf_counter()
    f()
    return time.perf_counter() - begin


def trained(forward, parameters):
    def step():
        forward().square().mean().backward()
        for parameter in parameters:
            parameter.grad = None
    return step


def compare(name, ours, theirs, rounds):
    times = ([], [])
    for _ in range(2):
        ours(), theirs()
    for i in range(rounds):
        for which in ((0, 1) if i % 2 else (1, 0)):
            times[which].append(seconds((ours, theirs)[which]))
    least = [1e3 * min(t) for t in times]
    middle = [1e3 * statistics.median(t) for t in times]
    print(f"{name:34} {least[0]:9.1f} {least[1]:9.1f} {middle[0]:9.1f} {middle[1]:9.1f} {least[0] / least[1]:8.3f} "
          f"{middle[0] / middle[1]:8.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {options.threads} threads, {options.rounds} rounds, ms")
    print(f"{'':34} {'Python':>9} {'C++':>9} {'Python':>9} {'C++':>9} {'ratio':>8} {'ratio':>8}")
    print(f"{'':34} {'least':>9} {'least':>9} {'median':>9} {'median':>9} {'least':>8} {'median':>8}")
    for name, (ours, theirs, own, twins) in (("block", block(False)), ("block with observations", block(True)),
                                             ("HealDA, 2 layers", model())):
        with torch.no_grad():
            y, z = ours(), theirs()
            if not (y - z).abs().max() <= 1e-4 * z.abs().max():
                sys.exit(f"{name}: the results differ by {(y - z).abs().max():.3g} of {z.abs().max():.3g}")
            compare(f"{name}, forward", ours, theirs, options.rounds)
        if twins is not None:
            compare(f"{name}, forward + backward", trained(ours, own), trained(theirs, twins), options.rounds)


if __name__ == "__main__":
    main()
