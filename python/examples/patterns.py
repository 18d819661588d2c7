"""Miconi's binary patterns: shown a few, complete one from a half.

    python patterns.py [--updates 300] [--bits 100]
"""

import argparse

import torch

from hebbian_engine.torch import PlasticRNN

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--updates", type=int, default=300)
parser.add_argument("--bits", type=int, default=100)
arguments = parser.parse_args()
bits, batch, shown = arguments.bits, 16, 6


def episodes():
    """Two patterns, shown for six steps each, twice; then half of one. A neuron more is the bias."""
    patterns = torch.randn(batch, 2, bits).sign()
    blank = torch.zeros(batch, 3, bits)
    show = [patterns[:, k : k + 1].expand(-1, shown, -1) for k in (0, 1)]
    cue = patterns[:, 0].clone()
    cue[:, torch.randperm(bits)[: bits // 2]] = 0
    test = cue[:, None].expand(-1, shown, -1)
    numbers = torch.cat([show[0], blank, show[1], blank] * 2 + [test], dim=1)
    drive = 20 * torch.cat([numbers, torch.ones(*numbers.shape[:2], 1)], dim=2)
    return drive, patterns[:, 0], cue == 0


torch.manual_seed(0)
net = PlasticRNN(n=bits + 1)
optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
for update in range(arguments.updates):
    drive, target, hidden = episodes()
    y, _ = net(drive)
    answer = y[:, -1, :bits]
    loss = (answer - target).square().sum(1).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if (update + 1) % 50 == 0 or update == 0:
        wrong = (answer.sign() != target)[hidden].float().mean()
        print(f"update {update + 1}: loss {loss:.1f}, wrong hidden bits {100 * wrong:.1f} %")
