# SPDX-License-Identifier: Apache-2.0
"""HealDA models in files: .mdlus (zip or tar) and .safetensors are read, .safetensors is written."""

import json
import os

from . import _C
from .modules import HealDA


def load_checkpoint(path):
    """The model of a checkpoint file, in eval mode. RuntimeError names the file and what is wrong with it."""
    cpp = _C.load_checkpoint(os.fspath(path))
    return HealDA._around(cpp, json.loads(cpp.config()))


def save_checkpoint(model, path):
    """Writes the model with its configuration, whole or not at all; path ends in .safetensors."""
    if not isinstance(model, HealDA):
        raise TypeError(f"[save_checkpoint] expected a halcyon.HealDA, got {type(model).__name__}")
    _C.save_checkpoint(model._cpp, os.fspath(path))
