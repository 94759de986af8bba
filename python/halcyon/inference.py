# SPDX-License-Identifier: Apache-2.0
"""A trained model for analyses, run by C++."""

import torch

from .checkpoints import cpp_model
from .modules import HealDA
from .modules.layers import is_plain


class Inference:
    """What inference() returns: the model's forward, by C++ and without gradients.

    The blocks work in place, piece by piece: beside weights and inputs there is one activation. The weights are the
    model's own memory, so what changes them in place changes this; a model that is converted or gets other tensors needs
    a new one. Results differ from the model's by rounding."""

    def __init__(self, model, fixed_noise):
        _refuse_additions(model)
        self._model, self._fixed_noise = model, fixed_noise
        self._cpp = cpp_model(model)
        if fixed_noise:
            self._cpp.prepare_inference()

    def __call__(self, x, t, second_of_day, day_of_year, obs_ctx, class_labels=None):
        map_ = obs_ctx.group_map
        context = (obs_ctx.obs, obs_ctx.float_metadata, obs_ctx.obs_type, obs_ctx.channel, obs_ctx.platform,
                   obs_ctx.cu_seqlens_k, obs_ctx.max_seqlen_k,
                   None if map_ is None else (map_.program_ptr, map_.program_pixels))
        with torch.no_grad():
            return self._cpp.forward(x, t, second_of_day, day_of_year, *context, class_labels)

    def set_context_parallel(self, mode=None, target=None):
        """As HealDA.set_context_parallel."""
        self._cpp.set_context_parallel(mode, target)

    def __repr__(self):
        fixed = ", t = 0 embedded once" if self._fixed_noise else ""
        return f"halcyon.inference(HealDA): C++ forward in place, no gradients, on the model's own weights{fixed}"


def inference(model, *, fixed_noise=False):
    """A callable with HealDA's forward arguments that computes by C++, in place and without gradients (Inference).

    fixed_noise: every t will be 0 and there are no labels, so what depends on them alone is computed now, once.
    A model with hooks, parametrizations or other layers than its own is refused: C++ would not run them."""
    if not isinstance(model, HealDA):
        raise TypeError(f"[inference] expected a halcyon.HealDA, got {type(model).__name__}")
    return Inference(model, fixed_noise)


def _refuse_additions(model):
    with torch.device("meta"):
        own = dict(type(model)(**model.config).named_modules())
    for name, module in model.named_modules():
        as_built = name in own and is_plain(module, type(own[name]))
        if not as_built:
            raise ValueError(f"[inference] expected the modules of HealDA as they are built, got {name or 'the model'} "
                             f"({type(module).__name__}) with hooks, another class or another forward")
