# SPDX-License-Identifier: Apache-2.0
"""Ahead-of-time compilation: torch.export, AOTInductor's package, and the answers of the loaded program."""

import shutil

import pytest
import torch
from conftest import near

import halcyon

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


class Small(torch.nn.Module):
    """A fused and an unfused attention, the second with the sphere's behind it."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.randn(2, 5, 5))
        self.qkv = torch.nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).unbind(-3)
        y = halcyon.na2d(q, k, v, 3, rpb=self.bias, is_causal=False)
        heads = [t.movedim(-2, 1) for t in (q, k, y.tanh())]
        attn = halcyon.na2d_qk(heads[0] * 0.5, heads[1], 3, is_causal=(True, False)).softmax(-1)
        z = halcyon.na2d_av(attn, heads[2], 3, is_causal=(True, False)).movedim(1, -2)
        pixels = z.flatten(1, 2)
        return (pixels + halcyon.neighborhood_attention_healpix(pixels, pixels, pixels, 0, rings=1)).flatten(2)


def test_export_and_package(tmp_path):
    model = Small().eval()
    x = torch.randn(2, 3, 4, 8)
    with torch.no_grad():
        expected = model(x)
        program = torch.export.export(model, (x,))
        near(program.module()(x), expected, 1e-5)
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "small.pt2"))
        loaded = torch._inductor.aoti_load_package(package)
        near(loaded(x), expected, 1e-5)
        near(loaded(2 * x), model(2 * x), 1e-5)


def test_inductor_runs_the_compiled_graph():
    model = Small()
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(1, 3, 4, 8)
    results = []
    for call in (model, compiled):
        model.zero_grad()
        y = call(x)
        y.square().sum().backward()
        results.append([y, *(p.grad.clone() for p in model.parameters())])
    for ours, wanted in zip(*results):
        near(ours, wanted, 1e-5)
