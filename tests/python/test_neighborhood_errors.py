# SPDX-License-Identifier: Apache-2.0
"""What the operators of neighborhood attention refuse, by exception and form of the message."""

import pytest
import torch
from references import rejected

import halcyon

AXES = [1, 2, 3]
L, B, H, G, D, E, N = 6, 2, 4, 2, 3, 5, 2


def not_implemented(operation):
    return pytest.raises(NotImplementedError, match=rf"(?s)^\[{operation}\] expected .*got ")


def fused(axes, **change):
    """Calls na{axes}d with valid operands, some of them replaced."""
    shape = [B, *[L] * axes]
    good = dict(query=torch.zeros(*shape, H, D), key=torch.zeros(*shape, G, D), value=torch.zeros(*shape, G, E),
                kernel_size=3)
    return getattr(halcyon, f"na{axes}d")(**(good | change))


def qk(axes, **change):
    shape = [B, H, *[L] * axes, D]
    good = dict(query=torch.zeros(shape), key=torch.zeros(shape), kernel_size=3)
    return getattr(halcyon, f"na{axes}d_qk")(**(good | change))


def av(axes, **change):
    shape = [B, H, *[L] * axes]
    good = dict(attn=torch.zeros(*shape, 3**axes), value=torch.zeros(*shape, E), kernel_size=3)
    return getattr(halcyon, f"na{axes}d_av")(**(good | change))


def token_shape(axes):
    return [B, *[L] * axes]


