#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The cost model of docs/scaling.md: what the ranks of an operation send, as formulas, against what they count.

    .venv/bin/python bench/parallel/scaling.py              # the check, over gloo on this machine
    .venv/bin/python bench/parallel/scaling.py --predict    # the production model on 8 to 1024 GPUs

Counts are of all ranks of a group together. Ends with an error where a formula that claims to be exact is not."""

import argparse
import itertools
import math
import sys
from pathlib import Path
from typing import NamedTuple

from ranks import SOURCE, run

KIB, MIB = 1 << 10, 1 << 20


class Sent(NamedTuple):
    """By all ranks of a group together."""
    messages: int = 0
    bytes: int = 0

    def __add__(self, other):
        return Sent(self.messages + other.messages, self.bytes + other.bytes)

    def times(self, n):
        return Sent(self.messages * n, self.bytes * n)


# The formulas. n: ranks; e: bytes of an element.

def parts(length, n):
    """torch.tensor_split: the first length % n ranks hold one more."""
    return [length // n + (r < length % n) for r in range(n)]


def starts(sizes):
    return [0, *itertools.accumulate(sizes)]


def sent_by_agreement(n, attached=0):
    """One header of 512 bytes to every other rank; attached: bytes that ride along."""
    return Sent(n * (n - 1), 512 * n * (n - 1) + attached)


def sent_by_rows(needs, owned, row_bytes):
    """Rank r needs rows [lo, hi) of the axis and owns [owned[r], owned[r + 1]): a message from each other owner."""
    total = Sent()
    for r, (lo, hi) in enumerate(needs):
        for other in range(len(needs)):
            rows = min(hi, owned[other + 1]) - max(lo, owned[other])
            if other != r and rows > 0:
                total += Sent(1, rows * row_bytes)
    return total


def sent_by_halo(n, width, row_bytes):
    """halo_exchange forward; its backward is sent_by_seams. Small halos ride with the headers, on lines of 64 bytes."""
    halo = width * row_bytes
    if halo + 64 > MIB:
        return sent_by_agreement(n) + sent_by_seams(n, width, row_bytes)
    return sent_by_agreement(n, 2 * (n - 1) * 64 * math.ceil(halo / 64))


def sent_by_seams(n, width, row_bytes):
    """width rows both ways over each of the n - 1 seams of an axis with two ends."""
    return Sent(2 * (n - 1), 2 * (n - 1) * width * row_bytes)


def conv_needs(rows, n, kernel, stride, padding, dilation=1):
    """Which input rows the output rows of each rank reach. An output of the input's length keeps the input's cut."""
    extent = dilation * (kernel - 1) + 1
    outputs = starts(parts((rows + 2 * padding - extent) // stride + 1, n))
    return [(first * stride - padding, (last - 1) * stride - padding + extent) if last > first else (0, 0)
            for first, last in itertools.pairwise(outputs)]


def sent_by_conv(rows, n, row_bytes, kernel, stride=1, padding=0, dilation=1):
    """Of conv's forward, after its agreement, and once more of its backward where x needs a gradient."""
    return sent_by_rows(conv_needs(rows, n, kernel, stride, padding, dilation), starts(parts(rows, n)), row_bytes)


