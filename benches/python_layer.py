"""A plastic recurrent layer from Python, beside PyTorch's loop of the same network.

    python benches/python_layer.py [--rounds 5] [--threads 2] [--out FILE.json]

Needs the package (pip install ./python) and torch. The network has 17 inputs, a read-out of 6, tanh,
alpha per connection, one eta. One measurement is a forward and a backward pass of a squared error, in a
process of its own: the loop in PyTorch as it is (eager), the loop through torch.compile, the layer, and
the layer's work without PyTorch (bare: hebbian_engine.numpy). Rounds alternate. Memory is the peak of
the process less what it held before the first pass.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

K, O = 17, 6
WAYS = ("layer", "bare", "eager", "compile")
# N, T, B; the last is a lifetime of 20 trials of 20 steps, H carried over, with a leak and softplus, which
# torch.compile would unroll for longer than anyone waits
SIZES = {
    (100, 100, 64): ({}, WAYS),
    (1001, 106, 4): ({}, WAYS),
    (256, 400, 32): ({"leak": 0.2, "activation": "softplus"}, ("layer", "bare", "eager")),
}


def measure(way, n, steps, batch):
    import numpy as np
    import torch

    import hebbian_engine as he

    torch.manual_seed(1)
    options, _ = SIZES[n, steps, batch]
    net = he.torch.PlasticRNN(K, n, O, device="cpu", **options)
    obs, target = torch.randn(batch, steps, K), torch.randn(batch, steps, O)

    def loop(obs):
        y = obs.new_zeros(batch, n)
        h = obs.new_zeros(batch, n, n)
        drive = obs @ net.in_w + net.in_b
        ys = []
        for t in range(steps):
            z = torch.bmm(y[:, None], net.w + net.alpha * h)[:, 0] + drive[:, t]
            if options:
                new = (1 - net.leak) * y + net.leak * torch.nn.functional.softplus(z)
            else:
                new = torch.tanh(z)
            h = (1 - net.eta) * h + net.eta * torch.bmm(y[:, :, None], new[:, None])
            y = new
            ys.append(y)
        return torch.stack(ys, 1) @ net.out_w + net.out_b

    if way == "layer":
        forward = lambda: net(obs)[0]
    elif way == "eager":
        forward = lambda: loop(obs)
    elif way == "compile":
        compiled = torch.compile(loop)
        forward = lambda: compiled(obs)
    if way == "bare":
        tensors = {
            "w": net.w, "alpha": net.alpha, "eta": net.eta, "in_w": net.in_w, "in_b": net.in_b,
            "out_w": net.out_w, "out_b": net.out_b, "obs": obs,
        }  # fmt: skip
        if options:
            tensors["leak"] = net.leak
        tensors = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
        settings = {"device": "cpu", "activation": options.get("activation", "tanh")}

        def once():
            out = he.numpy.episodes(**settings, **tensors)["out"]
            dout = 2 * (out - target.numpy()) / out.size
            he.numpy.gradients(outputs=False, dout=dout, **settings, **tensors)
    else:
        def once():
            net.zero_grad()
            (forward() - target).square().mean().backward()

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = peak()
    first = time.perf_counter()
    once()
    first = time.perf_counter() - first
    times = []
    while len(times) < 3 or (sum(times) < 3 and len(times) < 40):
        begun = time.perf_counter()
        once()
        times.append(time.perf_counter() - begun)
    return {
        "seconds": statistics.median(times),
        "first_seconds": first,
        "peak_mib": (peak() - before) / 1024,
        "whole_process_mib": peak() / 1024,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--one", nargs=4)
    arguments = parser.parse_args()
    if arguments.one:
        way, *size = arguments.one
        print(json.dumps(measure(way, *map(int, size))))
        return
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(arguments.threads),
        "RAYON_NUM_THREADS": str(arguments.threads),
        # without page faults at every step, which is the loop's best
        "MALLOC_TOP_PAD_": str(1 << 30),
        "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    }
    ways = arguments.ways.split(",")
    results = {
        f"{n},{t},{b}": {way: [] for way in ways if way in allowed}
        for (n, t, b), (_, allowed) in SIZES.items()
    }
    for k in range(arguments.rounds):
        for n, t, b in SIZES:
            for way in results[f"{n},{t},{b}"]:
                command = [sys.executable, __file__, "--one", way, str(n), str(t), str(b)]
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, check=False
                )
                if done.returncode:
                    # such as a loop that needs more memory than there is
                    print(f"{way} of {n}, {t}, {b} failed: {done.stderr[-300:]}", file=sys.stderr)
                    continue
                found = json.loads(done.stdout)
                results[f"{n},{t},{b}"][way].append(found)
                print(
                    f"round {k + 1}, N, T, B = {n}, {t}, {b}, {way}: {found['seconds']:.4f} s, "
                    f"{found['peak_mib']:.0f} MiB",
                    file=sys.stderr,
                )
    summary = {
        size: {
            way: {
                key: statistics.median(one[key] for one in rounds)
                for key in rounds[0]
            }
            for way, rounds in of_size.items()
            if rounds
        }
        for size, of_size in results.items()
    }
    text = json.dumps({"summary": summary, "rounds": results}, indent=1)
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