# Wrong windows, for every operator. A callable is given the number of axes.
WINDOWS = {
    "kernel 0": dict(kernel_size=0), "kernel -3": dict(kernel_size=-3), "kernel too large": dict(kernel_size=L + 1),
    "a float kernel": dict(kernel_size=3.0), "a bool kernel": dict(kernel_size=True),
    "a string": dict(kernel_size="3"),
    "floats in a tuple": lambda n: dict(kernel_size=(3.0,) * n),
    "kernels too many": lambda n: dict(kernel_size=(3,) * (n + 1)),
    "kernels too few": lambda n: dict(kernel_size=(3,) * (n - 1)),
    "kernels nested": lambda n: dict(kernel_size=[[3]] * n),
    "one axis too small": lambda n: dict(kernel_size=[3] * (n - 1) + [L + 1]),
    "dilation 0": dict(dilation=0), "dilation -1": dict(dilation=-1), "dilated out of the axis": dict(dilation=3),
    "a float dilation": dict(dilation=1.0), "a bool dilation": dict(dilation=True),
    "dilations too many": lambda n: dict(dilation=(1,) * (n + 1)),
    "one axis dilated too far": lambda n: dict(dilation=[1] * (n - 1) + [3]),
    "an integer for causal": dict(is_causal=1), "zero for causal": dict(is_causal=0),
    "text for causal": dict(is_causal="no"),
    "integers in causal": lambda n: dict(is_causal=[1] * n),
    "causal too many": lambda n: dict(is_causal=[False] * (n + 1)),
}
FUSED_WINDOWS = {
    "stride 0": dict(stride=0), "stride -1": dict(stride=-1), "stride above the kernel": dict(stride=4),
    "one stride above": lambda n: dict(stride=[1] * (n - 1) + [4]), "a float stride": dict(stride=1.0),
    "a bool stride": dict(stride=True), "strides too many": lambda n: dict(stride=(1,) * (n + 1)),
    "an integer for periodic": dict(periodic=1), "periodic too many": lambda n: dict(periodic=(True,) * (n + 1)),
    "periodic of a ragged length": dict(periodic=True, dilation=4, kernel_size=1),
}
FUSED = WINDOWS | FUSED_WINDOWS | {
    "rank of query": lambda n: dict(query=torch.zeros(*token_shape(n)[1:], H, D)),
    "every rank too high": lambda n: {k: torch.zeros(*token_shape(n), L, H, 4) for k in ("query", "key", "value")},
    "every rank too low": lambda n: {k: torch.zeros(B, *[L] * (n - 1), H, 4) for k in ("query", "key", "value")},
    "rank of value": lambda n: dict(value=torch.zeros(*token_shape(n), E)),
    "batch of key": lambda n: dict(key=torch.zeros(B + 1, *[L] * n, G, D)),
    "tokens of key": lambda n: dict(key=torch.zeros(B, *[L] * (n - 1), L + 1, G, D)),
    "tokens of value": lambda n: dict(value=torch.zeros(B, L + 1, *[L] * (n - 1), G, E)),
    "width of key": lambda n: dict(key=torch.zeros(*token_shape(n), G, D + 1)),
    "heads of value": lambda n: dict(value=torch.zeros(*token_shape(n), 1, E)),
    "heads no multiple": lambda n: dict(key=torch.zeros(*token_shape(n), 3, D),
                                        value=torch.zeros(*token_shape(n), 3, E)),
    "more groups than heads": lambda n: dict(key=torch.zeros(*token_shape(n), 8, D),
                                             value=torch.zeros(*token_shape(n), 8, E)),
    "integers": lambda n: {k: torch.zeros(*token_shape(n), 2, 4).int() for k in ("query", "key", "value")},
    "complex": lambda n: {k: torch.zeros(*token_shape(n), 2, 4).cfloat() for k in ("query", "key", "value")},
    "dtype of key": lambda n: dict(key=torch.zeros(*token_shape(n), G, D).double()),
    "dtype of value": lambda n: dict(value=torch.zeros(*token_shape(n), G, E).bfloat16()),
    "device of key": lambda n: dict(key=torch.zeros(*token_shape(n), G, D, device="meta")),
    "device of value": lambda n: dict(value=torch.zeros(*token_shape(n), G, E, device="meta")),
    "rpb of one head": lambda n: dict(rpb=torch.zeros(1, *[5] * n)),
    "rpb too wide": lambda n: dict(rpb=torch.zeros(H, *[6] * n)),
    "rpb of a key head": lambda n: dict(rpb=torch.zeros(G, *[5] * n)),
    "rank of rpb": lambda n: dict(rpb=torch.zeros(H, *[5] * (n + 1))),
    "dtype of rpb": lambda n: dict(rpb=torch.zeros(H, *[5] * n).double()),
    "device of rpb": lambda n: dict(rpb=torch.zeros(H, *[5] * n, device="meta")),
    "keys without values": dict(additional_keys=torch.zeros(B, N, G, D)),
    "values without keys": dict(additional_values=torch.zeros(B, N, G, E)),
    "an unknown backend": dict(backend="cuda"), "a backend of another case": dict(backend="Tiled"),
    "an integer for return_lse": dict(return_lse=1),
} | {f"additional {i}": dict(additional_keys=k, additional_values=v) for i, (k, v) in enumerate([
    (torch.zeros(N, G, D), torch.zeros(N, G, E)), (torch.zeros(1, N, G, D), torch.zeros(1, N, G, E)),
    (torch.zeros(B, N, H, D), torch.zeros(B, N, H, E)), (torch.zeros(B, N, G, D + 1), torch.zeros(B, N, G, E)),
    (torch.zeros(B, N, G, D), torch.zeros(B, N, G, D)), (torch.zeros(B, N, G, D), torch.zeros(B, N + 1, G, E)),
    (torch.zeros(B, N, G, D).double(), torch.zeros(B, N, G, E)),
    (torch.zeros(B, N, G, D), torch.zeros(B, N, G, E).half()),
    (torch.zeros(B, N, G, D, device="meta"), torch.zeros(B, N, G, E))])}
