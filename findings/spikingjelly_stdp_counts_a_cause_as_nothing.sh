#!/usr/bin/env bash
# SpikingJelly 2.0.0, activation_based.learning.STDPLearner with equal time constants and PyTorch 2.15.0.
# Guess: a weight grows whose input makes the neuron fire, and a batch of alike episodes changes weights as
# one of them does (a mean).
# Found: a neuron fires in the step of the input that makes it fire; both traces are updated before the
# weight is, so growth and decay cancel, and the change is 0. Of two inputs that fire in turn the earlier
# one grows by 0.75 and the one that fired last falls by 0.75. The change is a sum over the batch: 2 alike
# episodes give twice, 4 give four times that of one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip"
"$pip" install --quiet torch==2.15.0 numpy==2.4.6 loguru==0.7.3 tqdm==4.70.1 scipy==1.17.1 tensorboard==2.21.0
"$pip" install --quiet --no-deps spikingjelly==2.0.0 torchvision==0.29.2 pillow==13.0.0
"$folder/venv/bin/python" - <<'PY'
import torch
from spikingjelly.activation_based import learning, neuron


def change(inputs, batch):
    """STDP's changes, added up, of two weights of 1.5 to a neuron that fires whenever an input does."""
    synapse = torch.nn.Linear(2, 1, bias=False)
    synapse.weight.data.fill_(1.5)
    cell = neuron.IFNode()
    rule = learning.STDPLearner(step_mode="s", synapse=synapse, sn=cell, tau_pre=2.0, tau_post=2.0)
    total, fired = torch.zeros(1, 2), []
    for x in inputs:
        fired.append(cell(synapse(torch.tensor([x] * batch))).detach()[0].item())
        total += rule.step(on_grad=False)
    return fired, total[0].tolist()


one = change([[1.0, 0.0]], 1)
print("one input, which makes the neuron fire: fired, change", one)
assert one == ([1.0], [0.0, 0.0])
for batch in 1, 2, 4:
    two = change([[1.0, 0.0], [0.0, 1.0]], batch)
    print(f"two inputs in turn, {batch} alike episodes: fired, change", two)
    assert two == ([1.0, 1.0], [0.75 * batch, -0.75 * batch])
PY
echo "as found: what fires together in a step cancels, and a batch is summed"
