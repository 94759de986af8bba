# SPDX-License-Identifier: Apache-2.0
"""VideoDiT with our tokenizers and with others."""

import pytest
import references
import torch
from conftest import near
from references import randomise, rejected, rms

import halcyon


def dit(**options):
    grid = dict(hidden_size=8, level_fine=1, level_coarse=0)
    tokenizer = halcyon.HEALPixPatchTokenizer(in_channels=2, separate_time_axis=True, **grid)
    detokenizer = halcyon.HEALPixPatchDetokenizer(out_channels=3, condition_dim=options.get("emb_channels", 32), **grid)
    return halcyon.VideoDiT(tokenizer, detokenizer, 8, 2, options.pop("num_layers", 2), **options)


@pytest.mark.parametrize("temporal", [False, True])
def test_video_dit_is_its_parts(temporal):
    model = randomise(dit(temporal_attention=temporal, noise_channels=6, rope_base=50,
                          attn_kwargs=dict(qk_norm_type="RMSNorm", qk_norm_affine=False)))
    calendar = dict(second_of_day=torch.tensor([[0.0, 60]]), day_of_year=torch.tensor([[1.0, 2]]))
    x, t = torch.randn(1, 2, 2, 48), torch.tensor([0.7])
    state = model.state_dict()
    embedder = halcyon.EDMConditionEmbedder(32, 6)
    prefix = "conditioning_embedder."
    embedder.load_state_dict({k[len(prefix):]: v for k, v in state.items() if k.startswith(prefix)})
    c, h = embedder(t), model.tokenizer(x, **calendar)
    tables = halcyon.rope_tables(4, 2, theta=50)
    everything = torch.ones(2, 2, dtype=torch.bool)
    over_frames = (lambda y, s: references.temporal_attention(y, s, 2, *tables, True, everything)) if temporal else None
    for i in range(2):
        h = references.block(h, c, references.under(model, f"blocks.{i}."), 2, temporal=over_frames,
                             norm=lambda name, q: rms(q))
    near(model(x, t, tokenizer_kwargs=calendar), model.detokenizer(h, c), 1e-4)


class Plain(torch.nn.Module):
    """A tokenizer that is not ours."""

    def __init__(self):
        super().__init__()
        self.project = torch.nn.Linear(2, 8)

    def forward(self, x, scale=1.0):
        return self.project(x.permute(0, 2, 3, 1)) * scale


class Mean(torch.nn.Module):
    """A detokenizer that is not ours."""

    def forward(self, x, c):
        return x.mean(-1)[:, None] + c.sum()


@pytest.mark.parametrize("embedder", ["edm", "EDM", "dit", "Zero", "zero"])
def test_video_dit_takes_other_modules(embedder):
    model = randomise(halcyon.VideoDiT(Plain(), Mean(), 8, 2, 1, conditioning_embedder=embedder))
    assert "tokenizer.project.weight" in model.state_dict()
    assert model.state_dict()["blocks.0.norm1_modulation.modulation.1.weight"].shape[0] == 48
    x = torch.randn(1, 2, 1, 5)
    y, z = (model(x, torch.zeros(1), tokenizer_kwargs=dict(scale=s)) for s in (1.0, 2.0))
    assert y.shape == (1, 1, 1, 5) and not torch.equal(y, z)
    y.square().sum().backward()
    assert y.isfinite().all() and model.tokenizer.project.weight.grad.any()


@pytest.mark.parametrize("options", [dict(conditioning_embedder="adm"), dict(drop_path_rates=[0.1]),
                                     dict(num_layers=-1), dict(drop_path_rates=[0.1, 2.0])], ids=str)
def test_video_dit_refuses_options(options):
    with rejected():
        dit(**options)


@pytest.mark.parametrize("x, t, condition", [(torch.zeros(1, 2, 48), torch.zeros(1), None),
                                             (torch.zeros(1, 2, 1, 48), torch.zeros(2), None),
                                             (torch.zeros(1, 2, 1, 48), torch.zeros(1), torch.zeros(1, 3)),
                                             (torch.zeros(1, 2, 3, 48), torch.zeros(1), torch.zeros(1, 2))])
def test_video_dit_refuses_inputs(x, t, condition):
    frames = torch.zeros(1, x.shape[2] if x.dim() == 4 else 1)
    model = dit(temporal_attention=True, max_seq_len=2, condition_dim=2)
    with rejected():
        model(x, t, condition, tokenizer_kwargs=dict(second_of_day=frames, day_of_year=frames))
