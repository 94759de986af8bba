# SPDX-License-Identifier: Apache-2.0
"""Process-wide switches, environment checks, FLOP counts, determinism, torch.compile and the CPU capability."""

import os
import subprocess
import sys

import neighborhood_reference as reference
import pytest
import torch
from conftest import BUILD, near
from torch.utils.flop_counter import FlopCounterMode

import halcyon

CPU_ONLY = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")


@pytest.fixture(autouse=True)
def switches_as_they_were():
    fused, kv = halcyon.is_fused_na_enabled(), halcyon.is_kv_parallelism_in_fused_na_enabled()
    yield
    torch.use_deterministic_algorithms(False)
    halcyon.use_fused_na(fused)
    halcyon.use_kv_parallelism_in_fused_na(kv)
    halcyon.set_memory_usage_preference()
    halcyon.enable_gemm_na()
    halcyon.enable_tiled_na()


def inputs(shape=(2, 9, 12), heads=2, d=8, dtype=torch.float32):
    return [torch.randn(*shape, heads, d, dtype=dtype, requires_grad=True) for _ in range(3)]


def everything(x, **options):
    """Output and all gradients of one call with a bias."""
    rpb = torch.linspace(-1, 1, 2 * 5 * 9).view(2, 5, 9).to(x[0].dtype).requires_grad_()
    out, lse = halcyon.na2d(*x, (3, 5), rpb=rpb, return_lse=True, **options)
    return [out, lse, *torch.autograd.grad(out.square().sum() + lse.sum(), [*x, rpb])]


AT_IMPORT = """
import sys, torch, halcyon
assert not halcyon.is_fused_na_enabled() and not halcyon.is_kv_parallelism_in_fused_na_enabled()
assert halcyon.is_gemm_na_enabled() and halcyon.is_tiled_na_enabled()
assert halcyon.get_memory_usage_preference() == "default"
x, expected = torch.load(sys.argv[1])
for backend in (None, "reference", "tiled", "gemm"):
    out = halcyon.na2d(*x, (3, 5), backend=backend)
    assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()
    low = halcyon.na2d(*(t.bfloat16() for t in x), (3, 5), backend=backend)
    assert (low - expected).abs().max() <= 3e-2 * expected.abs().max()
"""


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_switches_at_import_and_results_under_each_capability(tmp_path, capability):
    """In a process of its own; torch reads ATEN_CPU_CAPABILITY once."""
    x = [t.detach() for t in inputs(d=20)]
    expected, _ = reference.neighborhood_attention(*(t.double() for t in x), (3, 5))
    torch.save((x, expected.float()), tmp_path / "x.pt")
    environment = os.environ | {"PYTHONPATH": str(BUILD / "python"), "ATEN_CPU_CAPABILITY": capability}
    subprocess.run([sys.executable, "-c", AT_IMPORT, tmp_path / "x.pt"], check=True, timeout=120, env=environment)


def test_fused_and_kv_parallelism():
    halcyon.use_fused_na()
    assert halcyon.is_fused_na_enabled() is True and halcyon.is_kv_parallelism_in_fused_na_enabled() is True
    halcyon.use_kv_parallelism_in_fused_na(False)
    assert halcyon.is_kv_parallelism_in_fused_na_enabled() is False and halcyon.is_fused_na_enabled() is True
    halcyon.use_kv_parallelism_in_fused_na()
    assert halcyon.is_kv_parallelism_in_fused_na_enabled() is True
    halcyon.use_fused_na(mode=True, kv_parallel=False)
    assert halcyon.is_fused_na_enabled() is True and halcyon.is_kv_parallelism_in_fused_na_enabled() is False
    halcyon.use_fused_na(False)
    assert halcyon.is_fused_na_enabled() is False


def test_memory():
    for preference in ("strict", "unrestricted", "default"):
        halcyon.set_memory_usage_preference(pref=preference)
        assert halcyon.get_memory_usage_preference() == preference
    halcyon.set_memory_usage_preference("strict")
    halcyon.set_memory_usage_preference()
    assert halcyon.get_memory_usage_preference() == "default"


def test_gemm_and_tiled():
    """The older names return the new state; with both off the reference runs."""
    x = inputs()
    for name in ("gemm", "tiled"):
        enable, disable, enabled = (getattr(halcyon, f) for f in (f"enable_{name}_na", f"disable_{name}_na",
                                                                  f"is_{name}_na_enabled"))
        assert disable() is False and enabled() is False
        assert enable() is True and enabled() is True
    halcyon.disable_gemm_na()
    halcyon.disable_tiled_na()
    for ours, wanted in zip(everything(x), everything(x, backend="reference")):
        assert torch.equal(ours, wanted)


