"""One update (forward, backward, Adam) of the decay rule in hand-written Triton kernels.

    python benches/peers/triton_step.py --neurons 1001 --steps 106 --batch 32      # NVIDIA
    TRITON_INTERPRET=1 python benches/peers/triton_step.py --steps 6 --batch 3 --check --neurons 37
    TRITON_INTERPRET=1 python benches/peers/triton_step.py --steps 6 --batch 3 --check --neurons 150

The same arithmetic as `torch_step.py`. Up to 128 neurons a program runs a whole episode with
the trace in registers; beyond, a launch is a step, and all launches are one CUDA graph. The
way back is that of the P form: the adjoint of the trace is alpha P, and dL/dw and dL/dalpha
come from the stored rows of the neurons, with P in registers. Prints one JSON object, as the
other peers do; with --check it compares its gradients with autograd's, and ends with 1 where one
differs by more than 1e-5. It keeps H of every step: 54 GB at 1001 neurons, 106 steps, batch 128.
"""

import argparse
import json
import os
import statistics
import time

import torch
import triton
import triton.language as tl

from torch_step import episode

RESIDENT = 128


@triton.jit
def tanh(z):
    e = tl.exp(-2 * tl.abs(z))
    y = (1 - e) / (1 + e)
    return tl.where(z < 0, -y, y)


@triton.jit
def whole(w, alpha, n, BLOCK: tl.constexpr):
    """Neurons, where connections lie and whether they exist, and both matrices."""
    i = tl.arange(0, BLOCK)
    square = i[:, None] * n + i[None, :]
    inside = (i[:, None] < n) & (i[None, :] < n)
    w = tl.load(w + square, inside, 0.0)
    alpha = tl.load(alpha + square, inside, 0.0)
    return i, square, inside, w, alpha


@triton.jit
def forward_episode(w, alpha, eta, stimuli, ys, hebbs, steps, batch, n, BLOCK: tl.constexpr):
    """A program is an episode: writes ys[1..] and H before every step."""
    b = tl.program_id(0)
    i, square, inside, w, alpha = whole(w, alpha, n, BLOCK)
    eta = tl.load(eta)
    hebb = tl.zeros([BLOCK, BLOCK], tl.float32)
    x = tl.load(ys + b * n + i, i < n, 0.0)
    for t in range(steps):
        row = (t * batch + b) * n + i
        tl.store(hebbs + (t * batch + b).to(tl.int64) * n * n + square, hebb, inside)
        z = tl.sum(x[:, None] * (w + alpha * hebb), 0) + tl.load(stimuli + row, i < n, 0.0)
        y = tanh(z)
        tl.store(ys + row + batch * n, y, i < n)
        hebb = (1 - eta) * hebb + eta * x[:, None] * y[None, :]
        x = y


@triton.jit
def backward_episode(w, alpha, eta, ys, hebbs, deltas, y_bar, d_eta, steps, batch, n,
                     BLOCK: tl.constexpr):
    """A program is an episode: writes delta of every step, and its part of dL/deta."""
    b = tl.program_id(0)
    i, square, inside, w, alpha = whole(w, alpha, n, BLOCK)
    eta = tl.load(eta)
    p = tl.zeros([BLOCK, BLOCK], tl.float32)
    bar = tl.load(y_bar + b * n + i, i < n, 0.0)
    of_eta = tl.zeros([BLOCK], tl.float32)
    for k in range(steps):
        t = steps - 1 - k
        row = (t * batch + b) * n + i
        x = tl.load(ys + row, i < n, 0.0)
        y = tl.load(ys + row + batch * n, i < n, 0.0)
        hebb = tl.load(hebbs + (t * batch + b).to(tl.int64) * n * n + square, inside, 0.0)
        adjoint = alpha * p
        q = tl.sum(x[:, None] * adjoint, 0)
        of_eta += q * y - tl.sum(adjoint * hebb, 0)
        delta = (bar + eta * q) * (1 - y * y)
        tl.store(deltas + row, delta, i < n)
        both = (w + alpha * hebb) * delta[None, :] + adjoint * (eta * y)[None, :]
        bar = tl.sum(both, 1)
        p = (1 - eta) * p + x[:, None] * delta[None, :]
    tl.store(d_eta + b, tl.sum(of_eta, 0))


