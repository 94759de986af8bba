# SPDX-License-Identifier: Apache-2.0
"""share_memory(): forked and spawned processes work on the same weights; a pickle loads in a process of its own."""

import subprocess
import sys

import pytest
import torch
import torch.multiprocessing as mp
from conftest import BUILD, SOURCE
from habits import CASES, loss, one_thread  # noqa: F401


def grow(model, factor):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(factor)


def train(model, answers):
    """A step of SGD, as each process of Hogwild takes it."""
    torch.set_num_threads(1)
    case = CASES["HealDA"]
    loss(case.run(model)).backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    answers.put(case.run(model).detach().numpy())


def stepped(*models):
    case = CASES["HealDA"]
    for model in models:
        loss(case.run(model)).backward()
        torch.optim.SGD(model.parameters(), lr=1e-3).step()
        model.zero_grad()


def end(process):
    process.start()
    process.join(100)
    assert process.exitcode == 0


def test_children_and_parent_see_one_model():
    case = CASES["HealDA"]
    model, plain = case.make(), case.make()
    before = case.run(model)
    assert model.share_memory() is model and all(p.is_shared() for p in model.parameters())
    assert all(b.is_shared() for b in model.buffers())
    assert torch.equal(case.run(model), before)
    end(mp.get_context("fork").Process(target=grow, args=(model, 1.5)))
    grow(plain, 1.5)
    assert torch.equal(case.run(model), case.run(plain)) and not torch.allclose(case.run(model), before)

    context = mp.get_context("spawn")
    answers = context.SimpleQueue()
    end(context.Process(target=train, args=(model, answers)))
    stepped(plain)
    found = torch.from_numpy(answers.get())
    torch.testing.assert_close(found, case.run(plain).detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(case.run(model), case.run(plain), rtol=1e-9, atol=1e-9)
    assert all(p.grad is None for p in model.parameters())


def test_a_share_of_an_inner_part_only():
    model = CASES["VideoDiT"].make()
    model.blocks.share_memory()
    shared = {key for key, p in model.named_parameters() if p.is_shared()}
    assert shared == {key for key, _ in model.named_parameters() if key.startswith("blocks.")}
    end(mp.get_context("fork").Process(target=grow, args=(model, 2.0)))
    plain = CASES["VideoDiT"].make()
    for key, p in model.named_parameters():
        assert torch.equal(p, plain.get_parameter(key) * (2 if key in shared else 1)), key


@pytest.mark.parametrize("name", ["HealDA"])
def test_a_whole_module_loads_in_another_process(name, tmp_path):
    """torch.save of the module itself; the other process says what it computes."""
    case = CASES[name]
    model = case.make()
    torch.save(model, tmp_path / "model.pt")
    code = ("import torch\nfrom habits import CASES\n"
            f"model = torch.load({str(tmp_path / 'model.pt')!r}, weights_only=False)\n"
            f"torch.save(CASES[{name!r}].run(model).detach(), {str(tmp_path / 'y.pt')!r})\n")
    path = f"{BUILD / 'python'}:{SOURCE / 'tests' / 'python'}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100, env={"PYTHONPATH": path})
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), case.run(model).detach(), rtol=1e-10, atol=1e-10)
