# SPDX-License-Identifier: Apache-2.0
"""Norms over ranks against torch.nn.functional on the whole tensor: values, gradients, second derivatives, digits."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from conftest import SHARED
from halcyon import parallel
from ranks import Raised, on_ranks, part, rank, returned

SIZES = {1: [[7]], 2: [[4, 3], [0, 7]], 3: [[3, 2, 2], [1, 0, 6]], 4: [[2, 2, 2, 1], [0, 4, 0, 3]]}
CASES = [(n, sizes) for n, all_sizes in SIZES.items() for sizes in all_sizes]


def derivatives(out, cotangent, leaves):
    """Gradients of <out, cotangent> and, of the sum of their squares, second derivatives."""
    wanted = [leaf for leaf in leaves if leaf is not None]
    first = torch.autograd.grad((out * cotangent).sum(), wanted, create_graph=True)
    second = torch.autograd.grad(sum(one.pow(2).sum() for one in first[:1]), wanted, allow_unused=True)
    return [one.detach() for one in first], second


def leaf(t):
    return None if t is None else t.clone().requires_grad_()


def local(name, x, sizes, dim, weight, bias, cotangent, args, keywords):
    """One rank's result and derivatives; those of weight and bias are contributions."""
    mine, weight, bias = leaf(part(x, sizes, dim)), leaf(weight), leaf(bias)
    out = getattr(parallel, name)(mine, *args, weight, bias, **keywords)
    first, second = derivatives(out, part(cotangent, sizes, dim), [mine, weight, bias])
    return out.detach(), first, second


