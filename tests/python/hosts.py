# SPDX-License-Identifier: Apache-2.0
"""Several hosts, simulated with Linux namespaces: each has a network interface, a name, processes, /etc/hosts and
/dev/shm of its own.

    with Network(2) as network:                      # host0 10.77.0.1, host1 10.77.0.2; a bridge joins them
        network.hosts[1].start(["halcyon", "train", ...], "log", RANK="1", ...)
        network.unplug(1)                            # silence: nobody hears that it is gone

All of it, the bridge too, lives in namespaces of processes that wait for their input to end: nothing can clash with
another run, and nothing stays behind, however a test or pytest itself ends. The disk is that of the machine."""

import ctypes
import functools
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass

import ranks

KINDS = dict(net=0x40000000, uts=0x04000000, ipc=0x08000000, mnt=0x00020000)
NEW_PID = 0x20000000
SETUP = """
hostname "$1"
mount -t tmpfs -o size=64m tmpfs "$2"
mount --bind "$3" /etc/hosts
ip link set lo up
echo ready
read -r _
"""


@functools.cache
def why_not():
    """Why there can be no hosts here; empty where there can."""
    missing = [name for name in ("ip", "mount", "nsenter", "unshare") if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)} not found"
    script = """mount -t tmpfs tmpfs /dev/shm && mount --bind /etc/hostname /etc/hosts && hostname some &&
                ip link add name some type veth peer name other && ip link add name bridge type bridge"""
    kinds = ["--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--mount-proc"]
    done = subprocess.run(["unshare", *kinds, "sh", "-c", script], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"namespaces are refused: {' '.join(done.stderr.split())}"


def checked(command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@dataclass
class Host:
    name: str
    address: str
    holder: subprocess.Popen  # in the namespaces, but for processes: those of its children
    own_processes: bool

    def within(self, *command):
        """A command of this machine that runs another on the host."""
        places = f"/proc/{self.holder.pid}/ns"
        return ["nsenter", *(f"--{kind}={places}/{file}" for kind, file in [
            ("net", "net"), ("uts", "uts"), ("ipc", "ipc"), ("mount", "mnt"), ("pid", "pid_for_children")]), *command]

    def run(self, *command):
        """What a command says, in which nothing fails."""
        return checked(self.within(*command))

    def start(self, command, log, **environment):
        with open(log, "w") as output:
            return subprocess.Popen(self.within(*map(str, command)), stdin=subprocess.DEVNULL, stdout=output,
                                    stderr=subprocess.STDOUT, env=plain_environment() | environment)

    def slow_down(self, *queue):
        """Sends through a queue of tc's; says why not."""
        command = self.within("tc", "qdisc", "add", "dev", "eth0", "root", *queue)
        done = subprocess.run(command, capture_output=True, text=True)
        return " ".join(done.stderr.split())

    def places(self):
        """The namespaces of the host; of its process numbers first, which hold for children of who enters."""
        kinds = dict(pid_for_children=NEW_PID) if self.own_processes else {}
        return [(f"/proc/{self.holder.pid}/ns/{name}", kind) for name, kind in (kinds | KINDS).items()]


def plain_environment():
    """Without what a launcher around pytest says."""
    theirs = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "TORCHELASTIC_", "GLOO_", "HALCYON_", "OMPI_", "PMI", "SLURM_")
    return {key: value for key, value in os.environ.items() if not key.startswith(theirs)} | dict(OMP_NUM_THREADS="1")


class Network:
    """own_shm: hosts do not share /dev/shm; own_processes: nor process numbers; names: what the /etc/hosts of each
    host says of itself, where it is not the truth."""

    def __init__(self, count, own_shm=True, own_processes=True, names=(), net="10.77.0"):
        self.hosts, self.holders = [], []
        self.folder = tempfile.TemporaryDirectory(prefix="halcyon-hosts-")
        try:
            self.switch = self._hold("unshare", "--net", "sh", "-c", "echo ready; read -r _")
            for index in range(count):
                self._add(index, own_shm, own_processes, names, [f"{net}.{i + 1}" for i in range(count)])
            links = ["ip link add name bridge type bridge", "ip link set dev bridge up"]
            for index, host in enumerate(self.hosts):
                links += [f"ip link add name port{index} type veth peer name eth0 netns {host.holder.pid}",
                          f"ip link set dev port{index} master bridge", f"ip link set dev port{index} up"]
            checked(self._at_switch("sh", "-e", "-c", "\n".join(links)))
            for host in self.hosts:
                host.run("sh", "-e", "-c", f"ip addr add {host.address}/24 dev eth0; ip link set dev eth0 up")
        except BaseException:
            self.close()
            raise

    def _hold(self, *command):
        pipe = subprocess.PIPE
        holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.holders.append(holder)
        line = holder.stdout.readline()
        assert line == "ready\n", (command, line, holder.communicate())
        return holder

    def _add(self, index, own_shm, own_processes, names, addresses):
        name = f"host{index}"
        hosts = pathlib.Path(self.folder.name, f"{name}.hosts")
        known = [f"{address} host{i}" for i, address in enumerate(addresses)]
        known[index:index + 1] = names[index:index + 1] or known[index:index + 1]
        hosts.write_text("\n".join(["127.0.0.1 localhost", *known, ""]))
        shm = pathlib.Path(self.folder.name, f"{name}.shm")  # where the machine's /dev/shm stays in place
        shm.mkdir()
        kinds = ["--net", "--uts", "--ipc", "--mount"]
        kinds += ["--pid", "--fork", "--kill-child", "--mount-proc"] if own_processes else []
        where = "/dev/shm" if own_shm else str(shm)
        holder = self._hold("unshare", *kinds, "sh", "-e", "-c", SETUP, "sh", name, where, str(hosts))
        self.hosts.append(Host(name, addresses[index], holder, own_processes))

    def _at_switch(self, *command):
        return ["nsenter", f"--net=/proc/{self.switch.pid}/ns/net", *command]

    def unplug(self, index):
        checked(self._at_switch("ip", "link", "set", "dev", f"port{index}", "down"))

    def plug(self, index):
        checked(self._at_switch("ip", "link", "set", "dev", f"port{index}", "up"))

    def close(self):
        for holder in self.holders:
            holder.stdin.close()  # it ends, and with it the processes of its host
        for holder in self.holders:
            try:
                holder.wait(10)
            except subprocess.TimeoutExpired:
                holder.kill()
                holder.wait()
            holder.stdout.close()
            holder.stderr.close()
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def enter(places):
    files = [(os.open(path, os.O_RDONLY), kind) for path, kind in places]  # inside the paths mean something else
    libc = ctypes.CDLL(None, use_errno=True)
    for file, kind in files:
        if libc.setns(file, kind) != 0:
            raise OSError(ctypes.get_errno(), f"setns of kind {kind:#x}")
        os.close(file)


def _serve_at(places, *serve):
    enter(places)
    if any(kind == NEW_PID for _, kind in places) and (child := os.fork()):
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255)
    try:
        ranks._serve(*serve)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


class HostRanks(ranks.Ranks):
    """The processes of one group: a rank on each of the hosts named, which may come several times."""

    def __init__(self, hosts, timeout=30):
        self.hosts = hosts
        super().__init__(len(hosts), timeout)

    def serving(self, index, args):
        return _serve_at, (self.hosts[index].places(), *args)

    def answers(self, seconds=60):
        until = time.monotonic() + seconds
        for rank, pipe in enumerate(self.pipes):
            assert pipe.poll(max(0, until - time.monotonic())), f"rank {rank} hangs"
        return [pipe.recv() for pipe in self.pipes]

    def __call__(self, function, *args):
        self.ask(function, *args)
        return self.answers()

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        for process in self.processes if error else []:
            process.kill()
        self.close()
