# SPDX-License-Identifier: Apache-2.0
"""The noise level and optional labels as the vector that conditions every block."""

import math

import torch
import torch.nn.functional as F

from .. import _C
from .checks import check_input, check_rank, check_shape, describe, expect
from .layers import Linear, at

ops = torch.ops.halcyon


class _Frequencies(torch.nn.Module):
    """A geometric ladder of frequencies, saved as "freqs". It is computed, never learned: a checkpoint that lacks it is
    whole."""

    def __init__(self, half, steps, max_positions):
        super().__init__()
        self._ladder = (half, steps, max_positions)
        self.register_buffer("freqs", torch.empty(half, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self):
        with torch.no_grad():
            self.freqs.copy_(_C.modules.frequency_ladder(*self._ladder))

    def forward(self, t):
        return ops.noise_features(t, self.freqs)

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        if prefix + "freqs" not in state_dict and self.freqs.is_meta:
            state_dict[prefix + "freqs"] = _C.modules.frequency_ladder(*self._ladder)
        state_dict.setdefault(prefix + "freqs", self.freqs)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def _check_noise(name, t, freqs):
    check_rank(name, "t", t, 1, "(B,)")
    expect(not t.is_complex(), name, lambda: f"a real t, got {describe(t)}")
    expect(freqs is None or t.device == freqs.device, name, lambda: f"t on {freqs.device}, got {describe(t)}")


def _as_read_by(layer, features):
    """In the type of the layer that reads them."""
    weight = getattr(layer, "weight", None)
    return features.to(weight.dtype) if isinstance(weight, torch.Tensor) else features


class EDMConditionEmbedder(torch.nn.Module):
    """Noise level t (B,) and an optional condition (B, condition_dim) -> (B, emb_channels)."""

    def __init__(self, emb_channels, noise_channels, condition_dim=0, condition_dropout=0.0, legacy_condition_bias=False,
                 max_positions=10000):
        _C.modules.EDMConditionEmbedder(emb_channels, noise_channels, condition_dim, condition_dropout,
                                        legacy_condition_bias, max_positions)
        super().__init__()
        self.output_dim, self.condition_dim, self.condition_dropout = emb_channels, condition_dim, condition_dropout
        half = noise_channels // 2
        self.map_noise = _Frequencies(half, half - 1, max_positions)
        wanted = condition_dim > 0 or legacy_condition_bias
        self.map_condition = Linear(condition_dim, noise_channels) if wanted else None
        self.map_layer0 = Linear(noise_channels, emb_channels)
        self.map_layer1 = Linear(emb_channels, emb_channels)

    def noise_features(self, t):
        _check_noise("EDMConditionEmbedder", t, getattr(self.map_noise, "freqs", None))
        return _as_read_by(self.map_layer0, self.map_noise(t))

    def forward(self, t, condition=None):
        name = "EDMConditionEmbedder"
        e = self.noise_features(t)
        if self.map_condition is not None and condition is not None:
            check_shape(name, "condition", condition, (t.shape[0], self.condition_dim))
            check_input(name, "condition", condition, self.map_condition)
            if self.training and self.condition_dropout > 0:
                condition = ops.drop_rows(condition, self.condition_dropout, False)
            e = e + self.map_condition(condition * math.sqrt(self.condition_dim))
        check_input(name, "t", e, self.map_layer0)
        return self.map_layer1(F.silu(self.map_layer0(e)))


class _TimeEmbedder(_Frequencies):
    def __init__(self, hidden_size, max_positions):
        super().__init__(hidden_size // 2, hidden_size // 2, max_positions)
        self.mlp = torch.nn.Sequential(Linear(hidden_size, 2 * hidden_size), torch.nn.SiLU(),
                                       Linear(2 * hidden_size, hidden_size))

    def forward(self, t):
        _check_noise("DiTConditionEmbedder", t, self.freqs)
        features = _as_read_by(at(self.mlp, 0), ops.noise_features(t, self.freqs, cosines_first=True))
        check_input("DiTConditionEmbedder", "t", features, at(self.mlp, 0))
        return self.mlp(features)


class DiTConditionEmbedder(torch.nn.Module):
    """Cosines and sines of t, two linear layers, and a projection of the labels that is zero at first."""

    def __init__(self, hidden_size, condition_dim=0, max_positions=10000):
        super().__init__()
        self.output_dim, self.condition_dim = hidden_size, condition_dim
        self.t_embedder = _TimeEmbedder(hidden_size, max_positions)
        self.cond_embedder = Linear(condition_dim, hidden_size, False) if condition_dim > 0 else None
        self.initialize_weights()

    def initialize_weights(self):
        if self.cond_embedder is not None:
            torch.nn.init.zeros_(self.cond_embedder.weight)

    def forward(self, t, condition=None):
        c = self.t_embedder(t)
        if self.cond_embedder is not None and condition is not None:
            check_shape("DiTConditionEmbedder", "condition", condition, (t.shape[0], self.condition_dim))
            check_input("DiTConditionEmbedder", "condition", condition, self.cond_embedder)
            c = c + self.cond_embedder(condition)
        return c


class ZeroConditioningEmbedder(torch.nn.Module):
    """No conditioning: (B, 0), so that every adaLN acts by its bias alone."""

    output_dim = 0

    def forward(self, t, condition=None):
        check_rank("ZeroConditioningEmbedder", "t", t, 1, "(B,)")
        return t.new_empty(t.shape[0], 0)


def conditioning_embedder(name, hidden_size, emb_channels, noise_channels, condition_dim, condition_dropout=0.0,
                          legacy_condition_bias=False, max_positions=10000):
    """The embedder of VideoDiT by its name, which the C++ model has checked."""
    name = name.lower()
    if name == "edm":
        return EDMConditionEmbedder(emb_channels, noise_channels, condition_dim, condition_dropout, legacy_condition_bias,
                                    max_positions)
    return ZeroConditioningEmbedder() if name == "zero" else DiTConditionEmbedder(hidden_size, condition_dim,
                                                                                  max_positions)
