"""What the tests share: the fixtures of the engine, as calls."""

import pathlib

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import hebbian_engine as he
from hebbian_engine import _case

FIXTURES = pathlib.Path(__file__).parents[2] / "tests" / "fixtures"
KEYWORDS = {name: keyword for keyword, name in _case.TENSORS.items()}


def cases():
    found = sorted(FIXTURES.glob("*.case.safetensors"))
    assert len(found) >= 80, f"fixtures at {FIXTURES}"
    return found


def read_case(path):
    """Keywords of a call: tensors and settings."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    tensors = {
        KEYWORDS.get(name, name.replace(".", "_")): np.ascontiguousarray(value)
        for name, value in load_file(path).items()
    }
    settings = {
        "rule": he.Rule.from_text(metadata["rule.text"])
        if metadata["rule"] == "custom"
        else metadata["rule"],
        "activation": metadata["activation"],
        "clip": float(metadata["clip"]) if "clip" in metadata else None,
        "leak_kind": metadata.get("leak"),
        "truncate": int(metadata["truncate"]) if "truncate" in metadata else None,
        "loss": None if metadata.get("loss") == "cotangent" else metadata.get("loss"),
        "out_loss": metadata.get("out.loss"),
    }
    return tensors, settings


def read_expected(path):
    expected = path.with_name(path.name.replace(".case.", ".expected."))
    return {_case.keyword(name): value for name, value in load_file(expected).items()}


def error(found, exact):
    """The largest difference, relative to the largest number or 1."""
    exact = np.asarray(exact, dtype=np.float64)
    scale = max(1.0, float(np.abs(exact).max(initial=0.0)))
    return float(np.abs(np.asarray(found, dtype=np.float64) - exact).max(initial=0.0)) / scale


@pytest.fixture(params=cases(), ids=lambda path: path.name.split(".")[0])
def case(request):
    return request.param
