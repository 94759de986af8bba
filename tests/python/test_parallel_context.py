# SPDX-License-Identifier: Apache-2.0
"""VideoDiT and HealDA with their frames on several ranks, against the same model in one process: output, every gradient."""

import pytest
import torch

import halcyon
from ranks import Raised, on_ranks, rank, returned, world
from references import SMALL_MODEL, randomise

PIXELS = 12  # of the small models' tokens; 48 fine ones


def video_dit(dtype, **options):
    levels = dict(level_fine=1, level_coarse=0)
    tokenizer = halcyon.HEALPixPatchTokenizer(in_channels=2, hidden_size=32, separate_time_axis=True, **levels)
    detokenizer = halcyon.HEALPixPatchDetokenizer(hidden_size=32, out_channels=3, condition_dim=16, **levels)
    model = halcyon.VideoDiT(tokenizer, detokenizer, 32, 4, 2, emb_channels=16, noise_channels=8, condition_dim=3,
                             **(dict(temporal_attention=True) | options))
    return randomise(model.to(dtype), 0.2)


def healda(dtype, frames, **options):
    options = SMALL_MODEL | dict(level_in=1, level_model=0, time_length=frames) | options
    return randomise(halcyon.HealDA(**options).to(dtype), 0.2)


def frames_of(total, sizes):
    """Which frames this rank has."""
    sizes = sizes or [len(one) for one in torch.empty(total).tensor_split(world())]
    start = sum(sizes[:rank()])
    return slice(start, start + sizes[rank()])


def fields(batch, frames, dtype):
    generator = torch.Generator().manual_seed(frames)
    return dict(x=torch.randn(batch, 2, frames, 4 * PIXELS, generator=generator, dtype=torch.float64).to(dtype),
                t=torch.rand(batch, generator=generator, dtype=torch.float64).to(dtype),
                second_of_day=torch.randint(86400, (batch, frames), generator=generator).to(dtype),
                day_of_year=torch.randint(365, (batch, frames), generator=generator).to(dtype))


def observations(batch, frames, own, dtype, count=80):
    """The observations of some frames, packed for them."""
    generator = torch.Generator().manual_seed(3)
    obs, meta = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((count,), (count, 6)))
    ids = [torch.randint(60, (count,), generator=generator) for _ in range(3)]
    b, t, pixel = (torch.randint(n, (count,), generator=generator) for n in (batch, frames, PIXELS))
    kept = (own.start <= t) & (t < own.stop)
    here = own.stop - own.start
    flat = (b * here + t - own.start) * PIXELS + pixel
    return halcyon.prepare_obs_context(obs[kept], meta[kept], *[one[kept] for one in ids], flat[kept],
                                       batch * here * PIXELS)


def weight_of(batch, frames, dtype):
    generator = torch.Generator().manual_seed(9)
    return torch.randn(batch, 3, frames, 4 * PIXELS, generator=generator, dtype=torch.float64).to(dtype)


def forward(model, case, own):
    """The model of these frames; the input that needs gradients."""
    batch, frames, dtype = case["batch"], case["frames"], case["dtype"]
    given = fields(batch, frames, dtype)
    x = given["x"][:, :, own].clone().requires_grad_(torch.is_grad_enabled())
    calendar = {name: given[name][:, own] for name in ("second_of_day", "day_of_year")}
    labels = torch.arange(3. * batch).reshape(batch, 3).sin().to(dtype)
    if case["model"] == "healda":
        labels = labels if case["options"].get("condition_dim") else None
        return model(x, case.get("t", given["t"]), **calendar, obs_ctx=observations(batch, frames, own, dtype),
                     class_labels=labels), x
    return model(x, case.get("t", given["t"]), labels, tokenizer_kwargs=calendar), x


def build(case):
    if case["model"] == "healda":
        return healda(case["dtype"], case["frames"], **case["options"])
    return video_dit(case["dtype"], **case["options"])


