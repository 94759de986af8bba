# SPDX-License-Identifier: Apache-2.0
"""Layers that stay in their place and are changed: a bias more or less, another eps, short rows of a table, another
class. The model computes what each layer would by itself, or refuses; an operator of several layers must not differ."""

import pytest
import torch
from conftest import near
from habits import CASES, layers, loss, one_thread, right_or_refused  # noqa: F401

wide = torch.float64
LINEARS = [(name, key) for name in CASES if name != "VideoDiT" for key in sorted(layers(CASES[name].build()))]


@pytest.mark.parametrize("name, key", LINEARS)
def test_a_bias_more_or_less(name, key):
    """A bias where there was none, and none where there was one."""
    case = CASES[name]
    model = case.make()
    layer = model.get_submodule(key)
    if layer.bias is None:
        layer.bias = torch.nn.Parameter(torch.linspace(-1, 1, layer.out_features, dtype=wide))
        other = case.make()
        shift = layer.bias.detach()
        other.get_submodule(key).register_forward_hook(lambda m, args, y: y + shift)
    else:
        layer.bias = None
        other = case.make()
        with torch.no_grad():
            other.get_submodule(key).bias.zero_()
    def check(y):
        near(y, case.run(other), 1e-11)
        loss(y).backward()
        assert layer.bias is None or layer.bias.grad is not None

    right_or_refused(lambda: case.run(model), check)


@pytest.mark.parametrize("name, key", LINEARS)
def test_a_subclass_in_place(name, key):
    """The class of one layer is changed, as quantizers do."""
    case = CASES[name]
    model = case.make()
    layer = model.get_submodule(key)

    class Doubled(type(layer)):
        def forward(self, x):
            return 2 * super().forward(x)

    layer.__class__ = Doubled
    plain = case.make()
    with torch.no_grad():
        for p in plain.get_submodule(key).parameters():
            p.mul_(2)
    near(case.run(model), case.run(plain), 1e-11)


CHANGED = {"obs_tokenizer.cond_mlp.1": dict(eps=0.5), "dit.blocks.0.attention.attn_op.q_norm": dict(eps=0.5),
           "dit.blocks.1.linear.layers.1": dict(approximate="none"), "obs_tokenizer.embed_table": dict(max_norm=0.1),
           "obs_tokenizer.platform_embedding": dict(max_norm=0.1)}


@pytest.mark.parametrize("key", CHANGED)
def test_settings_of_a_layer_that_were_changed(key):
    """A norm with another eps, a table whose rows are kept short: as with the layer called by itself."""
    case = CASES["HealDA"]
    model, plain = case.make(), case.make()
    before = case.run(model)
    for m in (model, plain):
        for name, value in CHANGED[key].items():
            setattr(m.get_submodule(key), name, value)
    plain.get_submodule(key).register_forward_hook(lambda m, args, y: None)
    found = case.run(model)
    assert not torch.allclose(found, before)
    near(found, case.run(plain), 1e-11)


def test_a_table_whose_padding_learns_nothing():
    case = CASES["ObsTokenizerFiLM"]
    model = case.make()
    model.embed_table = torch.nn.Embedding(4, 4, padding_idx=3, dtype=wide)
    loss(case.run(model)).backward()
    assert model.embed_table.weight.grad[0].any() and not model.embed_table.weight.grad[3].any()


@pytest.mark.parametrize("options", [dict(elementwise_affine=False), dict(bias=False)], ids=str)
def test_a_norm_with_fewer_tensors(options):
    case = CASES["ObsTokenizerFiLM"]
    model = case.make()
    width = model.cond_mlp[1].weight.numel()
    model.cond_mlp[1] = torch.nn.LayerNorm(width, dtype=wide, **options)
    plain = case.make()
    plain.cond_mlp[1] = torch.nn.LayerNorm(width, dtype=wide)
    right_or_refused(lambda: case.run(model), lambda y: near(y, case.run(plain), 1e-11))
