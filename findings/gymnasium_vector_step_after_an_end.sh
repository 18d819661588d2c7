#!/usr/bin/env bash
# gymnasium 1.2.2, SyncVectorEnv as it comes.
# Guess: the step that ends an episode gives the first observation of the next one, as before 1.0.
# Found: it gives the last observation; the step after it ignores its action, gives reward 0, the first
# observation and an empty info. An actor-critic that stores every step stores one that never was.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gymnasium==1.2.2 numpy==2.3.5
"$folder/venv/bin/python" - <<'PY'
import gymnasium as gym
import numpy as np


class TwoSteps(gym.Env):
    observation_space = gym.spaces.Box(-10, 10, (1,))
    action_space = gym.spaces.Discrete(9)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(1, self.t, np.float32), float(action), self.t == 2, False, {"action": action}


envs = gym.vector.SyncVectorEnv([TwoSteps])
envs.reset(seed=0)
seen = []
for action in (5, 6, 7, 8):
    observation, reward, ended, _, info = envs.step(np.array([action]))
    seen.append((float(observation[0, 0]), float(reward[0]), bool(ended[0]), "action" in info))
    print(action, seen[-1])
assert seen == [(1, 5, False, True), (2, 6, True, True), (0, 0, False, False), (1, 8, False, True)]
PY
echo "as found: the step after an end ignores its action and counts for nothing"