def trained(case, mode=None, sizes=None):
    """Output, the input's gradient and all parameters' gradients of this rank. In a world of one there is no group."""
    model = build(case)
    if mode is not None and world() > 1:
        model.set_context_parallel(mode, torch.distributed.group.WORLD)
    own = frames_of(case["frames"], sizes)
    torch.manual_seed(17)  # of drop_path
    out, x = forward(model, case, own)
    (out.sin() * weight_of(case["batch"], case["frames"], case["dtype"])[:, :, own]).sum().backward()
    return out.detach(), x.grad, {name: p.grad for name, p in model.named_parameters()}


def assert_like_one_process(case, n, mode, sizes=None):
    tolerance = 1e-12 if case["dtype"] == torch.float64 else 1e-6
    out, dx, grads = trained(case)
    results = returned(on_ranks(n, trained, case, mode, sizes))

    def near(actual, expected, name):
        scale = expected.abs().max().clamp(min=1e-30)
        assert actual.shape == expected.shape
        # the sums of another order; the bound is of the largest element, as fp32 has 6e-8 a term
        assert ((actual - expected).abs().max() / scale).item() <= tolerance, name

    near(torch.cat([one[0] for one in results], 2), out, "out")
    near(torch.cat([one[1] for one in results], 2), dx, "x")
    for name, grad in grads.items():
        near(sum(one[2][name] for one in results if one[2][name] is not None), grad, name)


