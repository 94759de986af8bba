# SPDX-License-Identifier: Apache-2.0
"""Process-wide switches of neighborhood attention and checks of the environment (halcyon/ops/tuning)."""

import torch as _torch

from . import _C
from .neighborhood import _flag

_switches = _C.neighborhood
is_fused_na_enabled = _switches.is_fused_na_enabled
is_kv_parallelism_in_fused_na_enabled = _switches.is_kv_parallelism_in_fused_na_enabled
get_memory_usage_preference = _switches.get_memory_usage_preference
enable_gemm_na, disable_gemm_na = _switches.enable_gemm_na, _switches.disable_gemm_na
enable_tiled_na, disable_tiled_na = _switches.enable_tiled_na, _switches.disable_tiled_na
is_gemm_na_enabled, is_tiled_na_enabled = _switches.is_gemm_na_enabled, _switches.is_tiled_na_enabled


def use_fused_na(mode=True, kv_parallel=True):
    """Modules of neighborhood attention use the fused operators."""
    _switches.use_fused_na(_flag("use_fused_na", "mode", mode), _flag("use_fused_na", "kv_parallel", kv_parallel))


def use_kv_parallelism_in_fused_na(mode=True):
    """Lets the backward cut a problem of few heads into more shares for the threads."""
    _switches.use_kv_parallelism_in_fused_na(_flag("use_kv_parallelism_in_fused_na", "mode", mode))


def set_memory_usage_preference(pref="default"):
    """Packed memory a thread may hold: "default" 4 MiB, "strict" 1 MiB, "unrestricted" 64 MiB."""
    if not isinstance(pref, str):
        raise ValueError(f"[set_memory_usage_preference] expected default, strict or unrestricted, got {pref!r}")
    _switches.set_memory_usage_preference(pref)


def _device(device):
    """None is the current CUDA device, an int the CUDA device of that number."""
    if device is None:
        return None
    return _torch.device("cuda", device) if isinstance(device, int) else _torch.device(device)


def get_device_cc(device=None):
    """Compute capability as 10 * major + minor; 0 where there is no CUDA device."""
    return _switches.get_device_cc(_device(device))


has_cuda = _switches.has_cuda


def has_half(device=None):
    return _switches.has_half(_device(device))


def has_bfloat(device=None):
    return _switches.has_bfloat(_device(device))


def has_fna(device=None):
    return _switches.has_fna(_device(device))


def has_gemm(device=None):
    return _switches.has_gemm(_device(device))


def has_tf32_gemm(device=None):
    return _switches.has_tf32_gemm(_device(device))


def has_fp32_gemm(device=None):
    return _switches.has_fp32_gemm(_device(device))


def has_fp64_gemm(device=None):
    return _switches.has_fp64_gemm(_device(device))
