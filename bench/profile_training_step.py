# SPDX-License-Identifier: Apache-2.0
"""Where the time of a training step goes: HealDA of the benchmark HealDA/C256_L4_20k_obs, forward, backward and AdamW.

PYTHONPATH=build/python .venv/bin/python bench/profile_training_step.py [--steps 3] [--precision fp32|bf16]
"""

import argparse
import contextlib
import time

import halcyon
import torch
from torch.profiler import ProfilerActivity, profile

# The first kind whose words are in a name takes it; a row's time is its own, without the rows that it calls.
KINDS = {
    "optimizer": ("adam", "_foreach"),
    "spatial attention": ("flash_attention", "selfattentionfunction", "spatial_attention"),
    "adaLN": ("norm_modulate", "gated_residual", "normmodulate", "gatedresidual", "adaln"),
    "GELU": ("gelu",),
    "products": ("mm", "linear_pointwise", "mkldnn", ")::linear", "halcyon::mlp"),
    "temporal attention": ("temporal",),
    "pixel attention": ("pixel_attention",),
    "observation tokens (FiLM)": ("film",),
    "RMS norm of q and k": ("rms_norm", "rmsnorm"),
    "copies and casts": ("copy_", "_to_copy", "clone", "cat", "contiguous"),
    "sums (biases, means)": ("sum", "mean"),
    "new memory": ("empty", "zeros", "fill_", "zero_"),
}
LEVEL, FRAMES, ROWS, IDS = 4, 4, 20_000, 500


def kind_of(name):
    return next((kind for kind, words in KINDS.items() if any(word in name.lower() for word in words)), "other")


def make_step(precision):
    torch.manual_seed(1)
    model = halcyon.HealDA(hidden_size=256, num_layers=4, num_heads=8, level_in=LEVEL + 1, level_model=LEVEL, time_length=FRAMES,
                           pixel_attn_n_q_heads=32, pixel_attn_head_dim=16)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    pixels = FRAMES * halcyon.healpix.npix(LEVEL)
    x = torch.randn(1, 2, FRAMES, halcyon.healpix.npix(LEVEL + 1))
    ids = [torch.randint(IDS, (ROWS,)) for _ in range(3)]
    observations = halcyon.prepare_obs_context(torch.randn(ROWS), torch.randn(ROWS, 50), *ids, torch.randint(pixels, (ROWS,)), pixels)
    calendar = torch.rand(1, FRAMES) * 86400, torch.rand(1, FRAMES) * 365

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
            y = model(x, torch.zeros(1), *calendar, observations)
        y.float().square().mean().backward()
        optimizer.step()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    step = make_step(options.precision)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        begin = time.perf_counter()
        for _ in range(options.steps):
            step()
        seconds = time.perf_counter() - begin
    times, largest = {}, {}
    for row in profiler.key_averages():
        kind = kind_of(row.key)
        times[kind] = times.get(kind, 0) + row.self_cpu_time_total
        largest.setdefault(kind, []).append((row.self_cpu_time_total, row.key))
    total = sum(times.values())
    print(f"{seconds / options.steps * 1e3:.0f} ms a step, {options.precision}, {torch.get_num_threads()} threads\n")
    print("| kind | ms a step | share | most of it |\n|---|---|---|---|")
    for kind, spent in sorted(times.items(), key=lambda item: -item[1]):
        names = ", ".join(f"`{name}`" for _, name in sorted(largest[kind], reverse=True)[:2])
        print(f"| {kind} | {spent / options.steps * 1e-3:.1f} | {spent / total:.1%} | {names} |")


if __name__ == "__main__":
    main()
