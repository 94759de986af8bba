# SPDX-License-Identifier: Apache-2.0
"""Small VideoDiT and HealDA models whose frames lie on several ranks, and their inputs."""

import torch

import halcyon
from ranks import on_ranks, rank, returned, world
from references import SMALL_MODEL, randomise

PIXELS = 12  # of the small models' tokens; 48 fine ones


def video_dit(dtype, **options):
    levels = dict(level_fine=1, level_coarse=0)
    tokenizer = halcyon.HEALPixPatchTokenizer(in_channels=2, hidden_size=32, separate_time_axis=True, **levels)
    detokenizer = halcyon.HEALPixPatchDetokenizer(hidden_size=32, out_channels=3, condition_dim=16, **levels)
    model = halcyon.VideoDiT(tokenizer, detokenizer, 32, 4, 2, emb_channels=16, noise_channels=8, condition_dim=3,
                             **(dict(temporal_attention=True) | options))
    return randomise(model.to(dtype), 0.2)


def healda(dtype, frames, **options):
    options = SMALL_MODEL | dict(level_in=1, level_model=0, time_length=frames) | options
    return randomise(halcyon.HealDA(**options).to(dtype), 0.2)


def frames_of(total, sizes):
    """Which frames this rank has."""
    sizes = sizes or [len(one) for one in torch.empty(total).tensor_split(world())]
    start = sum(sizes[:rank()])
    return slice(start, start + sizes[rank()])


def fields(batch, frames, dtype):
    generator = torch.Generator().manual_seed(frames)
    return dict(x=torch.randn(batch, 2, frames, 4 * PIXELS, generator=generator, dtype=torch.float64).to(dtype),
                t=torch.rand(batch, generator=generator, dtype=torch.float64).to(dtype),
                second_of_day=torch.randint(86400, (batch, frames), generator=generator).to(dtype),
                day_of_year=torch.randint(365, (batch, frames), generator=generator).to(dtype))


def observations(batch, frames, own, dtype, count=80):
    """The observations of some frames, packed for them."""
    generator = torch.Generator().manual_seed(3)
    obs, meta = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((count,), (count, 6)))
    ids = [torch.randint(60, (count,), generator=generator) for _ in range(3)]
    b, t, pixel = (torch.randint(n, (count,), generator=generator) for n in (batch, frames, PIXELS))
    kept = (own.start <= t) & (t < own.stop)
    here = own.stop - own.start
    flat = (b * here + t - own.start) * PIXELS + pixel
    return halcyon.prepare_obs_context(obs[kept], meta[kept], *[one[kept] for one in ids], flat[kept],
                                       batch * here * PIXELS)


def weight_of(batch, frames, dtype):
    generator = torch.Generator().manual_seed(9)
    return torch.randn(batch, 3, frames, 4 * PIXELS, generator=generator, dtype=torch.float64).to(dtype)


def forward(model, case, own):
    """The model of these frames; the input that needs gradients."""
    batch, frames, dtype = case["batch"], case["frames"], case["dtype"]
    given = fields(batch, frames, dtype)
    x = given["x"][:, :, own].clone().requires_grad_(torch.is_grad_enabled())
    calendar = {name: given[name][:, own] for name in ("second_of_day", "day_of_year")}
    labels = torch.arange(3. * batch).reshape(batch, 3).sin().to(dtype)
    if case["model"] == "healda":
        labels = labels if case["options"].get("condition_dim") else None
        return model(x, case.get("t", given["t"]), **calendar, obs_ctx=observations(batch, frames, own, dtype),
                     class_labels=labels), x
    return model(x, case.get("t", given["t"]), labels, tokenizer_kwargs=calendar), x


def build(case):
    if case["model"] == "healda":
        return healda(case["dtype"], case["frames"], **case["options"])
    return video_dit(case["dtype"], **case["options"])


def trained(case, mode=None, sizes=None):
    """Output, the input's gradient and all parameters' gradients of this rank. In a world of one there is no group."""
    model = build(case)
    if mode is not None and world() > 1:
        model.set_context_parallel(mode, torch.distributed.group.WORLD)
    own = frames_of(case["frames"], sizes)
    torch.manual_seed(17)  # of drop_path
    out, x = forward(model, case, own)
    (out.sin() * weight_of(case["batch"], case["frames"], case["dtype"])[:, :, own]).sum().backward()
    return out.detach(), x.grad, {name: p.grad for name, p in model.named_parameters()}


def assert_like_one_process(case, n, mode, sizes=None):
    tolerance = 1e-12 if case["dtype"] == torch.float64 else 1e-6
    out, dx, grads = trained(case)
    results = returned(on_ranks(n, trained, case, mode, sizes))

    def near(actual, expected, name):
        scale = expected.abs().max().clamp(min=1e-30)
        assert actual.shape == expected.shape
        # the sums of another order; the bound is of the largest element, as fp32 has 6e-8 a term
        assert ((actual - expected).abs().max() / scale).item() <= tolerance, name

    near(torch.cat([one[0] for one in results], 2), out, "out")
    near(torch.cat([one[1] for one in results], 2), dx, "x")
    for name, grad in grads.items():
        near(sum(one[2][name] for one in results if one[2][name] is not None), grad, name)


DIT = dict(model="video_dit", batch=2, frames=4, dtype=torch.float64, options={})
HEALDA = dict(model="healda", batch=2, frames=4, dtype=torch.float64, options={})


class Spread(torch.nn.Module):
    """A tokenizer of the caller's: (B, 2, T, X) -> (B, T, X, 32). Broken on one rank, if asked."""

    def __init__(self, broken_on=None):
        super().__init__()
        self.broken_on = broken_on

    def forward(self, x):
        if rank() == self.broken_on:
            raise KeyError("no such channel")
        return x.permute(0, 2, 3, 1).repeat(1, 1, 1, 16)


class Plain(torch.nn.Module):
    def forward(self, tokens, c):
        return tokens.permute(0, 3, 1, 2)


def with_foreign_modules(mode=None, broken_on=None, pixels=2, frames=3):
    model = randomise(halcyon.VideoDiT(Spread(broken_on), Plain(), 32, 4, 2, temporal_attention=True).double(), 0.2)
    if mode:
        model.set_context_parallel(mode, torch.distributed.group.WORLD)
    own = frames_of(frames, None)
    x = whole_fields(pixels, frames)[:, :, own].clone().requires_grad_()
    out = model(x, torch.zeros(1, dtype=torch.float64))
    (out.sin() * out.detach().cos()).sum().backward()
    return out.detach(), x.grad


def whole_fields(pixels, frames):
    return torch.randn(1, 2, frames, pixels, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
