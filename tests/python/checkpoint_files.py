# SPDX-License-Identifier: Apache-2.0
"""A small model, checkpoint files of it in every format, and what a refusal to load one looks like."""

import collections
import io
import json
import re
import tarfile
import time
import zipfile

import pytest
import torch
from references import SMALL_MODEL, randomise

import halcyon


@pytest.fixture
def model():
    return randomise(halcyon.HealDA(**SMALL_MODEL), 0.1)


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "model.safetensors"
    halcyon.save_checkpoint(model, str(path))
    return path


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


def members(model, state=None, **changes):
    """The three files of the older formats."""
    buffer = io.BytesIO()
    torch.save(collections.OrderedDict(state or model.state_dict()), buffer)
    args = {"__name__": "VideoHealDA", "__module__": "physicsnemo.experimental.models.healda.video_healda",
            "__args__": {key: value for key, value in model.config.items() if key != "region"}}
    version = {"physicsnemo_version": "2.2.2", "mdlus_file_version": "0.1.0"}
    return {"model.pt": buffer.getvalue(), "args.json": json.dumps(args).encode(),
            "metadata.json": json.dumps(version).encode()} | changes


def write(path, files, kind):
    with (zipfile.ZipFile(path, "w") if kind == "zip" else tarfile.open(path, "w")) as archive:
        for name, data in files.items():
            if data is None:
                continue
            if kind == "zip":
                archive.writestr(name, data)
            else:
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return str(path)


def refused(path, *words):
    """Loading fails at once with the file's name and the reason."""
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=re.escape(str(path).rsplit("/", 1)[1])) as raised:
        halcyon.load_checkpoint(str(path))
    assert time.monotonic() - begin < 5
    for word in words:
        assert word in str(raised.value)
