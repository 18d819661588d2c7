"""Plastic neural networks, whole episodes at a call, on any GPU and on the CPU.

Every connection has a fixed weight w and a plastic part alpha H. H is a decaying trace of the
activity that went through the connection. Gradients run through whole episodes, H included.

``hebbian_engine.torch`` has a layer for PyTorch, ``functional`` the bare operator on its tensors,
``numpy`` and ``jax`` the operator on their arrays. ``train`` and ``load`` do what the ``hebbian``
command does. A submodule is imported when it is first used, and so are torch and jax.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ._native import DeviceError, Diverged, Rule, __version__
from ._runs import Memory, Network, Run, Sweep, load, train

if TYPE_CHECKING:
    from . import convert, functional, jax, numpy, torch

#: Without the submodules: a star import asks for neither torch nor jax.
__all__ = [
    "DeviceError",
    "Diverged",
    "Memory",
    "Network",
    "Rule",
    "Run",
    "Sweep",
    "__version__",
    "load",
    "train",
]

_SUBMODULES = ("convert", "functional", "jax", "numpy", "torch")


def __getattr__(name: str):
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

