# SPDX-License-Identifier: Apache-2.0
"""Fine-tunes the network of demo/north_america with LoRA for another kind of station.

The stations are bare: without a radiation shield they read up to 4 K too warm in the sun, which the shipped weights do
not know. Reports of such stations are simulated from the fields of 2013. Low-rank adapters of the linear layers learn
to give the analysis that the shipped weights make of the same stations with shields. The loss on fields of 2014, with
other stations, tells whether they did. At the end `halcyon analyze` runs on a simulated week with the shipped and with
the merged weights.

    PYTHONPATH=build/python .venv/bin/python examples/lora_finetune.py --output out/lora
"""

import argparse
import csv
import json
import math
import pathlib
import shutil
import subprocess
import time

import netCDF4
import numpy as np
import torch

import halcyon
from regional_inputs import AGES, DEMO, Fields, Inputs, calendar

ROOT = pathlib.Path(__file__).resolve().parents[1]
BOX = dict(west=235.0, east=292.5, south=27.5, north=47.5)  # where the stations stand: the United States
ERROR_SD = 1.0  # K, random error of a report
LAYERS = ["qkv", "proj", "q_proj", "k_proj", "v_proj", "out_proj", "layers.0", "layers.2"]  # ends of their names
SUN = 4.0  # K, what a thermometer without a shield reads too much under a sun in the zenith


def sun_height(seconds, lat, lon):
    """Sine of the sun's elevation, 0 by night."""
    day, year = calendar(seconds)
    lat, declination = lat.deg2rad(), -math.radians(23.44) * (2 * math.pi * (year + 10) / 365.25).cos()
    turn = 2 * math.pi * (day + lon / 360 - 0.5)
    return (lat.sin() * declination.sin() + lat.cos() * declination.cos() * turn.cos()).clamp(min=0)


def network(size, generator, sites=None):
    """Places of stations, (size, sites) each."""
    sites = sites or int(torch.randint(30, 121, (), generator=generator))
    u, v = torch.rand(2, size, sites, generator=generator, dtype=torch.float64)
    return BOX["south"] + (BOX["north"] - BOX["south"]) * u, BOX["west"] + (BOX["east"] - BOX["west"]) * v