@triton.jit(do_not_specialize=["t", "batch"])
def forward_step(w, alpha, eta, stimuli, ys, hebbs, t, batch, n,
                 ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A program is some post neurons of an episode: takes H to step t and writes ys[t + 1]."""
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    b = tl.program_id(1)
    eta = tl.load(eta)
    x_at, h_at = (t * batch + b) * n, (t * batch + b).to(tl.int64) * n * n
    total = tl.zeros([COLUMNS], tl.float32)
    post = tl.load(ys + x_at + j, j < n, 0.0)
    for first in range(0, n, ROWS):
        i = first + tl.arange(0, ROWS)
        tile = i[:, None] * n + j[None, :]
        inside = (i[:, None] < n) & (j[None, :] < n)
        hebb = tl.zeros([ROWS, COLUMNS], tl.float32)
        if t > 0:
            pre = tl.load(ys + x_at - batch * n + i, i < n, 0.0)
            hebb = tl.load(hebbs + h_at - batch.to(tl.int64) * n * n + tile, inside, 0.0)
            hebb = (1 - eta) * hebb + eta * pre[:, None] * post[None, :]
        tl.store(hebbs + h_at + tile, hebb, inside)
        weight = tl.load(w + tile, inside, 0.0) + tl.load(alpha + tile, inside, 0.0) * hebb
        total += tl.sum(tl.load(ys + x_at + i, i < n, 0.0)[:, None] * weight, 0)
    z = total + tl.load(stimuli + x_at + j, j < n, 0.0)
    tl.store(ys + x_at + batch * n + j, tanh(z), j < n)


@triton.jit(do_not_specialize=["t", "batch"])
def backward_step(w, alpha, eta, ys, hebbs, deltas, p, bars, d_eta, t, steps, batch, n, tiles,
                  ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A program is some post neurons of an episode: column sums, then delta, then its part of
    the row sums, `bars` [2, tiles, B, N] in turn, and P one step back."""
    tile_j, b = tl.program_id(0), tl.program_id(1)
    j = tile_j * COLUMNS + tl.arange(0, COLUMNS)
    eta = tl.load(eta)
    row, h_at = (t * batch + b) * n, (t * batch + b).to(tl.int64) * n * n
    p_at = b.to(tl.int64) * n * n
    y = tl.load(ys + row + batch * n + j, j < n, 0.0)
    q = tl.zeros([COLUMNS], tl.float32)
    of_eta = tl.zeros([COLUMNS], tl.float32)
    if t + 1 < steps:
        for first in range(0, n, ROWS):
            i = first + tl.arange(0, ROWS)
            tile = i[:, None] * n + j[None, :]
            inside = (i[:, None] < n) & (j[None, :] < n)
            adjoint = tl.load(alpha + tile, inside, 0.0) * tl.load(p + p_at + tile, inside, 0.0)
            q += tl.sum(tl.load(ys + row + i, i < n, 0.0)[:, None] * adjoint, 0)
            of_eta -= tl.sum(adjoint * tl.load(hebbs + h_at + tile, inside, 0.0), 0)
    turn = (t + 1) % 2
    bar = tl.zeros([COLUMNS], tl.float32)
    for k in range(0, tiles):
        bar += tl.load(bars + ((turn * tiles + k) * batch + b) * n + j, j < n, 0.0)
    delta = (bar + eta * q) * (1 - y * y)
    tl.store(deltas + row + j, delta, j < n)
    at = (b * tiles + tile_j) * steps + t
    tl.store(d_eta + at, tl.sum(of_eta + q * y, 0))
    for first in range(0, n, ROWS):
        i = first + tl.arange(0, ROWS)
        tile = i[:, None] * n + j[None, :]
        inside = (i[:, None] < n) & (j[None, :] < n)
        a = tl.load(alpha + tile, inside, 0.0)
        before = tl.zeros([ROWS, COLUMNS], tl.float32)
        if t + 1 < steps:
            before = tl.load(p + p_at + tile, inside, 0.0)
        weight = tl.load(w + tile, inside, 0.0) + a * tl.load(hebbs + h_at + tile, inside, 0.0)
        both = weight * delta[None, :] + a * before * (eta * y)[None, :]
        bar_at = ((1 - turn) * tiles + tile_j) * batch + b
        tl.store(bars + bar_at * n + i, tl.sum(both, 1), i < n)
        x = tl.load(ys + row + i, i < n, 0.0)
        tl.store(p + p_at + tile, (1 - eta) * before + x[:, None] * delta[None, :], inside)


@triton.jit
def weight_gradients(ys, deltas, eta, d_w, d_alpha, steps, batch, n, per_split,
                     ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A program is a tile of both gradients and some episodes, P in registers."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    j = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    split = tl.program_id(2)
    eta = tl.load(eta)
    of_w = tl.zeros([ROWS, COLUMNS], tl.float32)
    of_alpha = tl.zeros([ROWS, COLUMNS], tl.float32)
    for b in range(split * per_split, min(batch, (split + 1) * per_split)):
        p = tl.zeros([ROWS, COLUMNS], tl.float32)
        for k in range(steps):
            row = ((steps - 1 - k) * batch + b) * n
            x = tl.load(ys + row + i, i < n, 0.0)
            y = tl.load(ys + row + batch * n + j, j < n, 0.0)
            gain = x[:, None] * tl.load(deltas + row + j, j < n, 0.0)[None, :]
            of_w += gain
            of_alpha += (x[:, None] * (eta * y)[None, :]) * p
            p = (1 - eta) * p + gain
    tile = split.to(tl.int64) * n * n + i[:, None] * n + j[None, :]
    inside = (i[:, None] < n) & (j[None, :] < n)
    tl.store(d_w + tile, of_w, inside)
    tl.store(d_alpha + tile, of_alpha, inside)


class Episodes:
    """Buffers for one shape, and an update's loss and gradients in them."""

    def __init__(self, n, steps, batch, device):
        def new(*shape):
            return torch.zeros(*shape, device=device)

        self.n, self.steps, self.batch = n, steps, batch
        self.resident = n <= RESIDENT
        self.rows, self.columns, self.tile = 32, 64, (32, 32)
        self.tiles = triton.cdiv(n, self.columns)
        self.splits = min(batch, 1 if n > 512 else 16)
        self.ys, self.deltas = new(steps + 1, batch, n), new(steps, batch, n)
        self.hebbs = new(steps, batch, n, n)
        self.bars = new(2, self.tiles, batch, n)
        self.p = new(0 if self.resident else batch, n, n)
        self.d_eta = new(batch, self.tiles * steps)
        self.d_w, self.d_alpha = new(self.splits, n, n), new(self.splits, n, n)

    def gradients(self, w, alpha, eta, stimuli, target):
        n, steps, batch = self.n, self.steps, self.batch
        grid = (self.tiles, batch)
        sizes = dict(ROWS=self.rows, COLUMNS=self.columns)
        block = max(16, triton.next_power_of_2(n))
        if self.resident:
            forward_episode[(batch,)](w, alpha, eta, stimuli, self.ys, self.hebbs, steps, batch, n,
                                      BLOCK=block, num_warps=16)
        else:
            for t in range(steps):
                forward_step[grid](w, alpha, eta, stimuli, self.ys, self.hebbs, t, batch, n,
                                   **sizes)
        error = self.ys[steps] - target
        loss = (error ** 2).sum() / batch
        y_bar = 2 * error / batch
        if self.resident:
            backward_episode[(batch,)](w, alpha, eta, self.ys, self.hebbs, self.deltas, y_bar,
                                       self.d_eta, steps, batch, n, BLOCK=block, num_warps=16)
            d_eta = self.d_eta.view(-1)[:batch].sum()
        else:
            self.bars[steps % 2].zero_()
            self.bars[steps % 2, 0] = y_bar
            for t in reversed(range(steps)):
                backward_step[grid](w, alpha, eta, self.ys, self.hebbs, self.deltas, self.p,
                                    self.bars, self.d_eta, t, steps, batch, n, self.tiles, **sizes)
            d_eta = self.d_eta.sum()
        rows, columns = self.tile
        grid = (triton.cdiv(n, rows), triton.cdiv(n, columns), self.splits)
        weight_gradients[grid](self.ys, self.deltas, eta, self.d_w, self.d_alpha, steps, batch, n,
                               triton.cdiv(batch, self.splits), ROWS=rows, COLUMNS=columns)
        return loss, (self.d_w.sum(0), self.d_alpha.sum(0), d_eta)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--neurons", type=int, default=1001)
    parser.add_argument("--steps", type=int, default=106)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--updates", type=int, default=7)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    n, steps, batch = options.neurons, options.steps, options.batch

    device = "cpu" if os.environ.get("TRITON_INTERPRET") else "cuda"
    torch.manual_seed(0)
    torch.set_default_device(device)
    w = (0.01 * torch.randn(n, n)).requires_grad_()
    alpha = (0.01 * torch.randn(n, n)).requires_grad_()
    eta = torch.tensor(0.01, requires_grad=True)
    stimuli = torch.sign(torch.randn(7, batch, n))[torch.arange(steps) % 7].contiguous()
    target = torch.sign(torch.randn(batch, n))
    episodes = Episodes(n, steps, batch, device)
    if options.check:
        with torch.no_grad():
            # larger ones, so that every term counts
            w *= 30 / n ** 0.5
            alpha *= 30 / n ** 0.5
        wanted = torch.autograd.grad(episode(w, alpha, eta, stimuli, target), (w, alpha, eta))
        with torch.no_grad():
            _, found = episodes.gradients(w, alpha, eta, stimuli, target)
        errors = {name: float((a - b).abs().max() / a.abs().max())
                  for name, a, b in zip(("w", "alpha", "eta"), wanted, found)}
        print(errors)
        raise SystemExit(any(not error <= 1e-5 for error in errors.values()))

    parameters = [w, alpha, eta]
    adam = torch.optim.Adam(parameters, lr=1e-4, fused=True, capturable=True)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)

    def update():
        with torch.no_grad():
            _, gradients = episodes.gradients(w, alpha, eta, stimuli, target)
            for parameter, gradient in zip(parameters, gradients):
                parameter.grad.copy_(gradient)
        adam.step()

    # compiled and settled on a side stream, then captured whole
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            update()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        update()
    seconds = []
    for k in range(2 + options.updates):
        start = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        if k >= 2:
            seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "peer": f"triton {triton.__version__}",
        "seconds_per_update": statistics.median(seconds),
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
    }))


if __name__ == "__main__":
    main()
