#!/usr/bin/env bash
# torch 2.15.0, optimisers with fused=True, on the CPU.
# Guess: a fused step changes its parameters in place as every other does: their version counter rises, and a
# backward pass that still needs the old values is refused.
# Found: the counter stays. A backward pass after the step runs without a word and multiplies by the new
# weights: dL/dx is 0.5 where it was 1. The plain and the foreach step raise. Whoever asks the counter whether
# weights are new, to send them to a device again, keeps the old ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.15.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch


def after_a_step(optimiser, **options):
    w = torch.nn.Parameter(torch.ones(3))
    x = torch.ones(3, requires_grad=True)
    y = (w * x).sum()  # dy/dx is w
    w.grad = torch.ones(3)
    before = w._version
    optimiser([w], lr=0.5, **options).step()
    try:
        y.backward()
        seen = round(x.grad[0].item(), 2)
    except RuntimeError as error:
        seen = "refused" if "inplace operation" in str(error) else str(error)
    return w._version - before, seen


for optimiser in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad):
    plain = after_a_step(optimiser)
    foreach = after_a_step(optimiser, foreach=True)
    fused = after_a_step(optimiser, fused=True)
    print(optimiser.__name__, "plain", plain, "foreach", foreach, "fused", fused)
    assert plain[0] > 0 and plain[1] == foreach[1] == "refused"
    assert fused == (0, 0.5)
PY
echo "as found: a fused step leaves the version counter, and a stale backward pass is not refused"