DIT = dict(model="video_dit", batch=2, frames=4, dtype=torch.float64, options={})
HEALDA = dict(model="healda", batch=2, frames=4, dtype=torch.float64, options={})


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("frames", [1, 5, 8])
@pytest.mark.parametrize("base", [DIT, HEALDA], ids=["video_dit", "healda"])
def test_gradients_redistribute(n, frames, base):
    assert_like_one_process(base | dict(frames=frames), n, "redistribute")


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("base", [DIT, HEALDA], ids=["video_dit", "healda"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_all_to_all(n, base, dtype):
    assert_like_one_process(base | dict(frames=2 * n, dtype=dtype), n, "all_to_all")


@pytest.mark.parametrize("sizes", [[4, 1], [0, 5], [5, 0]])
def test_any_cut_of_the_frames(sizes):
    assert_like_one_process(DIT | dict(frames=5), 2, "redistribute", sizes)
    assert_like_one_process(HEALDA | dict(frames=5, dtype=torch.float32), 2, "redistribute", sizes)


@pytest.mark.parametrize("options", [
    dict(is_causal=True, temporal_kwargs=dict(causal_window=2)),
    dict(is_causal=True, temporal_kwargs=dict(linear_attention=False)),
    dict(temporal_kwargs=dict(linear_attention=False), use_rope=False), dict(temporal_attention=False),
    dict(rope_base=10, drop_path=0.5), dict(attn_kwargs=dict(qk_norm_type="RMSNorm")),
])
def test_options_of_video_dit(options):
    assert_like_one_process(DIT | dict(frames=5, options=options), 3, "redistribute")


@pytest.mark.parametrize("options", [
    dict(temporal_causal_window=2), dict(linear_attention=False, is_causal=False), dict(condition_dim=3),
    dict(drop_path=0.4, drop_path_zero_first_n_blocks=0),
])
def test_options_of_healda(options):
    assert_like_one_process(HEALDA | dict(frames=5, options=options), 3, "redistribute")


def analysed(case, mode=None, prepared=False):
    model = build(case).eval()
    if mode is not None:
        model.set_context_parallel(mode, torch.distributed.group.WORLD)
    if prepared:
        model.prepare_inference()
    with torch.no_grad():
        return [forward(model, case, frames_of(case["frames"], None))[0] for _ in range(2)]


@pytest.mark.parametrize("n, frames", [(2, 4), (3, 5), (4, 8), (4, 2), (8, 8)])
@pytest.mark.parametrize("base, prepared", [(DIT, False), (HEALDA, False), (HEALDA, True)],
                         ids=["video_dit", "healda", "prepared"])
def test_inference(n, frames, prepared, base):
    case = base | dict(frames=frames) | (dict(t=torch.zeros(2, dtype=torch.float64)) if prepared else {})
    expected = analysed(case, None, prepared)[0]
    modes = ["redistribute"] + (["all_to_all"] if frames % n == 0 and PIXELS % n == 0 else [])
    for mode in modes:
        results = returned(on_ranks(n, analysed, case, mode, prepared))
        for again in range(2):
            out = torch.cat([one[again] for one in results], 2)
            assert (out - expected).abs().max() <= 1e-12 * expected.abs().max()


def rounded(case, mode=None):
    """Trained and analysed under autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        return trained(case, mode) + (analysed(case, mode)[0],)


@pytest.mark.parametrize("base", [DIT, HEALDA], ids=["video_dit", "healda"])
def test_autocast(base):
    """What travels is rounded as the attention's projection rounds it: the output is one process' to the last bit."""
    case = base | dict(frames=5, dtype=torch.float32)
    out, dx, grads, inferred = rounded(case)
    results = returned(on_ranks(3, rounded, case, "redistribute"))
    assert torch.equal(torch.cat([one[0] for one in results], 2), out)
    assert torch.equal(torch.cat([one[3] for one in results], 2), inferred)
    torch.testing.assert_close(torch.cat([one[1] for one in results], 2), dx, rtol=0, atol=2e-2 * dx.abs().max().item())
    for name, grad in grads.items():
        difference = sum(one[2][name] for one in results if one[2][name] is not None) - grad
        assert difference.abs().max() <= 2e-2 * grad.abs().max(), name


def reduced(case):
    """A step as a trainer takes it: gradients summed over the ranks by all_reduce."""
    _, _, grads = trained(case, "redistribute")
    for grad in grads.values():
        torch.distributed.all_reduce(grad)
    return grads


def test_reduced_gradients_are_those_of_one_process():
    case = HEALDA | dict(frames=3, dtype=torch.float32)
    expected = trained(case)[2]
    for grads in returned(on_ranks(4, reduced, case)):
        for name, grad in grads.items():
            assert (grad - expected[name]).abs().max() <= 1e-6 * expected[name].abs().max().clamp(min=1e-30), name


def refused(case, mode, change=None):
    """Two forwards, the first with a mistake on some ranks."""
    model = build(case)
    model.set_context_parallel(mode, torch.distributed.group.WORLD)
    own = frames_of(case["frames"], case.get("sizes"))
    try:
        forward(change(model, rank()) if change else model, case, own)
    except Exception as error:  # noqa: BLE001  handed back
        first = Raised(type(error), str(error), "")
    else:
        first = None
    model.set_context_parallel("redistribute", torch.distributed.group.WORLD)
    forward(model, case, own)  # the group stays usable
    return [first]


def assert_refused(results, *texts, same=True):
    assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
    for text in texts:
        assert all(text in one.text for one in results), results
    if same:
        assert len({one.text for one in results}) == 1, results


@pytest.mark.parametrize("n, case", [(2, DIT | dict(frames=5)), (3, HEALDA | dict(frames=4)), (8, DIT | dict(frames=8)),
                                     (4, HEALDA | dict(frames=2)), (2, DIT | dict(sizes=[3, 1]))])
def test_all_to_all_needs_equal_parts(n, case):
    results = returned(on_ranks(n, refused, case, "all_to_all"))
    assert_refused([one[0] for one in results], "expected", '"redistribute"')


class Changed:
    """A model that is called with other arguments."""

    def __init__(self, model, change):
        self.model, self.change = model, change

    def __call__(self, *args, **kwargs):
        return self.model(*self.change(list(args)), **kwargs)


def other_batch(model, r):
    return Changed(model, lambda args: [args[0][:1], args[1][:1], args[2][:1], *args[3:]] if r == 1 else args)


def other_channels(model, r):
    return Changed(model, lambda args: [args[0][:, :1], *args[1:]] if r == 1 else args)


def other_pixels(model, r):
    return Changed(model, lambda args: [args[0][..., :16], *args[1:]] if r == 0 else args)


def other_level(model, r):
    return Changed(model, lambda args: [args[0], args[1] + r, *args[2:]])


def other_condition(model, r):
    return Changed(model, lambda args: args[:2] + [args[2] * (1 + r)])


def no_condition(model, r):
    return Changed(model, lambda args: args[:2] if r == 1 else args)


def other_mode(model, r):
    return model.train(r == 0)


def frozen(model, r):
    if r == 0:
        next(model.parameters()).requires_grad_(False)
    return model


def refused_once(case, change):
    model = build(case)
    model.set_context_parallel("redistribute", torch.distributed.group.WORLD)
    own = frames_of(case["frames"], None)
    try:
        forward(change(model, rank()), case, own)
        first = None
    except Exception as error:  # noqa: BLE001
        first = Raised(type(error), str(error), "")
    ranks = halcyon.parallel.gather(torch.full((1, 1), rank()), 0)  # the group stays usable
    assert ranks.flatten().tolist() == list(range(world()))
    return [first]


@pytest.mark.parametrize("change, text", [
    (other_batch, ""), (other_channels, ""), (other_pixels, ""), (other_level, "the same t on every rank"),
    (other_condition, "the same condition on every rank"), (no_condition, "condition"), (other_mode, "training mode"),
    (frozen, "parameters"),
])
def test_mismatch_is_an_error_on_every_rank(change, text):
    results = returned(on_ranks(3, refused_once, DIT, change))
    assert_refused([one[0] for one in results], "expected", text, same=False)


def too_few_frames(case):
    model = build(case | dict(frames=case["frames"] + 1))
    model.set_context_parallel("redistribute", torch.distributed.group.WORLD)
    return forward(model, case, frames_of(case["frames"], None))


def too_many_for_the_tables(case):
    return trained(case | dict(options=dict(max_seq_len=4)), "redistribute")


def one_rank_mispacked(case):
    model = build(case)
    model.set_context_parallel("redistribute", torch.distributed.group.WORLD)
    own = frames_of(case["frames"], None)
    given = fields(case["batch"], case["frames"], case["dtype"])
    packed = observations(case["batch"], case["frames"], slice(0, 4) if rank() == 1 else own, case["dtype"])
    return model(given["x"][:, :, own], given["t"], given["second_of_day"][:, own], given["day_of_year"][:, own], packed)


class Spread(torch.nn.Module):
    """A tokenizer of the caller's: (B, 2, T, X) -> (B, T, X, 32). Broken on one rank, if asked."""

    def __init__(self, broken_on=None):
        super().__init__()
        self.broken_on = broken_on

    def forward(self, x):
        if rank() == self.broken_on:
            raise KeyError("no such channel")
        return x.permute(0, 2, 3, 1).repeat(1, 1, 1, 16)


class Plain(torch.nn.Module):
    def forward(self, tokens, c):
        return tokens.permute(0, 3, 1, 2)


def with_foreign_modules(mode=None, broken_on=None, pixels=2, frames=3):
    model = randomise(halcyon.VideoDiT(Spread(broken_on), Plain(), 32, 4, 2, temporal_attention=True).double(), 0.2)
    if mode:
        model.set_context_parallel(mode, torch.distributed.group.WORLD)
    own = frames_of(frames, None)
    x = whole_fields(pixels, frames)[:, :, own].clone().requires_grad_()
    out = model(x, torch.zeros(1, dtype=torch.float64))
    (out.sin() * out.detach().cos()).sum().backward()
    return out.detach(), x.grad


def whole_fields(pixels, frames):
    return torch.randn(1, 2, frames, pixels, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("n, mode, pixels, frames", [(4, "redistribute", 2, 3), (8, "all_to_all", 16, 8),
                                                     (3, "all_to_all", 3, 6)])
def test_ranks_without_frames_or_pixels_and_many_ranks(n, mode, pixels, frames):
    out, dx = with_foreign_modules(None, None, pixels, frames)
    results = returned(on_ranks(n, with_foreign_modules, mode, None, pixels, frames))
    torch.testing.assert_close(torch.cat([one[0] for one in results], 2), out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat([one[1] for one in results], 2), dx, rtol=1e-11, atol=1e-11)


def test_a_foreign_tokenizer_that_fails_on_one_rank():
    assert_refused(on_ranks(2, with_foreign_modules, "redistribute", 1), "[VideoDiT]", "no such channel")


def test_refusals_of_one_text():
    for results, text in ((on_ranks(2, too_few_frames, HEALDA), "[HealDA] expected x of 5 frames"),
                          (on_ranks(2, too_many_for_the_tables, DIT | dict(frames=5)), "max_seq_len = 4"),
                          (on_ranks(2, one_rank_mispacked, HEALDA), "cu_seqlens_k")):
        assert_refused(results, text)


def test_arguments():
    for model in (build(DIT), build(HEALDA)):
        for mode in ("shardtensor", "", "ALL_TO_ALL", 3):
            with pytest.raises(ValueError, match='expected a context parallel mode "all_to_all", "redistribute"'):
                model.set_context_parallel(mode, None)
        for target in ("gloo", 3, None, object()):
            with pytest.raises(TypeError, match="ProcessGroup"):
                model.set_context_parallel("redistribute", target)
        model.set_context_parallel()
        model.set_context_parallel(None, None)


def turned_off(case):
    model = build(case)
    model.set_context_parallel("redistribute", torch.distributed.group.WORLD)
    forward(model, case, frames_of(case["frames"], None))
    model.set_context_parallel(None)
    return forward(model, case, slice(0, case["frames"]))[0].detach()


def test_turned_off_it_is_as_before():
    expected = trained(HEALDA)[0]
    for out in returned(on_ranks(2, turned_off, HEALDA)):
        assert torch.equal(out, expected)


def in_a_group_of_one(case):
    alone = [torch.distributed.new_group([r]) for r in range(world())][rank()]
    model = build(case)
    for mode in ("all_to_all", "redistribute"):
        model.set_context_parallel(mode, alone)
        out = forward(model, case, slice(0, case["frames"]))[0].detach()
    return out


def test_groups_of_one():
    expected = trained(HEALDA)[0]
    for out in returned(on_ranks(2, in_a_group_of_one, HEALDA)):
        assert torch.equal(out, expected)


def trained_on_one_frozen(case):
    """Only rank 0's input needs a gradient, no parameter does."""
    model = build(case)
    model.requires_grad_(False)
    model.set_context_parallel("redistribute", torch.distributed.group.WORLD)
    given, own = fields(case["batch"], case["frames"], case["dtype"]), frames_of(case["frames"], None)
    x = given["x"][:, :, own].clone().requires_grad_(rank() == 0)
    out = model(x, given["t"], given["second_of_day"][:, own], given["day_of_year"][:, own],
                observations(case["batch"], case["frames"], own, case["dtype"]))
    (out.sin() * weight_of(case["batch"], case["frames"], case["dtype"])[:, :, own]).sum().backward()
    return x.grad


def test_a_gradient_wanted_on_one_rank_only():
    expected = trained(HEALDA)[1]
    grads = returned(on_ranks(2, trained_on_one_frozen, HEALDA))
    assert grads[1] is None
    torch.testing.assert_close(grads[0], expected[:, :, :2], rtol=1e-11, atol=1e-11)


def second_derivatives(case, mode=None):
    model = build(case)
    if mode is not None:
        model.set_context_parallel(mode, torch.distributed.group.WORLD)
    own = frames_of(case["frames"], None)
    out, x = forward(model, case, own)
    first, = torch.autograd.grad((out.pow(2) * weight_of(case["batch"], case["frames"], case["dtype"])[:, :, own]).sum(), x,
                                 create_graph=True)
    second, = torch.autograd.grad(first.pow(2).sum(), x)
    return second


def test_second_derivatives_are_refused_as_by_one_process():
    with pytest.raises(Exception, match="create_graph") as refusal:
        second_derivatives(DIT)
    for result in on_ranks(3, second_derivatives, DIT, "redistribute"):
        assert isinstance(result, Raised) and result.kind is refusal.type and result.text == str(refusal.value)
    assert_like_one_process(DIT, 3, "redistribute")  # the group stays usable
