# SPDX-License-Identifier: Apache-2.0
"""torch.export, make_fx and jit.trace: what comes out computes as the module does, or the way is refused."""

import io
import warnings

import pytest
import torch
from conftest import near
from habits import CASES, healda_inputs, joined, loss, one_thread, right_or_refused, same  # noqa: F401
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

import halcyon

wide = torch.float64
EXPORTED = [name for name in CASES if name != "HealDA"]


class Flat(torch.nn.Module):
    """HealDA with the observations as plain tensors, as an exported program takes them."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, t, second_of_day, day_of_year, class_labels, obs, meta, obs_type, channel, platform, cu,
                largest):
        context = halcyon.ObsContext(obs, meta, obs_type, channel, platform, cu, largest)
        return self.model(x, t, second_of_day, day_of_year, context, class_labels)


def flat(observations=20, largest=None):
    given = healda_inputs(observations=observations)
    o = given.pop("obs_ctx")
    return (given["x"], given["t"], given["second_of_day"], given["day_of_year"], given["class_labels"], o.obs,
            o.float_metadata, o.obs_type, o.channel, o.platform, o.cu_seqlens_k,
            o.max_seqlen_k if largest is None else largest)


def reloaded(program):
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


@pytest.mark.parametrize("name", EXPORTED)
def test_export(name):
    case = CASES[name]
    model = case.make().eval()
    args, kwargs = case.given(wide)
    program = torch.export.export(model, args, kwargs)
    near(joined(program.module()(*args, **kwargs)), case.run(model), 1e-12)
    if list(model.parameters()):
        assert {"p_" + key.replace(".", "_") for key, _ in model.named_parameters()} <= {
            spec.arg.name for spec in program.graph_signature.input_specs}
    targets = " ".join(str(node.target) for node in program.graph.nodes)
    assert name not in ("PixelCrossAttention", "VideoDiTBlock", "VideoDiT") or "halcyon.pixel_attention" in targets


@pytest.mark.parametrize("name", ["SelfAttention", "VideoDiTBlock"])
def test_an_exported_program_is_saved_and_loaded(name):
    case = CASES[name]
    model = case.make().eval()
    args, kwargs = case.given(wide)
    program = reloaded(torch.export.export(model, args, kwargs))
    near(program.module()(*args, **kwargs), case.run(model), 1e-12)
    plain = program.run_decompositions()
    near(plain.module()(*args, **kwargs), case.run(model), 1e-12)


def test_export_for_training_learns():
    case = CASES["VideoDiTBlock"]
    model = case.make()
    args, kwargs = case.given(wide)
    module = torch.export.export(model, args, kwargs).module()
    loss(module(*args, **kwargs)).backward()
    loss(case.run(model)).backward()
    same({key: p.grad for key, p in module.named_parameters()}, {key: p.grad for key, p in model.named_parameters()},
         1e-11)


def test_export_of_healda():
    model = Flat(CASES["HealDA"].make().eval())
    given = flat()
    program = torch.export.export(model, given)
    near(program.module()(*given), model(*given), 1e-12)
    near(reloaded(program).module()(*given), model(*given), 1e-12)


def test_export_of_healda_at_any_number_of_observations():
    model = Flat(CASES["HealDA"].make().eval())
    given = flat(largest=64)  # no pixel has more
    n = torch.export.Dim("observations", min=2)
    shapes = [None] * 5 + [{0: n}] * 5 + [None, None]
    program = torch.export.export(model, given, dynamic_shapes=shapes)
    for count in (20, 33, 5):
        other = flat(count, 64)
        near(program.module()(*other), model(*other), 1e-11)


@pytest.mark.parametrize("name", CASES)
def test_make_fx(name):
    """The traced graph at other weights: they are inputs, not constants."""
    case = CASES[name]
    model, other = case.make(), case.make(seed=6)
    args, kwargs = case.given(wide)
    graph = make_fx(lambda given: joined(functional_call(model, given, args, kwargs)))(
        {key: p.detach() for key, p in model.named_parameters()})
    near(graph({key: p.detach() for key, p in other.named_parameters()}), case.run(other), 1e-12)


@pytest.mark.parametrize("mode", ["fake", "symbolic"])
@pytest.mark.parametrize("name", ["SelfAttention", "TemporalAttention", "PixelCrossAttention", "VideoDiTBlock"])
def test_make_fx_without_numbers(name, mode):
    """On fake tensors: each operator says the shapes of its results."""
    case = CASES[name]
    model = case.make()
    args, kwargs = case.given(wide)

    def run(given, args, kwargs):
        return joined(functional_call(model, given, args, kwargs))

    given = {key: p.detach() for key, p in model.named_parameters()}
    graph = make_fx(run, tracing_mode=mode)(given, args, kwargs)
    other = (0.5 * args[0], *args[1:])
    near(graph(given, other, kwargs), run(given, other, kwargs), 1e-12)


@pytest.mark.parametrize("name", ["SelfAttention", "SpatialSelfAttention", "TemporalAttention", "ObsTokenizerFiLM"])
def test_jit_trace(name):
    case = CASES[name]
    model = case.make().eval()
    args, _ = case.given(wide)

    def compute():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.trace(model, args)

    def check(traced):
        other = (0.5 * args[0], *args[1:])
        near(traced(*other), model(*other), 1e-12)

    right_or_refused(compute, check, ("halcyon", "trace", "jit"))


def test_a_backward_traced_with_the_forward():
    """Gradients in the graph: joint tracing as ahead-of-time compilers do."""
    case = CASES["VideoDiTBlock"]
    model = case.make()
    args, kwargs = case.given(wide)

    def run(given):
        leaves = {key: p.requires_grad_() for key, p in given.items()}
        value = loss(functional_call(model, leaves, args, kwargs))
        return dict(zip(leaves, torch.autograd.grad(value, list(leaves.values()))))

    graph = make_fx(run)({key: p.detach().clone() for key, p in model.named_parameters()})
    other = case.make(seed=6)
    loss(case.run(other)).backward()
    same(graph({key: p.detach().clone() for key, p in other.named_parameters()}),
         {key: p.grad for key, p in other.named_parameters()}, 1e-10)
