# SPDX-License-Identifier: Apache-2.0
"""Tiny modules of every class with their inputs, for the tests of what users do with torch modules (test_habits_*.py).

    case = CASES["VideoDiT"]
    model = case.make()             # random weights in float64: gates that start at zero would hide everything
    y = case.run(model)             # one tensor, of the same inputs on every call"""

from dataclasses import dataclass
from typing import Callable

import pytest
import torch
from references import SMALL_MODEL, cu_of, randomise

import halcyon

TINY = SMALL_MODEL | dict(level_in=1, level_model=0, hidden_size=16, num_heads=2, condition_dim=3, drop_path=0.0,
                          qk_norm_affine=True)
BATCH, FRAMES, PIXELS, FINE = 1, 2, 12, 48
COUNTS = [3, 0, 1, 2]
CROSS = dict(hidden_size=8, token_dim=3, n_q_heads=16, n_kv_heads=1, d_head=2, use_proj_bias=True)
LEVELS = dict(level_fine=1, level_coarse=0)
wide = torch.float64


@pytest.fixture(autouse=True)
def one_thread():
    """Of every module of tests that imports this: such small tensors gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def numbers(*shape, seed=0, dtype=wide):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=wide).to(dtype)


def context(observations=20, dtype=wide, batch=BATCH, seed=6):
    """Observations packed for the pixels of a tiny HealDA."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(5, (observations,), generator=generator) for _ in range(3)]
    pixel = torch.randint(batch * FRAMES * PIXELS, (observations,), generator=generator)
    return halcyon.prepare_obs_context(numbers(observations, seed=seed, dtype=dtype),
                                       numbers(observations, 6, seed=seed + 1, dtype=dtype), *ids, pixel,
                                       batch * FRAMES * PIXELS)


def healda_inputs(dtype=wide, batch=BATCH, observations=20, seed=1):
    return dict(x=numbers(batch, 2, FRAMES, FINE, seed=seed, dtype=dtype), t=numbers(batch, seed=seed + 1, dtype=dtype),
                **calendar(dtype, batch), obs_ctx=context(observations, dtype, batch, seed + 5),
                class_labels=numbers(batch, 3, seed=seed + 2, dtype=dtype))


def calendar(dtype=wide, batch=BATCH, frames=FRAMES):
    hours = torch.arange(frames, dtype=dtype).expand(batch, frames)
    return dict(second_of_day=3600 * hours, day_of_year=20 + hours / 24)


def block_inputs(dtype=wide):
    """Of a block with hidden size 8: 1 sample, 2 frames, 2 pixels."""
    cos, sin = halcyon.rope_tables(4, 2)
    return (numbers(1, 2, 2, 8, dtype=dtype), numbers(1, 5, seed=1, dtype=dtype)), dict(
        cross_attn_kwargs=tokens(dtype), temporal_attn_kwargs=dict(rope_cos=cos, rope_sin=sin))


def tokens(dtype=wide):
    return dict(tokens=numbers(sum(COUNTS), 3, seed=2, dtype=dtype), cu_seqlens_k=cu_of(COUNTS), max_seqlen_k=3)


def video_dit(num_layers=2, width=6, **options):
    tokenizer = halcyon.HEALPixPatchTokenizer(in_channels=2, hidden_size=8, separate_time_axis=True, **LEVELS)
    detokenizer = halcyon.HEALPixPatchDetokenizer(hidden_size=8, out_channels=3, condition_dim=width, **LEVELS)
    given = dict(emb_channels=6, noise_channels=8, condition_dim=3, temporal_attention=True, cross_attention=CROSS,
                 attn_kwargs=dict(qk_norm_type="LayerNorm"))
    return halcyon.VideoDiT(tokenizer, detokenizer, 8, 2, num_layers, **(given | options))


