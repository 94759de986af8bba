# SPDX-License-Identifier: Apache-2.0
import torch

from .. import _C
from .checks import check_input, check_rank, check_width
from .layers import Linear, at

_NAME = "AdaLNModulation"


class AdaLNModulation(torch.nn.Module):
    """adaLN-Zero: c (B, condition_embed_dim) -> 3 * n_blocks tensors (B, embedding_dim): shift, scale, gate, ..."""

    def __init__(self, embedding_dim, condition_embed_dim, n_blocks=1, zero_init=True):
        _C.modules.AdaLNModulation(embedding_dim, condition_embed_dim, n_blocks, zero_init)
        super().__init__()
        self.condition_embed_dim, self.n_blocks = condition_embed_dim, n_blocks
        self.modulation = torch.nn.Sequential(torch.nn.SiLU(),
                                              Linear(condition_embed_dim, 3 * n_blocks * embedding_dim))
        if zero_init:
            self.zero()

    def zero(self):
        """Sets the projection to zero: every branch then begins without effect."""
        torch.nn.init.zeros_(self.modulation[1].weight)
        torch.nn.init.zeros_(self.modulation[1].bias)

    def forward(self, c):
        check_rank(_NAME, "c", c, 2, "(B, condition_embed_dim)")
        check_width(_NAME, "c", c, self.condition_embed_dim)
        check_input(_NAME, "c", c, at(self.modulation, -1))
        return self.modulation(c).chunk(3 * self.n_blocks, -1)