@pytest.mark.parametrize("switch", [
    lambda: halcyon.use_fused_na(), lambda: halcyon.use_kv_parallelism_in_fused_na(),
    lambda: halcyon.set_memory_usage_preference("strict"), lambda: halcyon.set_memory_usage_preference("unrestricted"),
    lambda: halcyon.disable_gemm_na(), lambda: halcyon.disable_tiled_na(),
    lambda: torch.use_deterministic_algorithms(True)])
def test_no_switch_changes_a_result_beyond_rounding(switch):
    x = inputs()
    before = everything(x)
    switch()
    for _ in range(2):   # the second call may take what the first has tuned
        for ours, wanted in zip(everything(x), before):
            near(ours, wanted, 1e-5)


def test_deterministic_mode():
    x = inputs()
    torch.use_deterministic_algorithms(True)
    first = everything(x)
    assert all(torch.equal(a, b) for a, b in zip(first, everything(x)))


@CPU_ONLY
@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")], ids=str)
def test_checks_on_a_cpu(device):
    own = [] if device is None else [device]
    assert halcyon.has_cuda() is False and halcyon.has_tf32_gemm(*own) is False
    for name in ("has_half", "has_bfloat", "has_fna", "has_gemm", "has_fp32_gemm", "has_fp64_gemm"):
        assert getattr(halcyon, name)(*own) is True
        assert getattr(halcyon, name)(device=device) is True
    assert halcyon.get_device_cc(*own) == 0 and type(halcyon.get_device_cc(device=device)) is int


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_flop_counts(axes):
    """2 B H T W d, and the same with the width of value; neither causality nor dilation reduces it; MACs are half."""
    tokens, kernel, b, h, d, e = (6, 7, 8)[:axes], (3, 2, 4)[:axes], 2, 4, 5, 3
    pairs = b * h * int(torch.tensor(tokens).prod() * torch.tensor(kernel).prod())

    def shape(heads, width, last):
        return [b, *tokens, heads, width] if last else [b, heads, *tokens, width]
    for last in (True, False):
        q, k, v = shape(h, d, last), tuple(shape(h, d, last)), torch.Size(shape(h, e, last))
        a = shape(h, int(torch.tensor(kernel).prod()), last)
        for dilation, causal in ((1, False), ([1] * axes, [True] * axes), ((1,) * axes, (False,) * axes)):
            assert halcyon.na_qk_flop_count(q, k, kernel, dilation, causal, last) == 2 * pairs * d
            assert halcyon.na_av_flop_count(a, v, kernel, dilation, causal, last) == 2 * pairs * e
            assert halcyon.fna_flop_count(q, k, v, list(kernel), dilation, causal, last) == 2 * pairs * (d + e)
            assert halcyon.fna_flop_count(q, k, v, kernel, dilation, causal, is_heads_last=last,
                                          return_macs=True) == pairs * (d + e)
            assert halcyon.na_qk_flop_count(q, k, kernel, dilation, causal, last, True) == pairs * d
            assert halcyon.na_av_flop_count(a, v, kernel, dilation, causal, last, return_macs=True) == pairs * e


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("backend", [None, "reference", "tiled", "gemm"])
def test_flop_counter_mode(axes, backend):
    """Additional tokens, groups, bias and lse add nothing."""
    shape, counts = (2, *[5] * axes), halcyon.fna_flop_count
    q, k, v = torch.randn(*shape, 4, 6), torch.randn(*shape, 2, 6), torch.randn(*shape, 2, 3)
    expected = 2 * 2 * 4 * 15**axes * 9
    assert counts(q.shape, k.shape, v.shape, 3, 1, False, True) == expected
    more = dict(additional_keys=torch.randn(2, 7, 2, 6), additional_values=torch.randn(2, 7, 2, 3),
                rpb=torch.randn(4, *[5] * axes))
    for options in (dict(), more, dict(is_causal=True, stride=2), dict(return_lse=True)):
        with FlopCounterMode(display=False) as counter:
            getattr(halcyon, f"na{axes}d")(q, k, v, 3, **options, backend=backend)
        assert counter.get_total_flops() == expected, options
    h = torch.randn(2, 4, *[5] * axes, 6)
    extra = torch.randn(2, 4, 7, 6)
    with FlopCounterMode(display=False) as counter:
        attn = getattr(halcyon, f"na{axes}d_qk")(h, h, 3, additional_keys=extra)
    assert counter.get_total_flops() == 2 * 2 * 4 * 15**axes * 6
    with FlopCounterMode(display=False) as counter:
        getattr(halcyon, f"na{axes}d_av")(attn, h[..., :5], 3, additional_values=extra[..., :5])
    assert counter.get_total_flops() == 2 * 2 * 4 * 15**axes * 5
