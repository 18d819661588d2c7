"""The operator on NumPy's arrays.

Shapes of one network with M pre-synaptic and N post-synaptic neurons (M = N where it is recurrent),
B episodes of T steps: w (M, N), alpha (M, N), (N,) or a number, eta (N,) or a number, drive
(B, T, N). A population has a leading axis P on each of them. Every tensor of the case format is a
keyword, with underscores for dots: in_w, m_input, gate_reset, ... .
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _case, _native

__all__ = ["episodes", "gradients", "plastic"]


def array(name: str, value: Any) -> np.ndarray:
    """A value as an array of float32 or float64, contiguous."""
    found = np.asarray(value)
    whole = found.dtype.kind in "bui"
    if whole and (name in _case.BITS or isinstance(value, (int, float))):
        found = found.astype(np.float64)
    if found.dtype.newbyteorder("=") not in (np.float32, np.float64):
        wanted = "float32 or float64" + (" (or bool)" if name in _case.BITS else "")
        raise ValueError(f"{_case.keyword(name)}: found {found.dtype}, wanted {wanted}")
    if not found.flags.c_contiguous or not found.dtype.isnative or not found.flags.aligned:
        found = np.array(found, dtype=found.dtype.newbyteorder("="), order="C")
    return found


def precision(w: np.ndarray) -> str:
    """What a call computes in: what its w is of."""
    return "f64" if w.dtype == np.float64 else "f32"


def _run(settings: dict, keywords: dict, device: str, outputs: bool, gradients: bool) -> dict:
    tensors = _case.tensors_of(keywords)
    arrays = {name: array(name, value) for name, value in tensors.items()}
    metadata = _case.metadata_of(**settings)
    found = _native.run(arrays, metadata, device, precision(arrays["w"]), outputs, gradients)
    return {_case.keyword(name): value for name, value in found.items()}


def episodes(
    *,
    rule: str | _native.Rule = "decay",
    activation: str = "tanh",
    clip: float | None = None,
    leak_kind: str | None = None,
    truncate: int | None = None,
    device: str = "auto",
    **tensors: Any,
) -> dict[str, np.ndarray]:
    """Runs episodes forward.

    Returns y (B, T, N) and h (B, M, N), and what else the network has: e, v, out, rule_NAME. A w of
    float64 runs in float64, on the CPU. ``truncate`` means something to gradients alone.
    """
    settings = dict(rule=rule, activation=activation, clip=clip, leak_kind=leak_kind)
    return _run({**settings, "loss": "cotangent"}, tensors, device, True, False)


def plastic(
    w: Any,
    alpha: Any,
    eta: Any = None,
    drive: Any = None,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Runs episodes forward; returns y (B, T, N) and h (B, M, N) after the last step.

    Options are those of :func:`episodes`.
    """
    found = episodes(w=w, alpha=alpha, eta=eta, drive=drive, **options)
    return found["y"], found["h"]


def gradients(
    *,
    rule: str | _native.Rule = "decay",
    activation: str = "tanh",
    clip: float | None = None,
    leak_kind: str | None = None,
    truncate: int | None = None,
    loss: str | None = None,
    out_loss: str | None = None,
    device: str = "auto",
    outputs: bool = True,
    **tensors: Any,
) -> dict[str, np.ndarray]:
    """Runs episodes forward and backward.

    With ``target`` and ``loss_weight`` (or ``out_target`` and ``out_loss_weight``) the gradients are
    those of the loss: squared (default), bce or cross_entropy. With ``dy``, ``dh`` or ``dout``
    they are those of ``sum(dy y) + sum(dh h) + sum(dout out)``.

    Returns what :func:`episodes` does, ``loss`` where there is one, and ``grad_NAME`` of every float
    tensor given, in its shape. ``outputs=False`` leaves out what is no gradient.
    """
    cotangents = any(tensors.get(name) is not None for name in ("dy", "dh", "dout"))
    settings = dict(
        rule=rule,
        activation=activation,
        clip=clip,
        leak_kind=leak_kind,
        truncate=truncate,
        loss="cotangent" if cotangents else loss,
        out_loss=out_loss,
    )
    return _run(settings, tensors, device, outputs, True)
