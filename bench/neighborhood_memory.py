# SPDX-License-Identifier: Apache-2.0
"""How much memory fused neighborhood attention takes at its highest, beyond its arguments: the process's high-water mark,
which Linux lets it reset. Run with PYTHONPATH=build/python."""

import pathlib

import torch

import halcyon

PROBLEMS = [((256, 256), 13, 4, 32, torch.float32), ((256, 256), 13, 4, 32, torch.bfloat16),
            ((65536,), 127, 8, 64, torch.float32)]
MIB = 2**20


def resident(line):
    """VmRSS or VmHWM of this process in MiB."""
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(text.split()[1]) for text in status if text.startswith(line)) / 1024


def growth(work):
    """What work returns, and by how much the process grew at its highest."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")   # the high-water mark starts anew
    before = resident("VmRSS")
    result = work()
    return result, resident("VmHWM") - before


def main():
    for lengths, kernel, heads, width, dtype in PROBLEMS:
        attend = getattr(halcyon, f"na{len(lengths)}d")
        query, key, value, grad = (torch.randn(1, *lengths, heads, width, dtype=dtype) for _ in range(4))
        operands = [t.requires_grad_() for t in (query, key, value)]
        warm = [t[:, :32].detach().requires_grad_() for t in operands]
        attend(*warm, 7).sum().backward()
        (out, lse), forward = growth(lambda: attend(*operands, kernel, return_lse=True))
        _, backward = growth(lambda: out.backward(grad))
        results = (out.nbytes + lse.nbytes) / MIB
        gradients = 3 * query.nbytes / MIB
        print(f"{'x'.join(map(str, lengths))} k{kernel} {heads} heads x {width} {dtype}: forward {forward:.0f} MiB for "
              f"{results:.0f} of results, backward {backward:.0f} for {gradients:.0f} of gradients")


if __name__ == "__main__":
    main()
