"""The operator on JAX's arrays: works under jit, grad and vmap.

Shapes are those of :mod:`hebbian_engine.numpy`. The work is done by a callback on the host. Under
``vmap`` all episodes of a call run side by side: as more episodes where the networks are the ones
of every call, else as a population.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _case, _native
from .numpy import array, precision

__all__ = ["plastic"]

#: Those with an axis of episodes, beside the start values of a rule's states.
_OF_EPISODES = (*_case.PER_STEP, "y0", "v0", "h0", "e0", "dy", "dh", "dout")


def _folded(
    arrays: dict, metadata: dict, extra: int, axes: int, forward: bool
) -> tuple[dict, tuple]:
    """Arrays without the `extra` leading axes that vmap put there, and those axes.

    `axes` are those of w before. One network's episodes become more episodes of it; else each call
    becomes a network, or several, of a population.
    """
    lead = np.broadcast_shapes(*(value.shape[:extra] for value in arrays.values()))
    of_episodes = {*_OF_EPISODES, *(f"{name}0" for name in _case.starts(metadata))}
    alike = axes == 2 and all(
        value.shape[:extra] == (1,) * extra
        for name, value in arrays.items()
        if name not in of_episodes
    )
    folded = {}
    for name, value in arrays.items():
        if forward and alike and name not in of_episodes:
            folded[name] = value.reshape(value.shape[extra:])
            continue
        own = value.shape[extra:]
        if axes == 3:
            # data that the networks of a population share
            own = (arrays["w"].shape[extra], *own[1:])
        value = np.broadcast_to(value, (*lead, *own))
        joined = extra + (axes == 3 or (forward and alike))
        folded[name] = np.ascontiguousarray(value.reshape(-1, *value.shape[joined:]))
    return folded, lead


def _host(names: tuple, metadata: tuple, device: str, gradients: bool, axes: int, *values: Any):
    arrays = {name: array(name, np.asarray(value)) for name, value in zip(names, values)}
    extra = arrays["w"].ndim - axes
    shapes = {name: value.shape[extra:] for name, value in arrays.items()}
    settings = dict(metadata)
    folded, lead = arrays, ()
    if extra:
        folded, lead = _folded(arrays, settings, extra, axes, not gradients)
    number = precision(arrays["w"])
    found = _native.run(folded, settings, device, number, not gradients, gradients)
    if gradients:

        def slope(name: str) -> np.ndarray:
            grad = found[f"grad.{name}"]
            if axes == 3 and lead and shapes[name][:1] == (1,):
                # the sum over the networks that share it
                grad = grad.reshape((*lead, -1, *shapes[name][1:])).sum(len(lead))
            return grad.reshape((*lead, *shapes[name])).astype(arrays[name].dtype)

        return tuple(slope(name) for name in names if name not in _case.FIXED)
    order = dict(_case.outputs(names, [shapes[name] for name in names], settings))
    return tuple(found[name].reshape((*lead, *order[name])) for name in "yh")


def _call(names: tuple, metadata: tuple, device: str, gradients: bool, values: tuple):
    shape = {name: jnp.shape(value) for name, value in zip(names, values)}
    dtype = jnp.result_type(values[names.index("w")])
    if gradients:
        pairs = zip(names, values)
        of = [(name, value) for name, value in pairs if name not in _case.FIXED]
        result = tuple(jax.ShapeDtypeStruct(jnp.shape(v), jnp.result_type(v)) for _, v in of)
    else:
        order = dict(_case.outputs(names, [shape[name] for name in names], dict(metadata)))
        result = tuple(jax.ShapeDtypeStruct(order[name], dtype) for name in "yh")
    axes = len(shape["w"])
    host = functools.partial(_host, names, metadata, device, gradients, axes)
    return jax.pure_callback(host, result, *values, vmap_method="expand_dims")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _plastic(names: tuple, metadata: tuple, device: str, *values: Any):
    return _call(names, metadata, device, False, values)


def _forward(names, metadata, device, *values):
    return _plastic(names, metadata, device, *values), values


def _backward(names, metadata, device, values, cotangents):
    with_cotangents = (*names, "dy", "dh")
    # rounding to the type of the result is what a cotangent of JAX has had
    found = iter(_call(with_cotangents, metadata, device, True, (*values, *cotangents)))
    return tuple(
        jnp.zeros_like(value) if name in _case.FIXED else next(found)
        for name, value in zip(names, values)
    )


_plastic.defvjp(_forward, _backward)


def plastic(
    w: Any,
    alpha: Any,
    eta: Any = None,
    drive: Any = None,
    *,
    rule: str | _native.Rule = "decay",
    activation: str = "tanh",
    clip: float | None = None,
    leak_kind: str | None = None,
    truncate: int | None = None,
    device: str = "auto",
    **tensors: Any,
) -> tuple[jax.Array, jax.Array]:
    """Runs episodes; returns y (B, T, N) and h (B, M, N) after the last step, both differentiable."""
    metadata = _case.metadata_of(rule, activation, clip, leak_kind, truncate, loss="cotangent")
    given = _case.tensors_of(dict(w=w, alpha=alpha, eta=eta, drive=drive, **tensors))
    values = {name: jnp.asarray(value) for name, value in given.items()}
    like = jnp.result_type(values["w"])
    for name, value in values.items():
        if not jnp.issubdtype(value.dtype, jnp.floating):
            values[name] = value.astype(like)
    names = tuple(values)
    return _plastic(names, tuple(metadata.items()), device, *values.values())
