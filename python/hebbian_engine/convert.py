"""Weights of other libraries as tensors of the case format, and back.

Here w[i, j] runs from pre-synaptic neuron i to post-synaptic neuron j: rows are senders.
``torch.nn.RNN`` keeps weight_hh[j, i], with receivers as rows, so it is transposed. The published
scripts of differentiable plasticity keep w, alpha and the trace with senders as rows, as here.
"""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np

__all__ = ["from_plastic_scripts", "from_torch_rnn", "to_torch_rnn"]


def _array(name: str, value: Any, axes: int) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    array = np.ascontiguousarray(value)
    if array.ndim != axes:
        raise ValueError(f"{name}: found shape {array.shape}, wanted {axes} axes")
    return array


def from_torch_rnn(state: Mapping[str, Any], layer: int = 0) -> dict[str, np.ndarray]:
    """The parameters of a layer of ``torch.nn.RNN``, from its state_dict.

    Returns w (N, N), in_w (K, N), and in_b (N,), which is the sum of the layer's two biases.
    """
    known = [name for name in state if name.endswith(f"_l{layer}")]
    for name in (f"weight_ih_l{layer}", f"weight_hh_l{layer}"):
        if name not in state:
            raise KeyError(f"{name}: not in the state, which has {', '.join(known) or 'none'}")
    found = {
        "w": np.ascontiguousarray(_array("weight_hh", state[f"weight_hh_l{layer}"], 2).T),
        "in_w": np.ascontiguousarray(_array("weight_ih", state[f"weight_ih_l{layer}"], 2).T),
    }
    biases = [f"bias_{side}_l{layer}" for side in ("ih", "hh") if f"bias_{side}_l{layer}" in state]
    if biases:
        found["in_b"] = sum(_array(name, state[name], 1) for name in biases)
    return found


def to_torch_rnn(tensors: Mapping[str, Any], layer: int = 0) -> dict[str, np.ndarray]:
    """The state_dict of a layer of ``torch.nn.RNN`` with w, in_w and in_b; alpha is left behind."""
    w, in_w = _array("w", tensors["w"], 2), _array("in_w", tensors["in_w"], 2)
    bias = _array("in_b", tensors.get("in_b", np.zeros(w.shape[1], w.dtype)), 1)
    return {
        f"weight_ih_l{layer}": np.ascontiguousarray(in_w.T),
        f"weight_hh_l{layer}": np.ascontiguousarray(w.T),
        f"bias_ih_l{layer}": bias,
        f"bias_hh_l{layer}": np.zeros_like(bias),
    }


def from_plastic_scripts(w: Any, alpha: Any, eta: Any) -> dict[str, np.ndarray]:
    """w, alpha (N, N) or one number, and eta of the published plastic scripts.

    Their yoked alpha and their eta are arrays of one number.
    """
    w = _array("w", w, 2)
    alpha = np.asarray(alpha.detach().cpu() if hasattr(alpha, "detach") else alpha)
    eta = np.asarray(eta.detach().cpu() if hasattr(eta, "detach") else eta)
    if alpha.size == 1:
        alpha = alpha.reshape(1)
    elif alpha.shape != w.shape:
        raise ValueError(f"alpha: found shape {alpha.shape}, wanted {w.shape} or one number")
    return {"w": w, "alpha": np.ascontiguousarray(alpha), "eta": eta.reshape(-1)}
