# SPDX-License-Identifier: Apache-2.0
"""The production model on 8 to 1024 GPUs. Everything here is assumed, but for the published figures."""

import math
from typing import NamedTuple

from scaling_formulas import MIB, cut_in_buckets, reshard_bytes_of_a_rank

T, X, C, LAYERS, CROSS = 8, 12288, 1536, 32, 2048
ACTIVATION, GRADIENT = 2, 4                  # bytes: bfloat16, float32
BLOCK, ROUND_TRIP, ROUND_TRIP_BACKWARD = 16.5e-3, 0.29e-3, 0.97e-3  # published: a frame on each of 8 H100 (spec 2.4)
NODE = 8                                     # GPUs of a node
NVLINK, NVLINK_LATENCY = 450e9, 10e-6        # bytes a second and GPU in each direction, rated; seconds a collective
NETWORK, NETWORK_LATENCY = 50e9, 20e-6       # InfiniBand NDR, one adapter a GPU
HEADER = 5e-6                                # seconds a message of 512 bytes over TCP


def production_numels():
    """Parameters of the production HealDA in their order: blocks between embeddings (healda.md, section 18)."""
    attention, modulation = [4608 * 1536, 4608, 1536 * 1536, 1536], [4608 * 128, 4608]
    cross = [2048 * 1536, 2048, 64 * 32, 64 * 32, 64, 1536 * 2048, 1536]
    mlp = [6144 * 1536, 6144, 1536 * 6144, 1536]
    block = attention + [9216 * 128, 9216] + cross + modulation + attention + modulation + mlp
    first = [1024 * 4, 1024 * 16, 1024 * 8, 64 * 78, 64, 64, 64, 64 * 64, 64, 12288 * 1536, 1536 * 8, 1536]
    last = [3072 * 128, 3072, 1536 * 74 * 4, 74, 128 * 128, 128, 128 * 128, 128]
    return first + block * LAYERS + last


def block_flops():
    """Forward of one frame: products, and the attention of all pixels to all."""
    return 2 * X * C * (4 * C + 4 * C + 8 * C + 2 * CROSS) + 4 * X * X * C


class Links(NamedTuple):
    """share: of the rated speeds that is reached."""
    share: float = 0.5
    adapters: int = NODE  # of a node

    def reshard(self, c, e=ACTIVATION, spread=False):
        """Seconds; spread: the ranks of a context group are on nodes of their own."""
        if c == 1:
            return 0.0
        speed, latency = (NETWORK, NETWORK_LATENCY) if spread else (NVLINK, NVLINK_LATENCY)
        return latency + reshard_bytes_of_a_rank(c, 1, T, X, C, e) / (speed * self.share)

    def all_reduce(self, gpus):
        """Seconds of one tensor of all gradients and of its buckets: within nodes, between them, within."""
        numels = production_numels()
        bytes_, buckets = sum(numels) * GRADIENT, len(cut_in_buckets(numels[::-1], GRADIENT, 25 * MIB))
        inner, nodes = min(gpus, NODE), max(1, gpus // NODE)
        seconds = 2 * (inner - 1) / inner * bytes_ / (NVLINK * self.share)
        seconds += 2 * (nodes - 1) / nodes * bytes_ / (NETWORK * self.adapters * self.share)
        hops = 2 * math.ceil(math.log2(nodes))
        return seconds + buckets * (2 * NVLINK_LATENCY + hops * NETWORK_LATENCY), seconds / buckets

    def parameters_from_owners(self, gpus):
        """ZeRO-1's: what a GPU takes from outside its node decides."""
        bytes_ = sum(production_numels()) * GRADIENT
        outside = max(0, gpus - NODE) / gpus * bytes_ / (NETWORK * self.adapters / NODE * self.share)
        return max(outside, (min(gpus, NODE) - 1) / gpus * bytes_ / (NVLINK * self.share))


class Step(NamedTuple):
    compute: float
    reshards: float
    all_reduce: float
    exposed: float    # what of it does not hide behind the backward
    headers: float
    owners: float     # ZeRO-1

    @property
    def seconds(self):
        return self.compute + self.reshards + self.exposed + self.headers


def step_of(gpus, c, links=Links(), e=ACTIVATION, spread=False):
    """One sample a context group, forward and backward."""
    frame = BLOCK - ROUND_TRIP_BACKWARD
    compute = LAYERS * T / c * frame
    reduction, last = links.all_reduce(gpus) if gpus > 1 else (0.0, 0.0)
    exposed = max(last, reduction - compute * 2 / 3)
    return Step(compute, 4 * LAYERS * links.reshard(c, e, spread), reduction, exposed, 2 * (gpus - 1) * HEADER,
                links.parameters_from_owners(gpus))


def print_prediction():
    numels, frame = production_numels(), BLOCK - ROUND_TRIP_BACKWARD
    buckets = cut_in_buckets(numels[::-1], GRADIENT, 25 * MIB)
    assert sum(numels) == 1_506_070_474, sum(numels)
    print(f"{sum(numels)} parameters in {len(numels)} tensors, {len(buckets)} buckets. A block's forward of one frame: "
          f"{block_flops() / 1e12:.2f} TFLOP; three times that in {1e3 * frame:.1f} ms: "
          f"{3 * block_flops() / frame / 1e12:.0f} TFLOP/s. A reshard over 8 GPUs: "
          f"{reshard_bytes_of_a_rank(8, 1, T, X, C, ACTIVATION) / 1e6:.1f} MB a GPU\n")
    print("| 8 GPUs, NVLink | at the rated speed | at half of it | published |\n|---|--:|--:|--:|")
    for text, reshards, published in (("round trip, forward", 2, ROUND_TRIP), ("round trip with backward", 4,
                                                                              ROUND_TRIP_BACKWARD)):
        times = [f"{1e3 * reshards * Links(share).reshard(8):.2f} ms" for share in (1, 0.5)]
        print(f"| {text} | {' | '.join(times)} | {1e3 * published:.2f} ms |")
    columns = "compute | reshards | all-reduce | of it exposed | headers | step | communication | ZeRO-1 adds"
    print(f"\n| GPUs | context x data | {columns} |\n|--:|--:|{'--:|' * 8}")
    for gpus in (8, 64, 256, 1024):
        for c in (1, 4, 8):
            print_step(f"{gpus} | {c} x {gpus // c}", step_of(gpus, c))
    print(f"\n| 1024 GPUs, 8 x 128 | {columns} |\n|---|{'--:|' * 8}")
    for text, step in (("as above", step_of(1024, 8)),
                       ("links at their rated speed", step_of(1024, 8, Links(1))),
                       ("links at a quarter of it", step_of(1024, 8, Links(0.25))),
                       ("reshards of float32", step_of(1024, 8, e=4)),
                       ("one adapter a node", step_of(1024, 8, Links(adapters=1))),
                       ("context groups across nodes", step_of(1024, 8, spread=True))):
        print_step(text, step)


def print_step(text, step):
    share = 1 - step.compute / step.seconds
    columns = [f"{1e3 * one:.0f}" for one in (step.compute, step.reshards, step.all_reduce, step.exposed, step.headers,
                                              step.seconds)]
    print("|", " | ".join([text, *columns, f"{100 * share:.0f} %", f"{1e3 * step.owners:.0f}"]), "|")
