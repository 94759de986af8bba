# SPDX-License-Identifier: Apache-2.0
"""HealDA models in files: .mdlus (zip or tar) and .safetensors are read, .safetensors is written."""

import json
import os

import torch

from . import _C
from .modules import HealDA


def cpp_model(model):
    """A C++ HealDA on the memory of the Python one's parameters and buffers; every key must be HealDA's."""
    return _C.modules.HealDA(json.dumps(model.config), dict(model.state_dict()))


def load_checkpoint(path):
    """The model of a checkpoint file, in eval mode. RuntimeError names the file and what is wrong with it."""
    config, state = _C.load_checkpoint(os.fspath(path))
    with torch.device("meta"):  # no memory for what the file brings
        model = HealDA(**json.loads(config))
    model.load_state_dict(state, assign=True)
    return model.eval()


def save_checkpoint(model, path):
    """Writes the model with its configuration, whole or not at all; path ends in .safetensors."""
    if not isinstance(model, HealDA):
        raise TypeError(f"[save_checkpoint] expected a halcyon.HealDA, got {type(model).__name__}")
    _C.save_checkpoint(cpp_model(model), os.fspath(path))
