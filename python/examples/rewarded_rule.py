"""A rule of one's own with a third factor that comes as data: reward writes what was seen before it.

    python rewarded_rule.py [--updates 400]

Some of four symbols are rewarded, others in each episode. The networks see the symbols one after another, and
the reward of each arrives two steps later, as m of the rule alone. Then each symbol is shown once more, and the
networks say whether it was rewarded.
"""

import argparse

import torch

import hebbian_engine as he

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--updates", type=int, default=400)
arguments = parser.parse_args()

RULE = he.Rule.from_text(
    """
name = "three-factor"
source = "an eligibility trace that a reward makes last (Gerstner et al. 2018)"

[parameters]
eta = { per = "neuron", init = 0.1 }
keep = { per = "network", init = 0.5 }

[trace]
H = "H + eta * m * E"
E = "keep * E + x * y"
"""
)
SYMBOLS, BATCH, STEPS = 4, 64, 20


def episodes(generator):
    """Observations (B, T, K), m (B, T), and for each symbol 1 where it was rewarded, else -1 (B, K)."""
    obs = torch.zeros(BATCH, STEPS, SYMBOLS)
    m = torch.zeros(BATCH, STEPS)
    rewarded = torch.randint(0, 2, (BATCH, SYMBOLS), generator=generator) * 2.0 - 1.0
    order = torch.rand(BATCH, SYMBOLS, generator=generator).argsort(1)
    rows = torch.arange(BATCH)
    for k in range(SYMBOLS):
        symbol = order[:, k]
        obs[rows, 4 * k, symbol] = 1.0
        m[:, 4 * k + 2] = rewarded[rows, symbol]
        obs[:, 4 * SYMBOLS + k, k] = 1.0
    return obs, m, rewarded


torch.manual_seed(0)
generator = torch.Generator().manual_seed(1)
net = he.torch.PlasticRNN(SYMBOLS, 32, 1, rule=RULE, modulation="given")
optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
for update in range(arguments.updates):
    obs, m, rewarded = episodes(generator)
    out, _ = net(obs, m=m)
    said = out[:, -SYMBOLS:, 0]
    loss = torch.nn.functional.softplus(-said * rewarded).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if (update + 1) % 50 == 0 or update == 0:
        wrong = (said.sign() != rewarded).float().mean()
        print(f"update {update + 1}: {100 * wrong:.1f} % wrong (50 % knows nothing)")
