# SPDX-License-Identifier: Apache-2.0
"""What every forward asks of its inputs: a ValueError "[module] expected ..., got ..." otherwise."""

import torch

_NAMES = {torch.float32: "Float", torch.float64: "Double", torch.float16: "Half", torch.bfloat16: "BFloat16",
          torch.int64: "Long", torch.int32: "Int", torch.bool: "Bool"}
_AUTOCAST = (torch.float32, torch.bfloat16, torch.float16)


def describe(x):
    if x is None:
        return "no tensor"
    sizes = ", ".join(str(size) for size in x.shape)
    return f"({sizes}) {_NAMES.get(x.dtype, x.dtype)} on {x.device}"


def expect(holds, module, text):
    """text() is built only where it is needed."""
    if not holds:
        raise ValueError(f"[{module}] expected {text()}")


def check_tensor(module, name, x):
    if x is not None and not isinstance(x, torch.Tensor):
        raise TypeError(f"[{module}] expected {name} as a tensor, got {type(x).__name__}")


def check_rank(module, name, x, rank, layout):
    check_tensor(module, name, x)
    expect(x is not None and x.dim() == rank, module, lambda: f"{name} {layout}, got {describe(x)}")


def check_width(module, name, x, width):
    expect(x.shape[-1] == width, module, lambda: f"{name} of width {width}, got {describe(x)}")


def check_shape(module, name, x, shape):
    check_tensor(module, name, x)
    expect(x is not None and tuple(x.shape) == tuple(shape), module,
           lambda: f"{name} ({', '.join(map(str, shape))}), got {describe(x)}")


def autocast_on(x):
    return torch.is_autocast_enabled(x.device.type)


def check_input(module, name, x, layer):
    """x is floating, and on the device and of the type of the layer's weight; autocast takes any single and half ones.

    layer may be a parameter. One that somebody has put in may lack a weight: then it tells for itself."""
    weight = layer if isinstance(layer, torch.Tensor) else getattr(layer, "weight", None)
    expect(x is not None and x.is_floating_point(), module, lambda: f"a floating {name}, got {describe(x)}")
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
        return
    expect(x.device == weight.device, module, lambda: f"{name} on {weight.device}, got {describe(x)}")
    mixed = x.dtype in _AUTOCAST and weight.dtype in _AUTOCAST and autocast_on(x)
    expect(mixed or x.dtype == weight.dtype, module,
           lambda: f"{name} of the module's dtype {_NAMES.get(weight.dtype, weight.dtype)}, got {describe(x)}")


def keywords(name, given, known):
    """The values of a dict of keyword arguments in the order of known, None for those not given."""
    if given is None:
        return [None] * len(known)
    if not isinstance(given, dict):
        raise TypeError(f"[{name}] expected a dict of arguments, got {type(given)}")
    for key in given:
        if key not in known:
            raise TypeError(f"[{name}] got an unexpected argument '{key}'")
    return [given.get(key) for key in known]
