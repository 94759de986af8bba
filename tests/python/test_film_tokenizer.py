# SPDX-License-Identifier: Apache-2.0
"""The FiLM tokenizer of observations, as an operator and as a module, against the formula."""

import pytest
import references
import torch
from conftest import near
from references import rejected

import halcyon

N, META, HIDDEN, OUT = 6, 3, 8, 4
WIDTHS = dict(embed_table=2, channel_embedding=3, platform_embedding=1)
FLOATING = ("obs", "float_metadata", *WIDTHS, "weight1", "bias1", "norm_weight", "norm_bias", "weight2", "bias2")


def inputs(n=N, dtype=torch.float64, platform=True, ids=torch.int64):
    torch.manual_seed(1)
    tables = {name: (5, width) for name, width in WIDTHS.items() if platform or name != "platform_embedding"}
    cond = META + sum(shape[1] for shape in tables.values())
    shapes = dict(obs=(n,), float_metadata=(n, META), **tables, weight1=(HIDDEN, cond), bias1=(HIDDEN,),
                  norm_weight=(HIDDEN,), norm_bias=(HIDDEN,), weight2=(2 * OUT, HIDDEN), bias2=(2 * OUT,))
    x = {name: torch.randn(shape, dtype=dtype, requires_grad=True) for name, shape in shapes.items()}
    x.update({name: torch.randint(5, (n,), dtype=ids) for name in ("obs_type", "channel", "platform")})
    return x


def reference(x, **options):
    tables = [x[name] for name in WIDTHS if name in x]
    ids = [x[name] for name in ("obs_type", "channel", "platform")][:len(tables)]
    return references.film(x["obs"], x["float_metadata"], ids, tables,
                           *[x[name] for name in FLOATING if name[-1] in "12" or name.startswith("norm")], **options)


def ours(x, **options):
    x = dict(x)
    positional = [x.pop(name) for name in ("obs", "float_metadata", "obs_type", "channel", "platform")]
    return halcyon.film_tokenizer(*positional, **x, **options)


@pytest.mark.parametrize("dtype, forward, backward", [(torch.float64, 1e-12, 1e-12), (torch.float32, 1e-5, 2e-5),
                                                      (torch.bfloat16, 2e-2, 4e-2)])
@pytest.mark.parametrize("platform, ids", [(True, torch.int64), (True, torch.int32), (False, torch.int64)])
@pytest.mark.parametrize("n", [N, 1, 300])
def test_against_the_formula(n, platform, ids, dtype, forward, backward):
    x = inputs(n, dtype, platform, ids)
    wide = {k: t.detach().double().requires_grad_() if t.is_floating_point() else t for k, t in x.items()}
    y, expected = ours(x), reference(wide)
    assert y.dtype == dtype and y.shape == (n, OUT)
    near(y, expected, forward)
    y.double().square().sum().backward()
    expected.square().sum().backward()
    for name in FLOATING:
        if name in x:
            near(x[name].grad, wide[name].grad, backward)


def test_gradcheck():
    x = inputs()
    names = [name for name in FLOATING if name in x]
    assert torch.autograd.gradcheck(lambda *tensors: ours(x | dict(zip(names, tensors))), [x[name] for name in names],
                                    fast_mode=True)


def test_epsilon_and_strides():
    x = inputs()
    near(ours(x, eps=0.5), reference(x, eps=0.5), 1e-12)
    strided = {name: t.detach().T.contiguous().T if t.dim() == 2 else t[:, None].repeat(1, 2)[:, 0]
               for name, t in x.items()}
    near(ours(strided), ours(x), 1e-14)


@pytest.mark.parametrize("eps", [-1e-5, float("nan")])
def test_epsilon_is_refused(eps):
    with references.rejected("film_tokenizer"):
        ours(inputs(), eps=eps)


def test_without_observations_every_gradient_is_zero():
    x = inputs(0)
    y = ours(x)
    assert y.shape == (0, OUT)
    y.sum().backward()
    for name in FLOATING:
        assert x[name].grad is not None and not x[name].grad.any()


