# SPDX-License-Identifier: Apache-2.0
"""convert: models of torch.nn on a sharded axis against themselves in one process."""

import copy
import pickle

import pytest
import torch
from torch import nn

import halcyon
from halcyon.parallel import convert
from ranks import on_ranks, part, rank, returned
from whole import cut, random

needs_norms = pytest.mark.skipif(not hasattr(halcyon.parallel, "group_norm"),
                                 reason="halcyon.parallel has no norms in this build")


class Block(nn.Module):
    """A container of the user's, with a skip."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular")
        self.act = nn.SiLU()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x + self.mix(self.act(self.conv(x)))


class UNet(nn.Module):
    def __init__(self, mode="bilinear"):
        super().__init__()
        self.inward = nn.Conv2d(3, 4, 5, padding="same")
        self.down = nn.Sequential(nn.MaxPool2d(2), Block(4), nn.Conv2d(4, 6, 3, stride=2, padding=1))
        self.up = nn.ModuleList([nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1),
                                 nn.Upsample(scale_factor=2, mode=mode), nn.AvgPool2d(3, 1, 1)])
        self.drop = nn.Dropout(0.1)
        self.out = nn.Conv2d(8, 2, (3, 3), padding=1, bias=False)

    def forward(self, x):
        skip = self.inward(x)
        y = self.down(skip)
        for layer in self.up:
            y = layer(y)
        return self.out(self.drop(torch.cat([skip, y], 1)))


def of_three_kinds(n):
    """A stack of n-dimensional layers."""
    conv, back, most, mean = (getattr(nn, f"{name}{n}d") for name in ("Conv", "ConvTranspose", "MaxPool", "AvgPool"))
    return nn.Sequential(conv(2, 4, 3, padding=1), nn.GELU(), most(3, 1, 1), mean(2), back(4, 3, 2, stride=2),
                         nn.Upsample(scale_factor=2))


def normed(n=2):
    conv, batch = getattr(nn, f"Conv{n}d"), getattr(nn, f"BatchNorm{n}d")
    return nn.Sequential(conv(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), batch(4),
                         nn.LayerNorm([4] + [12] * n))


MODELS = {"unet": (UNet, (2, 3, 24, 8), -2),
          "root": (lambda: nn.Conv2d(3, 2, 3, stride=2, padding=1), (1, 3, 13, 6), -2),
          "1d": (lambda: of_three_kinds(1), (2, 2, 12), -1), "2d": (lambda: of_three_kinds(2), (2, 2, 6, 12), -1),
          "3d": (lambda: of_three_kinds(3), (1, 2, 4, 12, 4), -2)}
NORMED = {f"normed_{n}d": (lambda n=n: normed(n), (2, 2) + (12,) * n, -1 if n == 1 else -2) for n in (1, 2, 3)}


def model_of(name):
    torch.manual_seed(0)
    model, shape, dim = {**MODELS, **NORMED}[name]
    return model().double().eval() if name == "unet" else model().double(), shape, dim


def run_converted(name, sizes):
    model, shape, dim = model_of(name)
    names = {key: id(value) for key, value in model.named_parameters()}
    keys = list(model.state_dict())
    parallel, report = convert(model, dim=dim)
    assert {key: id(value) for key, value in parallel.named_parameters()} == names
    assert list(parallel.state_dict()) == keys
    x = part(random(*shape), sizes, dim).clone().requires_grad_()
    y = parallel(x)
    y.pow(2).sum().backward()
    gradients = {key: one.grad for key, one in parallel.named_parameters()}
    return y.detach(), x.grad, gradients, dict(parallel.named_buffers()), report


def check(name, ranks, which):
    if name == "unet":  # its skip meets rows cut by the rule of split_sizes
        which = 0
    model, shape, dim = model_of(name)
    x = random(*shape).requires_grad_()
    y = model(x)
    y.pow(2).sum().backward()
    results = returned(on_ranks(ranks, run_converted, name, cut(shape[dim], ranks, which)))
    close = dict(rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.cat([one[0] for one in results], dim), y.detach(), **close)
    torch.testing.assert_close(torch.cat([one[1] for one in results], dim), x.grad, **close)
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(sum(one[2][key] for one in results), parameter.grad, **close)
    for key, buffer in model.named_buffers():
        for one in results:
            torch.testing.assert_close(one[3][key], buffer, **close)
    return results[0][4]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("ranks, which", [(1, 0), (2, 0), (2, 1), (3, 1), (4, 0)])
def test_models(name, ranks, which):
    report = check(name, ranks, which)
    if name == "root":
        assert report.converted == {"": "DomainParallelConv2d"} and not report.kept
    if name == "unet":
        assert report.converted == {
            "inward": "DomainParallelConv2d", "down.0": "DomainParallelMaxPool2d",
            "down.1.conv": "DomainParallelConv2d", "down.2": "DomainParallelConv2d",
            "up.0": "DomainParallelConvTranspose2d", "up.1": "DomainParallelUpsample",
            "up.2": "DomainParallelAvgPool2d",
            "out": "DomainParallelConv2d"}
        assert set(report.kept) == {"down.1.act", "down.1.mix", "drop"} and "1x1" in report.kept["down.1.mix"]


@needs_norms
@pytest.mark.parametrize("name", NORMED)
@pytest.mark.parametrize("ranks, which", [(1, 0), (2, 1), (3, 1), (4, 0)])
def test_norms(name, ranks, which):
    assert len(check(name, ranks, which).converted) == 4


class Unknown(nn.Module):
    def forward(self, x):
        return x.mean(-2, keepdim=True)


class OwnForward(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


class OwnName(nn.Conv2d):
    pass


def test_report():
    shared = nn.Conv2d(2, 2, 3)
    model = nn.ModuleDict(dict(
        unknown=Unknown(), own=OwnForward(2, 2, 3), name=OwnName(2, 2, 3), pad=nn.ReflectionPad2d(1),
        norm=nn.InstanceNorm2d(2), pool=nn.AdaptiveAvgPool2d(1), linear=nn.Linear(3, 3), softmax=nn.Softmax(dim=-2),
        channels=nn.Softmax(dim=-3), attention=nn.MultiheadAttention(4, 2),
        indices=nn.MaxPool2d(2, return_indices=True),
        one=nn.Conv1d(2, 2, 3), first=shared, second=shared, relu=nn.ReLU()))
    same, report = convert(model)
    assert same is model and model["first"] is model["second"] and model["first"] is not shared
    assert report.converted == {"name": "DomainParallelOwnName", "first": "DomainParallelConv2d",
                                "second": "DomainParallelConv2d"}
    mixing = {name for name, reason in report.kept.items() if "mixes positions" in reason}
    assert mixing == {"unknown", "own", "pad", "norm", "pool", "softmax", "attention", "indices", "one"}
    assert set(report.kept) - mixing == {"linear", "channels", "relu"}
    again, report = convert(model)
    assert again is model and not report.converted and "already" in report.kept["first"]
    assert "sharded" in convert(nn.Linear(3, 3), dim=-1)[1].kept[""]


def test_what_a_converted_module_still_is():
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 2, 3, padding=1))
    conv.eval()
    calls = []
    conv.register_forward_hook(lambda *_: calls.append(1))
    x = random(1, 2, 5, 5).float()
    wanted = conv(x)
    parallel, report = convert(conv)
    torch.testing.assert_close(parallel(x), wanted)
    assert len(calls) == 2 and isinstance(parallel, nn.Conv2d) and report.converted
    plain, _ = convert(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1)))
    for other in (copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))):
        torch.testing.assert_close(other(x), plain(x))


def spectral(x):
    torch.manual_seed(1)
    conv, _ = convert(nn.utils.spectral_norm(nn.Conv2d(2, 2, 3, padding=1)).double())
    return conv(part(x)).detach()


def test_spectral_norm_by_hooks():
    x = random(1, 2, 12, 5)
    torch.manual_seed(1)
    wanted = nn.utils.spectral_norm(nn.Conv2d(2, 2, 3, padding=1)).double()(x)
    torch.testing.assert_close(torch.cat(returned(on_ranks(2, spectral, x)), -2), wanted)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="Module"):
        convert("model")
    with pytest.raises(ValueError, match="dim"):
        convert(nn.ReLU(), dim="lat")
    with pytest.raises(TypeError, match="ProcessGroup"):
        convert(nn.ReLU(), group=2)
    assert rank() == 0
