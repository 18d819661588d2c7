"""A memory task in a gymnasium vector environment: acts with step, learns with replay.

    python memory_task.py [--iterations 150] [--episodes 32]

A cue is shown once, noise follows, and at the end the agent chooses. It has to remember the cue.
Needs gymnasium.
"""

import argparse

import gymnasium as gym
import numpy as np
import torch

from hebbian_engine.torch import PlasticRNN

N_CUES, DELAY = 4, 5


class Cue(gym.Env):
    """Shows one of some cues, waits, and pays for naming it."""

    observation_space = gym.spaces.Box(-1, 1, (N_CUES + 1,), np.float32)
    action_space = gym.spaces.Discrete(N_CUES)

    def _observe(self):
        seen = np.zeros(N_CUES + 1, np.float32)
        if self.t == 0:
            seen[self.cue] = 1
        elif self.t == DELAY:
            seen[-1] = 1
        else:
            seen[:N_CUES] = self.np_random.uniform(-0.3, 0.3, N_CUES)
        return seen

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.cue = 0, int(self.np_random.integers(N_CUES))
        return self._observe(), {}

    def step(self, action):
        asked = self.t == DELAY
        reward = float(action == self.cue) if asked else 0.0
        self.t += 1
        return self._observe() if not asked else np.zeros(N_CUES + 1, np.float32), reward, asked, False, {}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--episodes", type=int, default=32)
    arguments = parser.parse_args()
    batch = arguments.episodes
    torch.manual_seed(0)
    envs = gym.vector.SyncVectorEnv([Cue for _ in range(batch)])
    # what the agent chooses, and what it expects to earn
    net = PlasticRNN(N_CUES + 1, 32, N_CUES + 1)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    recent = []
    for iteration in range(arguments.iterations):
        obs, _ = envs.reset(seed=iteration)
        state = net.blank(batch, record=True)
        actions, rewards = [], []
        for _ in range(DELAY + 1):
            out, state = net.step(torch.from_numpy(obs), state)
            action = torch.distributions.Categorical(logits=out[:, :N_CUES]).sample()
            obs, reward, _, _, _ = envs.step(action.numpy())
            actions.append(action)
            rewards.append(torch.from_numpy(reward).float())
        # the same steps once more, with a gradient
        out, _ = net.replay(state.trajectory)
        actions, rewards = torch.stack(actions, 1), torch.stack(rewards, 1)
        returns = rewards.flip(1).cumsum(1).flip(1)
        choice = torch.distributions.Categorical(logits=out[..., :N_CUES])
        advantage = returns - out[..., -1]
        policy = -(choice.log_prob(actions) * advantage.detach()).mean()
        loss = policy + 0.5 * advantage.square().mean() - 0.01 * choice.entropy().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        recent.append(rewards.sum(1).mean().item())
        if (iteration + 1) % 25 == 0:
            right = 100 * np.mean(recent[-25:])
            print(f"iteration {iteration + 1}: right {right:.0f} % (chance {100 / N_CUES:.0f} %)")
    envs.close()


if __name__ == "__main__":
    main()
