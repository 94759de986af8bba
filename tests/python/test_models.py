# SPDX-License-Identifier: Apache-2.0
"""The whole model on a small grid: configuration, keys, gradients, independence, repeatability, refusals."""

import pytest
import torch
from conftest import near
from references import SMALL_MODEL, randomise, rejected

import halcyon

FRAMES, FINE, PIXELS = 2, 192, 48


def context(n=30, batch=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(6)
    total = batch * FRAMES * PIXELS
    obs, meta = torch.randn(n, generator=generator), torch.randn(n, 6, generator=generator)
    ids = [torch.randint(60, (n,), generator=generator) for _ in range(3)]
    flat = torch.randint(total, (n,), generator=generator)
    return halcyon.prepare_obs_context(obs.to(dtype), meta.to(dtype), *ids, flat, total)


def inputs(batch=1):
    generator = torch.Generator().manual_seed(8)
    return dict(x=torch.randn(batch, 2, FRAMES, FINE, generator=generator), t=torch.zeros(batch),
                second_of_day=torch.tensor([[0.0, 21600]]).repeat(batch, 1),
                day_of_year=torch.tensor([[10.0, 10.25]]).repeat(batch, 1))


def small_model(**options):
    return halcyon.HealDA(**(SMALL_MODEL | options))


def test_config_holds_every_argument_and_rebuilds_the_model():
    model = small_model(drop_path=0.2)
    config = model.config
    assert {key: config[key] for key in SMALL_MODEL} == SMALL_MODEL
    assert config["drop_path"] == 0.2 and config["qk_norm_type"] == "RMSNorm" and config["channel_embed_dim"] == 16
    assert config["temporal_causal_window"] is None and config["use_rope"] is True and config["max_seq_len"] == 100
    other = halcyon.HealDA(**config)
    shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in (model, other)]
    assert shapes[0] == shapes[1] and other.config == config


def test_state_dict_keys_of_the_specification():
    block = ["attention.attn_op.qkv", "attention.attn_op.proj", "norm1_modulation.modulation.1", "linear.layers.0",
             "linear.layers.2", "temporal_attention.qkv", "temporal_attention.proj", "cross_attention.q_proj",
             "temporal_attn_modulation.modulation.1", "cross_attention.v_proj", "cross_attention.out_proj",
             "cross_attn_modulation.modulation.1"]
    pairs = [f"dit.blocks.{i}.{name}" for i in range(2) for name in block]
    pairs += ["obs_tokenizer.cond_mlp.0", "obs_tokenizer.cond_mlp.1", "obs_tokenizer.cond_mlp.3", "dit.tokenizer.conv",
              "dit.detokenizer.adaptive_modulation.1", "dit.detokenizer.conv_t",
              "dit.conditioning_embedder.map_layer0", "dit.conditioning_embedder.map_layer1"]
    keys = {f"{name}.{kind}" for name in pairs for kind in ("weight", "bias")}
    keys |= {f"dit.blocks.{i}.cross_attention.k_proj.weight" for i in range(2)}
    keys |= {f"obs_tokenizer.{name}.weight" for name in ("embed_table", "channel_embedding", "platform_embedding")}
    keys |= {"dit.tokenizer.pos_embed", "dit.conditioning_embedder.map_noise.freqs"}
    state = small_model().state_dict()
    assert set(state) == keys
    assert state["obs_tokenizer.cond_mlp.0.weight"].shape == (16, 6 + 4 + 16 + 8)
    labelled = small_model(condition_dim=3).state_dict()
    assert {key.rsplit(".", 1)[0] for key in set(labelled) - keys} == {"dit.conditioning_embedder.map_condition"}


def test_prepared_for_inference_it_computes_the_same(tmp_path):
    model = randomise(small_model(), 0.1).eval()
    with torch.no_grad():
        expected = model(**inputs(2), obs_ctx=context(batch=2))
        before = {key: value.clone() for key, value in model.state_dict().items()}
        assert model.prepare_inference() is model and not model.training
        near(model(**inputs(2), obs_ctx=context(batch=2)), expected, 1e-6)
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key]), key
        halcyon.save_checkpoint(model, tmp_path / "model.safetensors")
        near(halcyon.load_checkpoint(tmp_path / "model.safetensors").eval()(**inputs(2), obs_ctx=context(batch=2)), expected, 1e-6)
        with rejected("VideoDiT"):
            model(**(inputs(2) | {"t": torch.ones(2)}), obs_ctx=context(batch=2))
        near(model.train().eval()(**(inputs(2) | {"t": torch.zeros(2)}), obs_ctx=context(batch=2)), expected, 1e-6)


