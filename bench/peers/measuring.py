# SPDX-License-Identifier: Apache-2.0
"""What the peers' processes measure and compare with, whatever they run."""

import math
import time

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
COPIED = 1 << 29  # bytes: larger than any cache


def seconds_of(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def share_of(what, actual, expected, allowed):
    """The largest error over the allowed one, which is relative to the largest value."""
    if actual.shape != expected.shape:
        raise ValueError(f"[compare] expected {what} of shape {tuple(expected.shape)}, got {tuple(actual.shape)}")
    expected = expected.double()
    error = (actual.double() - expected).abs().max().item()
    largest = expected.abs().max().item()
    return error / (allowed * largest) if largest else 0 if error == 0 else math.inf


def require(what, actual, expected, allowed):
    share = share_of(what, actual, expected, allowed)
    if not share <= 1:
        raise ValueError(f"[compare] expected {what} within {allowed:g} of the largest value, got {share * allowed:.3g}")


def peaks():
    """GFLOP/s of square products and GB/s of a copy, read and written: the best of some."""
    found = {}
    for name, dtype in DTYPES.items():
        a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
        found[f"torch.mm 2048 {name}, GFLOP/s"] = 2 * 2048**3 / min(seconds_of(lambda: a @ b) for _ in range(8)) * 1e-9
    source, target = torch.ones(COPIED // 4), torch.zeros(COPIED // 4)
    found["copy, GB/s"] = 2 * COPIED / min(seconds_of(lambda: target.copy_(source)) for _ in range(4)) * 1e-9
    return {"peaks": found, "torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}