QK = WINDOWS | {
    "rank": lambda n: {k: torch.zeros(B, H, *[L] * (n + 1), D) for k in ("query", "key")},
    "heads differ": lambda n: dict(key=torch.zeros(B, G, *[L] * n, D)),
    "width": lambda n: dict(key=torch.zeros(B, H, *[L] * n, D + 1)),
    "tokens": lambda n: dict(key=torch.zeros(B, H, *[L] * (n - 1), L - 1, D)),
    "batch": lambda n: dict(key=torch.zeros(1, H, *[L] * n, D)),
    "dtype": lambda n: dict(key=torch.zeros(B, H, *[L] * n, D).double()),
    "integers": lambda n: {k: torch.zeros(B, H, *[L] * n, D).long() for k in ("query", "key")},
    "device": lambda n: dict(key=torch.zeros(B, H, *[L] * n, D, device="meta")),
    "rpb": lambda n: dict(rpb=torch.zeros(H, *[3] * n)), "heads of rpb": lambda n: dict(rpb=torch.zeros(1, *[5] * n)),
    "rank of additional keys": dict(additional_keys=torch.zeros(H, N, D)),
    "heads of additional keys": dict(additional_keys=torch.zeros(B, G, N, D)),
    "additional keys heads last": dict(additional_keys=torch.zeros(B, N, H, D)),
    "width of additional keys": dict(additional_keys=torch.zeros(B, H, N, D + 1)),
    "dtype of additional keys": dict(additional_keys=torch.zeros(B, H, N, D).double()),
}
AV = WINDOWS | {
    "rank": lambda n: dict(value=torch.zeros(B, H, *[L] * (n + 1), E)),
    "slots": lambda n: dict(attn=torch.zeros(B, H, *[L] * n, 3**n + 1)),
    "slots of another kernel": dict(kernel_size=2),
    "heads differ": lambda n: dict(value=torch.zeros(B, G, *[L] * n, E)),
    "tokens": lambda n: dict(value=torch.zeros(B, H, *[L] * (n - 1), L - 1, E)),
    "batch": lambda n: dict(value=torch.zeros(1, H, *[L] * n, E)),
    "integers": lambda n: dict(value=torch.zeros(B, H, *[L] * n, E).long()),
    "device": lambda n: dict(value=torch.zeros(B, H, *[L] * n, E, device="meta")),
    "no slots for additional values": dict(additional_values=torch.zeros(B, H, N, E)),
    "fewer slots than additional values": lambda n: dict(attn=torch.zeros(B, H, *[L] * n, 3**n + 1),
                                                         additional_values=torch.zeros(B, H, N, E)),
    "width of additional values": lambda n: dict(attn=torch.zeros(B, H, *[L] * n, 3**n + N),
                                                 additional_values=torch.zeros(B, H, N, E + 1)),
    "dtype of additional values": lambda n: dict(attn=torch.zeros(B, H, *[L] * n, 3**n + N),
                                                 additional_values=torch.zeros(B, H, N, E).double()),
}


CALLS = {"na{}d": (fused, FUSED), "na{}d_qk": (qk, QK), "na{}d_av": (av, AV)}


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name, case", [(name, case) for name, (_, cases) in CALLS.items() for case in cases])
def test_value_error(name, case, axes):
    call, change = CALLS[name][0], CALLS[name][1][case]
    call(axes)   # right before the change
    with rejected(name.format(axes)):
        call(axes, **(change(axes) if callable(change) else change))


@pytest.mark.parametrize("axes", AXES)
def test_not_implemented(axes):
    first = [True] + [False] * (axes - 1)
    nested = torch.nested.nested_tensor([torch.zeros(*[L] * axes, G, D)] * B)
    bias = torch.zeros(H, *[5] * axes)
    for change in (dict(rpb=bias, is_causal=True), dict(rpb=bias, is_causal=first),
                   dict(periodic=True, is_causal=True), dict(periodic=first, is_causal=first),
                   dict(periodic=True, stride=2), dict(periodic=first, stride=2),
                   dict(query=nested, key=nested, value=nested), dict(key=nested),
                   dict(query=torch.zeros(*token_shape(axes), H, D).to_sparse()),
                   dict(value=torch.zeros(*token_shape(axes), G, E).to_sparse())):
        with not_implemented(f"na{axes}d"):
            fused(axes, **change)
    with not_implemented(f"na{axes}d_qk"):
        qk(axes, rpb=bias, is_causal=first)
    if axes > 1:   # on different axes they go together
        assert fused(axes, periodic=first, is_causal=first[::-1]).shape == (*token_shape(axes), H, E)


@pytest.mark.parametrize("axes", AXES)
def test_type_errors(axes):
    for call, names in ((fused, ("query", "key", "value")), (qk, ("query", "key")), (av, ("attn", "value"))):
        for name in names:
            for thing in (None, 3.0, [[1.0]], torch.zeros(2).numpy()):
                with pytest.raises(TypeError):
                    call(axes, **{name: thing})
        for unknown in (dict(is_casual=True), dict(kernel=3), dict(heads=2)):
            with pytest.raises(TypeError):
                call(axes, **unknown)
    extra = dict(additional_keys=torch.zeros(B, N, G, D), additional_values=torch.zeros(B, N, G, E))
    for name in ("rpb", *extra):
        with pytest.raises(TypeError):
            fused(axes, **(extra | {name: 1.0}))
    with pytest.raises(TypeError):
        getattr(halcyon, f"na{axes}d")(torch.zeros(*token_shape(axes), H, D))
    with pytest.raises((TypeError, ValueError)):
        fused(axes, scale="half")