@pytest.mark.parametrize("fresh", [True, False])
def test_without_observations_every_parameter_gets_a_gradient(fresh):
    model = small_model() if fresh else randomise(small_model(), 0.1)
    y = model(**inputs(), obs_ctx=context(0))
    assert y.shape == (1, 3, FRAMES, FINE) and y.isfinite().all()
    y.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if name.startswith("obs_tokenizer") or "cross_attention.k_proj" in name:
            assert not parameter.grad.any(), name


def test_with_observations_every_parameter_gets_a_gradient_that_is_not_zero():
    model = randomise(small_model(), 0.1).eval()
    model(**inputs(2), obs_ctx=context(30, 2)).square().sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def test_samples_are_independent_and_frames_causal():
    model, x, obs = randomise(small_model(), 0.1).eval(), inputs(2), context(0, 2)
    y = model(**x, obs_ctx=obs)
    changed = x["x"].clone()
    changed[1] += 1
    changed[0, :, 1] += 1
    z = model(**(x | dict(x=changed)), obs_ctx=obs)
    assert torch.equal(y[0, :, 0], z[0, :, 0]) and not torch.equal(y[0, :, 1], z[0, :, 1])
    assert not torch.equal(y[1, :, 0], z[1, :, 0])


def test_reruns_groups_and_frozen_parameters_are_bit_identical():
    model, x = randomise(small_model(), 0.1).eval(), inputs(2)
    runs = []
    for groups in (True, False, True):
        obs = context(30, 2)
        obs.group_map = obs.group_map if groups else None
        model.zero_grad()
        y = model(**x, obs_ctx=obs)
        y.square().sum().backward()
        runs.append([y, *(p.grad.clone() for p in model.parameters())])
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run))
    with torch.no_grad():
        near(model(**x, obs_ctx=context(30, 2)), runs[0][0], 1e-6)


def test_autocast_and_double():
    model, x = randomise(small_model(), 0.1).eval(), inputs()
    single = model(**x, obs_ctx=context())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near(model(**x, obs_ctx=context()), single, 2e-2)
    wide = {key: value.double() for key, value in x.items()}
    near(single, model.double()(**wide, obs_ctx=context(dtype=torch.float64)), 1e-4)


def test_class_labels():
    model, x = randomise(small_model(condition_dim=3), 0.1).eval(), inputs()
    ones, zeros = (model(**x, obs_ctx=context(), class_labels=make(1, 3)) for make in (torch.ones, torch.zeros))
    assert not torch.equal(ones, zeros)
    for labels in (None, torch.zeros(1, 2), torch.zeros(2, 3), torch.zeros(3)):
        with rejected():
            model(**x, obs_ctx=context(), class_labels=labels)
    with rejected():
        small_model()(**x, obs_ctx=context(), class_labels=torch.zeros(1, 3))


@pytest.mark.parametrize("change", [
    dict(x=torch.zeros(1, 2, FINE)), dict(x=torch.zeros(1, 3, FRAMES, FINE)), dict(x=torch.zeros(1, 2, 1, FINE)),
    dict(x=torch.zeros(1, 2, FRAMES, PIXELS)), dict(x=torch.zeros(1, 2, FRAMES, FINE).long()),
    dict(x=torch.zeros(1, 2, FRAMES, FINE, dtype=torch.float64)),
    dict(x=torch.zeros(1, 2, FRAMES, FINE, device="meta")),
    dict(t=torch.zeros(2)), dict(t=torch.zeros(1, 1)), dict(second_of_day=torch.zeros(1, 1)),
    dict(day_of_year=torch.zeros(2)), dict(obs_ctx=context(0, 2))])
def test_model_refuses_inputs(change):
    model = small_model(num_layers=1)
    with rejected():
        model(**(inputs() | dict(obs_ctx=context()) | change))


@pytest.mark.parametrize("options", [
    dict(hidden_size=30), dict(num_heads=5), dict(level_in=1, level_model=2), dict(level_in=30), dict(time_length=0),
    dict(num_layers=-1), dict(pixel_attn_n_q_heads=15), dict(pixel_attn_n_kv_heads=3), dict(out_channels=0),
    dict(max_seq_len=1), dict(drop_path=2.0), dict(temporal_causal_window=2, is_causal=False), dict(rope_base=0),
    dict(attention_backend="flash"), dict(layernorm_backend="none"), dict(qk_norm_type="none"), dict(obs_token_dim=0),
    dict(noise_channels=2)], ids=str)
def test_model_refuses_options(options):
    with rejected():
        small_model(**options)(**inputs(), obs_ctx=context())
