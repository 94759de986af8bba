# SPDX-License-Identifier: Apache-2.0
"""Halcyon: learned weather data assimilation. Operators and modules in C++, with torch's tensors and autograd."""

import torch as _torch  # noqa: F401  LibTorch, which the extension module links to

from . import healpix
from ._C import (ObsContext, PixelGroupMap, apply_rope, build_pixel_group_map, counts_to_cu_seqlens, film_tokenizer,
                 float_metadata, gated_residual, local_solar_time, mask_causal, modulate, pixel_attention,
                 prepare_obs_context, qc_reasons, quality_control, rope_tables, sort_and_pack)
from .checkpoints import load_checkpoint, save_checkpoint
from .modules import (AdaLNModulation, CalendarEmbedding, EDMConditionEmbedder, HEALPixPatchDetokenizer,
                      HEALPixPatchTokenizer, HealDA, ObsTokenizerFiLM, PixelCrossAttention, SelfAttention,
                      SpatialSelfAttention, TemporalAttention, VideoDiT, VideoDiTBlock)

__all__ = [name for name in dir() if not name.startswith("_")]
