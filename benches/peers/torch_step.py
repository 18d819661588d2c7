"""One update (forward, backward, Adam) of the decay rule in PyTorch, batched.

    python benches/peers/torch_step.py --neurons 1001 --steps 106 --batch 1 [--compile] [--graphs]
        [--p-form] [--device cuda]

Prints one JSON object: median seconds per update and peak memory. The same arithmetic as
`hebbian bench`: recurrent, tanh, alpha per connection, one eta, squared error at the last
step. With --p-form the way back is written by hand: the adjoint of the trace is alpha P,
weight gradients are products over all steps at once. --graphs compiles into CUDA graphs. On
the CPU start it with large malloc thresholds (see benches/compare.py), or it spends its time
in page faults.
"""

import argparse
import json
import resource
import statistics
import time

import torch


def episode(w, alpha, eta, stimuli, target):
    """stimuli [T, B, N]; everything that autograd needs is kept for every step."""
    steps, batch, n = stimuli.shape
    y = torch.zeros(batch, n)
    hebb = torch.zeros(batch, n, n)
    for t in range(steps):
        z = torch.bmm(y[:, None], w + alpha * hebb)[:, 0] + stimuli[t]
        new = torch.tanh(z)
        hebb = (1 - eta) * hebb + eta * torch.bmm(y[:, :, None], new[:, None])
        y = new
    return ((y - target) ** 2).sum() / batch


class PForm(torch.autograd.Function):
    """The episode with its adjoint by hand; keeps y and H of every step, nothing else."""

    @staticmethod
    def forward(ctx, w, alpha, eta, stimuli, target):
        steps, batch, n = stimuli.shape
        ys = torch.zeros(steps + 1, batch, n)
        hebbs = torch.zeros(steps, batch, n, n)
        hebb = torch.zeros(batch, n, n)
        rate = float(eta)
        for t in range(steps):
            hebbs[t] = hebb
            weight = torch.addcmul(w, alpha, hebb)
            y = torch.tanh(torch.bmm(ys[t][:, None], weight)[:, 0] + stimuli[t])
            hebb.baddbmm_(ys[t][:, :, None], y[:, None], beta=1 - rate, alpha=rate)
            ys[t + 1] = y
        ctx.save_for_backward(w, alpha, ys, hebbs, target)
        ctx.rate = rate
        return ((y - target) ** 2).sum() / batch

    @staticmethod
    def backward(ctx, seed):
        w, alpha, ys, hebbs, target = ctx.saved_tensors
        rate = ctx.rate
        steps, batch, n, _ = hebbs.shape
        p = torch.zeros(batch, n, n)
        deltas = torch.zeros(steps, batch, n)
        d_alpha = torch.zeros(n, n)
        d_eta = torch.zeros(())
        y_bar = seed * 2 * (ys[steps] - target) / batch
        for t in reversed(range(steps)):
            x, y = ys[t], ys[t + 1]
            lam = alpha * p
            q = torch.bmm(x[:, None], lam)[:, 0]
            d_eta += (q * y).sum() - (lam * hebbs[t]).sum()
            delta = (y_bar + rate * q) * (1 - y * y)
            deltas[t] = delta
            weight = torch.addcmul(w, alpha, hebbs[t])
            y_bar = torch.bmm(weight, delta[:, :, None])[:, :, 0]
            y_bar += rate * torch.bmm(lam, y[:, :, None])[:, :, 0]
            d_alpha += rate * torch.einsum("bi,bj,bij->ij", x, y, p)
            p.baddbmm_(x[:, :, None], delta[:, None], beta=1 - rate)
        d_w = ys[:-1].reshape(-1, n).T @ deltas.reshape(-1, n)
        return d_w, d_alpha, d_eta, None, None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--neurons", type=int, default=1001)
    parser.add_argument("--steps", type=int, default=106)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--graphs", action="store_true")
    parser.add_argument("--p-form", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--check", action="store_true",
                        help="compare the two forms' gradients and stop")
    options = parser.parse_args()
    n, steps, batch = options.neurons, options.steps, options.batch

    cuda = options.device == "cuda"
    torch.manual_seed(0)
    torch.set_default_device(options.device)
    w = (0.01 * torch.randn(n, n)).requires_grad_()
    alpha = (0.01 * torch.randn(n, n)).requires_grad_()
    eta = torch.tensor(0.01, requires_grad=True)
    stimuli = torch.sign(torch.randn(7, batch, n))[torch.arange(steps) % 7]
    target = torch.sign(torch.randn(batch, n))
    adam = torch.optim.Adam([w, alpha, eta], lr=1e-4, fused=True)
    step = PForm.apply if options.p_form else episode
    if options.graphs:
        step = torch.compile(step, mode="reduce-overhead")
    elif options.compile:
        step = torch.compile(step)
    if options.check:
        gradients = []
        for form in (episode, PForm.apply):
            loss = form(w, alpha, eta, stimuli, target)
            gradients.append(torch.autograd.grad(loss, (w, alpha, eta)))
        for name, a, b in zip(("w", "alpha", "eta"), *gradients):
            print(name, float((a - b).abs().max() / a.abs().max()))
        return

    seconds = []
    for update in range(2 + options.updates):
        start = time.perf_counter()
        adam.zero_grad(set_to_none=True)
        step(w, alpha, eta, stimuli, target).backward()
        adam.step()
        if cuda:
            torch.cuda.synchronize()
        if update >= 2:
            seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "peer": f"torch {torch.__version__}" + (" P form" if options.p_form else "")
                + (" graphs" if options.graphs else " compile" if options.compile else " eager"),
        "threads": torch.get_num_threads(),
        "seconds_per_update": statistics.median(seconds),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda
                             else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))


if __name__ == "__main__":
    main()
