"""States and steps: what changes under them, and what is refused."""

import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from conftest import error
from hebbian_engine.torch import PlasticRNN
from test_torch import layer, observations


def after_one_step(net, obs, change):
    """What the second step gives where `change` was done after the first, and what is right."""
    state = net.blank(4)
    net.step(obs[:, 0], state)
    before = state.tensors()
    change(net)
    found, _ = net.step(obs[:, 1], state)
    wanted, _ = net.step(obs[:, 1], net.state(before))
    return found, wanted


def by_optimiser(net):
    for value in net.parameters():
        value.grad = torch.ones_like(value)
    torch.optim.SGD(net.parameters(), lr=0.05, fused=True).step()


CHANGES = {
    "a fused optimiser": by_optimiser,
    "an optimiser": lambda net: [
        torch.optim.Adam([value], lr=0.1).step()
        for value in net.parameters()
        if value.grad is not None or setattr(value, "grad", torch.ones_like(value)) is None
    ],
    "data": lambda net: [value.data.mul_(0.5) for value in net.parameters()],
    "new data": lambda net: setattr(net.w, "data", net.w.data * 0.5),
    "a vector": lambda net: nn.utils.vector_to_parameters(
        torch.zeros(sum(value.numel() for value in net.parameters())) + 0.1, net.parameters()
    ),
    "one number": lambda net: net.w.data[0, 0].add_(1.0),
    "a new parameter": lambda net: setattr(net, "w", nn.Parameter(net.w.detach() * 0.5)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_step_follows_every_change_of_the_parameters(what):
    net, obs = layer(), observations()
    plain, _ = after_one_step(net, obs, lambda net: None)
    found, wanted = after_one_step(net, obs, CHANGES[what])
    assert torch.equal(found, wanted)
    assert not torch.equal(found, plain)


def test_resets_go_back_to_the_beginning_whatever_a_step_brings():
    net, obs = layer(n_in=None, n=3, n_out=None), observations()
    state = net.blank(4, record=True)
    all_of_them, none = torch.ones(4), torch.zeros(4)
    net.step(obs[:, 0], state)
    net.step(obs[:, 1], state, clamp=torch.zeros(4, 3))
    net.step(obs[:, 2], state, gate_reset=all_of_them)
    net.step(obs[:, 3], state, clamp=torch.zeros(4, 3), gate_reset=none)
    _, replayed = net.replay(state.trajectory)
    fresh = net.blank(4)
    net.step(obs[:, 2], fresh)
    net.step(obs[:, 3], fresh)
    for name, value in fresh.tensors().items():
        assert torch.equal(state[name], value), name
        assert error(replayed[name].detach().numpy(), value.numpy()) <= 2e-5, name


@pytest.mark.parametrize(
    "rows, kind, words",
    [
        (torch.ones(2), ValueError, "wanted (4,)"),
        (torch.ones(4, 2), ValueError, "wanted (4,)"),
        (torch.full((4,), 0.5), ValueError, "0 or 1"),
        (torch.full((4,), torch.nan), ValueError, "0 or 1"),
        ([1, 0, 0, 0], TypeError, "list"),
    ],
)
def test_resets_that_are_refused(rows, kind, words):
    net, obs = layer(), observations()
    with pytest.raises(kind) as caught:
        net.step(obs[:, 0], net.blank(4), gate_reset=rows)
    assert words in str(caught.value)


def test_a_step_that_fails_leaves_the_trajectory():
    net, obs = layer(), observations()
    state = net.blank(4, record=True)
    net.step(obs[:, 0], state)
    with pytest.raises(ValueError, match="NaN"):
        net.step(torch.full((4, 3), torch.nan), state)
    net.step(obs[:, 1], state)
    assert len(state.trajectory) == 2
    out, _ = net.replay(state.trajectory)
    assert torch.equal(out, net(obs[:, :2])[0])


def test_a_state_belongs_to_its_layer_also_after_it():
    obs = observations()
    for _ in range(20):
        old = layer()
        state = old.blank(4)
        old.step(obs[:, 0], state)
        del old
        with pytest.raises(ValueError, match="another layer"):
            layer().step(obs[:, 0], state)


def test_a_blank_state_has_all_that_a_rule_keeps():
    state = layer(rule="bcm").blank(2)
    assert state["h"].shape == (2, 9, 9) and not state["h"].any()
    assert set(state.tensors()) == {"y", "h", "rule_theta"}
    with pytest.raises(KeyError, match="theta"):
        state["e"]


def test_two_threads_are_told_apart_and_nothing_hangs():
    net = PlasticRNN(4, 300, 2, device="cpu")
    obs = torch.randn(64, 4)
    state = net.blank(64)
    net.step(obs, state)
    told = []

    def work(call):
        for _ in range(200):
            try:
                call()
            except ValueError as error:
                told.append(str(error))

    calls = (lambda: net.step(obs, state), state.tensors, lambda: net.step(obs, state))
    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    assert all("another thread" in text for text in told)


def test_too_many_lives_are_a_memory_error():
    net = PlasticRNN(1, 3000, device="cpu")
    with pytest.raises(MemoryError, match="lives"):
        net.step(torch.ones(40000, 1), net.blank(40000))


def test_a_layer_is_a_module_like_others():
    obs = observations()

    class Agent(PlasticRNN):
        def __init__(self):
            super().__init__(3, 9, 2, device="cpu")
            self.head = nn.Linear(2, 5)

        def forward(self, obs):
            return self.head(super().forward(obs)[0])

    agent = Agent()
    agent(obs).sum().backward()
    assert all(value.grad is not None for value in agent.parameters())
    # parametrised, pruned, tied, and made for inference
    net = layer()
    nn.utils.parametrizations.spectral_norm(net, "w")
    net(obs)[0].sum().backward()
    net.step(obs[:, 0], net.blank(4))
    net = layer()
    nn.utils.prune.random_unstructured(net, "w", amount=0.5)
    whole, _ = net(obs[:, :1])
    assert error(net.step(obs[:, 0], net.blank(4))[0].numpy(), whole[:, 0].detach().numpy()) < 2e-5
    net = layer(rule="modulated")
    net.fanout_w = net.mod_w
    net(obs)[0].sum().backward()
    with torch.inference_mode():
        net = layer()
        net.step(obs[:, 0], net.blank(4))


def test_a_layer_may_change_its_type_while_a_state_lives():
    net, obs = layer(), observations()
    state = net.blank(4)
    net.step(obs[:, 0], state)
    net.double()
    out, _ = net.step(obs[:, 1].double(), state)
    assert out.dtype == torch.float64
    whole, _ = net(obs[:, :2].double())
    assert error(out.numpy(), whole[:, 1].detach().numpy()) <= 2e-5


def test_gradients_that_end_between_calls_are_told():
    for options, warned in ((dict(rule="retroactive"), True), (dict(rule="decay"), False)):
        net, obs = layer(**options), observations()
        _, state = net(obs[:, :4])
        if warned:
            with pytest.warns(UserWarning, match="not through e"):
                net(obs[:, 4:], state)
        net(obs[:, 4:], state.detach())


def test_a_leak_that_left_its_range_comes_back():
    net, obs = layer(leak=0.5), observations()
    with torch.no_grad():
        net.leak.fill_(1.2)
    net(obs)[0].square().sum().backward()
    assert net.leak.grad.abs().min() > 0


def test_a_loss_that_is_not_finite_gives_gradients_that_are_not():
    net, obs = layer(), observations()
    (net(obs)[0].sum() * torch.nan).backward()
    assert all(value.grad.isnan().all() for value in net.parameters())


def test_m_is_asked_for_by_its_name():
    net, obs = layer(rule="modulated", modulation="given"), observations()
    with pytest.raises(ValueError, match="m: not given"):
        net(obs)
    with pytest.raises(TypeError, match="m: found float"):
        net.step(obs[:, 0], net.blank(4), m=0.5)


def test_a_star_asks_for_no_other_package():
    code = """
import sys
sys.modules["jax"] = sys.modules["torch"] = None
from hebbian_engine import *
import hebbian_engine, inspect
inspect.getmembers(hebbian_engine)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
