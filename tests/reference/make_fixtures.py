"""Makes the fixtures under tests/fixtures: case files and what float64 automatic
differentiation says of them.

An independent statement of the equations: every step is written out with PyTorch
operations, the whole trace is kept, and autograd forms every gradient. Nothing here is
shared with the engine.

    pip install torch numpy safetensors
    python tests/reference/make_fixtures.py            # writes tests/fixtures/*.safetensors
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

torch.set_default_dtype(torch.float64)


def activate(name, z):
    if name == "tanh":
        return torch.tanh(z)
    if name == "sigmoid":
        return torch.sigmoid(z)
    if name == "relu":
        return torch.relu(z)
    if name == "linear":
        return z
    return torch.softmax(z, dim=-1)


def log_terms(name, z, y, clamp):
    """ln y and ln(1 - y), from z where that keeps digits; from y where clamped."""
    if name == "sigmoid":
        log_y, log_not = torch.nn.functional.logsigmoid(z), torch.nn.functional.logsigmoid(-z)
    elif name == "softmax":
        log_y = torch.log_softmax(z, dim=-1)
        n = z.shape[-1]
        others = z[..., None, :].expand(*z.shape, n).masked_fill(torch.eye(n, dtype=bool), -np.inf)
        log_not = torch.logsumexp(others, -1) - torch.logsumexp(z, -1, keepdim=True)
    else:
        return torch.log(y), torch.log(1 - y)
    if clamp is not None:
        on = clamp > 0
        safe = torch.where(on, y, torch.full_like(y, 0.5))
        log_y = torch.where(on, torch.log(safe), log_y)
        log_not = torch.where(on, torch.log(1 - safe), log_not)
    return log_y, log_not


def run(case, meta):
    """Outputs of a case, with leaves in `case` that require gradients."""
    rule, act = meta["rule"], meta["activation"]
    loss_name = meta.get("loss", "squared")
    clip = float(meta["clip"]) if "clip" in meta else None
    w, alpha, u = case["w"], case["alpha"], case["input"]
    P, M, N = w.shape
    B, T = u.shape[1:3]
    clamp, pre = case.get("clamp"), case.get("pre")
    y = case.get("y0", torch.zeros(P, B, N))
    H = case.get("h0", torch.zeros(P, B, M, N))
    E = case.get("e0", torch.zeros(P, B, M, N))
    eta = case["eta"][:, None, None, :] if "eta" in case else None
    bound = (lambda h: torch.clamp(h, -clip, clip)) if clip is not None else (lambda h: h)
    ys, loss = [], torch.zeros(P)
    for t in range(T):
        x = pre[:, :, t] if pre is not None else y
        z = torch.einsum("pbi,pbij->pbj", x, w[:, None] + alpha[:, None] * H) + u[:, :, t]
        y = activate(act, z)
        c = clamp[:, :, t] if clamp is not None else None
        if c is not None:
            y = torch.where(c > 0, u[:, :, t], y)
        xy = x[..., :, None] * y[..., None, :]
        if rule in ("modulated", "retroactive"):
            a = torch.einsum("pbk,pk->pb", y, case["mod.w"]) + case["mod.b"][:, None]
            m = case["fanout.w"][:, None] * torch.tanh(a)[..., None] + case["fanout.b"][:, None]
            m = m[..., None, :]
        if rule == "decay":
            H = bound((1 - eta) * H + eta * xy)
        elif rule == "oja":
            yj = y[..., None, :]
            H = bound(H + eta * yj * (x[..., :, None] - yj * H))
        elif rule == "modulated":
            H = bound(H + m * xy)
        elif rule == "retroactive":
            H, E = bound(H + m * E), (1 - eta) * E + eta * xy
        ys.append(y)

        target, weight = case["target"][:, :, t], case["loss_weight"][:, :, t]
        counts = weight != 0
        if loss_name == "squared":
            term = (y - target) ** 2
        else:
            log_y, log_not = log_terms(act, z, y, c)
            pick = lambda k, v: torch.where(counts & (k != 0), k * v, torch.zeros_like(v))
            term = -pick(target, log_y)
            if loss_name == "bce":
                term = term - pick(1 - target, log_not)
        loss = loss + torch.where(counts, weight * term, torch.zeros_like(term)).sum((1, 2)) / B
    return torch.stack(ys, 2), H, E, loss


TRAINED = ["w", "alpha", "eta", "mod.w", "mod.b", "fanout.w", "fanout.b",
           "input", "pre", "y0", "h0", "e0"]


def build(seed, P=1, B=1, T=5, M=None, N=5, rule="decay", activation="tanh", loss="squared",
          clip=None, alpha="full", eta="neuron", eta_value=None, feed=False, clamp=False,
          start=False, gain=1.0, w_scale=0.4, dtype=np.float32, score="some"):
    g = np.random.default_rng(seed)
    M = (M or N) if feed else N
    normal = lambda *s: g.standard_normal(s)
    meta = {"rule": rule, "activation": activation}
    if loss != "squared":
        meta["loss"] = loss
    if clip is not None:
        meta["clip"] = repr(clip)
    scale = w_scale / np.sqrt(M)
    case = {
        "w": scale * normal(P, M, N),
        "alpha": scale * normal(*{"full": (P, M, N), "neuron": (P, 1, N), "network": (P, 1, 1)}[alpha]),
        "input": gain * normal(P, B, T, N),
    }
    shape = (P, N) if eta == "neuron" else (P, 1)
    if rule not in ("none", "modulated"):
        case["eta"] = np.full(shape, eta_value) if eta_value is not None else g.uniform(0.02, 0.4, shape)
    if rule in ("modulated", "retroactive"):
        case |= {"mod.w": normal(P, N) / np.sqrt(N), "mod.b": 0.3 * normal(P),
                 "fanout.w": 0.5 * normal(P, N), "fanout.b": 0.3 * normal(P, N)}
    if feed:
        case["pre"] = normal(P, B, T, M)
    if clamp:
        case["clamp"] = (g.uniform(size=(P, B, T, N)) < 0.4).astype(float)
        if loss != "squared":
            inside = g.uniform(0.1, 0.9, (P, B, T, N))
            case["input"] = np.where(case["clamp"] > 0, inside, case["input"])
    if start:
        case["y0"] = 0.5 * normal(P, B, N)
        case["h0"] = 0.4 * normal(P, B, M, N)
        if rule == "retroactive":
            case["e0"] = 0.4 * normal(P, B, M, N)
    probability = loss != "squared"
    case["target"] = g.uniform(0, 1, (P, B, T, N)) if probability else normal(P, B, T, N)
    if probability and activation == "softmax":
        case["target"] = np.eye(N)[g.integers(0, N, (P, B, T))]
    weight = g.uniform(0.2, 1.5, (P, B, T, N)) * (g.uniform(size=(P, B, T, N)) < 0.7)
    if score == "last":
        weight[:, :, :-1] = 0
        weight[:, :, -1] = 1
    case["loss_weight"] = weight
    return {k: v.astype(dtype) for k, v in case.items()}, meta


# Every rule with and without clip, every sharing, activation and loss, clamps, start
# states, recurrent and feed-forward, odd sizes, long episodes, eta 0, 0.95 and 1,
# saturation. f64 cases hold numbers that f32 cannot.
CASES = {
    "none": dict(rule="none", N=6, B=2, start=True),
    "decay": dict(N=7, B=3, T=9),
    "decay_clip": dict(N=5, B=2, T=12, clip=0.15, start=True, gain=2.0),
    "decay_shared_eta": dict(N=9, B=2, T=11, eta="network", alpha="neuron", P=2),
    "decay_eta_0": dict(N=6, T=8, eta_value=0.0, start=True),
    "decay_eta_095": dict(N=6, T=10, B=2, eta_value=0.95),
    "decay_eta_1": dict(N=6, T=9, B=2, eta_value=1.0, start=True),
    "oja": dict(rule="oja", N=8, T=10, B=2),
    "oja_clip": dict(rule="oja", N=5, T=13, clip=0.2, B=2, gain=2.0, alpha="network"),
    "oja_eta_1": dict(rule="oja", N=5, T=7, eta_value=1.0, start=True, dtype=np.float64),
    "modulated": dict(rule="modulated", N=7, T=9, B=2, P=2),
    "modulated_clip": dict(rule="modulated", N=6, T=14, B=2, clip=0.25, gain=1.5, alpha="neuron"),
    "retroactive": dict(rule="retroactive", N=6, T=9, B=2, eta="network"),
    "retroactive_clip": dict(rule="retroactive", N=7, T=15, B=2, clip=0.1, start=True, gain=1.5),
    "retroactive_feed": dict(rule="retroactive", M=5, N=8, T=12, B=2, feed=True, start=True, dtype=np.float64),
    "feed": dict(M=9, N=4, T=10, B=3, feed=True),
    "feed_oja_softmax": dict(rule="oja", M=11, N=5, T=6, B=3, feed=True, activation="softmax", loss="bce"),
    "feed_modulated_clip": dict(rule="modulated", M=4, N=9, T=11, feed=True, clip=0.3, start=True),
    "softmax_cross_entropy": dict(N=6, T=8, B=2, activation="softmax", loss="cross_entropy"),
    "softmax_clamp": dict(N=6, T=8, B=2, activation="softmax", clamp=True, loss="cross_entropy"),
    "softmax_squared": dict(rule="modulated", N=5, T=7, activation="softmax", clamp=True),
    "sigmoid_bce": dict(N=7, T=9, B=2, activation="sigmoid", loss="bce", gain=3.0),
    "sigmoid_bce_clamp": dict(rule="oja", N=6, T=9, B=2, activation="sigmoid", loss="bce", clamp=True),
    "sigmoid_cross_entropy": dict(N=5, T=6, activation="sigmoid", loss="cross_entropy", gain=8.0),
    "relu": dict(rule="oja", N=8, T=9, B=2, activation="relu", start=True),
    "relu_clip": dict(rule="modulated", N=7, T=8, activation="relu", clip=0.4, clamp=True),
    "linear": dict(N=6, T=12, B=2, activation="linear", w_scale=0.3, start=True, dtype=np.float64),
    "clamped": dict(N=9, T=10, B=2, clamp=True, start=True, alpha="network", eta="network"),
    "saturated": dict(N=8, T=12, B=2, gain=20.0, score="last"),
    "saturated_softmax": dict(N=5, T=6, B=2, activation="softmax", loss="bce", gain=60.0),
    "one_neuron": dict(N=1, T=1),
    "one_step": dict(N=5, T=1, B=2, P=3, start=True),
    "long": dict(N=7, T=300, B=1, eta="network", score="last", eta_value=0.05),
    "long_modulated": dict(rule="modulated", N=5, T=180, clip=1.0, w_scale=0.2),
    "wide": dict(N=37, T=17, B=1, score="last", dtype=np.float32),
    "population": dict(N=5, T=9, B=3, P=4, rule="retroactive", alpha="neuron", clip=0.5),
}


def main():
    folder = Path(__file__).parent.parent / "fixtures"
    folder.mkdir(exist_ok=True)
    for seed, (name, options) in enumerate(CASES.items()):
        arrays, meta = build(seed, **options)
        case = {k: torch.tensor(v.astype(np.float64)) for k, v in arrays.items()}
        leaves = [k for k in TRAINED if k in case]
        for k in leaves:
            case[k].requires_grad_()
        y, h, e, loss = run(case, meta)
        grads = torch.autograd.grad(loss.sum(), [case[k] for k in leaves], allow_unused=True)
        out = {"y": y, "h": h, "loss": loss}
        if meta["rule"] == "retroactive":
            out["e"] = e
        for k, grad in zip(leaves, grads):
            out[f"grad.{k}"] = torch.zeros_like(case[k]) if grad is None else grad
        out = {k: v.detach().numpy().copy() for k, v in out.items()}
        if not all(np.isfinite(v).all() for v in out.values()):
            sys.exit(f"{name}: not finite")
        save_file(arrays, folder / f"{name}.case.safetensors", metadata=meta)
        save_file(out, folder / f"{name}.expected.safetensors")
    print(f"{len(CASES)} fixtures in {folder}")


if __name__ == "__main__":
    main()
