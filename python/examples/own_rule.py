"""A rule of one's own, in PyTorch: a trace that remembers what was surprising.

    python own_rule.py [--updates 200]
"""

import argparse

import torch

import hebbian_engine as he

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--updates", type=int, default=200)
arguments = parser.parse_args()

RULE = he.Rule.from_text(
    """
name = "surprise"
source = "covariance with a mean of the post-synaptic neuron that moves"

[parameters]
eta = { per = "neuron", init = 0.1 }
tau = { per = "network", init = 0.2 }

[post]
mean = { start = 0.0, next = "(1 - tau) * mean + tau * y" }

[trace]
H = "(1 - eta) * H + eta * x * (y - mean)"
"""
)

torch.manual_seed(0)
net = he.torch.PlasticRNN(8, 40, 8, rule=RULE)
print(net, "trains", ", ".join(name for name, _ in net.named_parameters()))
optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
for update in range(arguments.updates):
    # two things are shown; asked with an empty input, say the first
    first, second = torch.randn(2, 32, 8).sign()
    obs = torch.zeros(32, 8, 8)
    obs[:, 0], obs[:, 3] = first, second
    out, _ = net(obs)
    loss = (out[:, -1] - first).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if (update + 1) % 50 == 0 or update == 0:
        print(f"update {update + 1}: mean squared error {loss:.3f} (1.0 knows nothing)")
