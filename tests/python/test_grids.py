# SPDX-License-Identifier: Apache-2.0
"""Calendar, patch tokenizer, patch detokenizer and the embedding of the noise level."""

import pytest
import references
import torch
from conftest import near
from references import rejected
from torch.nn import functional as F

import halcyon

SECONDS, DAYS = torch.tensor([[0.0, 43200], [86399, 60]]), torch.tensor([[0.0, 364.75], [59.5, 200]])


@pytest.mark.parametrize("legacy", [False, True])
def test_calendar_embedding(legacy):
    lon = torch.tensor([0.0, 0.05, 123.4, 359.99, 180])
    module = halcyon.CalendarEmbedding(lon, 3, include_legacy_bug=legacy)
    assert not list(module.parameters()) and not module.state_dict()
    y = module(day_of_year=DAYS, second_of_day=SECONDS)
    assert y.shape == (2, 12, 2, 5)
    near(y, references.calendar(lon, 3, DAYS, SECONDS, legacy), 1e-5)
    assert torch.equal(y, module(DAYS, SECONDS))


@pytest.mark.parametrize("days, seconds", [(DAYS, SECONDS[:1]), (DAYS[0], SECONDS[0]), (DAYS, SECONDS[..., None])])
def test_calendar_embedding_refuses(days, seconds):
    with rejected("CalendarEmbedding"):
        halcyon.CalendarEmbedding(torch.zeros(4), 2)(days, seconds)


@pytest.mark.parametrize("fine, coarse", [(1, 1), (2, 1), (2, 0), (3, 2)])
@pytest.mark.parametrize("separate", [False, True])
def test_tokenizer(fine, coarse, separate):
    module = halcyon.HEALPixPatchTokenizer(in_channels=2, hidden_size=8, level_fine=fine, level_coarse=coarse,
                                           separate_time_axis=separate)
    state = module.state_dict()
    p, pixels = 2 ** (fine - coarse), 12 * 4**coarse
    assert {k: tuple(v.shape) for k, v in state.items()} == {
        "pos_embed": (pixels, 8), "conv.weight": (8, 2, p, p), "conv.bias": (8,)}
    x = torch.randn(2, 2, 2, 12 * 4**fine, requires_grad=True)
    wide = x.detach().clone().requires_grad_()
    y = module(x, second_of_day=SECONDS, day_of_year=DAYS)
    patches = references.from_faces(F.conv2d(references.faces(wide, fine), state["conv.weight"], state["conv.bias"],
                                             stride=p), 2, 2)
    lon = references.pad_xy_centres(coarse)[0].float()
    expected = (patches + references.calendar(lon, 2, DAYS, SECONDS)).permute(0, 2, 3, 1) + state["pos_embed"]
    near(y, expected if separate else expected.flatten(1, 2), 1e-5)
    y.square().sum().backward()
    expected.square().sum().backward()
    near(x.grad, wide.grad, 1e-5)
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


@pytest.mark.parametrize("fine, coarse", [(1, 1), (2, 1), (2, 0)])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("condition", [None, 6])
def test_detokenizer(fine, coarse, flat, condition):
    module = halcyon.HEALPixPatchDetokenizer(hidden_size=8, out_channels=3, level_coarse=coarse, level_fine=fine,
                                             time_length=2, condition_dim=condition)
    p, width = 2 ** (fine - coarse), condition or 8
    assert {k: tuple(v.shape) for k, v in module.state_dict().items()} == {
        "adaptive_modulation.1.weight": (16, width), "adaptive_modulation.1.bias": (16,),
        "conv_t.weight": (8, 3, p, p), "conv_t.bias": (3,)}
    assert not module.state_dict()["adaptive_modulation.1.weight"].any()
    state = references.randomise(module).state_dict()
    h, c = torch.randn(2, 2, 12 * 4**coarse, 8), torch.randn(2, width)
    shift, scale = F.linear(F.silu(c), state["adaptive_modulation.1.weight"],
                            state["adaptive_modulation.1.bias"])[:, None, None].chunk(2, -1)
    y = (F.layer_norm(h, (8,), eps=1e-6) * (1 + scale) + shift).permute(0, 3, 1, 2)
    expected = references.from_faces(F.conv_transpose2d(references.faces(y, coarse), state["conv_t.weight"],
                                                        state["conv_t.bias"], stride=p), 2, 2)
    found = module(h.flatten(1, 2) if flat else h, c)
    assert found.shape == (2, 3, 2, 12 * 4**fine)
    near(found, expected, 1e-5)
    found.sum().backward()
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("name, options", [
    ("Tokenizer", dict(hidden_size=6)), ("Tokenizer", dict(hidden_size=0)), ("Tokenizer", dict(level_coarse=3)),
    ("Tokenizer", dict(level_coarse=-1)), ("Tokenizer", dict(level_fine=40)), ("Tokenizer", dict(in_channels=0)),
    ("Detokenizer", dict(level_coarse=3)), ("Detokenizer", dict(out_channels=0)), ("Detokenizer", dict(time_length=0)),
    ("Detokenizer", dict(level_fine=-1)), ("Detokenizer", dict(hidden_size=-4))], ids=str)