def neighborhood_needs(rows, n, kernel, dilation):
    """Rows that the windows of each rank's queries reach: shifted inwards at both ends of the axis."""
    owned = starts(parts(rows, n))

    def first_of(query):
        group, length = query // dilation, len(range(query % dilation, rows, dilation))
        return min(max(group - kernel // 2, 0), length - kernel) * dilation + query % dilation

    needs = []
    for begin, end in itertools.pairwise(owned):
        lo = min([begin, *(first_of(q) for q in range(begin, min(begin + dilation, end)))]) // dilation * dilation
        hi = max([end, *(first_of(q) + (kernel - 1) * dilation + 1 for q in range(max(begin, end - dilation), end))])
        hi = min(max(hi, lo + kernel * dilation), rows)
        needs.append((min(lo, (hi - kernel * dilation) // dilation * dilation), hi))
    return needs


def sent_by_neighborhood(rows, n, kv_row_bytes, kernel, dilation=1):
    """Of na1d, na2d and na3d: rows of keys and values side by side."""
    return sent_by_rows(neighborhood_needs(rows, n, kernel, dilation), starts(parts(rows, n)), kv_row_bytes)


def sent_by_pixel_neighborhood(pixels, n, rings, kv_pixel_bytes):
    """About: a rank's pixels as a square with a frame of so many rings."""
    return Sent(0, round(n * (4 * math.sqrt(pixels / n) * rings + 4 * rings**2) * kv_pixel_bytes))


def sent_by_reshard(n, b, t, x, c, e):
    """shard_x or shard_t, after its agreement: all but the part that stays. Frames of 256 KiB go by themselves."""
    total = Sent()
    for r, frames in enumerate(parts(t, n)):
        for p, pixels in enumerate(parts(x, n)):
            block, count = b * frames * pixels * c * e, b * frames
            if r != p and block:
                total += Sent(count if block >= count * 256 * KIB else 1, block)
    return total


def reshard_bytes_of_a_rank(n, b, t, x, c, e):
    """The same for equal parts."""
    return (n - 1) / n**2 * b * t * x * c * e


def sent_by_context_parallel(layers, n, b, t, x, c, e, backward):
    """HealDA or VideoDiT: one agreement a forward, two reshards a block each way."""
    way = sent_by_reshard(n, b, t, x, c, e)  # shard_t sends the same blocks the other way
    return sent_by_agreement(n) + way.times(2 * layers * (2 if backward else 1))


def sent_by_sum(n, numel, e):
    """sum_in_place over gloo."""
    if numel * e <= 16 * KIB:
        return Sent(n * (n - 1), n * (n - 1) * numel * e)
    return Sent(2 * n * (n - 1), 2 * (n - 1) * numel * e)


def cut_in_buckets(numels, e, bucket_bytes):
    buckets, filled = [], bucket_bytes + 1
    for numel in numels:
        if filled + numel * e > bucket_bytes:
            buckets.append([])
            filled = 0
        buckets[-1].append(numel)
        filled += numel * e
    return buckets


def sent_by_data_parallel(n, numels, e, bucket_bytes=25 * MIB):
    """A backward: 16 bytes of weights to every rank; buckets, which carry one more element a parameter."""
    total = Sent(n * (n - 1), 16 * n * (n - 1))
    for bucket in cut_in_buckets(numels[::-1], e, bucket_bytes):
        total += sent_by_sum(n, sum(bucket) + len(bucket), e)
    return total


def sent_from_owners(n, numels, e):
    """Each tensor from its owner to all others: DataParallel from rank 0 when it is made, ZeRO-1 after each step."""
    return sent_by_agreement(n) + Sent((n - 1) * len(numels), (n - 1) * sum(numels) * e)


# The check: small sizes, as bytes are exact.

FLOAT = 4


def counted(f):
    """What all ranks send in f()."""
    import torch
    import halcyon
    before = halcyon.parallel.traffic()
    f()
    sent = torch.tensor([a - b for a, b in zip(halcyon.parallel.traffic(), before)])
    torch.distributed.all_reduce(sent)
    return Sent(*sent.tolist())


def mine(whole, dim):
    import torch
    return whole.tensor_split(torch.distributed.get_world_size(), dim)[torch.distributed.get_rank()].contiguous()


def check_halo(n):
    import torch
    import halcyon
    for text, shape, width in (("small", (2, 8, 42, 15), 3), ("over 1 MiB", (256, 80, 128), 9)):
        row = math.prod(shape) // shape[-2] * FLOAT
        x = mine(torch.zeros(shape), -2).requires_grad_()
        kept = []
        yield f"halo_exchange, {text}", sent_by_halo(n, width, row), counted(
            lambda: kept.append(halcyon.halo_exchange(x, width)))
        yield f"halo_exchange, {text}, backward", sent_by_seams(n, width, row), counted(kept[0].sum().backward)


def check_conv(n):
    import torch
    import halcyon
    rows = 96
    for kernel, stride, padding in ((3, 1, 1), (7, 2, 3)):
        x = mine(torch.zeros(2, 8, rows, 16), -2).requires_grad_()
        weight = torch.zeros(4, 8, kernel, kernel, requires_grad=True)
        way = sent_by_conv(rows, n, 2 * 8 * 16 * FLOAT, kernel, stride, padding)
        text = f"conv {kernel}x{kernel}, stride {stride}"
        kept = []
        yield text, sent_by_agreement(n) + way, counted(
            lambda: kept.append(halcyon.parallel.conv(x, weight, None, stride, padding)))
        yield f"{text}, backward", way, counted(kept[0].sum().backward)


def check_neighborhood(n):
    import torch
    import halcyon
    rows, columns, heads, width = 130, 16, 2, 8
    for kernel, dilation in ((7, 1), (5, 2)):
        q, k, v = (mine(torch.zeros(1, rows, columns, heads, width), 1).requires_grad_() for _ in range(3))
        way = sent_by_neighborhood(rows, n, columns * heads * 2 * width * FLOAT, kernel, dilation)
        text = f"na2d {kernel}x{kernel}, dilation {dilation}, and backward"
        yield text, sent_by_agreement(n) + way.times(2), counted(
            lambda: halcyon.parallel.na2d(q, k, v, (kernel, kernel), dilation=dilation).sum().backward())


def check_pixel_neighborhood(n):
    import torch
    import halcyon
    level, rings, channels = 4, 2, 16
    q, k, v = (mine(torch.zeros(1, 12 * 4**level, 1, channels), 1) for _ in range(3))
    about = sent_by_pixel_neighborhood(12 * 4**level, n, rings, 2 * channels * FLOAT)
    found = counted(lambda: halcyon.parallel.neighborhood_attention_healpix(q, k, v, level, rings=rings))
    yield f"neighborhood_attention_healpix, {rings} rings", about, Sent(0, found.bytes - sent_by_agreement(n).bytes)


def check_reshard(n):
    import torch
    import halcyon
    for shape in ((2, 9, 50, 16), (1, 8, 8192, 64)):
        x = mine(torch.zeros(shape), 1).requires_grad_()
        way = sent_by_reshard(n, *shape, FLOAT)
        kept = []
        yield f"shard_x, shard_t {shape}", (sent_by_agreement(n) + way).times(2), counted(
            lambda: kept.append(halcyon.shard_t(halcyon.shard_x(x))))
        yield "the same, backward", way.times(2), counted(kept[0].sum().backward)


def check_context_parallel(n):
    import torch
    import halcyon
    b, t, c, level = 2, 8, 32, 1
    pixels = 12 * 4**level
    halves = dict(hidden_size=c, level_fine=level + 1, level_coarse=level)
    for layers in (1, 3):
        tokenizer = halcyon.HEALPixPatchTokenizer(in_channels=2, separate_time_axis=True, **halves)
        detokenizer = halcyon.HEALPixPatchDetokenizer(out_channels=3, condition_dim=16, **halves)
        model = halcyon.VideoDiT(tokenizer, detokenizer, c, 4, layers, emb_channels=16, noise_channels=8,
                                 temporal_attention=True)
        model.set_context_parallel("all_to_all", torch.distributed.group.WORLD)
        x = mine(torch.zeros(b, 2, t, 4 * pixels), 2)
        calendar = {name: mine(torch.zeros(b, t), 1) for name in ("second_of_day", "day_of_year")}

        def forward():
            return model(x, torch.zeros(b), tokenizer_kwargs=calendar)

        def inference():
            with torch.no_grad():
                forward()

        text = f"VideoDiT, {layers} block{'s' * (layers > 1)}"
        model.eval()
        predicted = [sent_by_context_parallel(layers, n, b, t, pixels, c, FLOAT, with_backward)
                     for with_backward in (False, True)]
        yield f"{text}, forward", predicted[0], counted(inference)
        model.train()
        yield f"{text}, forward and backward", predicted[1], counted(lambda: forward().sum().backward())


def check_data_parallel(n):
    import torch
    import halcyon
    model = torch.nn.Sequential(*(torch.nn.Linear(w, v) for w, v in ((40, 300), (300, 200), (200, 7), (7, 3))))
    numels = [p.numel() for p in model.parameters()]
    bucket = 64 * KIB
    made = []
    yield "DataParallel, made", sent_from_owners(n, numels, FLOAT), counted(
        lambda: made.append(halcyon.parallel.DataParallel(model, bucket_bytes=bucket)))
    yield f"DataParallel, backward, {len(cut_in_buckets(numels[::-1], FLOAT, bucket))} buckets", sent_by_data_parallel(
        n, numels, FLOAT, bucket), counted(lambda: made[0](torch.zeros(5, 40)).sum().backward())


def check():
    """Of all operations: [(text, predicted, counted)]."""
    import torch
    import halcyon
    halcyon.halo_exchange(torch.zeros(1, 1), 0)  # the ranks of a group also meet in its first operation
    n = torch.distributed.get_world_size()
    checks = (check_halo, check_conv, check_neighborhood, check_pixel_neighborhood, check_reshard,
              check_context_parallel, check_data_parallel)
    return [row for one in checks for row in one(n)]


def print_check(ranks):
    tables = {n: run(n, check, path=sys.path) for n in ranks}
    print(f"Messages and bytes of all ranks of a group, on {', '.join(map(str, ranks))} ranks:\n\n"
          "| operation | messages predicted | counted | bytes predicted | counted | ratio |\n|---|--:|--:|--:|--:|--:|")
    wrong = []
    for lines in zip(*tables.values()):
        predicted, found = ([Sent(*line[i]) for line in lines] for i in (1, 2))
        about = predicted[0].messages == 0
        if not about and predicted != found:
            wrong.append(lines[0][0])
        ratios = sorted({f"{b.bytes / a.bytes:.2f}" if about else f"{b.bytes / a.bytes:.6g}"
                         for a, b in zip(predicted, found)})
        columns = [", ".join(str(getattr(one, field)) for one in row) for field in Sent._fields
                   for row in (predicted, found)]
        if about:
            columns[:2] = "-", "-"
        print("|", " | ".join([lines[0][0], *columns, "about " * about + ", ".join(ratios)]), "|")
    if wrong:
        sys.exit("not as predicted: " + "; ".join(wrong))


# The prediction. Everything here is assumed, but for the published figures.

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
                       ("reshards of float32 (autocast)", step_of(1024, 8, e=4)),
                       ("one adapter a node", step_of(1024, 8, Links(adapters=1))),
                       ("context groups across nodes", step_of(1024, 8, spread=True))):
        print_step(text, step)


def print_step(text, step):
    share = 1 - step.compute / step.seconds
    columns = [f"{1e3 * one:.0f}" for one in (step.compute, step.reshards, step.all_reduce, step.exposed, step.headers,
                                              step.seconds)]
    print("|", " | ".join([text, *columns, f"{100 * share:.0f} %", f"{1e3 * step.owners:.0f}"]), "|")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predict", action="store_true", help="print the tables of the production model instead")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    arguments = parser.parse_args()
    if arguments.predict:
        return print_prediction()
    sys.path.insert(0, str(Path(SOURCE) / "build" / "python"))
    print_check(arguments.ranks)


if __name__ == "__main__":
    main()