def simulate(fields, index, lat, lon, generator):
    """Reports (B, ages * sites) for analyses at the times of `index` (B,): of shielded stations, and of bare ones."""
    sites = lat.shape[1]
    truth = fields.at(fields.departures[index[:, None] - AGES // 6], lat, lon).flatten(1)
    lat, lon, age = lat.repeat(1, 4), lon.repeat(1, 4), AGES.double().repeat_interleave(sites).expand(len(index), -1)
    error = ERROR_SD * torch.randn(lat.shape, generator=generator)
    sun = SUN * sun_height((fields.times[index][:, None] - 3600 * age).long(), lat, lon)
    spread = fields.at(fields.spread.expand(len(index), 1, -1, -1), lat, lon)[:, 0]
    shielded = dict(seconds=fields.times[index], lat=lat, lon=lon, departure=truth + error, spread=spread, age=age,
                    error_sd=torch.full_like(lat, ERROR_SD))
    return shielded, shielded | dict(departure=truth + error + sun)


def batch(fields, inputs, shipped, times, size, generator):
    """Reports of bare stations, and what they should give: the shipped analysis of the same stations with shields."""
    index = times[torch.randint(len(times), (size,), generator=generator)]
    shielded, bare = simulate(fields, index, *network(size, generator), generator)
    with torch.no_grad():
        return bare, inputs.analyse(shipped, shielded)


def loss_of(model, inputs, reports, wanted):
    """Mean squared error over the region, K^2."""
    return (inputs.analyse(model, reports) - wanted)[:, inputs.inside].square().mean()


def held_out_loss(model, fields, inputs, shipped):
    """On fields of 2014, networks and errors that no training step sees."""
    generator = torch.Generator().manual_seed(2014)
    batches = [batch(fields, inputs, shipped, fields.held_out, 16, generator) for _ in range(4)]
    with torch.no_grad():
        return sum(loss_of(model, inputs, *one).item() for one in batches) / len(batches)


def train(model, fields, inputs, shipped, steps):
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=3e-3, weight_decay=0.0)
    rate = lambda step: min(1, (step + 1) / 10) * (1 + math.cos(math.pi * step / steps)) / 2
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    generator, begin = torch.Generator().manual_seed(2013), time.monotonic()
    for step in range(1, steps + 1):
        loss = loss_of(model, inputs, *batch(fields, inputs, shipped, fields.train, 8, generator))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if step % max(1, steps // 10) == 0:
            seconds = time.monotonic() - begin
            print(f"step {step:4d} of {steps}: loss {loss.item():.3f} K^2, {seconds:.0f} s", flush=True)


def write_week(fields, folder):
    """A week of July 2014 as bare stations see it, in files for `halcyon analyze`; also as reports for HealDA."""
    generator, sites = torch.Generator().manual_seed(7), 60
    first = int((fields.times == 1404691200).nonzero())  # 7 July, 00 UTC
    index = torch.arange(first - 3, first + 28)  # from 18 hours before
    lat, lon = (z.round(decimals=4) for z in network(1, generator, sites))
    _, bare = simulate(fields, index, lat.expand(len(index), -1), lon.expand(len(index), -1), generator)
    mean = fields.at(fields.climatology[index][None], lat, lon)[0]
    kelvin = (mean + bare["departure"][:, :sites]).round(decimals=2)
    names = [f"S{i:02d}" for i in range(sites)]
    with open(folder / "stations.csv", "w", newline="") as file:
        csv.writer(file).writerows([("station", "lat", "lon"), *zip(names, lat[0].tolist(), lon[0].tolist())])
    clock = [str(np.datetime64(t, "s")).replace("T", " ") for t in fields.times[index].tolist()]
    with open(folder / "reports.csv", "w", newline="") as file:
        csv.writer(file).writerows([("datetime", *names), *([t, *row] for t, row in zip(clock, kelvin.tolist()))])
    run = dict(system=str(DEMO / "system.yaml"), times=dict(start=clock[3], end=clock[-1]), plots=dict(enabled=False),
               observations=dict(files="reports.csv", stations="stations.csv", error_sd=ERROR_SD),
               quality_control=dict(gross_limit=20))  # all reports are used
    (folder / "analyze.yaml").write_text(json.dumps(run, indent=2))  # JSON is YAML
    ages = [(kelvin - mean)[3 - k:len(index) - k] for k in range(4)]
    return index[3:], {k: v[3:] for k, v in bare.items()} | dict(departure=torch.cat(ages, 1))


def run_halcyon(program, folder, checkpoint, name, inputs):
    """The temperatures (times, pixels) that `halcyon analyze` makes of the week with a checkpoint."""
    subprocess.run([program, "analyze", folder / "analyze.yaml", "--set", f"checkpoint={checkpoint}",
                    f"output={folder / name}"], check=True, stdout=subprocess.DEVNULL)
    with netCDF4.Dataset(folder / name / "analysis_healpix.nc") as file:
        return torch.from_numpy(file["air"][:].filled(np.nan)).double()[:, inputs.places]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of 8 analyses (default: %(default)s)")
    parser.add_argument("--rank", type=int, default=8, help="rank of the adapters (default: %(default)s)")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "out" / "lora", help="folder of the results")
    parser.add_argument("--halcyon", default=ROOT / "build" / "bin" / "halcyon", help="the program halcyon")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps: expected 1 or more, got {options.steps}")
    if not shutil.which(options.halcyon):
        parser.error(f"--halcyon: no program at {options.halcyon}")
    import peft  # pip install peft; here, so that --help and the simulation do without
    torch.manual_seed(0)
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    weights, tuned = DEMO / "weights.safetensors", folder / "lora.safetensors"
    shipped, model = halcyon.load_checkpoint(weights), halcyon.load_checkpoint(weights)
    fields = Fields()
    inputs = Inputs(fields, model.config)

    adapters = peft.LoraConfig(r=options.rank, lora_alpha=2 * options.rank, target_modules=LAYERS)
    model = peft.get_peft_model(model, adapters)
    model.print_trainable_parameters()
    before = held_out_loss(model, fields, inputs, shipped)
    print(f"held-out loss before: {before:.3f} K^2")
    train(model.train(), fields, inputs, shipped, options.steps)
    after = held_out_loss(model.eval(), fields, inputs, shipped)
    print(f"held-out loss after: {after:.3f} K^2")
    model.save_pretrained(folder / "adapter")
    merged = model.merge_and_unload()
    halcyon.save_checkpoint(merged, tuned)

    index, reports = write_week(fields, folder)
    on_pixels = lambda data: fields.at(data[index][None], inputs.lat[None], inputs.lon[None])[0][:, inputs.inside]
    with torch.no_grad():
        python = on_pixels(fields.climatology) + inputs.analyse(merged, reports)[:, inputs.inside]
    old, new = (run_halcyon(options.halcyon, folder, *run, inputs)[:, inputs.inside] for run in
                ((weights, "shipped"), (tuned, "lora")))
    in_box = ((inputs.lat >= BOX["south"]) & (inputs.lat <= BOX["north"])
              & (inputs.lon >= BOX["west"]) & (inputs.lon <= BOX["east"]))[inputs.inside]
    rms = lambda x: x.square().mean().sqrt().item()
    errors = [rms((analysis - on_pixels(fields.air))[:, in_box]) for analysis in (old, new)]
    change, difference = rms(new - old), (new - python).abs().max().item()
    print(f"halcyon analyze, a week of July 2014 over the United States: RMSE {errors[0]:.2f} K with the shipped "
          f"weights, {errors[1]:.2f} K with {tuned}")
    print(f"RMS difference of the two on all pixels: {change:.2f} K")
    print(f"largest difference of halcyon analyze from the same model in Python: {difference:.1e} K")
    if not change > 0:
        raise SystemExit("halcyon analyze gives the same analysis with the merged weights as with the shipped ones")
    if not difference < 1e-3:
        raise SystemExit("halcyon analyze gives the model other inputs than those that it was trained on")
    return dict(before=before, after=after, errors=errors, change=change, difference=difference)


if __name__ == "__main__":
    torch.set_num_threads(1)  # with tensors of this size more threads only wait for one another
    main()