def test_module_is_the_operator_and_knows_its_widths():
    module = halcyon.ObsTokenizerFiLM(META, OUT, obs_type_embed_dim=2, platform_embed_dim=1)
    shapes = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    assert shapes == {"embed_table.weight": (1024, 2), "channel_embedding.weight": (1024, 2),
                      "platform_embedding.weight": (1024, 1), "cond_mlp.0.weight": (8, 8), "cond_mlp.0.bias": (8,),
                      "cond_mlp.1.weight": (8,), "cond_mlp.1.bias": (8,), "cond_mlp.3.weight": (8, 8),
                      "cond_mlp.3.bias": (8,)}
    references.randomise(module)
    x = inputs(dtype=torch.float32)
    ids = [x["obs_type"], x["channel"], x["platform"]]
    state = module.state_dict()
    tables = [state[f"{name}.weight"] for name in ("embed_table", "channel_embedding", "platform_embedding")]
    mlp = [state[f"cond_mlp.{layer}.{kind}"] for layer in (0, 1, 3) for kind in ("weight", "bias")]
    y = module(x["obs"], x["float_metadata"], obs_type=ids[0], channel_ids=ids[1], platform_ids=ids[2])
    near(y, references.film(x["obs"], x["float_metadata"], ids, tables, *mlp), 1e-5)
    assert torch.equal(y, module(x["obs"], x["float_metadata"], *ids))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near(module(x["obs"], x["float_metadata"], *ids), y, 2e-2)


@pytest.mark.parametrize("out, hidden, expected", [(4, None, 8), (64, None, 128), (128, None, 128), (4, 16, 16)])
def test_hidden_width(out, hidden, expected):
    module = halcyon.ObsTokenizerFiLM(META, out, hidden_dim=hidden, channel_embed_dim=3)
    assert module.state_dict()["cond_mlp.0.weight"].shape == (expected, META + 4 + 3)
    assert "platform_embedding.weight" not in module.state_dict()


@pytest.mark.parametrize("options", [dict(hidden_dim=0), dict(hidden_dim=-8),
                                     dict(obs_type_embed_dim=-1), dict(n_embed=-1)], ids=str)
def test_constructor_refuses(options):
    with rejected("ObsTokenizerFiLM"):
        halcyon.ObsTokenizerFiLM(META, OUT, **options)


def test_unfused_takes_any_hidden_width():
    module = halcyon.ObsTokenizerFiLM(META, OUT, hidden_dim=12, use_fused_mlp=False)
    ids = torch.zeros(N).long()
    assert module(torch.zeros(N), torch.zeros(N, META), ids, ids).shape == (N, OUT)


@pytest.mark.parametrize("change", [
    dict(obs=torch.zeros(N, 1)), dict(obs=torch.zeros(N).long()), dict(obs=torch.zeros(N, device="meta")),
    dict(float_metadata=torch.zeros(N, META + 1)), dict(float_metadata=torch.zeros(N + 1, META)),
    dict(float_metadata=torch.zeros(N * META)), dict(float_metadata=torch.zeros(N, META, device="meta")),
    dict(obs_type=torch.zeros(N + 1).long()), dict(channel=torch.zeros(N)), dict(platform=torch.zeros(N, 1).long()),
    dict(platform=None), dict(obs_type=torch.full((N,), 5)), dict(channel=torch.full((N,), -1)),
    dict(platform=torch.full((N,), 2**31)), dict(embed_table=torch.zeros(5)), dict(weight1=torch.zeros(HIDDEN, 4)),
    dict(bias1=torch.zeros(HIDDEN + 1)), dict(norm_weight=torch.zeros(1)), dict(weight2=torch.zeros(7, HIDDEN)),
    dict(bias2=torch.zeros(OUT)),
], ids=lambda c: " ".join(f"{k}={list(v.shape) if isinstance(v, torch.Tensor) else v}" for k, v in c.items()))
def test_refused(change):
    x = inputs(dtype=torch.float32)
    assert ours(x).shape == (N, OUT)
    with rejected():
        ours(x | change)


@pytest.mark.parametrize("at, bad", [(0, torch.zeros(N, 1)), (1, torch.zeros(N, META - 1)), (2, torch.zeros(N)),
                                     (3, torch.zeros(N - 1).long()), (4, None), (4, torch.zeros(2, N).long())])
def test_module_refuses(at, bad):
    module = halcyon.ObsTokenizerFiLM(META, OUT, platform_embed_dim=2)
    arguments = [torch.zeros(N), torch.zeros(N, META)] + [torch.zeros(N).long()] * 3
    arguments[at] = bad
    with rejected():
        module(*arguments)
