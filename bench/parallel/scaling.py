#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The cost model of docs/scaling.md: what the ranks of an operation send, as formulas, against what they count.

    .venv/bin/python bench/parallel/scaling.py              # the check, over gloo on this machine
    .venv/bin/python bench/parallel/scaling.py --predict    # the production model on 8 to 1024 GPUs

Counts are of all ranks of a group together. Ends with an error where a formula that claims to be exact is not."""

import argparse
import math
import sys
from pathlib import Path

from turns import SOURCE, run
from scaling_formulas import (cut_in_buckets, KIB, Sent, sent_by_agreement, sent_by_context_parallel, sent_by_conv,
                              sent_by_data_parallel, sent_by_halo, sent_by_neighborhood, sent_by_pixel_neighborhood,
                              sent_by_reshard, sent_by_seams, sent_from_owners)
from scaling_prediction import print_prediction

# The check: small sizes, as bytes are exact.
FLOAT, BFLOAT16 = 4, 2


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
        with torch.autocast("cpu", torch.bfloat16):
            yield (f"{text}, forward in bfloat16", sent_by_context_parallel(layers, n, b, t, pixels, c, BFLOAT16, False),
                   counted(inference))
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
