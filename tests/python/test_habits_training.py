# SPDX-License-Identifier: Apache-2.0
"""What training scripts do: groups without weight decay, averages of weights, states of optimizers, clipped gradients,
frozen parts, parameters as one vector."""

import copy
import io

import pytest
import torch
from conftest import near
from habits import CASES, gradients, joined, layers, loss, numbers, one_thread, same  # noqa: F401
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, parameters_to_vector, vector_to_parameters
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

import halcyon

wide = torch.float64


def test_layers_are_instances_of_torchs():
    model = CASES["HealDA"].make()
    linears, norms, tables = (layers(model, kind) for kind in (torch.nn.Linear, torch.nn.LayerNorm, torch.nn.Embedding))
    block = ["attention.attn_op.qkv", "attention.attn_op.proj", "norm1_modulation.modulation.1", "linear.layers.0",
             "linear.layers.2", "temporal_attention.qkv", "temporal_attention.proj", "cross_attention.q_proj",
             "temporal_attn_modulation.modulation.1", "cross_attention.k_proj", "cross_attention.v_proj",
             "cross_attention.out_proj", "cross_attn_modulation.modulation.1"]
    expected = {f"dit.blocks.{i}.{key}" for i in range(2) for key in block}
    expected |= {"obs_tokenizer.cond_mlp.0", "obs_tokenizer.cond_mlp.3", "dit.detokenizer.adaptive_modulation.1",
                 "dit.conditioning_embedder.map_layer0", "dit.conditioning_embedder.map_layer1",
                 "dit.conditioning_embedder.map_condition"}
    assert set(linears) == expected
    assert "obs_tokenizer.cond_mlp.1" in norms
    assert set(tables) == {f"obs_tokenizer.{key}" for key in ("embed_table", "channel_embedding", "platform_embedding")}
    assert isinstance(model.get_submodule("dit.tokenizer.conv"), torch.nn.Module)
    for key in ("q_norm", "k_norm"):
        assert isinstance(model.get_submodule(f"dit.blocks.0.attention.attn_op.{key}"), torch.nn.RMSNorm)
        assert isinstance(CASES["SelfAttention LayerNorm"].build().get_submodule(f"attn_op.{key}"), torch.nn.LayerNorm)
    for layer in linears.values():
        assert layer.weight.shape == (layer.out_features, layer.in_features)
    assert sum(1 for m in model.modules() if isinstance(m, torch.nn.GELU)) == 2


@pytest.mark.parametrize("by", ["class", "dimensions"])
@pytest.mark.parametrize("name", ["VideoDiTBlock", "VideoDiT", "HealDA"])
def test_groups_without_weight_decay(name, by):
    """Zero gradients: one step of AdamW shows which tensors decay."""
    case = CASES[name]
    model = case.make()
    if by == "class":
        decaying = {key + ".weight" for key in layers(model)}
        norms = (torch.nn.LayerNorm, torch.nn.RMSNorm)
        assert not any(key + ".weight" in decaying for key in layers(model, norms))
    else:
        decaying = {key for key, p in model.named_parameters() if p.ndim >= 2}
        assert {key + ".weight" for key in layers(model)} <= decaying
    assert 0 < len(decaying) < len(list(model.parameters()))
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    groups = [dict(params=[p for key, p in model.named_parameters() if (key in decaying) == with_decay],
                   weight_decay=0.1 if with_decay else 0.0) for with_decay in (True, False)]
    output = case.run(model).detach()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    torch.optim.AdamW(groups, lr=0.5).step()
    for key, p in model.named_parameters():
        near(p, before[key] * (0.95 if key in decaying else 1.0), 1e-12)
    assert not torch.allclose(case.run(model), output)


@pytest.mark.parametrize("kind", ["mean", "ema", "buffers"])
@pytest.mark.parametrize("name", ["VideoDiTBlock", "HealDA"])
def test_averaged_model(name, kind):
    case = CASES[name]
    model = case.make()
    options = dict(mean={}, ema=dict(multi_avg_fn=get_ema_multi_avg_fn(0.7)), buffers=dict(use_buffers=True))[kind]
    average, states = AveragedModel(model, **options), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        loss(case.run(model)).backward()
        optimizer.step()
        average.update_parameters(model)
        states.append({key: p.detach().clone() for key, p in model.named_parameters()})
    expected = states[0]
    for i, state in enumerate(states[1:]):
        old = 0.7 if kind == "ema" else (i + 1) / (i + 2)
        expected = {key: old * expected[key] + (1 - old) * p for key, p in state.items()}
    same(dict(average.module.named_parameters()), expected, 1e-12)
    plain = case.make()
    with torch.no_grad():
        for key, p in plain.named_parameters():
            p.copy_(expected[key])
    near(case.run(average), case.run(plain), 1e-11)
    near(case.run(model), case.run(model), 0)
    assert not torch.allclose(case.run(average), case.run(model), rtol=1e-9)


OPTIMIZERS = {"AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3),
              "fused": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
              "foreach": lambda p: torch.optim.Adam(p, lr=1e-3, foreach=True, amsgrad=True),
              "momentum": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, nesterov=True)}


