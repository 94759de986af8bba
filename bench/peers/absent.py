# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for packages that PhysicsNeMo imports and HealDA's layers never call: remote files, meshes, images, profiling.

warp and torchvision come with code for GPUs, and some of the others with many packages more. What a stand-in gives serves as
base, decorator or annotation, and does nothing.
"""

import contextlib
import importlib.abc
import importlib.machinery
import sys

PACKAGES = ("nvtx", "omegaconf", "requests", "s3fs", "tensordict", "timm.data", "timm.models", "torchvision", "tqdm", "warp")


def _attribute(name):
    if name.startswith("__"):
        raise AttributeError(f"[absent] expected an attribute of a package that is not installed, got {name}")
    return Absent


class _Kind(type):
    def __getattr__(cls, name):
        return _attribute(name)


class Absent(metaclass=_Kind):
    def __new__(cls, *arguments, **options):
        decorated = len(arguments) == 1 and callable(arguments[0]) and not options
        return arguments[0] if decorated else super().__new__(cls)

    def __getattr__(self, name):
        return _attribute(name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if any(name == package or name.startswith(package + ".") for package in PACKAGES):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.__version__ = "0"
        module.__getattr__ = _attribute


@contextlib.contextmanager
def stand_ins():
    """Imports inside find the stand-ins, also where a package is installed."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
