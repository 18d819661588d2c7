#!/usr/bin/env python3
"""Evolution on the CPU: network-steps a second beside training, groups of members, tasks.

Usage: benches/evolve.py [speed] [groups] [tasks] > benches/runs/DATE-MACHINE/evolve.txt
Times are the least of the updates of a run; other work on the machine only adds to them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HEBBIAN = os.path.join(ROOT, "target/release/hebbian")

# N = 99, the even number of bits and the bias; T = 2 (30 + 15) + 10 = 100
SHAPE = {
    "task.bits": 98, "task.patterns": 2, "task.cycles": 1, "task.shown": 30, "task.blank": 15,
    "task.test": 10, "eval_episodes": 1,
}
STEPS = 100
MEMBERS = 1024


def seconds(command, *flags):
    """Least seconds of an update, after the first."""
    sets = [word for key, value in SHAPE.items() for word in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run")
        words = [HEBBIAN, command, "patterns", *sets, *flags, "--device", "cpu", "--quiet"]
        subprocess.run([*words, "--out", out], check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(out, "metrics.jsonl")) as file:
            at = [json.loads(line)["seconds"] for line in file]
    return min(b - a for a, b in zip(at, at[1:]))


def line(name, episodes, time_taken):
    rate = episodes * STEPS / time_taken
    print(f"{name:48} {time_taken:8.4f} s an update, {rate:.3g} network-steps/s", flush=True)
    return rate


def speed():
    print("== speed: N=99, T=100")
    many = line(
        "train, 1024 networks, an episode each", MEMBERS,
        seconds("train", "--networks", "1024", "--batch", "1", "--updates", "8"),
    )
    one = line(
        "train, a network, 64 episodes", 64, seconds("train", "--batch", "64", "--updates", "60")
    )
    for batch in 1, 4, 16:
        flags = ["--members", str(MEMBERS), "--batch", str(batch), "--updates", "8"]
        name = f"evolve, 1024 members, {batch} episodes each"
        rate = line(name, MEMBERS * batch, seconds("evolve", *flags))
        print(f"  {rate / many:.1f} and {rate / one:.1f} times those of train")


def groups():
    print("== groups: 1024 members, an episode each")
    for at_once in 2, 4, 8, 12, 16, 32, 64, 256, 1024:
        flags = ["--members-at-once", str(at_once), "--members", str(MEMBERS), "--batch", "1"]
        line(f"{at_once} members at once", MEMBERS, seconds("evolve", *flags, "--updates", "8"))


def tasks():
    for words in ["patterns --preset small", "cue-reward"]:
        print(f"== evolve {words}")
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "run")
            begun = time.time()
            command = [HEBBIAN, "evolve", *words.split(), "--device", "cpu", "--quiet"]
            subprocess.run([*command, "--out", out], check=True)
            print(f"{(time.time() - begun) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    print("load average", *os.getloadavg(), flush=True)
    for part in sys.argv[1:] or ["speed", "groups", "tasks"]:
        {"speed": speed, "groups": groups, "tasks": tasks}[part]()
    print("load average", *os.getloadavg())
