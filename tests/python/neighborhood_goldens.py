# SPDX-License-Identifier: Apache-2.0
"""The golden files of neighborhood attention: per case the configuration (JSON in the metadata) and its tensors."""

import json

import pytest

CASES = {
    "fused": "1d 1d_add 1d_causal_dil 2d 2d_border 2d_mix 2d_rpb 3d 3d_video".split(),
    "gna": "1d_blocked 1d_causal_stride 1d_even 1d_gqa 2d_add 2d_mix 2d_stride 3d_even".split(),
    "extensions": "1d_periodic_full 2d_len1_k1 2d_periodic_lon varlen".split(),
    "merge": "merge2 merge3".split(),
    "unfused": "1d_add 1d_basic 1d_causal 1d_causal_dil 1d_dil_ragged 1d_kd_eq_len 1d_rpb 2d_add 2d_basic "
               "2d_causal_mix 2d_dil 2d_rpb 3d_add 3d_basic 3d_causal_time 3d_rpb".split(),
    "jvp": "1d 2d".split(),
    "modules_017": "1d_causal 1d_rpb 2d_rpb 3d_video".split(),
    "modules_021": "1d 3d".split(),
}
FUSED = [(name, case) for name in ("fused", "gna", "extensions") for case in CASES[name] if case != "varlen"]


def folder(shared):
    path = shared / "golden" / "neighborhood"
    if not path.exists():
        pytest.skip(f"no goldens at {path}")
    return path


def names(shared, file):
    from safetensors import safe_open
    with safe_open(folder(shared) / f"{file}.safetensors", framework="pt") as opened:
        return sorted(opened.metadata())


def case(shared, file, name):
    """(configuration, tensors by their names)."""
    from safetensors import safe_open
    with safe_open(folder(shared) / f"{file}.safetensors", framework="pt") as opened:
        config = json.loads(opened.metadata()[name])
        return config, {key[len(name) + 1:]: opened.get_tensor(key) for key in opened.keys()
                        if key.startswith(name + "/")}


def fused_options(config, tensors):
    """The arguments after query, key and value."""
    options = {key: config[key] for key in ("kernel_size", "dilation", "stride", "is_causal", "periodic", "scale")
               if key in config}
    extra = {"rpb": "rpb", "additional_keys": "add_key", "additional_values": "add_value"}
    return options | {key: tensors[name] for key, name in extra.items() if name in tensors}


FUSED_GRADIENTS = {"query": "d_query", "key": "d_key", "value": "d_value", "rpb": "d_rpb",
                   "additional_keys": "d_add_key", "additional_values": "d_add_value"}
