# SPDX-License-Identifier: Apache-2.0
"""A trained model for analyses, run by C++."""

import torch

from .checkpoints import cpp_model
from .modules import HealDA
from .modules.layers import is_plain, state_of


class Inference:
    """What inference() returns: the model's forward, by C++ and without gradients.

    The blocks work in place, piece by piece: beside weights and inputs there is one activation. The weights are the
    model's own memory, as it is at each call. Results differ from the model's by rounding."""

    def __init__(self, model, fixed_noise):
        self._model, self._fixed_noise, self._context = model, fixed_noise, None
        with torch.device("meta"):  # as it is built: kinds and settings of its modules
            self._built = {name: (type(module), module.extra_repr())
                           for name, module in HealDA(**model.config).named_modules()}
        self._refuse_additions()
        self._take_weights()

    def _take_weights(self):
        self._cpp = cpp_model(self._model)
        if self._context is not None:
            self._cpp.set_context_parallel(*self._context)
        if self._fixed_noise:
            self._cpp.prepare_inference()
        self._state = state_of(self._model)

    def _refuse_additions(self):
        modules = dict(self._model.named_modules())
        for name in (*modules, *self._built):
            module, built = modules.get(name), self._built.get(name)
            if module is None or built is None or not is_plain(module, built[0]) or module.extra_repr() != built[1]:
                raise ValueError(f"[inference] expected the modules of HealDA as they are built, got "
                                 f"{name or 'the model'} ({type(module).__name__}) with hooks, another class, forward or "
                                 "setting")

    def __call__(self, x, t, second_of_day, day_of_year, obs_ctx, class_labels=None):
        self._refuse_additions()
        if self._state != state_of(self._model):
            self._take_weights()
        map_ = obs_ctx.group_map
        context = (obs_ctx.obs, obs_ctx.float_metadata, obs_ctx.obs_type, obs_ctx.channel, obs_ctx.platform,
                   obs_ctx.cu_seqlens_k, obs_ctx.max_seqlen_k,
                   None if map_ is None else (map_.program_ptr, map_.program_pixels))
        with torch.no_grad():
            return self._cpp.forward(x, t, second_of_day, day_of_year, *context, class_labels)

    def set_context_parallel(self, mode=None, target=None):
        """As HealDA.set_context_parallel."""
        self._cpp.set_context_parallel(mode, target)
        self._context = mode, target

    def __repr__(self):
        fixed = ", t = 0 embedded once" if self._fixed_noise else ""
        return f"halcyon.inference(HealDA): C++ forward in place, no gradients, on the model's own weights{fixed}"


def inference(model, *, fixed_noise=False):
    """A callable with HealDA's forward arguments that computes by C++, in place and without gradients (Inference).

    fixed_noise: every t will be 0 and there are no labels, so what depends on them alone is computed once.
    A model with hooks, parametrizations or other layers or settings than its own is refused: C++ would not run them."""
    if not isinstance(model, HealDA):
        raise TypeError(f"[inference] expected a halcyon.HealDA, got {type(model).__name__}")
    return Inference(model, fixed_noise)
