# SPDX-License-Identifier: Apache-2.0
"""Every module in Python and its twin in C++, on the same weights: forward and backward, in single and double precision and
under autocast to bfloat16."""

import pytest
import torch
from conftest import near
from references import SMALL_MODEL, cu_of, randomise

import halcyon
from halcyon import _C

COUNTS = [2, 0, 3, 0, 1, 0] * 4
CROSS = dict(hidden_size=8, token_dim=3, n_q_heads=32, n_kv_heads=2, d_head=2, use_proj_bias=True)
OFFSETS = cu_of(COUNTS)
TIMES = (torch.tensor([[3600.0, 7200.0]]), torch.tensor([[20.5, 20.75]]))
IDS = [torch.tensor(ids) for ids in ([0, 3, 1], [7, 1023, 0], [5, 5, 9])]


class Numbers:
    """The same random inputs for both."""

    def __init__(self, dtype):
        self.generator, self.dtype = torch.Generator().manual_seed(9), dtype

    def __call__(self, *shape):
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.dtype).requires_grad_()


def positional(name, *arguments):
    return lambda: (getattr(halcyon, name)(*arguments), getattr(_C.modules, name)(*arguments))


def named(name, **arguments):
    return lambda: (getattr(halcyon, name)(**arguments), getattr(_C.modules, name)(*arguments.values()))


def block(**options):
    defaults = dict(hidden_size=8, num_heads=2, condition_embed_dim=5)
    return lambda: (halcyon.VideoDiTBlock(**defaults, **options), _C.modules.VideoDiTBlock(defaults | options))


TABLES = halcyon.rope_tables(4, 2)
LEVELS = dict(level_fine=1, level_coarse=0)
TEMPORAL = dict(temporal_attention=True, is_causal=True, temporal_kwargs=dict(causal_window=2))
RMS = dict(qk_norm_type="RMSNorm", qk_norm_affine=False)
ADALN = positional("AdaLNModulation", 4, 6, 2, False)
CASES = {
    "adaln": (ADALN, lambda r: (r(2, 6),)),
    **{f"self_attention_{norm}_{affine}_{causal}": (
        positional("SelfAttention", 8, 2, 0.0, 0.0, norm, affine, causal), lambda r: (r(2, 5, 8), None))
        for norm, affine in ((None, True), ("RMSNorm", True), ("RMSNorm", False), ("LayerNorm", True), ("LayerNorm", False))
        for causal in (False, True)},
    "self_attention_mask": (positional("SelfAttention", 8, 2, 0.0, 0.0, "RMSNorm", True, False),
                            lambda r: (r(2, 5, 8), torch.ones(5, 5).tril().bool())),
    **{f"spatial_{backend}_{bias}": (positional("SpatialSelfAttention", 8, 2, 0.0, bias, backend),
                                     lambda r: (r(2, 12, 8),))
       for backend in ("auto", "sdpa", "manual") for bias in (True, False)},
    **{f"temporal_{rope}_{linear}_{window}": (
        named("TemporalAttention", hidden_size=8, num_heads=2, use_rope=rope, is_causal=window is not None,
              linear_attention=linear, causal_window=window),
        lambda r, rope=rope: (r(2, 2, 3, 8), *(TABLES if rope else (None, None))))
        for rope in (True, False) for linear in (True, False) for window in (None, 1)},
    **{f"cross_{bias}": (named("PixelCrossAttention", **(CROSS | dict(use_proj_bias=bias))),
                         lambda r: (r(2, 2, 6, 8), r(sum(COUNTS), 3), OFFSETS, 3)) for bias in (True, False)},
    "film": (positional("ObsTokenizerFiLM", 2, 4, 8, 4, None, None, True, None), lambda r: (r(3), r(3, 2), *IDS[:2], None)),
    "film_platform": (positional("ObsTokenizerFiLM", 2, 4, 8, 4, 3, 2, True, 16), lambda r: (r(3), r(3, 2), *IDS)),
    "edm": (positional("EDMConditionEmbedder", 6, 8, 3, 0.0, False, 10000), lambda r: (r(2).detach(), r(2, 3))),
    "edm_legacy": (positional("EDMConditionEmbedder", 6, 8, 0, 0.0, True, 100), lambda r: (r(2).detach(), None)),
    **{f"tokenizer_{separate}": (
        named("HEALPixPatchTokenizer", in_channels=2, hidden_size=8, **LEVELS, separate_time_axis=separate),
        lambda r: (r(1, 2, 2, 48), *TIMES)) for separate in (True, False)},
    "detokenizer": (named("HEALPixPatchDetokenizer", hidden_size=8, out_channels=3, level_coarse=0, level_fine=1,
                          time_length=2, condition_dim=5), lambda r: (r(1, 2, 12, 8), r(1, 5))),
    "block": (block(attn_kwargs=RMS), lambda r: (r(2, 2, 6, 8), r(2, 5), None, None, None, None)),
    "block_full": (block(cross_attention=CROSS, attn_kwargs=RMS, mlp_ratio=2.5, **TEMPORAL),
                   lambda r: (r(2, 2, 6, 8), r(2, 5), r(sum(COUNTS), 3), OFFSETS, *TABLES)),
    "block_rings": (block(attention_backend="rings:1", attn_kwargs=dict(qk_norm_type="LayerNorm")),
                    lambda r: (r(2, 1, 48, 8), r(2, 5), None, None, None, None)),
    "block_disk_nest": (block(attention_backend="disk-nest:40", attn_kwargs=RMS),
                        lambda r: (r(1, 1, 48, 8), r(1, 5), None, None, None, None)),
}


