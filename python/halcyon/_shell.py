# SPDX-License-Identifier: Apache-2.0
"""A torch.nn.Module around a C++ module: the same tree, the same tensors, no copy.

The C++ parameters themselves are registered here, so optimizers, state dicts, hooks and autograd act on what
the C++ forward reads.
"""

import torch


class _Bound(torch.nn.Module):
    """Registers the tensors that one C++ module owns; assigning to one writes into it."""

    def _bind(self, handle):
        object.__setattr__(self, "_handle", handle)
        for name, parameter in handle.parameters():
            parameter._is_param = True  # what isinstance(x, torch.nn.Parameter) asks for
            self.register_parameter(name, parameter)
        self._bind_buffers()

    def _bind_buffers(self):
        for name, buffer, persistent in self._handle.buffers():
            self._buffers.pop(name, None)
            self.register_buffer(name, buffer, persistent=persistent)

    def __setattr__(self, name, value):
        bound = self.__dict__.get("_parameters", {}).get(name)
        if bound is None or not isinstance(value, torch.Tensor):
            super().__setattr__(name, value)
            return
        bound.data = value.detach()
        bound.requires_grad_(value.requires_grad)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        # torch replaces buffers; C++ keeps its own tensors and takes over what they became
        for name, _, _ in self._handle.buffers():
            self._handle.set_buffer(name, self._buffers[name])
        self._bind_buffers()
        return self

    def train(self, mode=True):
        self._handle.train(mode)
        return super().train(mode)

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        # saved buffers are computed tables, never learned: a checkpoint that lacks one is whole
        for name, buffer, persistent in self._handle.buffers():
            if persistent:
                state_dict.setdefault(prefix + name, buffer)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class Branch(_Bound):
    """An inner module of a C++ module: it has tensors and a name, but is called from C++ only."""

    def __init__(self, handle):
        super().__init__()
        self._bind(handle)

    def _get_name(self):
        return self._handle.name()


class Module(_Bound):
    """Base of Halcyon's modules; `children` are Python modules that stand for a C++ child of that name."""

    def __init__(self, cpp, arguments, children=None):
        super().__init__()
        object.__setattr__(self, "_cpp", cpp)
        object.__setattr__(self, "_arguments", {k: v for k, v in arguments.items() if k not in ("self", "__class__")})
        self._bind(cpp.handle())
        given = children or {}
        for name, child in given.items():
            self.add_module(name, child)
        self._mirror(self, cpp.handle(), given)
        self.training = cpp.handle().training()

    @staticmethod
    def _mirror(parent, handle, given):
        for name, child in handle.children():
            if name in given:
                continue
            branch = Branch(child)
            branch.training = child.training()
            parent.add_module(name, branch)
            Module._mirror(branch, child, {})

    def __reduce__(self):
        """Copies and pickles are second C++ modules with the same arguments, tensors and modes."""
        tensors = dict(self.named_parameters()) | dict(self.named_buffers())
        state = {name: (t.detach(), t.requires_grad) for name, t in tensors.items()}
        modes = {name: module.training for name, module in self.named_modules()}
        return _rebuild, (type(self), self._arguments, state, modes)


def _rebuild(cls, arguments, state, modes):
    module = cls(**arguments)
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    dtypes = {t.dtype for t, _ in state.values() if t.is_floating_point()}
    if len(dtypes) == 1:
        module.to(dtypes.pop())
        tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    for name, (value, requires_grad) in state.items():
        tensors[name].data = value.clone()
        tensors[name].requires_grad_(requires_grad)
    for name, child in module.named_modules():
        child._handle.train(modes[name]) if isinstance(child, _Bound) else None
        child.training = modes[name]
    return module
