# SPDX-License-Identifier: Apache-2.0
"""Finds the built package and the goldens; tests that need the goldens skip, with the reason, where they are not."""

import json
import os
import pathlib
import sys

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HALCYON_BUILD_DIR", SOURCE / "build"))
SHARED = pathlib.Path(os.environ.get("HALCYON_SHARED_DIR", SOURCE.parent / "shared"))
sys.path.insert(0, str(BUILD / "python"))


class Golden:
    """One golden file: tensors by prefix and the configuration of its metadata."""

    def __init__(self, path):
        from safetensors import safe_open
        with safe_open(path, framework="pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}
            self.config = json.loads((file.metadata() or {}).get("config", "{}"))

    def under(self, prefix):
        return {name[len(prefix):]: t for name, t in self.tensors.items() if name.startswith(prefix)}

    def __contains__(self, name):
        return name in self.tensors

    def __getitem__(self, name):
        return self.tensors[name]


@pytest.fixture(autouse=True)
def same_random_numbers():
    import torch
    torch.manual_seed(20)


@pytest.fixture
def golden():
    folder = SHARED / "golden" / "healda"
    if not folder.exists():
        pytest.skip(f"no goldens at {folder}")
    return lambda name: Golden(folder / f"{name}.safetensors")


@pytest.fixture
def shared():
    if not SHARED.exists():
        pytest.skip(f"no shared data at {SHARED}")
    return SHARED


def near(actual, expected, relative):
    """Asserts |actual - expected| <= relative * max |expected|."""
    actual, expected = actual.detach().double(), expected.detach().double()
    assert actual.shape == expected.shape
    if expected.numel() == 0:
        return
    error, scale = (actual - expected).abs().max().item(), expected.abs().max().item()
    assert error <= relative * scale, f"error {error:.3g} is {error / max(scale, 1e-300):.3g} of the largest value"
