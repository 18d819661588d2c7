"""The operator on PyTorch's tensors, differentiable in every float argument.

Shapes are those of :mod:`hebbian_engine.numpy`. Gradients pass through y, h and the read-out; final
values of other states (e, v, a rule's own) are constants. A backward pass cannot be differentiated
again. A backward pass whose incoming gradients are not finite returns NaN. Contiguous tensors of the
CPU are read in place; others are copied to the CPU, once a call.
"""

from __future__ import annotations

from typing import Any, List

import numpy as np
import torch

from . import _case, _native
from .numpy import precision

__all__ = ["episodes", "plastic"]

#: Outputs that pass gradients on.
_DIFFERENTIABLE = {"y": "dy", "h": "dh", "out": "dout"}


def _arrays(names: List[str], tensors: List[torch.Tensor]) -> dict:
    return {
        name: tensor.detach().cpu().contiguous().numpy() for name, tensor in zip(names, tensors)
    }


@torch.compiler.assume_constant_result
def _order(names: str, settings: str) -> List[str]:
    """The names of what episodes give, in the order in which they come."""
    return [name for name, _ in _case.axes(names.split(","), _case.parted(settings))]


@torch.library.custom_op("hebbian_engine::episodes", mutates_args=())
def _episodes(
    tensors: List[torch.Tensor], names: str, settings: str, device: str
) -> List[torch.Tensor]:
    listed, metadata = names.split(","), _case.parted(settings)
    arrays = _arrays(listed, tensors)
    found = _native.run(arrays, metadata, device, precision(arrays["w"]), True, False)
    order = _order(names, settings)
    return [torch.from_numpy(found[name]).to(tensors[0].device) for name in order]


@_episodes.register_fake
def _(tensors, names, settings, device):
    order = _case.outputs(names.split(","), [t.shape for t in tensors], _case.parted(settings))
    return [tensors[0].new_empty(shape) for _, shape in order]


@torch.library.custom_op("hebbian_engine::episodes_backward", mutates_args=())
def _backward(
    tensors: List[torch.Tensor],
    cotangents: List[torch.Tensor],
    names: str,
    given: str,
    settings: str,
    device: str,
) -> List[torch.Tensor]:
    listed = names.split(",")
    arrays = _arrays(listed, tensors)
    # an output that nothing depends on comes with zeros, which are work for nothing
    lists = _arrays(given.split(","), cotangents)
    arrays.update({name: values for name, values in lists.items() if values.any()})
    wanted = [tensor for name, tensor in zip(listed, tensors) if name not in _case.FIXED]
    if not any(name in arrays for name in lists):
        return [torch.zeros_like(tensor) for tensor in wanted]
    # what scales losses looks for gradients that are not finite
    if not all(np.isfinite(values).all() for values in lists.values()):
        return [torch.full_like(tensor, torch.nan) for tensor in wanted]
    metadata = _case.parted(settings)
    found = _native.run(arrays, metadata, device, precision(arrays["w"]), False, True)
    # a gradient is of the type of its tensor, in which the work was done or not
    return [
        torch.from_numpy(found[f"grad.{name}"]).to(tensor)
        for name, tensor in zip(listed, tensors)
        if name not in _case.FIXED
    ]


@_backward.register_fake
def _(tensors, cotangents, names, given, settings, device):
    pairs = zip(names.split(","), tensors)
    return [torch.empty_like(t) for name, t in pairs if name not in _case.FIXED]


def _once(ctx, *grads):
    raise RuntimeError("the backward pass of plastic episodes cannot be differentiated again")


_backward.register_autograd(_once)


def _remember(ctx, inputs, output):
    tensors, ctx.names, ctx.settings, ctx.device = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grads):
    tensors = ctx.saved_tensors
    listed = ctx.names.split(",")
    given = {
        _DIFFERENTIABLE[name]: grad
        for name, grad in zip(_order(ctx.names, ctx.settings), grads)
        if name in _DIFFERENTIABLE and grad is not None
    }
    if not given:
        return [None] * len(tensors), None, None, None
    found = iter(
        _backward(
            list(tensors), list(given.values()), ctx.names, ",".join(given), ctx.settings, ctx.device
        )
    )
    back = [None if name in _case.FIXED else next(found) for name in listed]
    return back, None, None, None


_episodes.register_autograd(_differentiate, setup_context=_remember)


def _tensor(name: str, value: Any, like: torch.Tensor) -> torch.Tensor:
    """A value as a tensor beside w."""
    if not isinstance(value, torch.Tensor):
        if isinstance(value, (bool, int, float)):
            return torch.tensor(float(value), dtype=like.dtype, device=like.device)
        raise TypeError(f"{_case.keyword(name)}: found {type(value).__name__}, wanted a torch.Tensor")
    if name in _case.BITS and not value.is_floating_point():
        value = value.to(like.dtype)
    if value.dtype not in (torch.float32, torch.float64):
        wanted = "torch.float32 or torch.float64"
        raise ValueError(f"{_case.keyword(name)}: found {value.dtype}, wanted {wanted}")
    if value.device != like.device:
        found, wanted = value.device, f"{like.device}, where w is"
        raise ValueError(f"{_case.keyword(name)}: found on {found}, wanted on {wanted}")
    return value


def _call(tensors: dict, settings: str, device: str) -> dict[str, torch.Tensor]:
    """Episodes by the names of the case format."""
    w = tensors["w"]
    if not isinstance(w, torch.Tensor):
        raise TypeError(f"w: found {type(w).__name__}, wanted a torch.Tensor")
    tensors = {name: _tensor(name, value, w) for name, value in tensors.items()}
    tensors = dict(sorted(tensors.items(), key=lambda item: item[0] != "w"))
    for name in _case.FIXED:
        if name in tensors and tensors[name].requires_grad:
            raise ValueError(f"{_case.keyword(name)}: requires a gradient, and has none")
    if "input" not in tensors and "obs" not in tensors:
        raise ValueError("drive: not given, wanted (B, T, N), or obs (B, T, K) with in_w")
    names = ",".join(tensors)
    found = _episodes(list(tensors.values()), names, settings, device)
    return {
        name: value if name in _DIFFERENTIABLE else value.detach()
        for name, value in zip(_order(names, settings), found)
    }


def episodes(
    *,
    rule: str | _native.Rule = "decay",
    activation: str = "tanh",
    clip: float | None = None,
    leak_kind: str | None = None,
    truncate: int | None = None,
    device: str = "auto",
    **tensors: Any,
) -> dict[str, torch.Tensor]:
    """Runs episodes.

    Returns y (B, T, N) and h (B, M, N), and what else the network has: e, v, out, rule_NAME. A w of
    float64 runs in float64, on the CPU.
    """
    metadata = _case.metadata_of(
        rule, activation, clip, leak_kind, truncate, loss="cotangent"
    )
    found = _call(_case.tensors_of(tensors), _case.joined(metadata), device)
    return {_case.keyword(name): value for name, value in found.items()}


def plastic(
    w: torch.Tensor,
    alpha: Any,
    eta: Any = None,
    drive: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs episodes; returns y (B, T, N) and h (B, M, N) after the last step.

    Options are those of :func:`episodes`.
    """
    found = episodes(w=w, alpha=alpha, eta=eta, drive=drive, **options)
    return found["y"], found["h"]
