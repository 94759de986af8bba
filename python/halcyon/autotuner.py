# SPDX-License-Identifier: Apache-2.0
"""The autotuner of fused neighborhood attention (halcyon/ops/tuning/autotuner.h): measures ways to cut a problem into
tiles once for each problem and keeps the fastest, with HALCYON_TUNING_CACHE=FILE beyond the process."""

from . import _C
from .neighborhood import _flag
from .neighborhood_modules import _whole

_tuner = _C.autotuner
disable_autotuner, is_autotuner_enabled = _tuner.disable_autotuner, _tuner.is_autotuner_enabled
is_autotuner_enabled_for_forward = _tuner.is_autotuner_enabled_for_forward
is_autotuner_enabled_for_backward = _tuner.is_autotuner_enabled_for_backward


def use_autotuner(forward_pass=True, backward_pass=True, thorough_mode_forward=False, thorough_mode_backward=False,
                  warmup_steps_forward=5, warmup_steps_backward=5, steps_forward=5, steps_backward=5):
    """Tunes the passes that are True, in thorough mode over more candidates; each runs warmup_steps + steps times.
    Off, with a warning, while torch's deterministic algorithms are on."""
    flags = dict(forward_pass=forward_pass, backward_pass=backward_pass, thorough_mode_forward=thorough_mode_forward,
                 thorough_mode_backward=thorough_mode_backward)
    steps = dict(warmup_steps_forward=warmup_steps_forward, warmup_steps_backward=warmup_steps_backward,
                 steps_forward=steps_forward, steps_backward=steps_backward)
    _tuner.use_autotuner(*(_flag("use_autotuner", name, value) for name, value in flags.items()),
                         *(_whole("use_autotuner", name, value, least=0 if name.startswith("warmup") else 1)
                           for name, value in steps.items()))
