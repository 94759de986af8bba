# SPDX-License-Identifier: Apache-2.0
"""Checkpoints written and read: our own format and the two older ones."""

import pytest
import torch
from checkpoint_files import members, model, same, saved, write  # noqa: F401
from references import SMALL_MODEL, randomise

import halcyon


def test_round_trip(model, saved):
    loaded = halcyon.load_checkpoint(str(saved))
    assert type(loaded) is halcyon.HealDA and not loaded.training
    assert loaded.config == model.config and same(loaded, model)
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
    assert same(halcyon.load_checkpoint(saved), model)   # a path object too


def test_other_types_and_options_round_trip(tmp_path):
    model = halcyon.HealDA(**(SMALL_MODEL | dict(condition_dim=2, temporal_causal_window=2, drop_path=0.3))).double()
    path = str(tmp_path / "m.safetensors")
    halcyon.save_checkpoint(model, path)
    loaded = halcyon.load_checkpoint(path)
    assert loaded.config == model.config and same(loaded, model)


def test_safetensors_readers_read_it(model, saved):
    safetensors = pytest.importorskip("safetensors.torch")
    state = safetensors.load_file(saved)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_saving_replaces_whole_files_only(model, saved):
    before = saved.read_bytes()
    with torch.no_grad():
        halcyon.save_checkpoint(randomise(halcyon.HealDA(**SMALL_MODEL), 0.2), str(saved))
    assert saved.read_bytes() != before and len(list(saved.parent.iterdir())) == 1
    with pytest.raises(ValueError, match=r"safetensors"):
        halcyon.save_checkpoint(model, str(saved.parent / "model.pt"))
    with pytest.raises((RuntimeError, OSError), match="absent"):
        halcyon.save_checkpoint(model, str(saved.parent / "absent" / "m.safetensors"))
    assert len(list(saved.parent.iterdir())) == 1


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_older_formats(model, tmp_path, kind):
    loaded = halcyon.load_checkpoint(write(tmp_path / "m.mdlus", members(model), kind))
    assert loaded.config == model.config and same(loaded, model) and not loaded.training


def test_noise_frequencies_may_be_absent(model, tmp_path):
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("freqs")}
    assert same(halcyon.load_checkpoint(write(tmp_path / "m.mdlus", members(model, state), "zip")), model)
