# SPDX-License-Identifier: Apache-2.0
"""Ranks on several hosts, which share a network and nothing else (hosts.py): halcyon.parallel gives what one process
gives; a host that goes silent ends the others in time."""

import contextlib
import os
import re
import time

import pytest
import torch
import torch.nn.functional as F

import halcyon
import whole
from hosts import HostRanks, Network, why_not
from ranks import part, rank, returned

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"no hosts can be simulated here: {why_not()}")

parallel = halcyon.parallel


def is_shared():
    """Whether this rank has the memory of some group."""
    with open("/proc/self/maps") as maps:
        return any("/dev/shm/halcyon-" in line for line in maps)


def sent():
    """Bytes that this rank's host has sent to others."""
    with open("/proc/net/dev") as file:
        return next(int(line.split()[9]) for line in file if "eth0:" in line)


def integers(*shape):
    """Sums and products of which are exact."""
    return torch.randint(-9, 10, shape, generator=torch.Generator().manual_seed(sum(shape))).double()


def halos(x, weights):
    mine, weight = part(x).clone().requires_grad_(), weights[rank()]
    y = parallel.halo_exchange(mine, 1, edge="periodic")
    gradient, = torch.autograd.grad((y * weight).sum(), mine)
    return y.detach(), gradient, (y * weight).sum().item(), (mine * gradient).sum().item()


def check_halos(ranks, rows=9, width=5):
    """Bitwise those of the whole, and their adjoint."""
    x = integers(2, rows, width).requires_grad_()
    bands = x.tensor_split(len(ranks.pipes), -2)
    padded = [torch.cat([before[..., -1:, :], band, after[..., :1, :]], -2)
              for before, band, after in zip(bands[-1:] + bands[:-1], bands, bands[1:] + bands[:1])]
    weights = [integers(*one.shape) for one in padded]
    gradient, = torch.autograd.grad(sum((one * weight).sum() for one, weight in zip(padded, weights)), x)
    results = returned(ranks(halos, x.detach(), weights))
    for (y, mine, *_), one, expected in zip(results, padded, gradient.tensor_split(len(bands), -2)):
        assert torch.equal(y, one) and torch.equal(mine, expected)
    assert sum(one[2] for one in results) == sum(one[3] for one in results) != 0


def frames_and_columns(x, weight):
    mine = part(x, dim=1).clone().requires_grad_()
    columns = parallel.shard_x(mine)
    frames = parallel.shard_t(columns)
    gradient, = torch.autograd.grad((columns * part(weight, dim=2)).sum(), mine)
    return columns.detach(), frames.detach(), gradient


def check_frames_and_columns(ranks):
    x, weight = integers(1, 5, 7, 3), integers(1, 5, 7, 3).flip(0, 1)
    columns, frames, gradients = zip(*returned(ranks(frames_and_columns, x, weight)))
    for index, one in enumerate(columns):
        assert torch.equal(one, x.tensor_split(len(columns), 2)[index])
    assert torch.equal(torch.cat(frames, 1), x) and torch.equal(torch.cat(gradients, 1), weight)


def check_conv(ranks, monkeypatch, rows=13):
    monkeypatch.setattr(whole, "on_ranks", lambda size, *call: ranks(*call))
    case = whole.Case("conv", dict(padding=1), -2, [whole.random(4, 3, 3, 3, seed=1), whole.random(4, seed=2)])
    sizes = [len(one) for one in torch.empty(rows).tensor_split(len(ranks.pipes))]
    whole.compare(lambda x, *parameters: F.conv2d(x, *parameters, padding=1), whole.random(2, 3, rows, 7), sizes, case)


def large_halos():
    before = sent()
    parallel.halo_exchange(torch.ones(1, 1, 100_000), 1)  # 400 kB to each neighbour
    torch.distributed.barrier()
    return sent() - before, is_shared()


