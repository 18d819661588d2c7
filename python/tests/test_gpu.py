"""The layer on a GPU. Where there is none, tests/run.sh installs a software driver."""

import subprocess
import sys

import torch

import hebbian_engine as he
from conftest import error
from hebbian_engine.torch import PlasticRNN
from test_torch import layer, observations


def on_gpu(net):
    found = PlasticRNN(3, 9, 2, rule=net.rule, clip=2.0, device="gpu")
    found.load_state_dict(net.state_dict())
    return found


def test_a_layer_on_a_gpu_is_the_layer():
    for rule in ("decay", "modulated"):
        cpu, obs = layer(rule=rule, clip=2.0), observations()
        gpu = on_gpu(cpu)
        for net in (cpu, gpu):
            net(obs)[0].square().sum().backward()
        for name, exact in cpu.named_parameters():
            assert error(dict(gpu.named_parameters())[name].grad, exact.grad) <= 2e-5, name


def test_steps_have_the_bits_of_the_episode():
    net, obs = on_gpu(layer(clip=2.0)), observations()
    whole, after = net(obs)
    state = net.blank(4)
    steps = []
    for t in range(obs.shape[1]):
        out, state = net.step(obs[:, t], state)
        steps.append(out)
    assert torch.equal(torch.stack(steps, 1), whole)
    assert torch.equal(state["h"], after["h"])
    # some go back in place
    rows = torch.tensor([0.0, 1.0, 0.0, 1.0])
    out, _ = net.step(obs[:, 0], state, gate_reset=rows)
    assert torch.equal(out[rows > 0], whole[rows > 0, 0])


def test_after_a_fork_a_gpu_is_refused_in_words():
    code = """
import os, sys
import numpy as np
import hebbian_engine as he
one = np.ones((1, 1, 1), np.float32)
call = lambda: he.numpy.plastic(one[0], 0.0, 0.1, one, device="gpu")
call()
child = os.fork()
if child == 0:
    try:
        call()
    except he.DeviceError as error:
        os._exit(0 if "spawn" in str(error) else 2)
    os._exit(1)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def test_episodes_with_resets_agree_with_the_cpu():
    cpu, obs = layer(clip=2.0), observations()
    gpu = on_gpu(cpu)
    reset = torch.zeros(obs.shape[:2])
    reset[1, 4] = reset[2, 7] = reset[2, 9] = 1.0
    outs = []
    for net in (cpu, gpu):
        out, _ = net(obs, gate_reset=reset)
        out.square().sum().backward()
        outs.append(out.detach())
    assert error(outs[1], outs[0]) <= 2e-5
    for name, exact in cpu.named_parameters():
        assert error(dict(gpu.named_parameters())[name].grad, exact.grad) <= 2e-5, name