def packed(dtype):
    counts = [1, 0, 2] * (FRAMES * PIXELS // 3)
    return dict(tokens=numbers(sum(counts), 3, seed=4, dtype=dtype), cu_seqlens_k=cu_of(counts), max_seqlen_k=2)


@dataclass
class Case:
    """build() gives a new module, given(dtype) its positional and its named arguments."""
    build: Callable
    given: Callable

    def make(self, dtype=wide, scale=0.4, seed=5):
        return randomise(self.build(), scale, seed).to(dtype)

    def run(self, module, dtype=wide):
        args, kwargs = self.given(dtype)
        return joined(module(*args, **kwargs))


def joined(y):
    return torch.cat(y, -1) if isinstance(y, tuple) else y


IDS = torch.tensor([0, 3, 1])


def film(fused):
    return Case(lambda: halcyon.ObsTokenizerFiLM(2, 4, n_embed=4, platform_embed_dim=3, use_fused_mlp=fused),
                lambda d: ((numbers(3, dtype=d), numbers(3, 2, seed=1, dtype=d), IDS, IDS, IDS), {}))


def rows(build, *shape):
    """A module that takes one tensor."""
    return Case(build, lambda d: ((numbers(*shape, dtype=d),), {}))


CASES = {
    "AdaLNModulation": rows(lambda: halcyon.AdaLNModulation(4, 6, n_blocks=2), 2, 6),
    "SelfAttention": rows(lambda: halcyon.SelfAttention(8, 2, qk_norm_type="RMSNorm"), 2, 5, 8),
    "SelfAttention LayerNorm": rows(lambda: halcyon.SelfAttention(8, 2, qk_norm_type="LayerNorm"), 2, 5, 8),
    "SelfAttention plain norms": rows(lambda: halcyon.SelfAttention(8, 2, qk_norm_type="RMSNorm",
                                                                    qk_norm_affine=False), 2, 5, 8),
    "SpatialSelfAttention": rows(lambda: halcyon.SpatialSelfAttention(8, 2), 2, 12, 8),
    "TemporalAttention": Case(lambda: halcyon.TemporalAttention(hidden_size=8, num_heads=2, is_causal=True),
                              lambda d: ((numbers(1, 3, 2, 8, dtype=d), *halcyon.rope_tables(4, 3)), {})),
    "TemporalAttention softmax": rows(lambda: halcyon.TemporalAttention(
        hidden_size=8, num_heads=2, use_rope=False, linear_attention=False), 1, 3, 2, 8),
    "PixelCrossAttention": Case(lambda: halcyon.PixelCrossAttention(**CROSS),
                                lambda d: ((numbers(1, 2, 2, 8, dtype=d),), tokens(d))),
    "ObsTokenizerFiLM": film(True),
    "ObsTokenizerFiLM unfused": film(False),
    "EDMConditionEmbedder": Case(lambda: halcyon.EDMConditionEmbedder(6, 8, condition_dim=3),
                                 lambda d: ((numbers(2, dtype=d), numbers(2, 3, seed=1, dtype=d)), {})),
    "HEALPixPatchTokenizer": Case(lambda: halcyon.HEALPixPatchTokenizer(in_channels=2, hidden_size=8, **LEVELS),
                                  lambda d: ((numbers(1, 2, 1, FINE, dtype=d),), calendar(d, frames=1))),
    "HEALPixPatchDetokenizer": Case(lambda: halcyon.HEALPixPatchDetokenizer(hidden_size=4, out_channels=2,
                                                                            condition_dim=5, **LEVELS),
                                    lambda d: ((numbers(1, 1, 12, 4, dtype=d), numbers(1, 5, seed=1, dtype=d)), {})),
    "VideoDiTBlock": Case(lambda: halcyon.VideoDiTBlock(8, 2, condition_embed_dim=5, cross_attention=CROSS,
                                                        temporal_attention=True, is_causal=True,
                                                        attn_kwargs=dict(qk_norm_type="RMSNorm")), block_inputs),
    "VideoDiTBlock rings": Case(lambda: halcyon.VideoDiTBlock(8, 2, condition_embed_dim=5, attention_backend="rings:1",
                                                              attn_kwargs=dict(qk_norm_type="RMSNorm")),
                                lambda d: ((numbers(1, 2, 12, 8, dtype=d), numbers(1, 5, seed=1, dtype=d)), {})),
    "VideoDiT dit": Case(lambda: video_dit(conditioning_embedder="dit", cross_attention=None, num_layers=1, width=8),
                         lambda d: ((numbers(1, 2, FRAMES, FINE, dtype=d), numbers(1, seed=1, dtype=d),
                                     numbers(1, 3, seed=2, dtype=d)), dict(tokenizer_kwargs=calendar(d)))),
    "VideoDiT": Case(video_dit, lambda d: ((numbers(1, 2, FRAMES, FINE, dtype=d), numbers(1, seed=1, dtype=d),
                                            numbers(1, 3, seed=2, dtype=d)),
                                           dict(tokenizer_kwargs=calendar(d), cross_attn_kwargs=packed(d)))),
    "HealDA": Case(lambda: halcyon.HealDA(**TINY), lambda d: ((), healda_inputs(d))),
}
WHOLE = ["VideoDiTBlock", "VideoDiT", "HealDA"]


def loss(y):
    """Depends on every element in its own way."""
    y = y.double()
    return (y.sin() * torch.linspace(-1, 1, y.numel(), dtype=wide).view(y.shape)).sum()


def gradients(module, run):
    """The gradients of the loss for every parameter, by name."""
    module.zero_grad()
    loss(run(module)).backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def same(actual, expected, relative=1e-9):
    """Of two dictionaries of tensors: equal keys, values near to the largest of each."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        error = (actual[name].detach().double() - value.detach().double()).abs().max().item() if value.numel() else 0
        scale = max(v.detach().double().abs().max().item() for v in expected.values() if v.numel())
        assert actual[name].shape == value.shape and error <= relative * scale, f"{name}: error {error:.3g}"


def callable_modules(module):
    """Every inner module by name; those without a forward of their own (lists) are never called by anybody."""
    return {name: m for name, m in module.named_modules()
            if name and not isinstance(m, (torch.nn.ModuleList, torch.nn.ModuleDict))
            and (type(m).forward is not torch.nn.Module.forward or list(m.parameters(recurse=False)))}


def layers(module, kind=torch.nn.Linear):
    return {name: m for name, m in module.named_modules() if isinstance(m, kind)}


def leaves(module):
    """Names of the modules that have tensors of their own."""
    return [name for name, m in module.named_modules() if list(m.parameters(recurse=False))]


TRANSFORMS = ("halcyon", "aten::", "vmap", "jvp", "vjp", "jacrev", "jacfwd", "functorch", "forward AD", "forward-mode",
              "dual", "transform", "batching rule")


def right_or_refused(compute, check, words=TRANSFORMS):
    """compute() gives what check() holds for, or raises an error whose text has one of the words. Says which it was."""
    try:
        result = compute()
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        text = str(error)
        named = text.startswith("[") or any(word.lower() in text.lower() for word in words)
        assert named, f"{type(error).__name__} names neither operator nor transform: {text}"
        print(f"refused: {type(error).__name__}: {text[:200]}")
        return "refused"
    check(result)
    print("works")
    return "works"
