# SPDX-License-Identifier: Apache-2.0
"""halcyon.parallel by its contract: signatures, what is refused and how, peers that are dead or silent, sub-groups."""

import copy
import datetime
import inspect
import os
import pickle
import re
import signal
import time

import pytest
import torch
import torch.distributed as dist

import halcyon
from halcyon import parallel
from ranks import Raised, Ranks, on_ranks, rank, returned, world

SIGNATURES = {
    "split_sizes": "(n, group=None)",
    "halo_exchange": "(x, halo_width, dim=-2, group=None, edge='zero', *, fold_dim=-1, fold_group=None, fold_sign=1.0)",
    "HaloExchange": "(halo_width, dim=-2, edge='zero', group=None, *, fold_dim=-1, fold_group=None, fold_sign=1.0)",
    "gather_rows": "(x, lo, hi, dim=-2, group=None, edge='zero', *, fold_dim=-1, fold_group=None, fold_sign=1.0)",
    "gather_index": "(x, index, dim=0, group=None)",
    "shard": "(x, dim=-2, group=None)",
    "gather": "(x, dim=-2, group=None, *, sum_grad=False)",
    "shard_x": "(x, group=None)",
    "shard_t": "(x, group=None)",
    "healpix_pad": "(x, padding, group=None)",
    "reduce_gradients": "(params, group=None, *, op='sum', weight=1.0)",
    "conv": "(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode='zeros', *, dim=-2, "
            "group=None, edge=None)",
    "conv_transpose": "(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *, dim=-2, "
                      "group=None)",
    "pool": "(x, kernel_size, stride=None, padding=0, dilation=1, mode='max', ceil_mode=False, "
            "count_include_pad=True, *, dim=-2, group=None)",
    "interpolate": "(x, size=None, scale_factor=None, mode='nearest', align_corners=None, *, dim=-2, group=None)",
    "group_norm": "(x, num_groups, weight=None, bias=None, eps=1e-05, *, dim=-2, group=None)",
    "layer_norm": "(x, normalized_shape, weight=None, bias=None, eps=1e-05, *, dim=-2, group=None)",
    "batch_norm": "(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-05, *, "
                  "group=None)",
    "neighborhood_attention_healpix": "(q, k, v, level, radius_deg=None, rings=None, order='nest', scale=None, *, "
                                      "group=None)",
    "scaled_dot_product_attention": "(query, key, value, is_causal=False, scale=None, *, dim=-2, group=None)",
    "convert": "(module, group=None, dim=-2)",
    "DataParallel": "(module, group=None, *, bucket_bytes=26214400, find_unused_parameters=False)",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    assert str(inspect.signature(getattr(parallel, name))) == SIGNATURES[name]


@pytest.mark.parametrize("name", ["na1d", "na2d", "na3d"])
def test_signatures_of_neighbourhood_attention(name):
    one_process = inspect.signature(getattr(halcyon, name)).parameters.values()
    ours = list(inspect.signature(getattr(parallel, name)).parameters.values())
    assert [str(one) for one in ours[:-2]] == [str(one) for one in one_process]
    assert [(str(one), one.kind) for one in ours[-2:]] == [("shard_dim=1", inspect.Parameter.KEYWORD_ONLY),
                                                           ("group=None", inspect.Parameter.KEYWORD_ONLY)]


def test_names_in_the_package_itself():
    for name in ("halo_exchange", "HaloExchange", "shard_x", "shard_t"):
        assert getattr(halcyon, name) is getattr(parallel, name)
    assert str(inspect.signature(parallel.HaloExchange.trim)) == "(x, halo_before, halo_after, dim=-2)"
    for model in (halcyon.VideoDiT, halcyon.HealDA):
        assert str(inspect.signature(model.set_context_parallel)) == "(self, mode=None, target=None)"


# ------------------------------------------------------------------------------------------- what is refused

def operands():
    x = torch.arange(96.0).reshape(1, 4, 4, 6)
    q = torch.arange(32.0).reshape(1, 4, 2, 4) / 32
    parameter = torch.nn.Parameter(torch.ones(5))
    parameter.grad = torch.ones(5)
    return dict(x=x, w=torch.ones(4, 4, 3, 3), q=q, parameter=parameter, linear=torch.nn.Linear(2, 2),
                faces=torch.ones(12 // world(), 1, 4, 4), pixels=torch.ones(1, 12 // world(), 2, 4))


# each operation as it is called rightly, and once more with an argument of a wrong type
RIGHT = {
    "halo_exchange": "(x, 1)", "gather_rows": "(x, 0, 5)", "gather_index": "(x, torch.arange(4), 2)", "shard": "(x)",
    "gather": "(x)", "shard_x": "(x)", "shard_t": "(x)", "healpix_pad": "(faces, 1)",
    "reduce_gradients": "([parameter])", "conv": "(x, w, padding=1)", "conv_transpose": "(x, w, stride=2)",
    "pool": "(x, 2)", "interpolate": "(x, scale_factor=2)", "group_norm": "(x, 2)",
    "layer_norm": "(x, [4, 4 * world(), 6])", "batch_norm": "(x, None, None, training=True)", "na1d": "(q, q, q, 3)",
    "scaled_dot_product_attention": "(q, q, q)", "DataParallel": "(linear)",
    "neighborhood_attention_healpix": "(pixels, pixels, pixels, 0, rings=1)",
}
WRONG = [
    ("halo_exchange", "(x, 'a')"), ("halo_exchange", "(x, 1.5)"), ("halo_exchange", "(x, 1, 'a')"),
    ("halo_exchange", "([1], 1)"), ("halo_exchange", "(x, 1, edge=None)"),
    ("halo_exchange", "(x, 1, edge='fold', fold_group='a')"), ("gather_rows", "(x, 0, 1.5)"),
    ("gather_index", "(x, [0, 1], 2)"), ("shard", "(x, 'a')"), ("gather", "(None)"), ("shard_x", "(3)"),
    ("shard_t", "(None)"), ("healpix_pad", "(faces, 'a')"), ("reduce_gradients", "(3)"), ("reduce_gradients", "([3])"),
    ("reduce_gradients", "([parameter], weight='a')"), ("conv", "(x, w, stride=1.5)"), ("conv", "(x, w, padding=None)"),
    ("conv", "(x, w, groups='a')"), ("conv", "(x, 'w')"), ("conv_transpose", "(x, w, stride='a')"),
    ("pool", "(x, 'a')"), ("interpolate", "(x, scale_factor='a')"), ("group_norm", "(x, 'a')"),
    ("layer_norm", "(x, None)"), ("batch_norm", "(x, 3, None)"), ("na1d", "(q, q, q, 'a')"), ("na1d", "(q, q, None, 3)"),
    ("scaled_dot_product_attention", "(q, q, q, 'a')"), ("DataParallel", "(3)"),
    ("DataParallel", "(linear, bucket_bytes='a')"),
    ("neighborhood_attention_healpix", "(pixels, pixels, pixels, 0, rings='a')"),
]


def evaluated(name, arguments):
    return eval(f"function{arguments}", dict(operands(), function=getattr(parallel, name), torch=torch, world=world))


def kinds_of(call):
    """The classes and text of what it raises."""
    try:
        call()
    except Exception as error:  # noqa: BLE001
        return [one.__name__ for one in type(error).__mro__], str(error)
    return [], "no error"


def is_usable():
    whole = parallel.halo_exchange(torch.full((1, 2, 1), float(rank())), 1, edge="periodic")
    return whole.flatten().tolist() == [(rank() - 1) % world(), rank(), rank(), (rank() + 1) % world()]


def wrong_on(who, cases):
    results = []
    for name, arguments in cases:
        results.append(kinds_of(lambda: evaluated(name, arguments if rank() in who else RIGHT[name])))
        assert is_usable(), (name, arguments)
    return results


@pytest.mark.parametrize("who", [[0], [1], [0, 1]], ids=str)
def test_an_argument_of_a_wrong_type_is_an_error_on_every_rank(who):
    results = returned(on_ranks(2, wrong_on, who, WRONG))
    for case, *of_ranks in zip(WRONG, *results):
        for index, (kinds, text) in enumerate(of_ranks):
            assert "ValueError" in kinds, (case, index, kinds, text)
            assert text == of_ranks[0][1] and text.startswith(f"[{case[0]}] "), (case, text)


def test_alone_too():
    for name, arguments in WRONG:
        kinds, text = kinds_of(lambda: evaluated(name, arguments))
        assert "ValueError" in kinds and text.startswith(f"[{name}] "), (name, arguments, kinds, text)
    with pytest.raises(TypeError, match="bogus"):
        parallel.shard(torch.ones(2, 2), bogus=1)


REFUSED = [
    ("halo_exchange", "(x, -1)"), ("halo_exchange", "(x, (1, 2, 3))"), ("halo_exchange", "(x, 1, 7)"),
    ("halo_exchange", "(x, 1, edge='mirror')"), ("halo_exchange", "(x, 8, edge='reflect')"),
    ("halo_exchange", "(x, 9, edge='fold')"), ("halo_exchange", "(x, 1, edge='fold', fold_dim=-2)"),
    ("halo_exchange", "(x, 1, edge='fold', fold_sign=torch.ones(3, 1, 1))"), ("halo_exchange", "(x, 2**62)"),
    ("halo_exchange", "(x[:, :, :0], 1, edge='periodic')"), ("halo_exchange", "(torch.ones(()), 1)"),
    ("gather_rows", "(x, 3, 2)"), ("gather_rows", "(x, -2**62, 2**62)"),
    ("gather_index", "(x, torch.tensor([8]), 2)"), ("gather_index", "(x, torch.tensor([-2]), 2)"),
    ("gather_index", "(x, torch.tensor([1.0]), 2)"), ("shard", "(x, 4)"), ("gather", "(x, -5)"),
    ("shard_x", "(x[0])"), ("shard_t", "(x[0])"), ("healpix_pad", "(faces, 5)"), ("healpix_pad", "(faces, -1)"),
    ("healpix_pad", "(faces[1:], 1)"), ("reduce_gradients", "([parameter], op='max')"),
    ("reduce_gradients", "([parameter], op='mean', weight=-1.0)"),
    ("reduce_gradients", "([parameter], op='mean', weight=0.0)"), ("conv", "(x, w, stride=0)"),
    ("conv", "(x, w, padding=-1)"), ("conv", "(x, w, padding=(1, 1, 1))"), ("conv", "(x, w, padding='full')"),
    ("conv", "(x, w, stride=2, padding='same')"), ("conv", "(x, w, padding_mode='replicate')"),
    ("conv", "(x, w, edge='none')"), ("conv", "(x, w, dim=1)"), ("conv", "(x, torch.ones(4, 4, 9, 3))"),
    ("conv", "(x, w.double())"), ("conv", "(x, w, groups=3)"),
    ("conv", "(x, w, padding=(8, 1), padding_mode='reflect')"), ("conv_transpose", "(x, w, output_padding=1)"),
    ("pool", "(x, 2, mode='sum')"), ("pool", "(x, 2, padding=2)"), ("pool", "(x, 9)"), ("interpolate", "(x)"),
    ("interpolate", "(x, 3, 2.0)"), ("interpolate", "(x, 3, mode='area')"),
    ("interpolate", "(x, 3, align_corners=True)"), ("interpolate", "(x, 0)"), ("group_norm", "(x, 3)"),
    ("group_norm", "(x, 2, dim=1)"), ("layer_norm", "(x, [4, 4, 6])"), ("batch_norm", "(x, None, None)"),
    ("na1d", "(q, q, q, 9)"), ("na1d", "(q, q, q, 3, shard_dim=2)"),
    ("scaled_dot_product_attention", "(q, q, q, dim=-1)"), ("scaled_dot_product_attention", "(q[0], q[0], q[0])"),
    ("neighborhood_attention_healpix", "(pixels, pixels, pixels, 0)"),
    ("neighborhood_attention_healpix", "(pixels, pixels, pixels, 1, rings=1)"),
    ("DataParallel", "(linear, bucket_bytes=0)"),
]


def test_what_cannot_be_done_is_refused_by_all_with_one_text():
    results = returned(on_ranks(2, wrong_on, [0, 1], REFUSED))
    for case, *of_ranks in zip(REFUSED, *results):
        for kinds, text in of_ranks:
            assert kinds[:1] == ["ValueError"], (case, kinds, text)
            assert text == of_ranks[0][1] and text.startswith(f"[{case[0]}] "), (case, text)


def other_on_rank_1(pairs):
    results = []
    for one, other in pairs:
        results.append(kinds_of(lambda: evaluated(*(other if rank() == 1 else one))))
        assert is_usable(), (one, other)
    return results


def test_other_operations_and_options_on_another_rank():
    names = list(RIGHT)
    pairs = [((a, RIGHT[a]), (b, RIGHT[b])) for a, b in zip(names, names[1:] + names[:1])]
    pairs += [(("halo_exchange", f"(x, 1, edge='fold', {a})"), ("halo_exchange", f"(x, 1, edge='fold', {b})"))
              for a, b in [("fold_sign=1.0", "fold_sign=-1.0"), ("fold_dim=-1", "fold_dim=0"),
                           ("fold_sign=torch.ones(4, 1, 1)", "fold_sign=-torch.ones(4, 1, 1)")]]
    pairs += [(("gather", "(x)"), ("gather", "(x, sum_grad=True)")), (("shard", "(x)"), ("shard", "(x[:, :, :2])")),
              (("batch_norm", "(x, None, None, training=True)"),
               ("batch_norm", "(x, torch.zeros(4), torch.ones(4), training=False)")),
              (("reduce_gradients", "([parameter])"), ("reduce_gradients", "([parameter], op='mean')"))]
    for pair, *of_ranks in zip(pairs, *returned(on_ranks(2, other_on_rank_1, pairs))):
        for kinds, text in of_ranks:
            assert kinds[:1] == ["ValueError"], (pair, kinds, text)


def test_no_group():
    x, linear = torch.ones(2, 2), torch.nn.Linear(2, 2)
    for name, arguments in RIGHT.items():
        wrong = arguments[:-1] + ", group='gloo')"
        with pytest.raises(TypeError, match="ProcessGroup"):
            evaluated(name, wrong)
    for call in (lambda: parallel.convert(linear, "gloo"), lambda: parallel.split_sizes(3, 1),
                 lambda: parallel.HaloExchange(1, group=object())(x)):
        with pytest.raises(TypeError, match="ProcessGroup"):
            call()


# ------------------------------------------------------------------------------------------------ groups

def in_halves():
    """Ranks 0, 2 and 1, 3 form groups of their own, which do other things at the same time."""
    groups = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    mine, foreign = groups[rank() % 2], groups[1 - rank() % 2]
    index = rank() // 2
    assert parallel.split_sizes(5, mine) == [3, 2] and parallel.split_sizes(5) == [2, 1, 1, 1]
    kinds, text = kinds_of(lambda: parallel.halo_exchange(torch.ones(2, 2), 1, group=foreign))
    assert "TypeError" in kinds, (kinds, text)
    generator = torch.Generator().manual_seed(1 + rank() % 2)
    whole = torch.randn(2, 4, 8, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 4, 3, 3, generator=generator, dtype=torch.float64)
    x = whole.split([3, 5], 2)[index]
    for _ in range(3 + rank() % 2):  # one group goes on without the other
        y = parallel.conv(x, weight, padding=1, group=mine)
    expected = torch.nn.functional.conv2d(whole, weight, padding=1)
    torch.testing.assert_close(parallel.gather(y, group=mine), expected)
    torch.testing.assert_close(parallel.shard_t(parallel.shard_x(x.transpose(1, 2), mine), mine).sum(),
                               parallel.shard(parallel.gather(x, group=mine), group=mine).sum())
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.full((3,), float(rank()))
    parallel.reduce_gradients([parameter], mine)
    assert parameter.grad.tolist() == [2.0 * (rank() % 2) + 2] * 3
    return is_usable()


def test_subgroups_side_by_side():
    assert returned(on_ranks(4, in_halves)) == [True] * 4


def one_of_two_modules(x):
    module = parallel.HaloExchange((2, 1), edge="periodic", fold_sign=torch.ones(1))
    again = pickle.loads(pickle.dumps(module))
    with_group = parallel.HaloExchange(1, group=dist.group.WORLD)
    copied = copy.deepcopy(with_group)
    assert not module.state_dict() and not list(module.parameters())
    assert torch.equal(module(x), again(x)) and torch.equal(with_group(x), copied(x))
    back = pickle.loads(pickle.dumps(with_group))  # no file can hold a group: what is read means the default one
    assert torch.equal(with_group(x), back(x))
    with torch.no_grad():
        assert not module(x.requires_grad_()).requires_grad
    trimmed = parallel.HaloExchange.trim(module(x), 2, 1)
    return torch.equal(trimmed, x)


def test_modules_are_copied_and_written():
    assert returned(on_ranks(2, one_of_two_modules, torch.arange(12.0).reshape(1, 4, 3))) == [True] * 2


# --------------------------------------------------------------------------------- dead and silent peers

@pytest.fixture
def pool():
    made = Ranks(3, timeout=2)
    yield made
    for process in made.processes:
        process.kill()
    made.close()


def results_of(pool, function, *args):
    """What each rank answers; None of one that ended."""
    for pipe in pool.pipes:
        pipe.send((function.__module__, function.__name__, args))
    results = []
    for pipe in pool.pipes:
        assert pipe.poll(20), "a rank hangs"
        try:
            results.append(pipe.recv())
        except EOFError:
            results.append(None)
    return results


def timed(call):
    begun = time.monotonic()
    kinds, text = kinds_of(call)
    return kinds, text, time.monotonic() - begun


def silent(name, who):
    if rank() == who:
        return time.sleep(3)
    return timed(lambda: evaluated(name, RIGHT[name]))


def dead(name, who):
    evaluated(name, RIGHT[name])
    dist.barrier()
    if rank() == who:
        os.kill(os.getpid(), signal.SIGKILL)
    return timed(lambda: evaluated(name, RIGHT[name]))


def gone_before_backward(name, who, is_dead):
    arguments = {key: value.requires_grad_() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
                 for key, value in operands().items()}
    y = eval(f"function{RIGHT[name]}", dict(arguments, function=getattr(parallel, name), torch=torch, world=world))
    dist.barrier()
    if rank() == who:
        return os._exit(3) if is_dead else time.sleep(3)
    return timed(lambda: y.pow(2).sum().backward())


def check_told(results, name, who, pool):
    for index, result in enumerate(results):
        if index == who:
            continue
        assert not isinstance(result, Raised), result
        kinds, text, seconds = result
        found = re.match(rf"\[{name}[^\]]*\] rank (\d): no answer from rank (\d) after (\d+\.\d) s: .", text)
        assert kinds[0] == "RuntimeError" and found, (index, kinds, text)
        # the one that is missing, or one that gave up because of it
        assert int(found[1]) == index and int(found[2]) != index, text
        assert seconds < 4 and float(found[3]) < 4, (text, seconds)
        assert pool.processes[index].exitcode is None


@pytest.mark.parametrize("name", ["halo_exchange", "conv", "shard_x", "reduce_gradients"])
def test_a_silent_rank(pool, name):
    results = results_of(pool, silent, name, 1)
    check_told(results, name, 1, pool)
    assert all("from rank 1 after 2." in results[index][1] for index in (0, 2)), results
    left = [name for name in os.listdir("/dev/shm") for process in pool.processes if f"-{process.pid}-" in name]
    assert not left, left


@pytest.mark.parametrize("name", ["halo_exchange", "gather", "layer_norm"])
def test_a_rank_that_is_killed(pool, name):
    results = results_of(pool, dead, name, 2)
    assert results[2] is None
    check_told(results, name, 2, pool)


@pytest.mark.parametrize("is_dead", [False, True], ids=["silent", "dead"])
@pytest.mark.parametrize("name", ["halo_exchange", "scaled_dot_product_attention"])
def test_a_rank_that_is_missing_in_backward(pool, name, is_dead):
    check_told(results_of(pool, gone_before_backward, name, 1, is_dead), name, 1, pool)


def large_halos(who):
    x = torch.zeros(1, 4, 2_000_000)
    if rank() == who:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, 0.2)

    def halos():
        for _ in range(400):
            parallel.halo_exchange(x, 3)
    return timed(halos)


def test_a_rank_that_is_killed_while_it_sends(pool):
    results = results_of(pool, large_halos, 1)
    assert results[1] is None
    for index in (0, 2):
        kinds, text, _ = results[index]
        assert kinds[0] == "RuntimeError" and text.startswith(f"[halo_exchange] rank {index}: no answer"), text
        assert pool.processes[index].exitcode is None


def with_another_timeout():
    group = dist.new_group(timeout=datetime.timedelta(seconds=1))
    is_usable()
    if rank() == 1:
        return time.sleep(2)
    return timed(lambda: parallel.shard(torch.ones(4, 4), group=group))


def test_the_timeout_is_the_groups(pool):
    results = results_of(pool, with_another_timeout)
    for index in (0, 2):
        kinds, text, seconds = results[index]
        assert kinds[0] == "RuntimeError" and "no answer from rank 1 after 1." in text and seconds < 2, results


# ---------------------------------------------------------------------------------------- converted models

def narrow_net():
    torch.manual_seed(4)
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1), nn.GELU(),
                         nn.MaxPool2d(2), nn.ConvTranspose2d(4, 4, 1), nn.GroupNorm(2, 4), nn.Upsample(scale_factor=2),
                         nn.Conv2d(4, 3, 1)).double()


def converted_net(x):
    net, report = parallel.convert(narrow_net())
    assert list(report.kept) == ["3", "4", "6", "9"], report
    assert [type(net[i]).__name__ for i in (3, 6, 9)] == ["Conv2d", "ConvTranspose2d", "Conv2d"]
    for one in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        mine = parallel.shard(x).requires_grad_()
        y = one(mine)
        y.pow(2).sum().backward()
        parallel.reduce_gradients(one)
        results = parallel.gather(y.detach()), parallel.gather(mine.grad), [parameter.grad for parameter in one.parameters()]
    return results


def test_a_converted_model_with_fewer_rows_than_ranks():
    x = torch.randn(2, 2, 8, 6, dtype=torch.float64).requires_grad_()
    net = narrow_net()
    y = net(x)
    y.pow(2).sum().backward()
    for output, gradient, gradients in returned(on_ranks(3, converted_net, x.detach())):
        torch.testing.assert_close(output, y)
        torch.testing.assert_close(gradient, x.grad)
        torch.testing.assert_close(gradients, [parameter.grad for parameter in net.parameters()])
