# SPDX-License-Identifier: Apache-2.0
"""What the operators compute, written out in plain torch, and the small settings that several tests share."""

import math

import pytest
import torch
from torch.nn import functional as F

SMALL_MODEL = dict(in_channels=2, out_channels=3, hidden_size=32, num_layers=2, num_heads=4, level_in=2, level_model=1,
                   time_length=2, condition_embed_dim=16, noise_channels=8, obs_token_dim=8, obs_meta_dim=6,
                   obs_film_hidden_dim=16, pixel_attn_n_q_heads=16, pixel_attn_n_kv_heads=1, pixel_attn_head_dim=4)


def rejected(operation=r"[\w.:]+"):
    """Expects a ValueError that reads "[operation] expected ..., got ..."."""
    return pytest.raises(ValueError, match=rf"(?s)^\[{operation}\] expected .*got ")


def randomise(module, scale=0.3, seed=5):
    """Fills every parameter, also those that start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def cu_of(counts):
    return torch.tensor([0] + counts).cumsum(0).int()


def pixel_attention(Q, tokens, W_k, W_v, cu, n_kv_heads=1, scale=None, B_v=None):
    pixels, heads, width = Q.shape
    scale = 1 / math.sqrt(width) if scale is None else scale
    k = F.linear(tokens, W_k).view(-1, n_kv_heads, width).repeat_interleave(heads // n_kv_heads, 1)
    v = F.linear(tokens, W_v, B_v).view(-1, n_kv_heads, width).repeat_interleave(heads // n_kv_heads, 1)
    rows = []
    for p in range(pixels):
        own = slice(int(cu[p]), int(cu[p + 1]))
        weight = torch.einsum("hd,nhd->hn", Q[p], k[own]).mul(scale).softmax(1)
        rows.append(torch.einsum("hn,nhd->hd", weight, v[own]))
    return torch.stack(rows)


def film(obs, meta, ids, tables, weight1, bias1, norm_weight, norm_bias, weight2, bias2, eps=1e-5):
    """ids and tables: observation type, channel and, where there is a third table, platform."""
    x = torch.cat([meta] + [F.embedding(i.long(), table) for i, table in zip(ids, tables)], 1)
    x = F.silu(F.layer_norm(F.linear(x, weight1, bias1), (weight1.shape[0],), norm_weight, norm_bias, eps))
    alpha, beta = F.linear(x, weight2, bias2).chunk(2, 1)
    return alpha * obs[:, None] + beta


def group_map(counts, thresh_mult=2.0):
    """The programs: pixels far above the median alone, the others in pairs."""
    nonempty = [p for p, n in enumerate(counts) if n]
    if not nonempty:
        return [0], []
    threshold = sorted(counts[p] for p in nonempty)[(len(nonempty) - 1) // 2] * thresh_mult
    large = [p for p in nonempty if counts[p] >= threshold]
    small = [p for p in nonempty if counts[p] < threshold]
    ends = list(range(len(large) + 1)) + [len(large) + min(i + 2, len(small)) for i in range(0, len(small), 2)]
    return ends, large + small


def rotate(x, cos, sin):
    """Turns the adjacent channels (2k, 2k+1) of x (..., T, d)."""
    a, b = x[..., 0::2], x[..., 1::2]
    turned = torch.stack([-b, a], -1).flatten(-2)
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)


def causal(length, window=None):
    """True where frame i may see frame j."""
    age = torch.arange(length)[:, None] - torch.arange(length)
    return (age >= 0) & (age < (window or length + 1))


def temporal_attention(x, state, heads, cos, sin, linear, visible):
    batch, frames, pixels, width = x.shape
    qkv = F.linear(x, state["qkv.weight"], state["qkv.bias"]).view(batch, frames, pixels, 3, heads, width // heads)
    q, k, v = qkv.permute(3, 0, 2, 4, 1, 5)
    q, k = (q, k) if cos is None else (rotate(q, cos, sin), rotate(k, cos, sin))
    scores = q @ k.mT / math.sqrt(width // heads)
    weight = scores * visible if linear else scores.masked_fill(~visible, -math.inf).softmax(-1)
    y = (weight @ v).permute(0, 3, 1, 2, 4).reshape(x.shape)
    return F.linear(y, state["proj.weight"], state["proj.bias"])


def spatial_attention(x, state, heads, norm=lambda name, q: q, mask=None):
    rows, length, width = x.shape
    qkv = F.linear(x, state["qkv.weight"], state["qkv.bias"]).view(rows, length, 3, heads, width // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = norm("q_norm", q) @ norm("k_norm", k).mT / math.sqrt(width // heads)
    y = ((scores if mask is None else scores + mask).softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
    return F.linear(y, state["proj.weight"], state["proj.bias"])


def rms(x, weight=None):
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
    return y if weight is None else y * weight


def under(module, prefix=""):
    """The parameters of a submodule, by their names in it."""
    return {name[len(prefix):]: p for name, p in module.named_parameters() if name.startswith(prefix)}


def pad_xy_centres(level):
    """Longitude and latitude of the pixel centres, in degrees and float64, by the formula of the projection."""
    n = 2**level
    face, row, col = torch.meshgrid(torch.arange(12), torch.arange(n), torch.arange(n), indexing="ij")
    x0 = torch.tensor([1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2, 3])[face]
    y0 = torch.tensor([1, 2, 3, 4, 1, 2, 3, 4, 2, 3, 4, 5])[face]
    across, along = x0 + (n - row - 0.5).double() / n, (n - col - 0.5).double() / n - y0
    xs, ys = (across - along - 1) * math.pi / 4, (across + along) * math.pi / 4
    high = ys.abs() > math.pi / 4
    tilt = (ys.abs() - math.pi / 4) / (ys.abs() - math.pi / 2) * (xs.remainder(math.pi / 2) - math.pi / 4)
    z = torch.where(high, ys.sign() * (1 - (2 - 4 * ys.abs() / math.pi) ** 2 / 3), 8 * ys / (3 * math.pi))
    lon = torch.rad2deg(torch.where(high, xs - tilt, xs)).remainder(360)
    return lon.flatten(), (90 - torch.rad2deg(z.clamp(-1, 1).acos())).flatten()


def calendar(lon, channels, day_of_year, second_of_day, legacy=False):
    """(B, 4 * channels, T, X) in the dtype of lon."""
    shift = (lon * 86400 / 360).floor() * (-1 if legacy else 1)
    day = (second_of_day[..., None] + shift).remainder(86400) / 86400
    year = (day_of_year / 365.25).remainder(1)[..., None].expand_as(day)
    angle = 2 * math.pi * torch.arange(1, channels + 1)
    return torch.cat([f(part[..., None] * angle) for part in (day, year) for f in (torch.cos, torch.sin)],
                     -1).permute(0, 3, 1, 2)


def faces(x, level):
    """(B, C, T, X) as images (B * T * 12, C, n, n)."""
    batch, channels, frames, _ = x.shape
    n = 2**level
    return x.reshape(batch, channels, frames, 12, n, n).permute(0, 2, 3, 1, 4, 5).reshape(-1, channels, n, n)


def from_faces(images, batch, frames):
    """The inverse of faces()."""
    channels = images.shape[1]
    return images.reshape(batch, frames, 12, channels, -1).permute(0, 3, 1, 2, 4).reshape(batch, channels, frames, -1)


def edm_features(t, width, max_positions=10000):
    half = width // 2
    frequency = (1 / max_positions) ** (torch.arange(half).double() / (half - 1))
    return torch.cat([(t[:, None].double() * frequency).sin(), (t[:, None].double() * frequency).cos()], 1)


def block(h, c, state, heads, cross=None, temporal=None, norm=lambda name, q: q, mask=None,
          eps=1e-6):
    """A block in its order: pixels, own observations, frames, MLP. cross and temporal map a state to a branch."""
    def chunks(name):
        y = F.linear(F.silu(c), state[name + ".modulation.1.weight"], state[name + ".modulation.1.bias"])
        return [part[:, None, None] for part in y.chunk(y.shape[1] // h.shape[-1], 1)]

    def add(h, modulation, branch):
        shift, scale, gate = modulation
        return h + gate * branch(shift + F.layer_norm(h, h.shape[-1:], eps=eps) * (1 + scale))

    def part(prefix):
        return {k[len(prefix):]: v for k, v in state.items() if k.startswith(prefix)}

    def mlp(y):
        y = F.gelu(F.linear(y, state["linear.layers.0.weight"], state["linear.layers.0.bias"]), approximate="tanh")
        return F.linear(y, state["linear.layers.2.weight"], state["linear.layers.2.bias"])

    first = chunks("norm1_modulation")
    h = add(h, first[:3], lambda y: spatial_attention(y.flatten(0, 1), part("attention.attn_op."), heads,
                                                      norm, mask).view_as(y))
    if cross:
        h = add(h, chunks("cross_attn_modulation"), lambda y: cross(y, part("cross_attention.")))
    if temporal:
        h = add(h, chunks("temporal_attn_modulation"), lambda y: temporal(y, part("temporal_attention.")))
    return add(h, first[3:], mlp)


def cross_attention(y, state, tokens, cu, heads, groups):
    q = F.linear(y, state["q_proj.weight"], state.get("q_proj.bias"))
    q = q.view(-1, heads, q.shape[-1] // heads)
    out = pixel_attention(q, tokens, state["k_proj.weight"], state["v_proj.weight"], cu, groups,
                          B_v=state.get("v_proj.bias"))
    return F.linear(out.flatten(1), state["out_proj.weight"], state.get("out_proj.bias")).view_as(y)