def check(name, n, sizes, x, dim, args, weight, bias, keywords=None, given=None, tolerance=1e-11):
    """All ranks' parts together against one process. given: what the peer takes besides."""
    torch.manual_seed(1)
    cotangent = torch.randn_like(x)
    keywords = dict(keywords or {})
    leaves = [leaf(x), leaf(weight), leaf(bias)]
    whole = getattr(F, name)(leaves[0], *args, leaves[1], leaves[2], **keywords)
    first, second = derivatives(whole, cotangent, leaves)
    results = returned(on_ranks(n, local, name, x, sizes, dim, weight, bias, cotangent, args,
                                {**keywords, **(given or {})}))
    close = dict(rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(torch.cat([one[0] for one in results], dim), whole.detach(), **close)
    for which, wanted in ((1, first), (2, second)):
        for i, reference in enumerate(wanted):
            found = [one[which][i] for one in results]
            if reference is None:
                assert all(one is None or not one.any() for one in found)
                continue
            summed = torch.cat(found, dim) if i == 0 else sum(one for one in found if one is not None)
            torch.testing.assert_close(summed, reference, rtol=1e-9, atol=1e-9)


def tensors(shape, affine, dtype=torch.float64):
    torch.manual_seed(sum(shape))
    return [torch.randn(shape, dtype=dtype), *(torch.randn(affine, dtype=dtype) + 1 for _ in range(2))]


@pytest.mark.parametrize("n, sizes", CASES)
def test_group_norm(n, sizes):
    for groups, dim in itertools.product([1, 2, 6], [2, 3, -2, 0]):
        shape = [2, 6, 5, 4]
        shape[dim] = 7
        x, weight, bias = tensors(shape, [6])
        check("group_norm", n, sizes, x, dim, (groups,), weight, bias, given={"dim": dim})
    x, weight, bias = tensors([3, 4, 7], [4])
    check("group_norm", n, sizes, x, -1, (2,), None, None, {"eps": 1e-2}, {"dim": -1})
    x, weight, bias = tensors([2, 4, 2, 7, 3], [4])
    check("group_norm", n, sizes, x, 3, (4,), weight, None, given={"dim": 3})


@pytest.mark.parametrize("n, sizes", CASES)
def test_layer_norm(n, sizes):
    x, weight, bias = tensors([2, 3, 7, 5], [7, 5])
    check("layer_norm", n, sizes, x, -2, ((7, 5),), weight, bias)
    check("layer_norm", n, sizes, x, -2, ((3, 7, 5),), None, None)
    check("layer_norm", n, sizes, x.transpose(1, 2), 1, ((7, 3, 5),), *tensors([1], [7, 3, 5])[1:], given={"dim": 1})
    check("layer_norm", n, sizes, x.transpose(2, 3), -1, ((7,),), *tensors([1], [7])[1:], given={"dim": -1})
    check("layer_norm", n, sizes, x, -2, ((5,),), *tensors([1], [5])[1:])  # each rank for itself
    check("layer_norm", n, sizes, x.reshape(7, 30), 0, ((30,),), tensors([1], [30])[1], None, {"eps": 1e-2})


def batch(x, sizes, dim, weight, bias, cotangent, training, momentum):
    running = [torch.full((x.shape[1],), value, dtype=x.dtype) for value in (0.5, 2.0)]
    mine, weight, bias = leaf(part(x, sizes, dim)), leaf(weight), leaf(bias)
    out = parallel.batch_norm(mine, *running, weight, bias, training, momentum)
    first, second = derivatives(out, part(cotangent, sizes, dim), [mine, weight, bias])
    return out.detach(), first, second, running


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("n, sizes", CASES)
def test_batch_norm(n, sizes, training):
    for shape, dim in (([7, 3], 0), ([2, 3, 7], 2), ([7, 3, 4, 2], 0), ([2, 3, 7, 4], -2), ([2, 3, 2, 2, 7], -1)):
        x, weight, bias = tensors(shape, [3])
        cotangent = torch.randn_like(x)
        leaves, running = [leaf(x), leaf(weight), leaf(bias)], [torch.full((3,), v, dtype=x.dtype) for v in (0.5, 2.0)]
        whole = F.batch_norm(leaves[0], *running, leaves[1], leaves[2], training, 0.3)
        first, second = derivatives(whole, cotangent, leaves)
        results = returned(on_ranks(n, batch, x, sizes, dim, weight, bias, cotangent, training, 0.3))
        torch.testing.assert_close(torch.cat([one[0] for one in results], dim), whole.detach())
        for which, wanted in ((1, first), (2, second)):
            for i, reference in enumerate(wanted):
                found = [one[which][i] for one in results if one[which][i] is not None]
                if reference is None or not found:
                    assert not any(one.any() for one in found) and (reference is None or not reference.any())
                else:
                    summed = torch.cat(found, dim) if i == 0 else sum(found)
                    torch.testing.assert_close(summed, reference, rtol=1e-9, atol=1e-9)
        for one in results:
            for mine, first_rank, torch_s in zip(one[3], results[0][3], running):
                assert torch.equal(mine, first_rank)
                torch.testing.assert_close(mine, torch_s)


def without_statistics(x):
    mine = part(x, dim=0)
    return parallel.batch_norm(mine, None, None, training=True), parallel.batch_norm(mine[:0], None, None, None, None, True)


def test_batch_norm_without_running_statistics():
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    results = returned(on_ranks(2, without_statistics, x))
    torch.testing.assert_close(torch.cat([one[0] for one in results]), F.batch_norm(x, None, None, training=True))
    assert all(one[1].shape == (0, 3, 4) for one in results)


@pytest.mark.parametrize("mean, spread", [(1e4, 1.0), (-3e5, 1.0), (1e4, 1e-1), (0.0, 1.0)])
def test_digits_where_the_mean_is_large(mean, spread):
    torch.manual_seed(0)
    x = (mean + spread * torch.randn(2, 4, 9, 50, dtype=torch.float64)).float()
    cotangent = torch.randn(x.shape)
    for name, args in (("group_norm", (2,)), ("layer_norm", ((9, 50),)), ("batch_norm", (None, None))):
        keywords = {"training": True} if name == "batch_norm" else {}
        reference = x.double().requires_grad_()
        wanted = getattr(F, name)(reference, *args, **keywords)
        gradient, = torch.autograd.grad((wanted * cotangent.double()).sum(), reference)
        results = returned(on_ranks(3, local, name, x, [5, 1, 3], -2, None, None, cotangent, args, keywords))
        out, dx = (torch.cat([one[0] if i == 0 else one[1][0] for one in results], -2).double() for i in range(2))
        assert (out - wanted).abs().max() < 2e-6
        assert (dx - gradient).abs().max() < 1e-5 * gradient.abs().max()


def test_ranks_with_means_of_their_own():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8, 6) + torch.tensor([1e4, -1e4]).repeat_interleave(4).reshape(8, 1)
    reference = F.group_norm(x.double(), 2)
    results = returned(on_ranks(2, local, "group_norm", x, [4, 4], -2, None, None, torch.ones_like(x), (2,), {}))
    torch.testing.assert_close(torch.cat([one[0] for one in results], -2).double(), reference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wide", [True, False])
def test_half_types_are_rounded_once(dtype, wide):
    x, weight, bias = (one.to(dtype) for one in tensors([2, 4, 7, 30], [4]))
    affine = [one.float() if wide else one for one in (weight, bias)]
    for name, args in (("group_norm", (2,)), ("batch_norm", (None, None))):
        keywords = {"training": True} if name == "batch_norm" else {}
        reference = getattr(F, name)(x.double(), *args, weight.double(), bias.double(), **keywords)
        results = returned(on_ranks(2, local, name, x, [3, 4], -2, *affine, torch.ones_like(x), args, keywords))
        out = torch.cat([one[0] for one in results], -2)
        assert out.dtype == dtype and all(one[1][0].dtype == dtype for one in results)
        torch.testing.assert_close(out, reference.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("n", [2, 3])
def test_goldens(n):
    path = SHARED / "golden" / "parallel" / f"credit_norm_n{n}.safetensors"
    if not path.exists():
        pytest.skip(f"no {path}")
    from safetensors.torch import load_file
    golden = load_file(path)
    for case in sorted({name.split(".")[0] for name in golden}):
        one = {name[len(case) + 1:]: t for name, t in golden.items() if name.startswith(case + ".")}
        groups = int(case.split("_")[1][1:])
        sizes = one["sizes"].tolist()
        results = returned(on_ranks(n, local, "group_norm", one["x"], sizes, -2, one.get("weight"), one.get("bias"),
                                    one["g"], (groups,), {}))
        torch.testing.assert_close(torch.cat([r[0] for r in results], -2), one["y"], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(torch.cat([r[1][0] for r in results], -2), one["dx"], rtol=1e-11, atol=1e-11)
        for i, name in enumerate(["dweight", "dbias"]):
            if name in one:
                torch.testing.assert_close(sum(r[1][1 + i] for r in results), one[name], rtol=1e-11, atol=1e-11)


def slice_gradient(x, weight):
    weight = leaf(weight)
    parallel.layer_norm(part(x), weight.shape, weight).sum().backward()
    return weight.grad


def test_gradient_of_the_weight_lies_in_this_ranks_part():
    grads = returned(on_ranks(3, slice_gradient, *tensors([2, 7, 4], [7, 4])[:2]))
    assert grads[0].shape == (7, 4)
    assert not grads[0][3:].any() and not grads[1][:3].any() and not grads[1][5:].any() and grads[1][3:5].all()


def needs_gradient_on_one(x, name, args):
    keywords = {"training": True} if name == "batch_norm" else {}
    mine = part(x).clone().requires_grad_(rank() == 0)
    (getattr(parallel, name)(mine, *args, **keywords).pow(3) * part(x).cos()).sum().backward()
    return mine.grad


@pytest.mark.parametrize("name, args", [("group_norm", (2,)), ("layer_norm", ((7, 3),)), ("batch_norm", (None, None))])
def test_a_gradient_wanted_on_one_rank_only(name, args):
    x, _, _ = tensors([2, 4, 7, 3], [1])
    reference = leaf(x)
    keywords = {"training": True} if name == "batch_norm" else {}
    (getattr(F, name)(reference, *args, **keywords).pow(3) * x.cos()).sum().backward()
    grads = returned(on_ranks(2, needs_gradient_on_one, x, name, args))
    assert grads[1] is None
    torch.testing.assert_close(grads[0], reference.grad[..., :4, :])


def then_in_place(x):
    mine = part(x).clone().requires_grad_()
    parallel.group_norm(mine, 2).relu_().pow(2).sum().backward()
    return mine.grad


def test_the_result_may_be_written_into():
    x, _, _ = tensors([2, 4, 7, 3], [1])
    reference = leaf(x)
    F.group_norm(reference, 2).relu().pow(2).sum().backward()
    torch.testing.assert_close(torch.cat(returned(on_ranks(2, then_in_place, x)), -2), reference.grad)


def called(name, xs, *args):
    own = [one[rank()] if isinstance(one, list) else one for one in args]
    keywords = own.pop() if own and isinstance(own[-1], dict) else {}
    return getattr(parallel, name)(xs[rank()], *own, **keywords)


A, B = torch.zeros(2, 4, 3), torch.ones(2, 4, 5)


@pytest.mark.parametrize("name, xs, args, text", [
    ("group_norm", [A, B], (2, {"dim": 0}), "size of axis 2 of x"),
    ("group_norm", [A, A.double()], (2, {"dim": -1}), "dtype of x"),
    ("group_norm", [A, A], ([2, 4], {"dim": -1}), "num_groups"),
    ("group_norm", [A, A], (2, [None, torch.ones(4)], {"dim": -1}), "weight"),
    ("group_norm", [A, A], (2, None, None, [1e-5, 1e-6], {"dim": -1}), "eps"),
    ("layer_norm", [A, A], ([[4, 6], [6, 4]], {"dim": -1}), ""),
    ("layer_norm", [A, A], ([[6], [3]], {"dim": -1}), "normalized_shape"),
    ("batch_norm", [A, torch.zeros(2, 5, 3)], (None, None, None, None, True), "channels"),
    ("batch_norm", [A, A], (torch.zeros(4), torch.ones(4), None, None, [True, False]), "training"),
    ("batch_norm", [A, A], (torch.zeros(4), torch.ones(4), None, None, True, [0.1, 0.2]), "momentum"),
])
def test_mismatch_is_an_error_on_every_rank(name, xs, args, text):
    for result in on_ranks(2, called, name, xs, *args):
        assert isinstance(result, Raised) and result.kind is ValueError and text in result.text, result
    assert returned(on_ranks(2, called, "group_norm", [A, B], 2, {"dim": -1}))[1].shape == B.shape


ONE = torch.zeros(1, 4, 1)


@pytest.mark.parametrize("name, x, args", [
    ("group_norm", A, (3, {"dim": -1})), ("group_norm", A, (0, {"dim": -1})), ("group_norm", A, (2, {"dim": 1})),
    ("group_norm", A, (2, {"dim": 3})), ("group_norm", A.long(), (2, {"dim": -1})),
    ("group_norm", A, (2, torch.ones(3), {"dim": -1})), ("group_norm", A, (2, torch.ones(4).double(), {"dim": -1})),
    ("group_norm", A, (2, None, None, -1.0, {"dim": -1})), ("group_norm", torch.zeros(4), (2, {"dim": -1})),
    ("layer_norm", A, ((7,), {"dim": -1})), ("layer_norm", A, ((5, 9), {"dim": -1})),
    ("layer_norm", A, ((), {"dim": -1})), ("layer_norm", A, ((9,), torch.ones(8), {"dim": -1})),
    ("layer_norm", A, ((2, 2, 4, 9), {"dim": -1})),
    ("batch_norm", A, (None, None)), ("batch_norm", A, (torch.zeros(4), None)),
    ("batch_norm", A, (torch.zeros(3), torch.ones(3))), ("batch_norm", torch.zeros(4), (None, None, None, None, True)),
    ("batch_norm", A, (None, None, None, None, True, None)),
])
def test_what_cannot_be_done_is_refused_with_one_text(name, x, args):
    results = on_ranks(3, called, name, [x] * 3, *args)
    assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
    assert len({one.text for one in results}) == 1 and results[0].text.startswith(f"[{name}] expected"), results[0].text


def test_one_value_has_no_variance():
    for name, args, sizes in (("group_norm", (4, {"dim": -1}), (1, 0)), ("batch_norm", (None, None, None, None, True), (0, 1))):
        results = on_ranks(2, called, name, [ONE[..., :size] for size in sizes], *args)
        assert {one.text for one in results} == {results[0].text} and "more than one value" in results[0].text


def test_alone():
    x, weight, bias = tensors([2, 4, 5, 3], [4])
    torch.testing.assert_close(parallel.group_norm(x, 2, weight, bias), F.group_norm(x, 2, weight, bias))
    torch.testing.assert_close(parallel.layer_norm(x, 3), F.layer_norm(x, (3,)))
    with pytest.raises(ValueError, match="num_groups"):
        parallel.group_norm(x, 3)
    with pytest.raises(TypeError, match="ProcessGroup"):
        parallel.group_norm(x, 2, group="gloo")
    mine = x[:1, :2, :2, :2].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda t: parallel.group_norm(t, 1), mine)
