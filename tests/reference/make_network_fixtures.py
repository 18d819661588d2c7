"""Makes the fixtures of what stands around the plastic core, and of rules as texts: case files
tests/fixtures/net_*.case.safetensors, and what float64 automatic differentiation says of them.

An independent statement of the equations: every step is written out with PyTorch operations, the whole
trace is kept, rules are functions written by hand, and autograd forms every gradient. Nothing in here is
shared with the engine.

    pip install torch numpy safetensors
    python tests/reference/make_network_fixtures.py
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

torch.set_default_dtype(torch.float64)

ACTIVATIONS = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "linear": lambda z: z,
    "softmax": lambda z: torch.softmax(z, dim=-1),
    "softplus": F.softplus,
    "gelu": F.gelu,
}

# Every rule maps what a step shows to the next traces and variables. x is [.., M, 1], y, z, r, m are
# [.., 1, N]; of a state s[name] likewise, traces [.., M, N]; p are parameters in a shape that spreads.


def decay(x, y, z, r, m, s, p):
    return {"H": (1 - p["eta"]) * s["H"] + p["eta"] * x * y}


def oja(x, y, z, r, m, s, p):
    return {"H": s["H"] + p["eta"] * y * (x - y * s["H"])}


def modulated(x, y, z, r, m, s, p):
    return {"H": s["H"] + m * x * y}


def retroactive(x, y, z, r, m, s, p):
    return {"H": s["H"] + m * s["E"], "E": (1 - p["eta"]) * s["E"] + p["eta"] * x * y}


def covariance(x, y, z, r, m, s, p):
    return {
        "H": (1 - p["eta"]) * s["H"] + p["eta"] * (x - s["xmean"]) * (y - s["ymean"]),
        "ymean": (1 - p["tau"]) * s["ymean"] + p["tau"] * y,
        "xmean": (1 - p["tau"]) * s["xmean"] + p["tau"] * x,
    }


def bcm(x, y, z, r, m, s, p):
    return {
        "H": s["H"] + p["eta"] * x * y * (y - s["theta"]),
        "theta": (1 - p["tau"]) * s["theta"] + p["tau"] * y * y,
    }


def pre_trace(x, y, z, r, m, s, p):
    return {
        "H": s["H"] + p["plus"] * s["xbar"] * y - p["minus"] * x * s["ybar"],
        "ybar": 0.9 * s["ybar"] + 0.1 * y,
        "xbar": 0.9 * s["xbar"] + 0.1 * x,
    }


def abcd(x, y, z, r, m, s, p):
    return {"H": s["H"] + p["eta"] * (p["A"] * x * y + p["B"] * x + p["C"] * y + p["D"])}


def delta(x, y, z, r, m, s, p):
    return {"H": s["H"] + p["eta"] * x * (y - r)}


def soft_clip(x, y, z, r, m, s, p):
    d = m * x * y
    return {"H": s["H"] + torch.relu(d) * (1 - s["H"]) - torch.relu(-d) * (1 + s["H"])}


def everything(x, y, z, r, m, s, p):
    gate = torch.sigmoid(p["slope"] * (z - s["level"]))
    return {
        "H": torch.clamp(0.98 * s["H"] + gate * s["F"] * p["gain"] - 0.02 * x * r, -0.8, 0.8),
        "F": p["keep"] * s["F"] + torch.tanh(s["past"] * y) + m * 0.1 * x.abs() + p["each"] * s["H"] ** 3,
        "level": s["level"] + p["rate"] * (y * y - s["level"]) + 0.01 * r - 0.005 * m,
        "past": s["past"] / (1 + p["decay"] ** 2) + 0.3 * torch.exp(-x * x),
    }


EVERYTHING = '''name = "everything"
[parameters]
slope = { per = "network", init = 1.5 }
gain = { per = "connection", init = 0.1 }
keep = { per = "neuron", init = 0.8 }
each = { per = ["connection", "network"], init = 0.1 }
rate = { per = "neuron" }
decay = { per = "neuron" }   # in a pre equation only: one a pre-synaptic neuron
[post]
level = { start = 0.2, next = "level + rate * (y^2 - level) + 0.01 * r - 0.005 * m" }
[pre]
past = { start = 0.1, next = "past / (1 + decay^2) + 0.3 * exp(-(x * x))" }
[trace]
H = "clip(0.98 * H + sigmoid(slope * (z - level)) * F * gain - 2e-2 * x * r, -0.8, 0.8)"
F = "keep * F + tanh(past * y) + m * 0.1 * abs(x) + each * H^3"
'''

# name: function, parameters {name: per}, states beyond H {name: (side, start)}, reads m
RULES = {
    "none": (lambda x, y, z, r, m, s, p: {"H": s["H"]}, {}, {}, False),
    "decay": (decay, {"eta": "neuron"}, {}, False),
    "oja": (oja, {"eta": "neuron"}, {}, False),
    "modulated": (modulated, {}, {}, True),
    "retroactive": (retroactive, {"eta": "neuron"}, {"E": ("trace", 0.0)}, True),
    "covariance": (covariance, {"eta": "neuron", "tau": "network"},
                   {"ymean": ("post", 0.0), "xmean": ("pre", 0.0)}, False),
    "bcm": (bcm, {"eta": "neuron", "tau": "network"}, {"theta": ("post", 0.0)}, False),
    "pre-trace": (pre_trace, {"plus": "neuron", "minus": "neuron"},
                  {"ybar": ("post", 0.0), "xbar": ("pre", 0.0)}, False),
    "abcd": (abcd, {"eta": "network", "A": "connection", "B": "connection", "C": "connection",
                    "D": "connection"}, {}, False),
    "delta": (delta, {"eta": "neuron"}, {}, False),
    "soft-clip": (soft_clip, {}, {}, True),
    "custom": (everything, {"slope": "network", "gain": "connection", "keep": "neuron",
                            "each": "connection", "rate": "neuron", "decay": "pre"},
               {"F": ("trace", 0.0), "level": ("post", 0.2), "past": ("pre", 0.1)}, True),
}
OLD = ["none", "decay", "oja", "modulated", "retroactive"]


def file_name(rule, name):
    return name if rule in OLD + ["delta"] else f"rule.{name}"


def start_name(rule, name):
    return "e0" if rule == "retroactive" else f"rule.{name}0"


def loss_terms(name, act, z, y, target, weight, clamp):
    """Sum over neurons; logarithms from z where y is a sigmoid or softmax of it."""
    if name == "squared":
        return (weight * (y - target) ** 2).sum(-1)
    if act == "sigmoid" and clamp is None:
        log_y, log_not = F.logsigmoid(z), F.logsigmoid(-z)
    else:
        log_y, log_not = torch.log(y), torch.log(1 - y)
    term = -target * log_y
    if name == "bce":
        term = term - (1 - target) * log_not
    return (weight * term).sum(-1)


def run(case, meta, P, B, T, M, N):
    rule, act = meta["rule"], meta["activation"]
    step, parameters, states, reads_m = RULES[rule]
    clip = float(meta["clip"]) if "clip" in meta else None
    cotangent = meta.get("loss") == "cotangent"
    cut = int(meta["truncate"]) if "truncate" in meta else None
    get = case.get
    zeros = torch.zeros
    spread = lambda v: v.expand(P, *v.shape[1:]) if v is not None and v.shape[0] == 1 and P > 1 else v
    at = lambda name, t: spread(case[name])[:, :, t] if name in case else None
    mask = spread(get("mask")) if "mask" in case else torch.ones(P, M, N)
    recurrent = "pre" not in case
    start = {"y": get("y0", zeros(P, B, N)), "v": get("v0", zeros(P, B, N)),
             "H": get("h0", zeros(P, B, M, N))}
    shape = {"trace": (P, B, M, N), "post": (P, B, N), "pre": (P, B, M)}
    for name, (side, value) in states.items():
        start[name] = get(start_name(rule, name), torch.full(shape[side], value))
    p = {}
    for name, per in parameters.items():
        v = case[file_name(rule, name)]
        if v.dim() == 3:                                    # connection
            p[name] = (v[:, None], None)
        elif v.shape[1] == 1:                               # network
            p[name] = (v[:, None, :, None], v[:, None, :])
        elif per == "pre":
            p[name] = (v[:, None, :, None], v[:, None, :])
        else:                                               # neuron
            p[name] = (v[:, None, None, :], v[:, None, :])
    wide = {k: v[0] for k, v in p.items()}
    now = dict(start)
    ys, outs, loss = [], [], zeros(P)
    for t in range(T):
        if cut and t and t % cut == 0:
            now = {k: v.detach() for k, v in now.items()}
        if "gate.reset" in case:
            on = spread(case["gate.reset"])[:, :, t] > 0
            pick = lambda a, b: torch.where(on.reshape(P, B, *[1] * (a.dim() - 2)), a, b)
            now = {k: pick(start[k], now[k]) for k in now}
        x = now["y"] if recurrent else at("pre", t)
        H = now["H"]
        z = torch.einsum("pbi,pbij->pbj", x, (mask * case["w"])[:, None] + (mask * case["alpha"])[:, None] * H)
        drive = at("input", t) if "input" in case else zeros(P, B, N)
        z = z + drive
        if "bias" in case:
            z = z + case["bias"][:, None]
        if "in.w" in case:
            z = z + torch.einsum("pbk,pkn->pbn", at("obs", t), case["in.w"])
            if "in.b" in case:
                z = z + case["in.b"][:, None]
        arg, v = z, now["v"]
        k = case["leak"][:, None] if "leak" in case else None
        if k is not None and meta.get("leak") == "membrane":
            arg = v = (1 - k) * now["v"] + k * z
        y = ACTIVATIONS[act](arg)
        rate = k is not None and meta.get("leak", "rate") == "rate"
        if rate:
            y = (1 - k) * now["y"] + k * y
        clamp = at("clamp", t)
        if clamp is not None:
            y = torch.where(clamp > 0, drive, y)
        r = torch.einsum("pbi,pbij->pbj", x, H)
        m = zeros(P, B, N)
        if reads_m:
            if "mod.w" in case:
                a = torch.einsum("pbk,pk->pb", y, case["mod.w"]) + case["mod.b"][:, None]
                m = m + case["fanout.w"][:, None] * torch.tanh(a)[..., None] + case["fanout.b"][:, None]
            if "m.input" in case:
                given = at("m.input", t)
                m = m + (given if given.dim() == 3 else given[..., None])
        over = lambda v: v[..., None, :]
        down = lambda v: v[..., :, None]
        side = {"H": "trace", **{name: s for name, (s, _) in states.items()}}
        view = {"trace": lambda v: v, "post": over, "pre": down}
        s = {name: view[side[name]](now[name]) for name in side}
        new = step(down(x), over(y), over(z), over(r), over(m), s, wide)
        flat = {"trace": lambda v: v.expand(P, B, M, N), "post": lambda v: v[..., 0, :],
                "pre": lambda v: v[..., :, 0]}
        new = {name: flat[side[name]](v) for name, v in new.items()}
        if clip is not None:
            new["H"] = torch.clamp(new["H"], -clip, clip)
        now = {"y": y, "v": v, **new}
        ys.append(y)
        if "out.w" in case:
            out = torch.einsum("pbn,pno->pbo", y, case["out.w"])
            if "out.b" in case:
                out = out + case["out.b"][:, None]
            outs.append(out)
            if "out.target" in case:
                target, weight = at("out.target", t), at("out.loss_weight", t)
                how = meta.get("out.loss", "squared")
                if how == "squared":
                    term = weight * (out - target) ** 2
                elif how == "bce_logits":
                    term = weight * F.binary_cross_entropy_with_logits(out, target, reduction="none")
                else:
                    term = -weight * target * torch.log_softmax(out, -1)
                loss = loss + term.sum((1, 2)) / B
        if "target" in case:
            target, weight = at("target", t), at("loss_weight", t)
            name = meta.get("loss", "squared")
            loss = loss + loss_terms(name, "none" if rate else act, arg, y, target, weight, clamp).sum(1) / B
    y = torch.stack(ys, 2)
    out = torch.stack(outs, 2) if outs else None
    total = loss.sum()
    if cotangent:
        total = sum((case[c] * v).sum() for c, v in (("dy", y), ("dh", now["H"]), ("dout", out)) if c in case)
    found = {"y": y, "h": now["H"]}
    if rule == "retroactive":
        found["e"] = now["E"]
    if not cotangent:
        found["loss"] = loss
    if meta.get("leak") == "membrane":
        found["v"] = now["v"]
    if out is not None:
        found["out"] = out
    if rule not in OLD:
        found |= {f"rule.{name}": now[name] for name in states}
    return found, total


FIXED = ["clamp", "mask", "gate.reset", "target", "loss_weight", "out.target", "out.loss_weight",
         "dy", "dh", "dout"]


def build(seed, P=1, B=2, T=7, M=None, N=5, rule="decay", activation="tanh", loss="squared", clip=None,
          alpha="full", per=None, feed=False, clamp=False, start=False, dtype=np.float32, bias=None,
          leak=None, leak_per="neuron", mask=None, m_input=None, modulator=True, obs=None, in_bias=True,
          drive=True, out=None, out_bias=True, out_loss="squared", target=True, cotangent=(), reset=False,
          truncate=None):
    g = np.random.default_rng(1000 + seed)
    M = (M or N + 2) if feed else N
    normal = lambda *s: g.standard_normal(s)
    uniform = lambda lo, hi, *s: g.uniform(lo, hi, s)
    step, parameters, states, reads_m = RULES[rule]
    meta = {"rule": rule, "activation": activation}
    scale = 0.5 / np.sqrt(M)
    case = {"w": scale * normal(P, M, N),
            "alpha": scale * normal(*{"full": (P, M, N), "neuron": (P, 1, N), "network": (P, 1, 1)}[alpha])}
    shapes = {"neuron": (P, N), "network": (P, 1), "pre": (P, M), "connection": (P, M, N)}
    for name, own in parameters.items():
        own = (per or {}).get(name, own)
        case[file_name(rule, name)] = uniform(0.05, 0.4, *shapes[own])
        if rule in ("abcd", "custom") and own == "connection":
            case[file_name(rule, name)] = 0.5 * normal(*shapes[own])
    if reads_m and modulator:
        case |= {"mod.w": normal(P, N) / np.sqrt(N), "mod.b": 0.3 * normal(P),
                 "fanout.w": 0.5 * normal(P, N), "fanout.b": 0.3 * normal(P, N)}
    if m_input:
        case["m.input"] = 0.5 * normal(*{"all": (P, B, T), "each": (P, B, T, N), "shared": (1, B, T)}[m_input])
    if bias:
        case["bias"] = 0.3 * normal(*shapes[bias])
    if leak:
        case["leak"] = uniform(0.1, 1.0, *shapes[leak_per])
        if leak != "default":
            meta["leak"] = leak
    if mask:
        case["mask"] = (uniform(0, 1, 1 if mask == "shared" else P, M, N) < 0.6).astype(float)
    if drive:
        case["input"] = normal(P, B, T, N)
    if obs:
        case |= {"obs": normal(P, B, T, obs), "in.w": normal(P, obs, N) / np.sqrt(obs)}
        if in_bias:
            case["in.b"] = 0.3 * normal(P, N)
    if feed:
        case["pre"] = normal(P, B, T, M)
    if clamp:
        case["clamp"] = (uniform(0, 1, P, B, T, N) < 0.4).astype(float)
    if start:
        case["y0"] = 0.5 * normal(P, B, N)
        case["h0"] = 0.4 * normal(P, B, M, N)
        if leak == "membrane":
            case["v0"] = 0.4 * normal(P, B, N)
        for name, (side, _) in states.items():
            own = {"trace": (P, B, M, N), "post": (P, B, N), "pre": (P, B, M)}[side]
            case[start_name(rule, name)] = 0.3 * normal(*own)
    if out:
        case["out.w"] = normal(P, N, out) / np.sqrt(N)
        if out_bias:
            case["out.b"] = 0.3 * normal(P, out)
    if cotangent:
        meta["loss"] = "cotangent"
        own = {"dy": (P, B, T, N), "dh": (P, B, M, N), "dout": (P, B, T, out)}
        case |= {name: normal(*own[name]) for name in cotangent}
    else:
        if out and out_loss:
            if out_loss != "squared":
                meta["out.loss"] = out_loss
            case["out.target"] = {"squared": normal, "bce_logits": lambda *s: uniform(0, 1, *s),
                                  "cross_entropy_logits": lambda *s: np.eye(s[-1])[g.integers(0, s[-1], s[:-1])]
                                  }[out_loss](P, B, T, out)
            case["out.loss_weight"] = uniform(0.2, 1.5, P, B, T, out) * (uniform(0, 1, P, B, T, 1) < 0.7)
        if target:
            if loss != "squared":
                meta["loss"] = loss
            probability = loss != "squared"
            case["target"] = uniform(0, 1, P, B, T, N) if probability else normal(P, B, T, N)
            case["loss_weight"] = uniform(0.2, 1.5, P, B, T, N) * (uniform(0, 1, P, B, T, N) < 0.7)
    if reset:
        case["gate.reset"] = (uniform(0, 1, P, B, T) < 0.3).astype(float)
    if truncate:
        meta["truncate"] = str(truncate)
    if clip is not None:
        meta["clip"] = repr(clip)
    if rule == "custom":
        meta["rule.text"] = EVERYTHING
    return {k: np.ascontiguousarray(v.astype(dtype)) for k, v in case.items()}, meta, (P, B, T, M, N)


CASES = {
    "bias": dict(bias="neuron", N=6),
    "bias_shared_clamp": dict(bias="network", clamp=True, P=2, rule="oja"),
    "bias_softmax_clamp": dict(bias="neuron", clamp=True, activation="softmax"),
    "leak_rate": dict(leak="default", start=True, T=9),
    "leak_rate_shared_clamp": dict(leak="rate", leak_per="network", clamp=True, rule="modulated", P=2),
    "leak_rate_feed": dict(leak="rate", feed=True, start=True, rule="oja"),
    "leak_rate_softmax": dict(leak="rate", activation="softmax", N=4),
    "leak_rate_bce": dict(leak="rate", activation="sigmoid", loss="bce", dtype=np.float64),
    "leak_membrane": dict(leak="membrane", start=True, T=9),
    "leak_membrane_clamp": dict(leak="membrane", clamp=True, rule="retroactive", start=True, clip=0.4),
    "leak_membrane_bce": dict(leak="membrane", activation="sigmoid", loss="bce", rule="oja"),
    "leak_membrane_shared": dict(leak="membrane", leak_per="network", feed=True, P=2, activation="softplus"),
    "mask": dict(mask="own", P=2, start=True),
    "mask_shared_alpha": dict(mask="shared", P=2, alpha="neuron", rule="retroactive", clip=0.5),
    "mask_one_alpha_feed": dict(mask="own", alpha="network", feed=True, rule="oja"),
    "m_given": dict(rule="modulated", m_input="all", modulator=False, clip=0.6),
    "m_given_each": dict(rule="retroactive", m_input="each", modulator=False, start=True),
    "m_added": dict(rule="modulated", m_input="each", P=2, B=3),
    "m_shared": dict(rule="retroactive", m_input="shared", P=3),
    "observed": dict(obs=3, P=2),
    "observed_alone_clamped_softmax": dict(obs=4, in_bias=False, drive=False, activation="softmax"),
    "observed_clamp": dict(obs=3, clamp=True, activation="tanh", bias="neuron"),
    "read_out": dict(out=3, target=False),
    "read_out_bce": dict(out=4, out_loss="bce_logits", out_bias=False, P=2),
    "read_out_cross_entropy": dict(out=5, out_loss="cross_entropy_logits", target=False, obs=3, leak="rate"),
    "dy": dict(cotangent=("dy",), B=3),
    "dh": dict(cotangent=("dh",), rule="oja", alpha="network", mask="own"),
    "dy_dh_dout": dict(cotangent=("dy", "dh", "dout"), out=2, rule="retroactive", clip=0.3, start=True),
    "reset": dict(reset=True, start=True, T=13, B=3),
    "reset_retroactive": dict(reset=True, start=True, T=11, rule="retroactive", leak="membrane", clip=0.5),
    "truncate": dict(truncate=3, T=11, start=True),
    "truncate_modulated": dict(truncate=4, T=10, rule="modulated", clip=0.5, leak="rate", out=2),
    "truncate_reset": dict(truncate=3, reset=True, T=14, start=True, rule="retroactive", dtype=np.float64),
    "softplus": dict(activation="softplus", rule="modulated", clip=1.0),
    "gelu": dict(activation="gelu", N=7, rule="oja"),
    "delta": dict(rule="delta", start=True),
    "delta_shared_feed": dict(rule="delta", feed=True, per={"eta": "network"}, P=2, cotangent=("dy", "dh")),
    "covariance": dict(rule="covariance", start=True, T=9),
    "bcm": dict(rule="bcm", P=2, T=9, activation="sigmoid"),
    "pre_trace": dict(rule="pre-trace", feed=True, start=True),
    "abcd": dict(rule="abcd"),
    "abcd_shared": dict(rule="abcd", per={k: "network" for k in "ABCD"}, mask="own", P=2),
    "soft_clip": dict(rule="soft-clip", start=True, P=2),
    "soft_clip_given_m": dict(rule="soft-clip", modulator=False, m_input="each"),
    "text": dict(rule="custom", T=8),
    "text_start_reset": dict(rule="custom", start=True, reset=True, T=10, P=2, per={"each": "network"}),
    "text_all": dict(rule="custom", feed=True, leak="membrane", bias="neuron", obs=3, out=2, mask="own",
                     m_input="each", clamp=True, start=True, truncate=4, reset=True, T=11, P=2,
                     dtype=np.float64),
}


def main():
    folder = Path(__file__).parent.parent / "fixtures"
    for seed, (name, options) in enumerate(CASES.items()):
        arrays, meta, sizes = build(seed, **options)
        case = {k: torch.tensor(v.astype(np.float64)) for k, v in arrays.items()}
        leaves = [k for k in case if k not in FIXED]
        for k in leaves:
            case[k].requires_grad_()
        found, total = run(case, meta, *sizes)
        grads = torch.autograd.grad(total, [case[k] for k in leaves], allow_unused=True)
        for k, grad in zip(leaves, grads):
            found[f"grad.{k}"] = torch.zeros_like(case[k]) if grad is None else grad
        found = {k: np.ascontiguousarray(v.detach().numpy()) for k, v in found.items()}
        if not all(np.isfinite(v).all() for v in found.values()):
            sys.exit(f"{name}: not finite")
        save_file(arrays, folder / f"net_{name}.case.safetensors", metadata=meta)
        save_file(found, folder / f"net_{name}.expected.safetensors")
    print(f"{len(CASES)} fixtures in {folder}")


if __name__ == "__main__":
    main()