def test_constructors_refuse(name, options):
    good = dict(hidden_size=8, level_fine=2, level_coarse=1)
    good["in_channels" if name == "Tokenizer" else "out_channels"] = 2
    with rejected():
        getattr(halcyon, "HEALPixPatch" + name)(**(good | options))


@pytest.mark.parametrize("x, days", [(torch.zeros(2, 2, 48), DAYS), (torch.zeros(2, 3, 2, 48), DAYS),
                                     (torch.zeros(2, 2, 2, 12), DAYS), (torch.zeros(2, 2, 2, 48), DAYS[:, :1]),
                                     (torch.zeros(2, 2, 3, 48), DAYS), (torch.zeros(2, 2, 2, 48).long(), DAYS)])
def test_tokenizer_refuses(x, days):
    module = halcyon.HEALPixPatchTokenizer(in_channels=2, hidden_size=4, level_fine=1, level_coarse=0)
    with rejected():
        module(x, SECONDS, days)


@pytest.mark.parametrize("x, c", [((2, 1, 12, 5), (2, 4)), ((12, 4), (2, 4)), ((2, 1, 13, 4), (2, 4)),
                                  ((2, 24, 4), (2, 4)), ((2, 1, 12, 4), (2, 5)), ((2, 1, 12, 4), (3, 4)),
                                  ((2, 1, 12, 4), (4,))])
def test_detokenizer_refuses(x, c):
    module = halcyon.HEALPixPatchDetokenizer(hidden_size=4, out_channels=2, level_coarse=0, level_fine=1)
    with rejected():
        module(torch.zeros(x), torch.zeros(c))


@pytest.mark.parametrize("condition_dim", [0, 3])
@pytest.mark.parametrize("positions", [10000, 50])
def test_edm_condition_embedder(condition_dim, positions):
    module = halcyon.EDMConditionEmbedder(6, 8, condition_dim=condition_dim, max_positions=positions)
    state = references.randomise(module).state_dict()
    assert "map_noise.freqs" in dict(module.named_buffers()) and "map_noise.freqs" in state
    assert ("map_condition.weight" in state) == (condition_dim > 0)
    t = torch.tensor([0.0, 0.3, 2.0])
    features = references.edm_features(t, 8, positions)
    near(module.noise_features(t), features, 1e-6)
    assert module.noise_features(t)[0].tolist() == [0] * 4 + [1] * 4
    condition = torch.randn(3, condition_dim) if condition_dim else None
    if condition_dim:
        features = features + F.linear(condition * condition_dim**0.5, state["map_condition.weight"],
                                       state["map_condition.bias"])
    hidden = F.silu(F.linear(features.float(), state["map_layer0.weight"], state["map_layer0.bias"]))
    expected = F.linear(hidden, state["map_layer1.weight"], state["map_layer1.bias"])
    near(module(t, condition=condition), expected, 1e-5)


def test_edm_frequencies_are_filled_in_where_a_state_lacks_them():
    module = halcyon.EDMConditionEmbedder(6, 8)
    state = module.state_dict()
    frequencies = state.pop("map_noise.freqs").clone()
    other = halcyon.EDMConditionEmbedder(6, 8)
    other.load_state_dict(state)
    assert torch.equal(other.state_dict()["map_noise.freqs"], frequencies)
    near(frequencies, (1e-4) ** (torch.arange(4) / 3), 1e-6)


def test_edm_legacy_bias_acts_with_an_empty_condition_only():
    module = references.randomise(halcyon.EDMConditionEmbedder(6, 8, legacy_condition_bias=True))
    assert module.state_dict()["map_condition.weight"].shape == (8, 0)
    t = torch.zeros(2)
    with_bias = module(t, torch.zeros(2, 0))
    with torch.no_grad():
        dict(module.named_parameters())["map_condition.bias"].zero_()
    assert torch.equal(module(t), module(t, torch.zeros(2, 0))) and not torch.equal(module(t), with_bias)


def test_edm_condition_dropout_acts_in_training_only():
    module = references.randomise(halcyon.EDMConditionEmbedder(6, 8, condition_dim=2, condition_dropout=0.5))
    t, condition = torch.zeros(64), torch.ones(64, 2)
    kept, dropped = module.eval()(t, condition)[0], module(t, torch.zeros(64, 2))[0]
    rows = module.train()(t, condition)
    is_kept, is_dropped = ((rows - r).abs().amax(1) < 1e-5 for r in (kept, dropped))
    assert (is_kept ^ is_dropped).all() and is_kept.any() and is_dropped.any()


@pytest.mark.parametrize("options", [dict(noise_channels=2), dict(noise_channels=7), dict(emb_channels=0),
                                     dict(condition_dim=-1), dict(condition_dropout=1.5), dict(max_positions=0)],
                         ids=str)
def test_edm_refuses_options(options):
    with rejected():
        halcyon.EDMConditionEmbedder(**(dict(emb_channels=6, noise_channels=8) | options))


@pytest.mark.parametrize("t, condition", [(torch.zeros(2, 1), torch.zeros(2, 3)), (torch.zeros(2), torch.zeros(2, 4)),
                                          (torch.zeros(2), torch.zeros(3, 3)), (torch.zeros(2), torch.zeros(3))])
def test_edm_refuses_inputs(t, condition):
    with rejected():
        halcyon.EDMConditionEmbedder(6, 8, condition_dim=3)(t, condition)
