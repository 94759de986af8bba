# SPDX-License-Identifier: Apache-2.0
"""torch.nn.utils.prune on any layer: the masked weights take effect, a step keeps the mask, remove() keeps the result."""

import pytest
import torch
from conftest import near
from habits import CASES, WHOLE, layers, loss, one_thread  # noqa: F401
from torch.nn.utils import prune

TENSORS = [(name, key) for name in CASES if name not in ("VideoDiT", "SelfAttention plain norms")
           for key, p in CASES[name].build().named_parameters() if p.numel() > 1]


def masked(case, key, mask):
    plain = case.make()
    with torch.no_grad():
        plain.get_parameter(key).mul_(mask)
    return plain


@pytest.mark.parametrize("name, key", TENSORS)
def test_any_tensor_can_be_pruned(name, key):
    """Also those that a fused operator reads: k_proj, v_proj, cond_mlp, embedding tables, convolutions, norms."""
    case = CASES[name]
    model = case.make()
    before = case.run(model)
    path, _, part = key.rpartition(".")
    owner = model.get_submodule(path)
    mask = torch.arange(getattr(owner, part).numel()).remainder(2).view_as(getattr(owner, part))
    prune.custom_from_mask(owner, part, mask)
    plain = masked(case, key, mask)
    found = case.run(model)
    near(found, case.run(plain), 1e-12)
    if not key.endswith("k_norm.bias"):
        assert not torch.allclose(found, before, rtol=1e-9, atol=1e-11)
    loss(found).backward()
    grad = getattr(owner, part + "_orig").grad
    assert not grad[mask == 0].any()
    torch.optim.SGD(model.parameters(), lr=1e-2).step()
    second = case.run(model)
    with torch.no_grad():
        for other, p in model.named_parameters():
            target = key if other == key + "_orig" else other
            plain.get_parameter(target).copy_(p * mask if target == key else p)
    near(second, case.run(plain), 1e-11)
    prune.remove(owner, part)
    assert key in dict(model.named_parameters())
    near(case.run(model), second, 1e-12)


@pytest.mark.parametrize("name", WHOLE)
def test_l1_unstructured_on_every_linear(name):
    case = CASES[name]
    model, plain = case.make(), case.make()
    before = case.run(model)
    for key, layer in layers(model).items():
        prune.l1_unstructured(layer, "weight", amount=0.4)
        weight = plain.get_parameter(key + ".weight")
        zeros = round(0.4 * weight.numel())
        with torch.no_grad():
            weight.view(-1)[weight.abs().flatten().argsort()[:zeros]] = 0
        assert int((layer.weight == 0).sum()) == zeros
    found = case.run(model)
    near(found, case.run(plain), 1e-12)
    assert not torch.allclose(found, before)
    for layer in layers(model).values():
        prune.l1_unstructured(layer, "weight", amount=0.5)  # again, on top
    assert not torch.allclose(case.run(model), found)
    assert all(prune.is_pruned(layer) for layer in layers(model).values())


def test_global_and_structured_pruning():
    case = CASES["HealDA"]
    model, plain = case.make(), case.make()
    prune.global_unstructured([(layer, "weight") for layer in layers(model).values()],
                              pruning_method=prune.L1Unstructured, amount=0.3)
    prune.ln_structured(model.get_submodule("dit.tokenizer.conv"), "weight", amount=0.25, n=2, dim=0)
    prune.random_unstructured(model.get_submodule("obs_tokenizer.embed_table"), "weight", amount=0.5)
    with torch.no_grad():
        for key, p in plain.named_parameters():
            path, _, part = key.rpartition(".")
            p.copy_(getattr(model.get_submodule(path), part))
    assert not torch.allclose(case.run(model), case.run(case.make()))
    near(case.run(model), case.run(plain), 1e-12)


def test_a_pruned_model_is_saved_and_loaded():
    case, models = CASES["VideoDiTBlock"], []
    for seed in (5, 6):
        models.append(case.make(seed=seed))
        for layer in layers(models[-1]).values():
            prune.l1_unstructured(layer, "weight", amount=0.4)
    models[1].load_state_dict(models[0].state_dict())
    assert torch.equal(case.run(models[0]), case.run(models[1]))
