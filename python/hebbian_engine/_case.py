"""Keywords of a call as tensors and metadata of the case format, and the shapes of what it gives."""

from __future__ import annotations

import difflib
from typing import Any, Sequence

from ._native import Rule, states

#: Tensors of the case format by their keywords; those of a rule's text are ``rule_NAME``.
TENSORS = {
    "w": "w",
    "alpha": "alpha",
    "eta": "eta",
    "mod_w": "mod.w",
    "mod_b": "mod.b",
    "fanout_w": "fanout.w",
    "fanout_b": "fanout.b",
    "bias": "bias",
    "leak": "leak",
    "mask": "mask",
    "in_w": "in.w",
    "in_b": "in.b",
    "out_w": "out.w",
    "out_b": "out.b",
    "drive": "input",
    "clamp": "clamp",
    "pre": "pre",
    "y0": "y0",
    "v0": "v0",
    "h0": "h0",
    "e0": "e0",
    "obs": "obs",
    "m_input": "m.input",
    "gate_reset": "gate.reset",
    "target": "target",
    "loss_weight": "loss_weight",
    "out_target": "out.target",
    "out_loss_weight": "out.loss_weight",
    "dy": "dy",
    "dh": "dh",
    "dout": "dout",
}

#: Those that hold 0 and 1; arrays of booleans or whole numbers serve too.
BITS = ("clamp", "mask", "gate.reset")

#: Those that have no gradient.
FIXED = (*BITS, "target", "loss_weight", "out.target", "out.loss_weight", "dy", "dh", "dout")

#: What stays with the parameters when an episode is cut into steps.
PER_STEP = ("input", "clamp", "pre", "obs", "m.input", "gate.reset")


def tensors_of(keywords: dict[str, Any]) -> dict[str, Any]:
    """The tensors of a call by their names in the case format."""
    tensors = {}
    for keyword, value in keywords.items():
        if value is None:
            continue
        if keyword in TENSORS:
            tensors[TENSORS[keyword]] = value
        elif keyword.startswith("rule_"):
            tensors["rule." + keyword[len("rule_") :]] = value
        else:
            near = difflib.get_close_matches(keyword, TENSORS, n=1)
            hint = f" (nearest: {near[0]})" if near else ""
            raise TypeError(f"{keyword}: no such keyword, wanted one of {', '.join(TENSORS)}{hint}")
    if "w" not in tensors:
        raise TypeError("w: not given, wanted fixed weights (M, N) or (P, M, N)")
    return tensors


def keyword(name: str) -> str:
    """The keyword of a tensor, or of the gradient of one."""
    if name.startswith("grad."):
        return "grad_" + keyword(name[len("grad.") :])
    return "drive" if name == "input" else name.replace(".", "_")


def metadata_of(
    rule: str | Rule = "decay",
    activation: str = "tanh",
    clip: float | None = None,
    leak_kind: str | None = None,
    truncate: int | None = None,
    loss: str | None = None,
    out_loss: str | None = None,
) -> dict[str, str]:
    """Settings of a call as metadata of the case format."""
    metadata = dict(rule.metadata) if isinstance(rule, Rule) else {"rule": str(rule)}
    metadata["activation"] = activation
    optional = {
        "clip": None if clip is None else repr(float(clip)),
        "leak": leak_kind,
        "truncate": None if truncate is None else str(int(truncate)),
        "loss": loss,
        "out.loss": out_loss,
    }
    metadata.update({key: value for key, value in optional.items() if value is not None})
    return metadata


def joined(metadata: dict[str, str]) -> str:
    """Metadata as one text, for an operator that takes texts. Compilers of Python trace this."""
    return "\x1f".join([part for pair in metadata.items() for part in pair])


def parted(settings: str) -> dict[str, str]:
    """The metadata of such a text."""
    parts = settings.split("\x1f")
    return dict(zip(parts[::2], parts[1::2]))


def axes(names: Sequence[str], metadata: dict[str, str]) -> list[tuple[str, str]]:
    """What episodes give: names, and the axes of each after that of networks, in the order in which
    they come: B episodes, T steps, M pre- and N post-synaptic neurons, O outputs."""
    found = [("y", "BTN"), ("h", "BMN")]
    if metadata["rule"] == "retroactive":
        found.append(("e", "BMN"))
    if metadata.get("leak") == "membrane":
        found.append(("v", "BN"))
    if "out.w" in names:
        found.append(("out", "BTO"))
    kinds = {"trace": "BMN", "post": "BN", "pre": "BM"}
    return found + [(f"rule.{name}", kinds[kind]) for name, kind, _ in states(metadata)]


def starts(metadata: dict[str, str]) -> dict[str, float]:
    """States of a rule beside H, and what each is before the first step."""
    return {f"rule.{name}": start for name, _, start in states(metadata)}


def outputs(
    names: Sequence[str], shapes: Sequence[Sequence[Any]], metadata: dict[str, str]
) -> list[tuple[str, tuple]]:
    """What episodes give: names and shapes, in the order in which they come."""
    shape = dict(zip(names, shapes))
    lead = tuple(shape["w"][:-2])
    size = dict(zip("MN", shape["w"][-2:]))
    size.update(zip("BT", shape["input" if "input" in shape else "obs"][len(lead) :]))
    if "out.w" in shape:
        size["O"] = shape["out.w"][-1]
    return [(name, (*lead, *(size[k] for k in kept))) for name, kept in axes(names, metadata)]
