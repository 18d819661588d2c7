"""One update (forward, backward, Adam) of the decay rule in PyTorch, batched.

    python benches/peers/torch_step.py --neurons 1001 --steps 106 --batch 1 [--compile]

Prints one JSON object: median seconds per update and peak memory. The same arithmetic as
`hebbian bench`: recurrent, tanh, alpha per connection, one eta, squared error at the last
step. Start it with large malloc thresholds (see benches/compare.py), or it spends its time
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--neurons", type=int, default=1001)
    parser.add_argument("--steps", type=int, default=106)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    n, steps, batch = options.neurons, options.steps, options.batch

    torch.manual_seed(0)
    w = (0.01 * torch.randn(n, n)).requires_grad_()
    alpha = (0.01 * torch.randn(n, n)).requires_grad_()
    eta = torch.tensor(0.01, requires_grad=True)
    stimuli = 20 * torch.sign(torch.randn(7, batch, n))[torch.arange(steps) % 7]
    target = torch.sign(torch.randn(batch, n))
    adam = torch.optim.Adam([w, alpha, eta], lr=1e-4, fused=True)
    step = torch.compile(episode) if options.compile else episode

    seconds = []
    for update in range(2 + options.updates):
        start = time.perf_counter()
        adam.zero_grad(set_to_none=True)
        step(w, alpha, eta, stimuli, target).backward()
        adam.step()
        if update >= 2:
            seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "peer": f"torch {torch.__version__}" + (" compile" if options.compile else " eager"),
        "threads": torch.get_num_threads(),
        "seconds_per_update": statistics.median(seconds),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))


if __name__ == "__main__":
    main()
