# SPDX-License-Identifier: Apache-2.0
"""HealDA's modules: torch.nn.Modules over torch.ops.halcyon. What each computes is written at its C++ twin (halcyon/nn,
halcyon/model), whose constructor checks the arguments."""

from .adaln import AdaLNModulation
from .attention import SelfAttention, SpatialSelfAttention, TemporalAttention
from .block import VideoDiTBlock
from .cross_attention import PixelCrossAttention
from .embedders import EDMConditionEmbedder
from .healda import HealDA
from .obs_tokenizer import ObsTokenizerFiLM
from .patches import CalendarEmbedding, HEALPixPatchDetokenizer, HEALPixPatchTokenizer
from .video_dit import VideoDiT

__all__ = [name for name in dir() if name[0].isupper()]
