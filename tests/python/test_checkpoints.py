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


@pytest.mark.parametrize("kind", ["safetensors", "zip", "tar"])
@pytest.mark.parametrize("used", [False, True])
def test_the_file_may_change_once_it_is_loaded(model, saved, tmp_path, kind, used):
    """Written over in place, by as many bytes or fewer: the weights of the loaded model stay as they are."""
    other = halcyon.HealDA(**SMALL_MODEL)
    path, over = saved, tmp_path / "over.safetensors"
    if kind == "safetensors":
        halcyon.save_checkpoint(other, str(over))
    else:
        path, over = tmp_path / "m.mdlus", tmp_path / "over.mdlus"
        write(path, members(model), kind)
        write(over, members(other), kind)
    for data in (over.read_bytes(), b"short", b""):
        good = path.read_bytes()
        loaded = halcyon.load_checkpoint(path)
        assert not used or same(loaded, model)
        with open(path, "r+b") as file:
            file.truncate(len(data))
            file.write(data)
        assert same(loaded, model)
        path.write_bytes(good)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_whatever_torch_keeps_of_strides_and_storages(model, tmp_path, kind):
    """Expanded, transposed, sliced out of one buffer and tied; each weight has memory of its own afterwards."""
    state = dict(model.state_dict())
    flat = torch.cat([value.flatten() for key, value in state.items() if key.endswith("weight")])
    at = 0
    for key, value in state.items():
        if key.endswith("weight"):
            state[key] = flat[at:at + value.numel()].view_as(value)
            at += value.numel()
            if value.ndim == 2 and "qkv" in key:
                state[key] = value.t().contiguous().t()
        elif key.endswith("bias"):
            state[key] = torch.tensor([0.25]).expand_as(value)
    first, second = [key for key in state if key.endswith("proj.weight") and "temporal" in key][:2]
    state[second] = state[first]
    loaded = halcyon.load_checkpoint(write(tmp_path / "m.mdlus", members(model, state), kind))
    got = loaded.state_dict()
    assert all(torch.equal(got[key], value) and got[key].is_contiguous() for key, value in state.items())
    with torch.no_grad():
        dict(loaded.named_parameters())[first].add_(1)
    assert torch.equal(loaded.state_dict()[second], state[second])


def test_links_stay_links(model, tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "latest.safetensors"
    link.symlink_to("disk/step.safetensors")
    for _ in range(2):
        halcyon.save_checkpoint(model, str(link))
        assert link.is_symlink() and same(halcyon.load_checkpoint(link), model)
        assert [p.name for p in (tmp_path / "disk").iterdir()] == ["step.safetensors"]
