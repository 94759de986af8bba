# SPDX-License-Identifier: Apache-2.0
"""halcyon train on several hosts, which share a network and nothing else (hosts.py): the losses of one process; a host
that goes silent ends the others in time, and the run resumes."""

import csv
import os
import re
import subprocess
import sys
import time
import types

import pytest
import torch

from conftest import BUILD
from hosts import Network, plain_environment, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"no hosts can be simulated here: {why_not()}")

HALCYON = BUILD / "bin" / "halcyon"
TORCHRUN = os.path.join(os.path.dirname(sys.executable), "torchrun")
MASTER = dict(MASTER_ADDR="10.77.0.1", MASTER_PORT="29500")

SYSTEM = """name: small world
variable: air
fields: air.nc
token_level: 2
pixel_level: 4
ages: [0h, 6h]
split: {training: [{start: 2013-01-01, end: 2013-02-01}], evaluation: [{start: 2013-02-01, end: 2013-03-01}]}
"""
TRAIN = """system: system.yaml
weights: trained.safetensors
model: {hidden_size: 16, num_layers: 1, num_heads: 2, mlp_ratio: 2, obs_token_dim: 8, obs_film_hidden_dim: 8,
        pixel_attn_head_dim: 8}
simulation:
  networks: {box: {west: 240, east: 275, south: 25, north: 50}, fewest: 5, most: 20}
  focus: {west: 245, east: 270, south: 30, north: 45}
batch: {networks: 1, fields: 2}
training: {output: training, steps: 3, accumulate: 4, checkpoints: {every: 1, keep: 10}, log: {tensorboard: false}}
"""


def write_run(folder):
    """A region of 6 x 8 points and a tiny network."""
    netCDF4 = pytest.importorskip("netCDF4")
    if not HALCYON.exists():
        pytest.skip(f"no {HALCYON}")
    folder.mkdir()
    with netCDF4.Dataset(folder / "air.nc", "w") as file:
        axes = [("time", torch.arange(59 * 4) * 6.0, "hours since 2013-01-01"),
                ("lat", torch.arange(50.0, 20, -5), "degrees_north"),
                ("lon", torch.arange(240.0, 280, 5), "degrees_east")]
        for name, values, units in axes:
            file.createDimension(name, len(values))
            variable = file.createVariable(name, "f8", (name,))
            variable.units = units
            variable[:] = values.double().numpy()
        t, row, column = torch.meshgrid(*(torch.arange(len(values)) for _, values, _ in axes), indexing="ij")
        air = file.createVariable("air", "f4", ("time", "lat", "lon"))
        air.units = "K"
        air[:] = (280 + 2 * row + 4 * torch.sin(0.5 * column + 0.3 * row - 0.27 * t)).numpy()
    (folder / "system.yaml").write_text(SYSTEM)
    (folder / "train.yaml").write_text(TRAIN)


