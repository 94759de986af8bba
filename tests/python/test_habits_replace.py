# SPDX-License-Identifier: Apache-2.0
"""Inner layers that are replaced, wrapped, subclassed or given another forward: the model runs what is there."""

import pytest
import torch
from conftest import near
from habits import CASES, WHOLE, callable_modules, gradients, layers, loss, one_thread  # noqa: F401

wide = torch.float64
LINEARS = [(name, key) for name in CASES if name != "VideoDiT" for key in sorted(layers(CASES[name].build()))]
INNER = [(name, key) for name in CASES if name not in ("VideoDiT", "SelfAttention plain norms")
         for key in callable_modules(CASES[name].build())]
# parts that others look into, for the type of their weights or their layers; a wrapper may hide these
LOOKED_INTO = ("modulation", "attn_op", "cond_mlp", "layers", "mlp", "map_noise", "dit")


class LowRank(torch.nn.Module):
    """A wrapper as adapters are written: no weight of its own under that name, the layer inside, a correction beside."""

    def __init__(self, layer, rank=2, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        rows, columns = layer.weight.shape
        self.layer = layer.requires_grad_(False)
        self.down = torch.nn.Parameter(torch.randn(rank, columns, generator=generator, dtype=wide))
        self.up = torch.nn.Parameter(torch.randn(rows, rank, generator=generator, dtype=wide))

    def forward(self, x):
        return self.layer(x) + x @ self.down.mT @ self.up.mT

    def merged(self):
        return self.layer.weight.detach() + (self.up @ self.down).detach()


class Passing(torch.nn.Module):
    """Calls what it wraps and changes what comes out."""

    def __init__(self, inner, factor):
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, *args, **kwargs):
        y = self.inner(*args, **kwargs)
        if self.factor is None:
            return y
        return torch.utils._pytree.tree_map(lambda t: t + self.factor * (2 * t).sin(), y)


def put(model, key, module):
    path, _, name = key.rpartition(".")
    owner = model.get_submodule(path)
    if name.isdigit():
        owner[int(name)] = module
    else:
        setattr(owner, name, module)


@pytest.mark.parametrize("name, key", LINEARS)
def test_an_adapter_around_a_linear(name, key):
    case = CASES[name]
    model, plain = case.make(), case.make()
    before = case.run(model).detach()
    adapter = LowRank(model.get_submodule(key))
    put(model, key, adapter)
    with torch.no_grad():
        plain.get_submodule(key).weight.copy_(adapter.merged())
    found = case.run(model)
    assert not torch.allclose(found, before)
    near(found, case.run(plain), 1e-11)
    loss(found).backward()
    weight = gradients(plain, case.run)[key + ".weight"]
    near(adapter.up.grad, weight @ adapter.down.detach().mT, 1e-9)
    near(adapter.down.grad, adapter.up.detach().mT @ weight, 1e-9)
    assert all(p.grad is None for p in adapter.layer.parameters())


@pytest.mark.parametrize("name", WHOLE)
def test_adapters_around_every_linear(name):
    case = CASES[name]
    model, plain = case.make(), case.make()
    for seed, (key, layer) in enumerate(layers(model).items()):
        adapter = LowRank(layer, seed=seed)
        put(model, key, adapter)
        with torch.no_grad():
            plain.get_submodule(key).weight.copy_(adapter.merged())
    found = case.run(model)
    near(found, case.run(plain), 1e-10)
    loss(found).backward()
    adapters = layers(model, LowRank)
    assert len(adapters) == len(layers(plain))
    assert all(a.up.grad.any() and a.down.grad.any() for a in adapters.values())
    keys = [f"{key}.up" for key in adapters]
    assert set(keys) <= set(model.state_dict()) and set(keys) <= set(dict(model.named_parameters()))


@pytest.mark.parametrize("name, key", [pair for pair in INNER if pair[1].endswith(LOOKED_INTO)])
def test_a_part_that_is_looked_into_is_wrapped_or_an_error(name, key):
    case = CASES[name]
    model = case.make().eval()
    put(model, key, Passing(model.get_submodule(key), 0.3))
    plain = case.make().eval()
    plain.get_submodule(key).register_forward_hook(
        lambda m, args, y: torch.utils._pytree.tree_map(lambda t: t + 0.3 * (2 * t).sin(), y))
    try:
        found = case.run(model)
    except (TypeError, AttributeError) as error:
        assert "Passing" in str(error)
    else:
        near(found, case.run(plain), 1e-12)


