# SPDX-License-Identifier: Apache-2.0
"""The programs of examples/: their inputs are those of the C++ program, and they reach what they promise."""

import subprocess
import sys

import netCDF4
import numpy as np
import pytest
import torch
from conftest import BUILD, SOURCE

import halcyon

PROGRAM = BUILD / "bin" / "halcyon"
WEIGHTS = SOURCE / "demo" / "north_america" / "weights.safetensors"
ADAPTED = ("qkv", "proj", "layers.0", "layers.2")  # ends of the names of adapted layers


@pytest.fixture(autouse=True)
def examples(monkeypatch):
    if not PROGRAM.exists():
        pytest.skip(f"no program at {PROGRAM}")
    monkeypatch.syspath_prepend(str(SOURCE / "examples"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def column(file, name):
    values = file[name][:]
    return torch.from_numpy(values.filled(np.nan) if values.dtype.kind == "f" else values.filled())


def test_python_inputs_give_the_analysis_of_real_reports(tmp_path):
    """The analyses of `halcyon analyze`, from the reports of its feedback file."""
    from regional_inputs import DEMO, Fields, Inputs
    subprocess.run([PROGRAM, "analyze", DEMO / "analyze.yaml", "--set", f"output={tmp_path}", "plots.enabled=false",
                    "times.start=2014-11-11T06", "times.end=2014-11-12T00"], check=True, stdout=subprocess.DEVNULL)
    fields, model = Fields(), halcyon.load_checkpoint(WEIGHTS)
    inputs = Inputs(fields, model.config)
    with netCDF4.Dataset(tmp_path / "feedback.nc") as file:
        feedback = {name: column(file, name) for name in ("time", "analysis_time", "latitude", "longitude", "ob",
                                                          "error_sd", "reason")}
    with netCDF4.Dataset(tmp_path / "analysis_healpix.nc") as file:
        analyses = torch.from_numpy(file["air"][:].filled(np.nan)).double()[:, inputs.places]
    times = feedback["analysis_time"].unique()
    assert len(times) == len(analyses) == 4
    for time, analysis in zip(times, analyses):
        used = (feedback["analysis_time"] == time) & (feedback["reason"] == 0)
        assert used.sum() > 80
        lat, lon, departure, error_sd = (feedback[name][used][None].double()
                                         for name in ("latitude", "longitude", "ob", "error_sd"))
        reports = dict(seconds=time[None], lat=lat, lon=lon, departure=departure, error_sd=error_sd,
                       spread=fields.at(fields.spread[None, None], lat, lon)[0],
                       age=(time - feedback["time"][used][None]) / 3600)
        with torch.no_grad():
            made = inputs.analyse(model, reports)
        mean = fields.at(fields.climatology[fields.times == time][None], inputs.lat[None], inputs.lon[None])[0]
        error = (mean + made - analysis)[:, inputs.inside].abs().max().item()
        assert error < 1e-4, f"{error} K, where departures reach {made.abs().max().item()} K"
        assert analysis[~inputs.inside].isnan().all()


def test_lora_finetune(tmp_path):
    """A short run learns, and the merged weights differ from the shipped ones in the adapted layers alone."""
    pytest.importorskip("peft", reason="needs peft (pip install peft)")
    import lora_finetune
    results = lora_finetune.main(["--steps", "12", "--rank", "4", "--output", str(tmp_path), "--halcyon", str(PROGRAM)])
    assert results["after"] < 0.8 * results["before"], results
    assert results["errors"][1] < results["errors"][0] - 0.1, results
    assert results["change"] > 0.1 and results["difference"] < 1e-3, results
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    before, after = (halcyon.load_checkpoint(path).state_dict() for path in (WEIGHTS, tmp_path / "lora.safetensors"))
    assert list(before) == list(after)
    for name, value in before.items():
        adapted = name.endswith(".weight") and name[:-len(".weight")].endswith(ADAPTED)
        assert torch.equal(value, after[name]) != adapted, name


def test_help_needs_no_peft():
    done = subprocess.run([sys.executable, str(SOURCE / "examples" / "lora_finetune.py"), "--help"], text=True,
                          capture_output=True, env={"PYTHONPATH": str(BUILD / "python")})
    assert done.returncode == 0, done.stderr
    assert all(option in done.stdout for option in ("--steps", "--rank", "--output", "--halcyon"))
