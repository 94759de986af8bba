# SPDX-License-Identifier: Apache-2.0
"""Context parallelism: the frames of every sample on several ranks (halcyon/model/context.h)."""

from .. import _C
from .checks import describe, expect

_NAME = "VideoDiT"


class Deferred:
    """cross_attn_kwargs that inputs() makes, by an operation whose samples have so many frames on all ranks together."""

    def __init__(self, operation, frames, inputs):
        self.operation, self.frames, self.inputs = operation, frames, inputs


class ContextParallel:
    """The mode and the group of set_context_parallel. A copy or a pickle of the model has none."""

    def __init__(self, mode, target):
        self._cpp = _C.modules.ContextParallel(mode, target)

    def __deepcopy__(self, memo):
        return None

    def __reduce__(self):
        return type(None), ()

    def agree(self, model, x, t, condition, cross_attn_kwargs, temporal_attn_kwargs, tokenizer_kwargs):
        """How the frames lie, the tokens, the condition embedding and the cross_attn_kwargs. What one rank alone finds
        wrong is an error on every rank."""
        given = cross_attn_kwargs
        if not isinstance(given, Deferred):
            given = Deferred(_NAME, None, lambda: cross_attn_kwargs)
        made = []

        def inputs():
            cross = given.inputs()
            h, c = model._begin(x, t, condition, tokenizer_kwargs)
            tokens, offsets = (None, None) if cross is None else (cross.get("tokens"), cross.get("cu_seqlens_k"))
            pixels = h.shape[:3].numel()
            expect(cross is None or (offsets is not None and offsets.numel() == pixels + 1), _NAME, lambda: (
                f"cu_seqlens_k of B * t_local * X + 1 = {pixels + 1} elements, got {describe(offsets)}"))
            needs_gradient = h.requires_grad or c.requires_grad or (tokens is not None and tokens.requires_grad)
            facts = {"number of blocks": len(model.blocks),
                     "presence of temporal attention": int(any(b.temporal_attention is not None for b in model.blocks)),
                     "presence of cross_attn_kwargs": int(cross is not None),
                     "presence of rotary tables": int(bool(temporal_attn_kwargs)),
                     "training mode": int(model.training),
                     "number of parameters that need gradients": sum(p.requires_grad for p in model.parameters())}
            made.extend((h, c, cross))
            return x, h, needs_gradient, t, condition, facts

        layout = self._cpp.agree(given.operation, given.frames, inputs)
        return layout, *made