@pytest.mark.parametrize("name, key", [pair for pair in INNER if not pair[1].endswith(LOOKED_INTO)])
def test_any_inner_module_can_be_wrapped(name, key):
    """Norms, activations, embeddings, convolutions, whole attentions: the wrapper's change acts; none leaves it as is."""
    case = CASES[name]
    model = case.make().eval()
    before, inner = case.run(model).detach(), model.get_submodule(key)
    put(model, key, Passing(inner, None))
    near(case.run(model.eval()), before, 1e-12)
    put(model, key, Passing(inner, 0.3))
    changed = case.run(model.eval())
    assert not torch.allclose(changed, before, rtol=1e-7, atol=1e-9)
    put(model, key, inner)
    inner.register_forward_hook(lambda m, args, y: torch.utils._pytree.tree_map(lambda t: t + 0.3 * (2 * t).sin(), y))
    near(case.run(model), changed, 1e-12)


@pytest.mark.parametrize("name, key", LINEARS)
def test_a_plain_linear_in_its_place(name, key):
    case = CASES[name]
    model, plain = case.make(), case.make()
    before, old = case.run(model), model.get_submodule(key)
    new = torch.nn.Linear(old.in_features, old.out_features, bias=old.bias is not None, dtype=wide)
    put(model, key, new)
    with torch.no_grad():
        plain.get_submodule(key).load_state_dict(new.state_dict())
    found = case.run(model)
    assert not torch.allclose(found, before)
    near(found, case.run(plain), 1e-12)
    loss(found).backward()
    assert new.weight.grad.any() and any(p is new.weight for p in model.parameters())


@pytest.mark.parametrize("name, key", INNER)
def test_a_forward_given_to_one_instance(name, key):
    """As accelerate does it: layer.forward = something that calls the old one."""
    case = CASES[name]
    model = case.make().eval()
    before, inner, calls = case.run(model), model.get_submodule(key), []
    old = inner.forward

    def forward(*args, **kwargs):
        calls.append(1)
        return torch.utils._pytree.tree_map(lambda t: t + 0.3 * (2 * t).sin(), old(*args, **kwargs))

    inner.forward = forward
    changed = case.run(model)
    assert calls and not torch.allclose(changed, before, rtol=1e-7, atol=1e-9)
    del inner.forward
    assert torch.equal(case.run(model), before)


def test_set_submodule_and_other_activations():
    case = CASES["HealDA"]
    model = case.make()
    before = case.run(model)
    model.set_submodule("dit.blocks.0.linear.layers.1", torch.nn.ReLU())
    changed = case.run(model)
    assert not torch.allclose(changed, before)
    model.set_submodule("dit.blocks.0.linear.layers.1", torch.nn.GELU(approximate="tanh"))
    near(case.run(model), before, 1e-9)


class Untouched(torch.nn.Module):
    def forward(self, hidden_states, *args, **kwargs):
        return hidden_states


def test_blocks_taken_out_and_put_in():
    """Early exit and deeper models: what blocks holds is what runs."""
    case = CASES["HealDA"]
    model = case.make()
    before = case.run(model)
    assert len(model.dit.blocks) == 2
    second = model.dit.blocks[1]
    model.dit.blocks[1] = Untouched()
    without = case.run(model)
    assert not torch.allclose(without, before)
    del model.dit.blocks[1]
    near(case.run(model), without, 1e-12)
    model.dit.blocks.append(second)
    near(case.run(model), before, 1e-12)
    model.dit.blocks.insert(0, Untouched())
    near(case.run(model), before, 1e-12)


def test_an_attention_of_the_users_own():
    case = CASES["VideoDiTBlock"]
    model, calls = case.make(), []

    class Mine(torch.nn.Module):
        def forward(self, x, *args, **kwargs):
            calls.append(x.shape)
            return torch.zeros_like(x)

    model.attention = Mine()
    plain = case.make()
    with torch.no_grad():
        plain.get_submodule("attention.attn_op.proj").weight.zero_()
        plain.get_submodule("attention.attn_op.proj").bias.zero_()
    near(case.run(model), case.run(plain), 1e-12)
    assert calls == [(2, 2, 8)]


def test_a_layer_that_was_taken_away_is_missed():
    """An error, not the old layer's numbers."""
    case = CASES["PixelCrossAttention"]
    for key in ("q_proj", "k_proj", "v_proj", "out_proj"):
        model = case.make()
        delattr(model, key)
        with pytest.raises((AttributeError, ValueError), match=key):
            case.run(model)


def test_a_linear_of_another_width_is_refused_or_used():
    case = CASES["VideoDiTBlock"]
    model = case.make()
    narrow = torch.nn.Linear(8, 7, dtype=wide)
    model.get_submodule("linear.layers")[0] = narrow
    with pytest.raises((RuntimeError, ValueError)):
        case.run(model)
    model.get_submodule("linear.layers")[2] = torch.nn.Linear(7, 8, dtype=wide)
    y = case.run(model)
    loss(y).backward()
    assert narrow.weight.grad.any()
