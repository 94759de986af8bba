# SPDX-License-Identifier: Apache-2.0
"""State dicts as torch's: their hooks, prefixes, files; what a user registers; parameters in place of others."""

import io

import pytest
import torch
from conftest import near
from habits import CASES, gradients, loss, one_thread, same  # noqa: F401

wide = torch.float64


@pytest.mark.parametrize("name", CASES)
def test_hooks_of_saving_and_loading_run(name):
    case = CASES[name]
    model, order = case.make(), []
    model.register_state_dict_pre_hook(lambda m, prefix, keep: order.append("pre"))
    model.register_state_dict_post_hook(lambda m, state, prefix, meta: order.append("post"))
    model.register_load_state_dict_pre_hook(lambda m, state, prefix, *rest: order.append("load pre"))
    model.register_load_state_dict_post_hook(lambda m, keys: order.append("load post"))
    model.load_state_dict(model.state_dict())
    assert order == ["pre", "post", "load pre", "load post"]


@pytest.mark.parametrize("name", CASES)
def test_prefixes_and_kept_variables(name):
    case = CASES[name]
    model = case.make()
    keys = list(model.state_dict())
    state = model.state_dict(prefix="net.", keep_vars=True)
    assert list(state) == ["net." + key for key in keys]
    assert all(state["net." + key] is p for key, p in model.named_parameters())
    assert all(not value.requires_grad and value.data_ptr() == model.get_parameter(key).data_ptr()
               for key, value in model.state_dict().items() if key in dict(model.named_parameters()))
    inside = torch.nn.ModuleDict(dict(net=model))
    assert list(inside.state_dict()) == list(state)


def test_renamed_keys_by_a_hook():
    """Files of another program: a pre-hook renames before the keys are compared."""
    case = CASES["SelfAttention"]
    model, plain = case.make(seed=7), case.make()
    state = {key.replace("attn_op", "attention"): value for key, value in plain.state_dict().items()}

    def rename(m, state, prefix, *rest):
        for key in list(state):
            state[key.replace("attention", "attn_op")] = state.pop(key)

    model.register_load_state_dict_pre_hook(rename)
    model.load_state_dict(state)
    assert torch.equal(case.run(model), case.run(plain))


@pytest.mark.parametrize("options", [{}, dict(mmap=True)], ids=str)
def test_a_file_of_weights_only(options, tmp_path):
    case = CASES["HealDA"]
    plain, model = case.make(), case.make(seed=7)
    torch.save(plain.state_dict(), tmp_path / "w.pt")
    model.load_state_dict(torch.load(tmp_path / "w.pt", weights_only=True, **options), assign=bool(options))
    assert torch.equal(case.run(model), case.run(plain))


def test_the_order_of_keys_stays():
    file = io.BytesIO()
    model = CASES["HealDA"].make()
    torch.save(model.state_dict(), file)
    file.seek(0)
    assert list(torch.load(file)) == list(model.state_dict())
    assert list(CASES["HealDA"].make().state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("name", CASES)
def test_a_parameter_in_place_of_another(name):
    """module.weight = Parameter(...): this object is the weight from now on, for the forward, optimizers and state."""
    case = CASES[name]
    other = case.make(seed=6)
    model = case.make()
    for key, p in other.named_parameters():
        path, _, part = key.rpartition(".")
        new = torch.nn.Parameter(p.detach().clone())
        setattr(model.get_submodule(path), part, new)
        assert model.get_parameter(key) is new
    assert torch.equal(case.run(model), case.run(other))
    same(gradients(model, case.run), gradients(other, case.run), 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_a_plain_tensor_is_no_parameter(name):
    model = CASES[name].make()
    for key, p in model.named_parameters():
        path, _, part = key.rpartition(".")
        with pytest.raises(TypeError):
            setattr(model.get_submodule(path), part, torch.zeros_like(p))


@pytest.mark.parametrize("name", CASES)
def test_buffers_parameters_and_children_of_the_users_own(name):
    case = CASES[name]
    model = case.make()
    y = case.run(model)
    model.register_buffer("mean", torch.ones(2))
    model.register_parameter("gain", torch.nn.Parameter(torch.ones(1)))
    model.head = torch.nn.Linear(2, 2)
    assert {"mean", "gain", "head.weight"} <= set(model.state_dict())
    assert any(p is model.gain for p in model.parameters())
    assert torch.equal(case.run(model), y)
    del model.head
    assert "head.weight" not in model.state_dict()
    model.double().load_state_dict(model.state_dict())
    near(case.run(model), y, 1e-12)


def test_a_subclass_of_ours():
    """A user's class that extends the forward and has layers of its own."""
    cls, case = type(CASES["SelfAttention"].build()), CASES["SelfAttention"]

    class Scaled(cls):
        def __init__(self):
            super().__init__(8, 2, qk_norm_type="RMSNorm")
            self.scale = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.scale * super().forward(x)

    model, plain = Scaled().double(), case.make()
    model.load_state_dict(plain.state_dict() | {"scale": torch.tensor(3.0)})
    near(case.run(model), 3 * case.run(plain), 1e-12)
    loss(case.run(model)).backward()
    assert model.scale.grad is not None and model.get_parameter("attn_op.qkv.weight").grad.any()


def test_repr_and_signature_of_inner_layers():
    text = repr(CASES["HealDA"].build())
    for part in ("in_features=16", "out_features=48", "bias=True", "Embedding(", "GELU(", "qkv", "cond_mlp"):
        assert part in text, part
