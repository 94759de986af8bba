# SPDX-License-Identifier: Apache-2.0
"""Under torch's modes: inference mode, no_grad and back to training, dispatch and function modes, profiler, FLOP counter,
default devices, threads and streams."""

import threading

import pytest
import torch
from conftest import near
from habits import CASES, WHOLE, gradients, healda_inputs, layers, loss, one_thread, same  # noqa: F401
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

wide = torch.float64


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad], ids=lambda m: m.__name__)
@pytest.mark.parametrize("name", CASES)
def test_without_gradients_first_and_with_them_later(name, mode):
    """Nothing that the first forward keeps may stand in the way of the second's gradients."""
    case = CASES[name]
    plain, model = case.make(), case.make()
    with mode():
        y = case.run(model)
        assert not y.requires_grad and y.is_inference() == (mode is torch.inference_mode)
    near(y, case.run(plain), 1e-9)
    same(gradients(model, case.run), gradients(plain, case.run), 1e-12)
    with mode():
        near(case.run(model), y, 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_made_and_loaded_in_inference_mode(name):
    case = CASES[name]
    with torch.inference_mode():
        model = case.make()
        model.load_state_dict(case.make(seed=6).state_dict())
        y = case.run(model)
    near(y, case.run(case.make(seed=6)), 1e-9)


@pytest.mark.parametrize("name", CASES)
def test_switched_between_types_and_modes(name):
    """Tables that a forward makes are made anew for another type."""
    case = CASES[name]
    model, plain = case.make(), case.make()
    with torch.inference_mode():
        case.run(model)
    low = case.run(model.float(), torch.float32)
    near(low, case.run(plain.float(), torch.float32), 1e-4)
    near(case.run(model.double()), case.run(plain.double()), 1e-6)
    same(gradients(model, case.run), gradients(plain, case.run), 1e-5)


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name())
        return function(*args, **(kwargs or {}))


OPERATORS = {"PixelCrossAttention": "halcyon::pixel_attention", "ObsTokenizerFiLM": "halcyon::film_tokenizer",
             "HealDA": "halcyon::pixel_attention", "VideoDiTBlock": "halcyon::pixel_attention"}


@pytest.mark.parametrize("name", OPERATORS)
def test_a_dispatch_mode_sees_our_operators(name):
    case = CASES[name]
    model = case.make()
    with Seen() as seen:
        y = case.run(model)
    operator = OPERATORS[name].partition("::")[2]  # below autograd its name may have an underscore
    assert any(seen_name in (f"halcyon::{operator}", f"halcyon::_{operator}") for seen_name in seen.names)
    near(y, case.run(model), 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_a_dispatch_mode_that_changes_numbers_reaches_everything(name):
    """Products rounded to float32 by the mode: the output is rounded too, so nothing multiplies aside from it."""
    case = CASES[name]
    model = case.make()

    class Rounded(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            y = function(*args, **(kwargs or {}))
            return y.float().double() if isinstance(y, torch.Tensor) and y.dtype == wide else y

    with torch.no_grad(), Rounded():
        y = case.run(model)
    assert torch.equal(y, y.float().double()) and not torch.equal(y, case.run(model))
    near(y, case.run(model), 1e-4)


@pytest.mark.parametrize("name", WHOLE)
def test_a_function_mode_sees_the_calls(name):
    case, seen = CASES[name], set()

    class Names(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.add(str(getattr(function, "__name__", function)))
            return function(*args, **(kwargs or {}))

    model = case.make()
    with Names():
        y = case.run(model)
    near(y, case.run(model), 1e-12)
    assert any("linear" in name for name in seen)


@pytest.mark.parametrize("name", CASES)
def test_the_profiler(name):
    case = CASES[name]
    model = case.make()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True, with_flops=True,
                                profile_memory=True) as profile:
        y = case.run(model)
        loss(y).backward()
    near(y, case.run(model), 1e-12)
    names = {event.key for event in profile.key_averages()}
    assert OPERATORS.get(name, "aten::mul") in names


@pytest.mark.parametrize("name", CASES)
def test_the_flop_counter(name):
    """Forward and backward under it; what it counts is at least what the Linears of torch would be, where it counts."""
    case = CASES[name]
    model = case.make()
    products = 0
    for layer in layers(model).values():
        def add(m, args, y):
            nonlocal products
            products += 2 * (y.numel() // y.shape[-1]) * m.in_features * m.out_features
        layer.register_forward_hook(add)
    counter = FlopCounterMode(display=False)
    with counter:
        y = case.run(model)
    total = counter.get_total_flops()
    with counter:
        loss(case.run(model)).backward()
    near(y, case.run(model), 1e-12)
    if layers(model):
        print(f"counted {total}, products of the Linears {products // 4}")
        assert products > 0 and total > 0


def test_a_default_device_and_threads():
    """Each thread its own forward and backward; a default device of this machine changes nothing."""
    case = CASES["HealDA"]
    expected = gradients(case.make(), case.run)
    with torch.device("cpu"):
        same(gradients(case.make(), case.run), expected, 1e-12)
    models, results = [case.make() for _ in range(3)], {}

    def work(i):
        results[i] = gradients(models[i], case.run)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for i in range(3):
        same(results[i], expected, 1e-12)


def test_one_model_in_several_threads():
    """Forwards without gradients at once on one model, each with its own observations."""
    model = CASES["HealDA"].make().eval()
    given = [healda_inputs(observations=5 * i, seed=i) for i in range(4)]
    with torch.no_grad():
        expected, results = [model(**one) for one in given], {}

    def work(i):
        with torch.no_grad():
            results[i] = [model(**given[i]) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for i, one in enumerate(expected):
        for y in results[i]:
            near(y, one, 1e-12)


def test_an_autocast_region_leaves_the_weights_alone():
    case = CASES["HealDA"]
    model, kinds = case.make(torch.float32), set()
    for layer in layers(model).values():
        layer.register_forward_hook(lambda m, args, y: kinds.add(y.dtype))
    expected = case.run(model, torch.float32)
    assert kinds == {torch.float32}
    kinds.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = case.run(model, torch.float32)
    assert kinds == {torch.bfloat16}
    near(y, expected, 0.1)
    loss(y).backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: streams are checked where there is one")
def test_a_stream_of_its_own():
    case = CASES["HealDA"]
    model = case.make().cuda()
    given = {key: value.to("cuda") for key, value in case.given(wide)[1].items()}
    expected = model(**given)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        y = model(**given)
        loss(y).backward()
    torch.cuda.current_stream().wait_stream(stream)
    near(y, expected, 1e-9)
