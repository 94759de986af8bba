# SPDX-License-Identifier: Apache-2.0
"""Adapters of the package peft on our modules: they act, they learn, they merge, they are saved and loaded."""

import warnings

import pytest
import torch
from conftest import near
from habits import CASES, layers, loss, one_thread  # noqa: F401

peft = pytest.importorskip("peft")
wide = torch.float64
TARGETS = ["qkv", "proj", "q_proj", "k_proj", "v_proj", "out_proj", "layers.0", "layers.2", "modulation.1", "cond_mlp.0",
           "cond_mlp.3", "map_layer0", "map_layer1", "adaptive_modulation.1"]
MODELS = ["VideoDiT", "HealDA"]


def modules_of(name):
    return CASES[name].build().named_modules()


def adapted(case, targets=None, seed=5, **options):
    """The model with adapters that already act, in float64."""
    model = case.make(seed=seed)
    keys = {t for t in TARGETS if any(key.endswith(t) for key in layers(model))} if targets is None else set(targets)
    torch.manual_seed(3)
    config = peft.LoraConfig(target_modules=sorted(keys), r=2, lora_alpha=4, init_lora_weights=False, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(model, config).double()


def learned(model):
    return {key: p for key, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name, target", [(name, target) for name in MODELS for target in TARGETS
                                          if any(key.endswith("." + target) for key, _ in modules_of(name))])
def test_an_adapter_is_the_merged_weight(name, target):
    case = CASES[name]
    before = case.run(case.make())
    model = adapted(case, [target])
    found = case.run(model)
    assert not torch.allclose(found, before, rtol=1e-7)
    loss(found).backward()
    assert learned(model) and all("lora_" in key and p.grad.any() for key, p in learned(model).items())
    plain = case.make()
    for key, layer in layers(model.base_model.model, peft.tuners.lora.layer.LoraLayer).items():
        with torch.no_grad():
            plain.get_submodule(key).weight.add_(layer.get_delta_weight("default"))
    near(found, case.run(plain), 1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_falls_and_only_adapters_learn(name):
    case = CASES[name]
    target = case.run(case.make(seed=6)).detach()
    model = adapted(case)
    kept = {key: p.detach().clone() for key, p in model.named_parameters() if not p.requires_grad}
    optimizer, values = torch.optim.AdamW(learned(model).values(), lr=2e-3), []
    for _ in range(8):
        optimizer.zero_grad()
        value = (case.run(model) - target).square().mean()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.97 * values[0] and values[-1] == min(values)
    assert all(torch.equal(p, kept[key]) for key, p in model.named_parameters() if key in kept)


@pytest.mark.parametrize("name", MODELS)
def test_merged_switched_off_and_unloaded(name):
    case = CASES[name]
    before = case.run(case.make())
    model = adapted(case)
    found = case.run(model)
    with model.disable_adapter():
        near(case.run(model), before, 1e-12)
    model.merge_adapter()
    near(case.run(model), found, 1e-10)
    model.unmerge_adapter()
    near(case.run(model), found, 1e-10)
    merged = model.merge_and_unload()
    assert type(merged) is type(case.build())
    assert merged.state_dict().keys() == case.build().state_dict().keys()
    near(case.run(merged), found, 1e-10)


def test_adapters_are_saved_and_loaded(tmp_path):
    case = CASES["HealDA"]
    model = adapted(case)
    model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(case.make(), tmp_path).double()
    near(case.run(loaded), case.run(model), 1e-6)  # in the file they are as they were made
    state = peft.get_peft_model_state_dict(model)
    other = adapted(case, seed=5)
    with torch.no_grad():
        for p in learned(other).values():
            p.zero_()
    peft.set_peft_model_state_dict(other, state)
    assert torch.equal(case.run(other), case.run(model))


def test_a_second_adapter_beside_the_first():
    case = CASES["HealDA"]
    model = adapted(case)
    first = case.run(model)
    torch.manual_seed(8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.add_adapter("other", peft.LoraConfig(target_modules=["k_proj", "qkv"], r=3, init_lora_weights=False))
    model.double()
    assert torch.equal(case.run(model), first)
    model.set_adapter("other")
    second = case.run(model)
    assert not torch.allclose(second, first)
    model.set_adapter("default")
    assert torch.equal(case.run(model), first)


@pytest.mark.parametrize("options", [dict(use_dora=True), dict(lora_dropout=0.5), dict(modules_to_save=["detokenizer"])],
                         ids=["dora", "dropout", "modules_to_save"])
def test_other_options(options):
    case = CASES["HealDA"]
    model = adapted(case, ["qkv", "k_proj", "v_proj", "layers.0"], **options).train()
    torch.manual_seed(0)
    found = case.run(model)
    torch.manual_seed(1)
    assert torch.equal(case.run(model), found) == ("lora_dropout" not in options)
    loss(found).backward()
    assert all(p.grad is not None for p in learned(model).values())
    if "modules_to_save" in options:
        assert any("modules_to_save" in key and "conv_t" in key for key in learned(model))
    else:
        model.eval()
        expected = case.run(model)
        near(case.run(model.merge_and_unload()), expected, 1e-9)


def test_ia3_scales_what_layers_give_and_take():
    case = CASES["HealDA"]
    model = case.make()
    before = case.run(model)
    config = peft.IA3Config(target_modules=["k_proj", "v_proj", "layers.2"], feedforward_modules=["layers.2"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(model, config).double()
    near(case.run(model), before, 1e-12)
    with torch.no_grad():
        for key, p in learned(model).items():
            p.mul_(1.5 if "k_proj" in key else 0.5)
    found = case.run(model)
    assert not torch.allclose(found, before)
    near(case.run(model.merge_and_unload()), found, 1e-10)