def of_neighbours():
    """Ranks 0, 1 of one host and 2, 3 of two, each in a group."""
    groups = [torch.distributed.new_group(members) for members in ([0, 1], [2, 3])]
    y = parallel.halo_exchange(torch.full((1, 1), float(rank())), 1, group=groups[rank() // 2])
    return y.flatten().tolist(), is_shared()


@pytest.mark.parametrize("own_shm, own_processes", [(True, True), (False, True), (True, False), (False, False)],
                         ids=["nothing in common", "memory", "process numbers", "memory and process numbers"])
def test_ranks_of_three_hosts_are_one_process(own_shm, own_processes, monkeypatch):
    with Network(3, own_shm, own_processes) as network, HostRanks([network.hosts[i] for i in (0, 0, 1, 2)]) as ranks:
        check_halos(ranks)
        check_frames_and_columns(ranks)
        check_conv(ranks, monkeypatch)
        # ranks that could not look after one another, or not find the memory, do not share it
        shares = not own_shm and not own_processes
        for index, (over_network, in_memory) in enumerate(returned(ranks(large_halos))):
            assert in_memory == shares and (over_network < 400_000) == shares, (index, over_network, in_memory)
        lines = [[0, 0, 1], [0, 1, 0], [0, 2, 3], [2, 3, 0]]
        assert returned(ranks(of_neighbours)) == [(line, shares or index < 2) for index, line in enumerate(lines)]


def both_ways(name):
    x = torch.ones(1, 1, 6, 5, requires_grad=True)
    more = dict(halo_exchange=(1,), shard_x=(), conv=(torch.ones(1, 1, 3, 3),))[name]
    getattr(parallel, name)(x, *more).sum().backward()


def until_lost(name):
    """The error that ends a loop of operations, and how long the last of them took."""
    while True:
        begun = time.monotonic()
        try:
            both_ways(name)
        except Exception as error:  # noqa: BLE001
            return type(error), str(error), time.monotonic() - begun


@pytest.mark.parametrize("what", ["cable", "interface"])
def test_a_host_that_goes_silent(what):
    timeout, groups = 3, {}
    with Network(3) as network, contextlib.ExitStack() as stack:
        for name in ("halo_exchange", "conv", "shard_x"):  # at the same time, as most of it is waiting
            groups[name] = stack.enter_context(HostRanks([network.hosts[i] for i in (0, 0, 1, 2)], timeout))
        for name, ranks in groups.items():
            returned(ranks(both_ways, name))
        for name, ranks in groups.items():
            ranks.ask(until_lost, name)
        time.sleep(1)
        if what == "cable":
            network.unplug(2)
        else:
            network.hosts[2].run("ip", "link", "set", "dev", "eth0", "down")
        results = {name: returned(ranks.answers(2 * timeout + 6)) for name, ranks in groups.items()}
    for name, of_ranks in results.items():
        named = set()
        for index, (kind, text, seconds) in enumerate(of_ranks):
            found = re.match(rf"\[{name}[^\]]*\] rank (\d): no answer from rank (\d) after (\d+\.\d) s: .", text)
            assert kind is RuntimeError and found and int(found[1]) == index, (index, kind, text)
            assert abs(float(found[3]) - timeout) < 1.5 and seconds < timeout + 3, (text, seconds)
            named.add((index, int(found[2])))
        assert named & {(0, 3), (1, 3), (2, 3)}, named  # others may name one that gave up because of it


def until_told(file):
    """Exchanges until rank 0 finds the file: how long the longest took."""
    count, longest, stop = 0, 0, torch.zeros(1)
    while not stop.item():
        begun = time.monotonic()
        y = parallel.halo_exchange(torch.full((1, 1), rank() + 10.0 * count), 1).flatten() - 10 * count
        assert y.tolist() == [[-10 * count, 0, 1], [0, 1, 2], [1, 2, -10 * count]][rank()], (count, y)
        longest = max(longest, time.monotonic() - begun)
        count += 1
        stop.fill_(os.path.exists(file))
        torch.distributed.broadcast(stop, 0)
    return longest


def test_a_short_silence_is_waited_for(tmp_path):
    with Network(3) as network, HostRanks(network.hosts) as ranks:
        returned(ranks(rank))
        ranks.ask(until_told, tmp_path / "stop")
        time.sleep(0.3)
        network.unplug(1)
        time.sleep(1)
        network.plug(1)
        (tmp_path / "stop").touch()
        assert max(returned(ranks.answers())) > 0.7


def seconds_of_halos():
    times = []
    for _ in range(5):
        begun = time.monotonic()
        parallel.halo_exchange(torch.ones(1, 1, 30_000), 1)
        times.append(time.monotonic() - begun)
    return min(times)


@pytest.mark.parametrize("link, least", [
    (["netem", "delay", "20ms", "5ms", "loss", "1%"], 0.015),
    (["tbf", "rate", "8mbit", "burst", "8kb", "latency", "30ms"], 0.1),  # for 120 kB; frames that wait longer are lost
], ids=["far", "narrow"])
def test_a_slow_link(link, least, monkeypatch):
    with Network(2) as network:
        if why := network.hosts[1].slow_down(*link):
            pytest.skip(f"no {link[0]} here: {why}")
        with HostRanks([network.hosts[i] for i in (0, 1, 1)]) as ranks:
            assert max(returned(ranks(seconds_of_halos))) > least
            check_halos(ranks)
            check_frames_and_columns(ranks)
            check_conv(ranks, monkeypatch)
