# SPDX-License-Identifier: Apache-2.0
"""The reference that the other tests of neighborhood attention compare with, against every golden."""

import json

import neighborhood_goldens as goldens
import neighborhood_reference as reference
import pytest
import torch
from conftest import near

BOUND = 1e-12


@pytest.mark.parametrize("file", goldens.CASES)
def test_the_cases_are_all_of_the_file(shared, file):
    assert goldens.names(shared, file) == sorted(goldens.CASES[file])


def test_windows(shared):
    table = json.loads((goldens.folder(shared) / "windows.json").read_text())
    assert len(table) > 10
    names = ("length", "kernel_size", "dilation", "stride", "is_causal")
    for row in table:
        windows = reference.axis_window(*(row[name] for name in names))
        assert [[key for _, key in window] for window in windows] == row["keys"], row
        for i, window in enumerate(windows):
            assert all(key == i + step * row["dilation"] for step, key in window)


def test_periodic_windows():
    """The kernel's left half, the token, the rest; wrapped, and the steps before wrapping."""
    windows = reference.axis_window(6, 4, 1, 1, False, True)
    assert windows[0] == [(-2, 4), (-1, 5), (0, 0), (1, 1)] and windows[5] == [(-2, 3), (-1, 4), (0, 5), (1, 0)]
    assert reference.axis_window(6, 3, 2, 1, False, True)[1] == [(-1, 5), (0, 1), (1, 3)]


@pytest.mark.parametrize("file, name", goldens.FUSED)
def test_fused(shared, file, name):
    config, x = goldens.case(shared, file, name)
    options = goldens.fused_options(config, x)
    leaves = {k: t.requires_grad_() for k, t in (x | options).items()
              if k in goldens.FUSED_GRADIENTS and isinstance(t, torch.Tensor)}
    out, lse = reference.neighborhood_attention(**(options | leaves))
    near(out, x["out"], BOUND)
    near(lse, x["lse"], BOUND)
    out.backward(x["d_out"])
    for leaf, tensor in leaves.items():
        near(tensor.grad, x[goldens.FUSED_GRADIENTS[leaf]], BOUND)
    assert len(leaves) == sum(k.startswith("d_") for k in x) - 1


def test_varlen_attention(shared):
    config, x = goldens.case(shared, "extensions", "varlen")
    parts = [t.split(config[f"seqlens_{n}"], 1) for t, n in ((x["query"], "Q"), (x["key"], "KV"), (x["value"], "KV"))]
    results = [reference.masked_attention(q, k, v) for q, k, v in zip(*parts)]
    near(torch.cat([out for out, _ in results], 1), x["out"], BOUND)
    near(torch.cat([lse for _, lse in results], 1), x["lse"], BOUND)


@pytest.mark.parametrize("name", goldens.CASES["unfused"])
def test_unfused(shared, name):
    config, x = goldens.case(shared, "unfused", name)
    x = {k: t.requires_grad_() if k in ("query", "key", "value", "rpb", "add_key", "add_value") else t
         for k, t in x.items()}
    options = {k: config[k] for k in ("kernel_size", "dilation", "is_causal")}
    attn = reference.qk(x["query"], x["key"], **options, additional_keys=x.get("add_key"), rpb=x.get("rpb"))
    filled = x["attn"] > -torch.inf
    assert torch.equal(attn > -torch.inf, filled)
    near(attn[filled], x["attn"][filled], BOUND)
    prob = x["prob"].clone().requires_grad_()
    out = reference.av(prob, x["value"], **options, additional_values=x.get("add_value"))
    near(out, x["out"], BOUND)
    for result, incoming, names in ((attn, x["d_attn"], ("query", "key", "rpb", "add_key")),
                                    (out, x["d_out"], ("prob", "value", "add_value"))):
        leaves = {n: prob if n == "prob" else x[n] for n in names if n in x}
        for n, gradient in zip(leaves, torch.autograd.grad(result, list(leaves.values()), incoming)):
            near(gradient, x[f"d_{n}"], BOUND)


@pytest.mark.parametrize("name", goldens.CASES["jvp"])
def test_jvp(shared, name):
    config, x = goldens.case(shared, "jvp", name)
    options = dict(kernel_size=config["kernel_size"], dilation=config["dilation"])
    for function, operands, result in ((reference.qk, ("query", "key"), "qk"),
                                       (reference.av, ("attn", "value"), "av")):
        primal, tangent = torch.func.jvp(lambda *t, f=function: f(*t, **options), tuple(x[n] for n in operands),
                                         tuple(x[n + "_t"] for n in operands))
        near(primal, x[result], BOUND)
        near(tangent, x[result + "_t"], BOUND)


@pytest.mark.parametrize("file, bound", [("modules_017", 1e-12), ("modules_021", 2e-6)])
def test_modules(shared, file, bound):
    for name in goldens.CASES[file]:
        config, x = goldens.case(shared, file, name)
        state = {k[6:]: t.requires_grad_() for k, t in x.items() if k.startswith("param.")}
        options = {k: config[k] for k in ("kernel_size", "dilation", "stride", "is_causal") if k in config}
        y = reference.module(x["x"].requires_grad_(), state, config["num_heads"], **options)
        near(y, x["y"], bound)
        if "d_y" in x:
            y.backward(x["d_y"])
            near(x["x"].grad, x["d_x"], bound)
            for k, p in state.items():
                near(p.grad, x[f"grad.{k}"], bound)
