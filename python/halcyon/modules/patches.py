# SPDX-License-Identifier: Apache-2.0
"""Between fine HEALPix fields and the tokens of coarse pixels, and where these stand in the day and the year."""

import torch

from .. import _C
from .checks import check_input, check_rank, check_shape, check_width, describe, expect
from .layers import Linear, PatchConv, PatchConvTranspose, at

ops = torch.ops.halcyon
_EPS = 1e-6


class CalendarEmbedding(torch.nn.Module):
    """Local time of day and day of year at longitudes lon (X,) degrees -> (B, 4 * embed_channels, T, X)."""

    def __init__(self, lon, embed_channels, include_legacy_bug=False):
        frequencies = _C.modules.CalendarEmbedding(lon, embed_channels, include_legacy_bug).frequencies()
        super().__init__()
        # tables, no state: they keep their type whatever the module is converted to
        self._lon, self._frequencies, self._sign = lon.detach(), frequencies, -1.0 if include_legacy_bug else 1.0

    def channels_last(self, day_of_year, second_of_day):
        """The same as (B, T, X, 4 * embed_channels)."""
        lon, frequencies = (table.to(day_of_year.device) for table in (self._lon, self._frequencies))
        return ops.calendar_features(day_of_year, second_of_day, lon, frequencies, self._sign)

    def forward(self, day_of_year, second_of_day):
        return self.channels_last(day_of_year, second_of_day).permute(0, 3, 1, 2).contiguous()


class _Grid:
    """Tables of how the tokens are made of fine pixels; region: the coarse pixels of a regional model."""

    def __init__(self, level_fine, level_coarse, region=None):
        self.side, self.patch = 2**level_coarse, 2**(level_fine - level_coarse)
        self.lon, self.children, self.inverse = _C.modules.patch_tables(level_fine, level_coarse, region)
        self.size = self.lon.numel()
        self.fine_size = self.size * self.patch**2

    def gather(self, x):
        children = None if self.children is None else self.children.to(x.device)
        return ops.patch_gather(x, self.side, self.patch, children)

    def scatter(self, patches):
        inverse = None if self.inverse is None else self.inverse.to(patches.device)
        return ops.patch_scatter(patches, self.side, self.patch, inverse)


class HEALPixPatchTokenizer(torch.nn.Module):
    """Fine HEALPix fields (B, C, T, X_fine) -> tokens of the coarse pixels (B, T, X, C) or (B, T*X, C)."""

    def __init__(self, *, in_channels, hidden_size, level_fine, level_coarse, separate_time_axis=False):
        _C.modules.HEALPixPatchTokenizer(in_channels, hidden_size, level_fine, level_coarse, separate_time_axis)
        super().__init__()
        self.in_channels, self.separate_time_axis = in_channels, separate_time_axis
        self._set_grid(_Grid(level_fine, level_coarse), hidden_size)

    def _set_grid(self, grid, hidden_size):
        self._grid = grid
        self.conv = PatchConv(self.in_channels, hidden_size, grid.patch)
        self.pos_embed = torch.nn.Parameter(torch.empty(grid.size, hidden_size))
        self.reset_parameters()
        self._calendar = (CalendarEmbedding(grid.lon.float(), hidden_size // 4),)  # no submodule: it has nothing to save

    @classmethod
    def of_region(cls, in_channels, hidden_size, level_fine, level_coarse, region):
        """Of a regional model, with separate_time_axis."""
        tokenizer = cls.__new__(cls)
        torch.nn.Module.__init__(tokenizer)
        tokenizer.in_channels, tokenizer.separate_time_axis = in_channels, True
        tokenizer._set_grid(_Grid(level_fine, level_coarse, region), hidden_size)
        return tokenizer

    def reset_parameters(self):
        torch.nn.init.normal_(self.pos_embed)

    def forward(self, x, second_of_day, day_of_year):
        name = "HEALPixPatchTokenizer"
        check_rank(name, "x", x, 4, "(B, C, T, X)")
        expect(x.shape[1] == self.in_channels, name, lambda: f"x of {self.in_channels} channels, got {describe(x)}")
        expect(x.shape[3] == self._grid.fine_size, name, lambda: f"x of {self._grid.fine_size} pixels, got {describe(x)}")
        check_input(name, "x", x, self.conv)
        for time in (second_of_day, day_of_year):
            check_shape(name, "second_of_day and day_of_year", time, (x.shape[0], x.shape[2]))
        patches = self.conv(self._grid.gather(x))
        # in double throughout when the module is
        kind = torch.float64 if self.pos_embed.dtype == torch.float64 else torch.float32
        calendar = self._calendar[0].channels_last(day_of_year.to(x.device, kind), second_of_day.to(x.device, kind))
        tokens = ((patches + calendar) + self.pos_embed).to(self.pos_embed.dtype)
        return tokens if self.separate_time_axis else tokens.flatten(1, 2)


class HEALPixPatchDetokenizer(torch.nn.Module):
    """Tokens of the coarse pixels -> fine HEALPix fields (B, out_channels, T, X_fine)."""

    def __init__(self, *, hidden_size, out_channels, level_coarse, level_fine, time_length=1, condition_dim=None):
        _C.modules.HEALPixPatchDetokenizer(hidden_size, out_channels, level_coarse, level_fine, time_length, condition_dim)
        super().__init__()
        self._set_grid(_Grid(level_fine, level_coarse), hidden_size, out_channels, time_length, condition_dim)

    def _set_grid(self, grid, hidden_size, out_channels, time_length, condition_dim):
        self._grid, self.hidden_size, self.time_length = grid, hidden_size, time_length
        self.condition_dim = hidden_size if condition_dim is None else condition_dim
        self.adaptive_modulation = torch.nn.Sequential(torch.nn.SiLU(), Linear(self.condition_dim, 2 * hidden_size))
        self.initialize_weights()
        self.conv_t = PatchConvTranspose(hidden_size, out_channels, grid.patch)

    @classmethod
    def of_region(cls, hidden_size, out_channels, level_fine, level_coarse, time_length, condition_dim, region):
        """Of a regional model."""
        detokenizer = cls.__new__(cls)
        torch.nn.Module.__init__(detokenizer)
        detokenizer._set_grid(_Grid(level_fine, level_coarse, region), hidden_size, out_channels, time_length,
                              condition_dim)
        return detokenizer

    def initialize_weights(self):
        """The modulation begins at zero."""
        torch.nn.init.zeros_(self.adaptive_modulation[1].weight)
        torch.nn.init.zeros_(self.adaptive_modulation[1].bias)

    def forward(self, x, c):
        name, pixels = "HEALPixPatchDetokenizer", self._grid.size
        expect(x is not None and x.dim() in (3, 4), name, lambda: f"x (B, T, X, C) or (B, T * X, C), got {describe(x)}")
        check_width(name, "x", x, self.hidden_size)
        frames = x.shape[1] if x.dim() == 4 else self.time_length
        expect(x.shape[2] == pixels if x.dim() == 4 else x.shape[1] == frames * pixels, name, lambda: (
            f"x of {frames} frames of {pixels} pixels, got {describe(x)}"))
        check_input(name, "x", x, self.conv_t)
        check_shape(name, "c", c, (x.shape[0], self.condition_dim))
        check_input(name, "c", c, at(self.adaptive_modulation, -1))
        shift, scale = self.adaptive_modulation(c).chunk(2, -1)
        tokens = ops.norm_modulate(x, shift, scale, _EPS)
        return self._grid.scatter(self.conv_t(tokens.reshape(x.shape[0], frames, pixels, self.hidden_size)))