class Run:
    """A run that stands at one path on every host and on a disk of each."""

    def __init__(self, folder, network):
        self.folder, self.network = folder, network
        self.path, self.disks = folder / "run", []
        self.path.mkdir()
        for host in network.hosts:
            disk = folder / f"disk-{host.name}"
            write_run(disk)
            host.run("mount", "--bind", disk, self.path)
            self.disks.append(disk)
        self.processes = []

    def start(self, host, name, *command, **environment):
        log = self.folder / f"{name}.log"
        self.processes.append(types.SimpleNamespace(log=log, process=host.start(command, log, **environment)))

    def train(self, *more):
        return [HALCYON, "train", self.path / "train.yaml", *(word for one in more for word in ("--set", one))]

    def by_hand(self, places, *more, **environment):
        """A rank at each of the places; which host."""
        for index, place in enumerate(places):
            self.start(self.network.hosts[place], f"rank-{index}", *self.train(*more), RANK=str(index),
                       WORLD_SIZE=str(len(places)), **environment)

    def codes(self, seconds=60):
        """With what each process ends."""
        until = time.monotonic() + seconds
        for one in self.processes:
            try:
                one.process.wait(max(0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{one.log} does not end:\n{one.log.read_text()}") from None
        return [one.process.returncode for one in self.processes]

    def log(self, index):
        return self.processes[index].log.read_text()

    def succeeds(self, seconds=60):
        until = time.monotonic() + seconds
        while True:
            codes = [one.process.poll() for one in self.processes]
            if not any(codes) and None not in codes:
                return
            said = "\n".join(f"{one.log}:\n{one.log.read_text()}" for one in self.processes)
            assert not any(codes) and time.monotonic() < until, f"exit codes {codes}\n{said}"
            time.sleep(0.05)


def losses(folder):
    names = ("step", "samples", "loss", "gradient_norm")
    with open(folder / "training" / "training.csv") as file:
        return [[float(row[name]) for name in names] for row in csv.DictReader(file)]


def alone(folder, *more):
    command = [HALCYON, "train", folder / "train.yaml", *more]
    done = subprocess.run(command, capture_output=True, text=True, env=plain_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def of_one_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    write_run(folder)
    alone(folder)
    return losses(folder)


def check_like_one_process(run, of_one_process):
    assert len(of_one_process) == 3
    torch.testing.assert_close(losses(run.disks[0]), of_one_process, rtol=2e-5, atol=0)
    assert not any((disk / "training").exists() for disk in run.disks[1:])  # rank 0 keeps the folder


@pytest.mark.parametrize("meeting", ["static", "c10d"])
def test_torchrun_over_two_hosts(tmp_path, of_one_process, meeting):
    options = dict(static=["--master-addr", "10.77.0.1", "--master-port", "29500"],
                   c10d=["--rdzv-id", "run", "--rdzv-endpoint", "10.77.0.1:29500"])[meeting]
    with Network(2) as network:
        run = Run(tmp_path, network)
        for index, host in enumerate(network.hosts):
            run.start(host, host.name, TORCHRUN, "--no-python", "--nnodes", 2, "--nproc-per-node", 2, "--node-rank",
                      index, "--rdzv-backend", meeting, *options, "--", *run.train())
        run.succeeds()
        assert "4 ranks, started by torchrun" in run.log(0) + run.log(1)
        kept = [disk for disk in run.disks if (disk / "training").exists()]  # under c10d any host may have rank 0
        run.disks.sort(key=lambda disk: disk not in kept)
        check_like_one_process(run, of_one_process)


def test_started_by_hand_on_three_hosts(tmp_path, of_one_process):
    with Network(3) as network:
        run = Run(tmp_path, network)
        run.by_hand([0, 1, 2], MASTER_ADDR="host0", MASTER_PORT="29500")
        run.succeeds()
        assert "3 ranks, started by torchrun" in run.log(0)
        check_like_one_process(run, of_one_process)


@pytest.mark.parametrize("names, master", [
    (["127.0.1.1 host0", "10.78.0.9 host1"], "192.168.77.1"),  # as Debian writes it, and one that it has no more
    (["127.0.1.1 host0"], "host0"),    # the way to rank 0 is there the loopback
    (["127.0.1.1 host0", "127.0.1.1 host1"], None),  # a file, which names no host
], ids=["address", "name", "file"])
def test_a_host_whose_own_name_is_another_address(tmp_path, of_one_process, names, master):
    # of two addresses gloo connects from the larger: 127... is the smaller one here
    with Network(2, names=names, net="192.168.77") as network:
        for host, line in zip(network.hosts, names):
            assert host.run("getent", "ahosts", host.name).startswith(line.split()[0])
        run = Run(tmp_path, network)
        address = dict(MASTER_ADDR=master, MASTER_PORT="29500")
        run.by_hand([0, 1], **(address if master else dict(HALCYON_STORE_FILE=f"{tmp_path}/store")))
        run.succeeds()
        check_like_one_process(run, of_one_process)


def test_a_host_that_goes_silent_ends_the_run_which_resumes(tmp_path):
    timeout = 4
    with Network(2) as network:
        run = Run(tmp_path, network)
        run.by_hand([0, 0, 1], "training.steps=1000000", "training.checkpoints.every=2", HALCYON_TIMEOUT=str(timeout),
                    **MASTER)
        until = time.monotonic() + 60
        while not (run.disks[0] / "training/step-000000004.safetensors").exists():
            assert time.monotonic() < until and run.processes[0].process.poll() is None, run.log(0)
            time.sleep(0.05)
        network.unplug(1)
        begun = time.monotonic()
        assert run.codes() == [7, 7, 7]
        assert time.monotonic() - begun < timeout + 6
        said = [re.search(r"error: \[[\w ]+\] rank (\d): no answer from rank (\d) after (\d+\.\d) s: .", run.log(index))
                for index in range(3)]
        for index, found in enumerate(said):
            # a little less where a peer that began before gave up before
            assert found and int(found[1]) == index and abs(float(found[3]) - timeout) < 2, run.log(index)
        # the rank that is lost, or one that gave up because of it
        assert "2" in (said[0][2], said[1][2]) and said[2][2] in "01", [run.log(index) for index in range(3)]
    saved = losses(run.disks[0])
    last = max(int(file.stem[5:]) for file in (run.disks[0] / "training").glob("step-*.safetensors"))
    assert last >= len(saved) - 2, (last, saved[-1])
    said = alone(run.disks[0], "--set", f"training.steps={last + 2}")
    assert f"resumed after step {last} of {last + 2}" in said, said
    assert losses(run.disks[0])[:last] == saved[:last] and len(losses(run.disks[0])) == last + 2
