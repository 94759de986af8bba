# SPDX-License-Identifier: Apache-2.0
"""Halcyon: learned weather data assimilation. Operators and modules in C++, with torch's tensors and autograd."""

import torch as _torch  # noqa: F401  LibTorch, which the extension module links to

from . import healpix, parallel
from ._C import (apply_rope, counts_to_cu_seqlens, film_tokenizer, float_metadata, gated_residual, local_solar_time,
                 mask_causal, modulate, norm_modulate, qc_reasons, quality_control, rope_tables, sort_and_pack)
from .autotuner import (disable_autotuner, is_autotuner_enabled, is_autotuner_enabled_for_backward,
                        is_autotuner_enabled_for_forward, use_autotuner)
from .checkpoints import load_checkpoint, save_checkpoint
from .inference import inference
from .modules import (AdaLNModulation, CalendarEmbedding, EDMConditionEmbedder, HEALPixPatchDetokenizer,
                      HEALPixPatchTokenizer, HealDA, ObsTokenizerFiLM, PixelCrossAttention, SelfAttention,
                      SpatialSelfAttention, TemporalAttention, VideoDiT, VideoDiTBlock)
from .flops import fna_flop_count, na_av_flop_count, na_qk_flop_count
from .neighborhood import (attention, merge_attentions, na1d, na1d_av, na1d_qk, na1d_varlen, na2d, na2d_av, na2d_qk,
                           na3d, na3d_av, na3d_qk, neighborhood_attention_healpix, neighborhood_attention_healpix_stats)
from .neighborhood_modules import (NeighborhoodAttention1D, NeighborhoodAttention2D, NeighborhoodAttention3D,
                                   NeighborhoodAttentionHEALPix)
from .observations import ObsContext, PixelGroupMap, build_pixel_group_map, pixel_attention, prepare_obs_context
from .parallel import HaloExchange, halo_exchange, shard_t, shard_x
from .switches import (disable_gemm_na, disable_tiled_na, enable_gemm_na, enable_tiled_na, get_device_cc,
                       get_memory_usage_preference, has_bfloat, has_cuda, has_fna, has_fp32_gemm, has_fp64_gemm,
                       has_gemm, has_half, has_tf32_gemm, is_fused_na_enabled, is_gemm_na_enabled,
                       is_kv_parallelism_in_fused_na_enabled, is_tiled_na_enabled, set_memory_usage_preference,
                       use_fused_na, use_kv_parallelism_in_fused_na)

__all__ = [name for name in dir() if not name.startswith("_")]
