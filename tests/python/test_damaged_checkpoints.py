# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files that are damaged, of something else or hostile are refused, with the reason."""

import io
import json
import os
import pickle
import struct

import pytest
import torch
from checkpoint_files import members, model, refused, same, saved, write  # noqa: F401

import halcyon


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["model.pt", "args.json", "metadata.json"])
@pytest.mark.parametrize("data", [None, b"", b"not this", b"[1"], ids=["missing", "empty", "text", "cut"])
def test_broken_members(model, tmp_path, kind, name, data):
    refused(write(tmp_path / "broken.mdlus", members(model, **{name: data}), kind))


def test_keys_that_do_not_fit_come_in_one_message(model, tmp_path):
    state = model.state_dict()
    gone, bad = "dit.tokenizer.pos_embed", "dit.blocks.0.linear.layers.2.bias"
    state = {key: value for key, value in state.items() if key not in (gone, "dit.tokenizer.conv.bias")}
    state |= {bad: torch.zeros(7), "dit.more": torch.zeros(1), "extra.weight": torch.zeros(1)}
    refused(write(tmp_path / "keys.mdlus", members(model, state), "zip"), gone, "dit.tokenizer.conv.bias", bad,
            "dit.more", "extra.weight")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_keys_of_a_wrapped_model(model, tmp_path, prefix):
    state = {prefix + key: value for key, value in model.state_dict().items()}
    path = write(tmp_path / "wrapped.mdlus", members(model, state), "zip")
    refused(path, f'the prefix "{prefix}"', "wrapper")


def test_checkpoints_that_are_no_files(tmp_path):
    for suffix in (".safetensors", ".mdlus"):
        (tmp_path / f"folder{suffix}").mkdir()
        refused(tmp_path / f"folder{suffix}", "a folder")
        os.mkfifo(tmp_path / f"pipe{suffix}")
        refused(tmp_path / f"pipe{suffix}", "a named pipe")
        (tmp_path / f"link{suffix}").symlink_to("/dev/zero")
        refused(tmp_path / f"link{suffix}", "a device")


def test_tensors_saved_on_meta(model, tmp_path):
    state = model.state_dict() | {"dit.tokenizer.conv.bias": torch.zeros(16, device="meta")}
    refused(write(tmp_path / "meta.mdlus", members(model, state), "zip"), "meta device")


def test_other_models_arguments_and_versions(model, tmp_path):
    args = json.loads(members(model)["args.json"])
    for change in (dict(__name__="FourCastNet"), dict(__args__=args["__args__"] | dict(hidden_size=-3)),
                   dict(__args__=args["__args__"] | dict(novel=3)), dict(__args__=[1]),
                   dict(__args__=args["__args__"] | dict(hidden_size="wide")),
                   dict(__args__=args["__args__"] | dict(num_layers=10**9))):
        refused(write(tmp_path / "args.mdlus", members(model, **{"args.json": json.dumps(args | change).encode()}),
                      "zip"))
    version = json.dumps({"physicsnemo_version": "2.2.2", "mdlus_file_version": "9.0.0"}).encode()
    refused(write(tmp_path / "version.mdlus", members(model, **{"metadata.json": version}), "zip"), "9.0.0")


class Attack:
    """Unpickles into a call."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_pickles_run_nothing(model, tmp_path):
    buffer = io.BytesIO()
    torch.save({"dit.tokenizer.pos_embed": Attack()}, buffer)
    for data in (buffer.getvalue(), pickle.dumps(Attack())):
        refused(write(tmp_path / "attack.mdlus", members(model, **{"model.pt": data}), "zip"))


def test_checksums_are_verified(model, tmp_path):
    path = write(tmp_path / "crc.mdlus", members(model), "zip")
    data = bytearray(open(path, "rb").read())
    data[len(data) // 2] ^= 1
    open(path, "wb").write(data)
    refused(path)


@pytest.mark.parametrize("name", ["absent.safetensors", "absent.mdlus"])
def test_absent_files(tmp_path, name):
    refused(tmp_path / name)


@pytest.mark.parametrize("suffix", [".safetensors", ".mdlus", ".pt", ""])
@pytest.mark.parametrize("data", [b"", b"x", b"PK\x03\x04" + b"\0" * 40, b"\0" * 2000, struct.pack("<Q", 2**63) + b"{}",
                                  struct.pack("<Q", 10**9) + b"{}", struct.pack("<Q", 2) + b"{}",
                                  struct.pack("<Q", 9) + b'{"a":[[[['], ids=range(8))
def test_files_that_cannot_be_right(tmp_path, data, suffix):
    path = tmp_path / f"wrong{suffix}"
    path.write_bytes(data)
    refused(path)


def edited(saved, change):
    """The file with its header changed by change(header)."""
    data = saved.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    change(header)
    text = json.dumps(header).encode()
    saved.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size:])
    return saved


def test_headers_that_cannot_be_right(model, saved):
    def set_entry(**values):
        return lambda header: header["dit.tokenizer.conv.bias"].update(values)

    good = saved.read_bytes()
    changes = [set_entry(shape=[2**62]), set_entry(shape=[-32]), set_entry(dtype="F7"), set_entry(shape=[2**32, 2**32]),
               set_entry(data_offsets=[0, 2**60]), set_entry(data_offsets=[128, 0]), set_entry(data_offsets=[-4, 124]),
               set_entry(shape="x"), set_entry(shape=[4, 8]), lambda h: h.pop("__metadata__"),
               lambda h: h.update(__metadata__={}), lambda h: h.update(extra=h["dit.tokenizer.conv.bias"]),
               lambda h: h.pop("dit.tokenizer.conv.bias")]
    for change in changes:
        saved.write_bytes(good)
        refused(edited(saved, change))
    size = struct.unpack("<Q", good[:8])[0]
    for more in (b"\0", b"\0 and more", b"{}"):
        saved.write_bytes(struct.pack("<Q", size + len(more)) + good[8:8 + size] + more + good[8 + size:])
        refused(saved, "header")
    saved.write_bytes(good)
    assert same(halcyon.load_checkpoint(str(edited(saved, lambda h: None))), model)


def test_cut_files_are_refused(saved, tmp_path):
    data = saved.read_bytes()
    for length in (4, 8, 100, len(data) // 2, len(data) - 1):
        saved.write_bytes(data[:length])
        refused(saved)
    saved.write_bytes(data + b"\0")
    refused(saved)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "tar"])
def test_changed_bytes_end_in_a_model_or_an_error(model, saved, tmp_path, kind):
    path = saved if kind == "safetensors" else tmp_path / "m.mdlus"
    if kind != "safetensors":
        write(path, members(model), kind)
    good, generator = path.read_bytes(), torch.Generator().manual_seed(11)
    errors = 0
    for _ in range(12):
        data = bytearray(good)
        for at in torch.randint(0, 3000, (4,), generator=generator).tolist():
            data[at] = int(torch.randint(256, (1,), generator=generator))
        path.write_bytes(data)
        try:
            assert isinstance(halcyon.load_checkpoint(str(path)), halcyon.HealDA)
        except RuntimeError as error:
            assert path.name in str(error)
            errors += 1
    assert errors