def arguments_of_python(name, inputs):
    """The block's inputs as Python's forward takes them."""
    if not name.startswith("block"):
        return inputs, {}
    h, c, tokens, offsets, cos, sin = inputs
    cross = None if tokens is None else dict(tokens=tokens, cu_seqlens_k=offsets, max_seqlen_k=3)
    return (h, c), dict(cross_attn_kwargs=cross, temporal_attn_kwargs=dict(rope_cos=cos, rope_sin=sin))


def joined(y):
    return torch.cat(list(y), -1) if isinstance(y, (tuple, list)) else y


@pytest.mark.parametrize("kind", ["float", "double", "autocast"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_numbers(name, kind):
    dtype, bound = {"float": (torch.float32, 1e-6), "double": (torch.float64, 1e-13), "autocast": (torch.float32, 1e-2)}[kind]
    make, inputs = CASES[name]
    module, twin = make()
    randomise(module).to(dtype)
    twin.assign({key: value.clone() for key, value in module.state_dict().items()})
    parameters = twin.tensors()
    assert list(sorted(parameters)) == sorted(key for key, _ in module.named_parameters())
    ours, theirs = inputs(Numbers(dtype)), inputs(Numbers(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
        given, options = arguments_of_python(name, ours)
        y, z = joined(module(*given, **options)), joined(twin.forward(*theirs))
    assert y.dtype == z.dtype
    near(y, z, bound)
    weight = torch.linspace(0.5, 1.5, y.numel()).view(y.shape).to(y.dtype)
    for output in (y, z):
        (output * weight).sum().backward()
    for one, other in zip(ours, theirs):
        if isinstance(one, torch.Tensor) and one.requires_grad:
            near(one.grad, other.grad, 5 * bound)
    for key, parameter in module.named_parameters():
        if parameter.grad is None:  # of labels that were not given
            assert parameters[key].grad is None
        else:
            near(parameter.grad, parameters[key].grad, 5 * bound)


def model_inputs(dtype, frames=2):
    numbers, n, total = Numbers(dtype), 30, frames * 48
    ids = [torch.randint(60, (n,), generator=numbers.generator) for _ in range(3)]
    flat = torch.randint(total, (n,), generator=numbers.generator)
    context = halcyon.prepare_obs_context(numbers(n).detach(), numbers(n, 6).detach(), *ids, flat, total)
    return (numbers(1, 2, frames, 192).detach(), torch.zeros(1, dtype=dtype), torch.tensor([[0.0, 21600]]),
            torch.tensor([[10.0, 10.25]]), context)


@pytest.mark.parametrize("options", [{}, dict(qk_norm_affine=True, linear_attention=False), dict(attention_backend="rings:1"),
                                     dict(pixel_attn_use_proj_bias=False), dict(region=[0, 5, 6, 7, 40])], ids=str)
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 2e-5), (torch.float64, 1e-12)])
def test_the_whole_model(options, dtype, bound):
    model = randomise(halcyon.HealDA(**(SMALL_MODEL | options)), 0.1).to(dtype).eval()
    given = model_inputs(dtype)
    if "region" in options:
        pixels = len(options["region"])
        x, t, second, day, context = given
        context = halcyon.prepare_obs_context(context.obs, context.float_metadata, context.obs_type, context.channel,
                                              context.platform, torch.arange(30) % (2 * pixels), 2 * pixels)
        given = (x[..., :4 * pixels].contiguous(), t, second, day, context)
    with torch.no_grad():
        near(halcyon.inference(model)(*given), model(*given), bound)
        near(halcyon.inference(model, fixed_noise=True)(*given), model(*given), bound)


def test_inference_sees_weights_that_change_in_place():
    model, given = randomise(halcyon.HealDA(**SMALL_MODEL), 0.1).eval(), model_inputs(torch.float32)
    run = halcyon.inference(model)
    before = run(*given)
    with torch.no_grad():
        model.dit.blocks[0].linear.layers[0].weight.mul_(2)
        near(run(*given), model(*given), 2e-5)
    assert not torch.equal(run(*given), before) and not run(*given).requires_grad
    assert "C++" in repr(run)


def hooked(model):
    model.dit.blocks[1].attention.attn_op.qkv.register_forward_hook(lambda *_: None)


def replaced(model):
    model.dit.blocks[1].attention.attn_op.qkv = torch.nn.Linear(32, 96)


def parametrized(model):
    torch.nn.utils.parametrizations.weight_norm(model.dit.blocks[1].attention.attn_op.qkv)


@pytest.mark.parametrize("change", [hooked, replaced, parametrized])
def test_inference_refuses_what_it_would_not_run(change):
    model = halcyon.HealDA(**SMALL_MODEL)
    change(model)
    with pytest.raises(ValueError, match=r"\[inference\] expected .*blocks.1.attention.attn_op.qkv"):
        halcyon.inference(model)