def steps(model, optimizer, schedule, count, case):
    for _ in range(count):
        optimizer.zero_grad()
        loss(case.run(model)).backward()
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_goes_on_from_a_file_bit_by_bit(kind):
    case = CASES["HealDA"]
    model = case.make().train()
    optimizer = OPTIMIZERS[kind](model.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    steps(model, optimizer, schedule, 2, case)
    file = io.BytesIO()
    torch.save(dict(model=model.state_dict(), optimizer=optimizer.state_dict(), schedule=schedule.state_dict()), file)
    steps(model, optimizer, schedule, 2, case)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = case.make(seed=8).train()
    second = OPTIMIZERS[kind](other.parameters())
    later = torch.optim.lr_scheduler.CosineAnnealingLR(second, 10)
    other.load_state_dict(state["model"])
    second.load_state_dict(state["optimizer"])
    later.load_state_dict(state["schedule"])
    steps(other, second, later, 2, case)
    for (key, p), q in zip(model.named_parameters(), other.parameters()):
        assert torch.equal(p, q), key


def test_the_loss_falls():
    case = CASES["HealDA"]
    target, model = case.run(case.make(seed=6)).detach(), case.make()
    optimizer, values = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(15):
        optimizer.zero_grad()
        value = (case.run(model) - target).square().mean()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]


@pytest.mark.parametrize("name", CASES)
def test_clipped_gradients(name):
    case = CASES[name]
    model = case.make()
    grads = gradients(model, case.run)
    whole = torch.cat([g.flatten() for g in grads.values()]).norm()
    near(clip_grad_norm_(model.parameters(), 0.5 * whole.item()), whole, 1e-10)
    same({key: p.grad for key, p in model.named_parameters()}, {key: 0.5 * g for key, g in grads.items()}, 1e-4)
    clip_grad_value_(model.parameters(), 1e-3)
    assert max(p.grad.abs().max() for p in model.parameters()) <= 1e-3


@pytest.mark.parametrize("name", CASES)
def test_zero_grad(name):
    case = CASES[name]
    model = case.make()
    once = gradients(model, case.run)
    loss(case.run(model)).backward()
    same({key: p.grad for key, p in model.named_parameters()}, {key: 2 * g for key, g in once.items()}, 1e-12)
    model.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    loss(case.run(model)).backward()
    same({key: p.grad for key, p in model.named_parameters()}, once, 1e-12)
    model.zero_grad(set_to_none=True)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_parameters_as_one_vector(name):
    """vector_to_parameters lays views into the parameters: they are read from there on."""
    case = CASES[name]
    model, other = case.make(), case.make(seed=6)
    vector = parameters_to_vector(other.parameters()).detach().clone()
    vector_to_parameters(vector, model.parameters())
    near(case.run(model), case.run(other), 1e-12)
    vector.mul_(1.5)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    near(case.run(model), case.run(other), 1e-12)


class Counted(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.ops = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.ops.append(str(function))
        return function(*args, **(kwargs or {}))


def backward_ops(model, run):
    value = loss(run(model))
    with Counted() as counted:
        value.backward()
    return counted.ops


@pytest.mark.parametrize("part", ["obs_tokenizer", "dit.blocks.0", "dit.blocks.1.cross_attention", "dit.detokenizer"])
def test_a_frozen_part_gets_no_gradient_and_the_rest_the_same(part):
    case = CASES["HealDA"]
    expected, model = gradients(case.make(), case.run), case.make()
    model.get_submodule(part).requires_grad_(False)
    found = gradients(model, case.run)
    assert found.keys() == {key for key in expected if not key.startswith(part + ".")}
    same(found, {key: expected[key] for key in found}, 1e-12)


def test_nothing_is_computed_for_what_is_frozen():
    """Only the end learns: the backward ends there. Nothing learns: there is no graph."""
    case = CASES["HealDA"]
    whole = backward_ops(case.make(), case.run)
    model = case.make().requires_grad_(False)
    model.dit.detokenizer.requires_grad_(True)
    some = backward_ops(model, case.run)
    assert 0 < len(some) < 0.2 * len(whole)
    assert not case.run(case.make().requires_grad_(False)).requires_grad


def test_a_weight_alone_frozen_saves_its_product():
    case = CASES["SelfAttention"]
    model = case.make()
    whole = backward_ops(model, case.run)
    model.get_submodule("attn_op.qkv").weight.requires_grad_(False)
    some = backward_ops(model, case.run)
    assert len(some) < len(whole)
    assert set(gradients(model, case.run)) == {key for key, _ in model.named_parameters()} - {"attn_op.qkv.weight"}


def test_same_seed_same_dropout():
    model = halcyon.VideoDiTBlock(8, 2, condition_embed_dim=5, attn_drop_rate=0.3, proj_drop_rate=0.3, mlp_drop_rate=0.3,
                                  drop_path=0.3, adaln_zero_init=False).double().train()
    x, c, ys = numbers(4, 1, 4, 8), numbers(4, 5), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        y = model(x, c)
        model.zero_grad()
        loss(y).backward()
        ys.append((y, model.get_submodule("linear.layers.0").weight.grad.clone()))
    assert torch.equal(ys[0][0], ys[1][0]) and torch.equal(ys[0][1], ys[1][1])
    assert not torch.equal(ys[0][0], ys[2][0])
    state = torch.get_rng_state()
    first = model(x, c)
    torch.set_rng_state(state)
    assert torch.equal(model(x, c), first)
    assert torch.equal(model.eval()(x, c), model(x, c))


def test_modules_by_name():
    case = CASES["HealDA"]
    model = case.make()
    for key, m in model.named_modules():
        assert model.get_submodule(key) is m
    for key, p in model.named_parameters():
        assert model.get_parameter(key) is p
    for key, b in model.named_buffers():
        assert model.get_buffer(key) is b
    assert model.get_buffer("dit.conditioning_embedder.map_noise.freqs").numel() == 4
    assert [key for key, _ in model.named_children()] == ["obs_tokenizer", "dit"] or set(
        dict(model.named_children())) == {"obs_tokenizer", "dit"}
    with pytest.raises(AttributeError):
        model.get_submodule("dit.blocks.7")
    assert copy.deepcopy(model).get_parameter("dit.blocks.0.linear.layers.0.weight").is_leaf
    assert joined(model(**case.given(wide)[1])).shape == (1, 3, 2, 48)
