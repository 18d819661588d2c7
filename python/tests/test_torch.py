"""The layer and the operator in PyTorch."""

import pickle

import numpy as np
import pytest
import torch

import hebbian_engine as he
from conftest import error, read_case
from hebbian_engine import _case, functional
from hebbian_engine.torch import PlasticRNN

RULES = [
    dict(rule="none"),
    dict(rule="decay"),
    dict(rule="decay", clip=0.2, alpha="neuron"),
    dict(rule="oja", eta="neuron"),
    dict(rule="modulated", clip=2.0),
    dict(rule="modulated", modulation="given"),
    dict(rule="retroactive", clip=1.0, alpha="network"),
    dict(rule="delta"),
    dict(rule="covariance"),
    dict(rule="bcm"),
    dict(rule="pre-trace"),
    dict(rule="abcd"),
    dict(rule="soft-clip"),
    dict(rule="decay", leak=0.3, activation="softplus", bias="neuron"),
    dict(rule="decay", leak=0.3, leak_kind="membrane", activation="gelu"),
]


def layer(n_in=3, n=9, n_out=2, dtype=torch.float32, **options):
    torch.manual_seed(5)
    layer = PlasticRNN(n_in, n, n_out, device="cpu", dtype=dtype, **options)
    with torch.no_grad():
        # far from what a fresh layer has, so that every part matters
        for name, value in layer.named_parameters():
            if name not in ("leak", "eta", "rule_tau"):
                value.add_(torch.empty_like(value).uniform_(-0.3, 0.3))
            if name == "eta":
                value.fill_(0.2)
    return layer


def observations(batch=4, steps=11, n_in=3, dtype=torch.float32):
    return torch.randn(batch, steps, n_in, dtype=dtype, generator=torch.manual_seed(8))


def reward(options, obs):
    given = options.get("modulation") == "given"
    return {"m": torch.cos(obs.sum(-1))} if given else {}


def ids(options):
    return "-".join(str(value) for value in options.values())


@pytest.mark.parametrize("options", RULES, ids=ids)
def test_step_by_step_is_the_whole_episode(options):
    net, obs = layer(**options), observations()
    m = reward(options, obs).get("m")
    whole, after = net(obs, **reward(options, obs))
    state = net.blank(4)
    steps = []
    for t in range(obs.shape[1]):
        out, state = net.step(obs[:, t], state, m=None if m is None else m[:, t])
        steps.append(out)
    assert error(torch.stack(steps, 1).numpy(), whole.detach().numpy()) <= 2e-5
    tensors = state.tensors()
    assert set(tensors) == set(after.tensors())
    for name, exact in after.tensors().items():
        assert error(tensors[name].numpy(), exact.detach().numpy()) <= 2e-5, name


@pytest.mark.parametrize("options", RULES, ids=ids)
def test_gradients_are_those_of_differences(options):
    net = layer(n=4, dtype=torch.float64, **options)
    obs = observations(2, 5, dtype=torch.float64)
    names = [name for name, _ in net.named_parameters()]
    given = reward(options, obs.clone())

    def run(obs, y0, h0, *values):
        state = net.state({"y": y0, "h": h0})
        arguments = (obs, state)
        bound = dict(zip(names, values))
        out, after = torch.func.functional_call(net, bound, arguments, given)
        return out, after["y"], after["h"]

    values = [value.detach().clone().requires_grad_() for value in net.parameters()]
    generator = torch.manual_seed(2)
    y0 = torch.rand(2, 4, dtype=torch.float64, generator=generator).mul_(0.5).requires_grad_()
    h0 = torch.rand(2, 4, 4, dtype=torch.float64, generator=generator).mul_(0.1).requires_grad_()
    assert torch.autograd.gradcheck(run, (obs.requires_grad_(), y0, h0, *values), atol=1e-6)


@pytest.mark.parametrize("options", RULES, ids=ids)
def test_the_operator_passes_opcheck(options):
    net = layer(n=5, **options)
    obs = observations(2, 4)
    data = net._data(obs, reward(options, obs).get("m"), None, 2)
    tensors = {**net._parameters_now(), **data}
    tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    for name in tensors:
        tensors[name].requires_grad_(name not in _case.FIXED)
    arguments = (list(tensors.values()), ",".join(tensors), net._settings, "cpu")
    torch.library.opcheck(functional._episodes, arguments)


@pytest.mark.parametrize("options", RULES, ids=ids)
def test_a_compiled_layer_is_the_layer(options):
    net, obs = layer(**options), observations()
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")

    def losses(net):
        net.zero_grad()
        out, _ = net(obs, **reward(options, obs))
        loss = out.square().sum()
        loss.backward()
        return loss.item(), [p.grad.clone() for p in net.parameters()]

    (plain, slopes), (found, compiled_slopes) = losses(net), losses(compiled)
    assert plain == found
    for name, one, two in zip(dict(net.named_parameters()), slopes, compiled_slopes):
        # bits may differ: zeros as the cotangent of H may choose another plan
        assert error(two.numpy(), one.numpy()) <= 2e-5, name


@pytest.mark.parametrize("options", RULES[:3] + RULES[4:6], ids=ids)
def test_replay_has_the_gradients_of_the_episode(options):
    net, obs = layer(**options), observations()
    m = reward(options, obs).get("m")
    resets = torch.zeros(4, 11, dtype=torch.bool)
    resets[1, 4] = resets[3, 7] = True
    state = net.blank(4, record=True)
    for t in range(11):
        reward_now = None if m is None else m[:, t]
        step, state = net.step(obs[:, t], state, m=reward_now, gate_reset=resets[:, t])
    out, _ = net.replay(state.trajectory)
    assert error(out[:, -1].detach().numpy(), step.numpy()) <= 2e-5
    out.square().sum().backward()
    replayed = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    out, _ = net(obs, gate_reset=resets, **reward(options, obs))
    out.square().sum().backward()
    for one, parameter in zip(replayed, net.parameters()):
        assert torch.equal(one, parameter.grad)


def unrolled(net, obs):
    """The layer as a loop in PyTorch, of the decay rule."""
    y = obs.new_zeros(obs.shape[0], net.n)
    h = obs.new_zeros(obs.shape[0], net.n, net.n)
    outs = []
    for t in range(obs.shape[1]):
        weights = net.w + net.alpha * h
        z = torch.einsum("bi,bij->bj", y, weights) + obs[:, t] @ net.in_w + net.in_b
        new = torch.tanh(z)
        h = (1 - net.eta) * h + net.eta * y[:, :, None] * new[:, None, :]
        y = new
        outs.append(y @ net.out_w + net.out_b)
    return torch.stack(outs, 1), y, h


def test_the_layer_is_a_loop_in_pytorch():
    net, obs = layer(dtype=torch.float64), observations(dtype=torch.float64)
    results = []
    for run in (lambda: net(obs), lambda: unrolled(net, obs)):
        net.zero_grad()
        out, *rest = run()
        h = rest[0]["h"] if len(rest) == 1 else rest[1]
        (out.square().sum() + (h * h).sum()).backward()
        results.append([out.detach(), h.detach(), *(p.grad.clone() for p in net.parameters())])
    for one, two in zip(*results):
        assert error(one.numpy(), two.numpy()) <= 1e-10


def test_gradients_pass_from_call_to_call():
    net, obs = layer(dtype=torch.float64), observations(dtype=torch.float64)
    out, _ = net(obs)
    out.square().sum().backward()
    whole = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    first, state = net(obs[:, :4])
    second, _ = net(obs[:, 4:], state)
    (first.square().sum() + second.square().sum()).backward()
    for one, parameter in zip(whole, net.parameters()):
        assert error(parameter.grad.numpy(), one.numpy()) <= 1e-10


def test_training_lowers_a_loss():
    torch.manual_seed(0)
    net = PlasticRNN(5, 20, 5, device="cpu")
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    losses = []
    for _ in range(150):
        shown = torch.randn(16, 5).sign()
        obs = torch.zeros(16, 6, 5)
        obs[:, 0] = shown
        out, _ = net(obs)
        loss = (out[:, -1] - shown).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[:5]) > 0.9 and np.mean(losses[-5:]) < 0.1


def test_steps_follow_the_parameters():
    net, obs = layer(), observations()
    state = net.blank(4)
    net.step(obs[:, 0], state)
    with torch.no_grad():
        net.w.mul_(0.5)
        net.out_w.add_(0.1)
    out, state = net.step(obs[:, 1], state)
    _, before = layer()(obs[:, :1])
    start = net.state(before.detach().tensors())
    expected, _ = net(obs[:, 1:2], start)
    assert error(out.numpy(), expected[:, 0].detach().numpy()) <= 2e-5


def test_a_state_dict_goes_from_layer_to_layer():
    one, two, obs = layer(), layer(), observations()
    with torch.no_grad():
        for value in two.parameters():
            value.zero_()
    assert {"w", "alpha", "eta", "in_w", "in_b", "out_w", "out_b"} == set(one.state_dict())
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(obs)[0], two(obs)[0])


def test_convert_reads_an_rnn():
    rnn = torch.nn.RNN(3, 9, batch_first=True)
    obs = observations()
    tensors = he.convert.from_torch_rnn(rnn.state_dict())
    y, _ = he.numpy.plastic(
        alpha=0.0, rule="none", drive=None, obs=obs.numpy(), device="cpu", **tensors
    )
    assert error(y, rnn(obs)[0].detach().numpy()) <= 2e-5
    back = he.convert.to_torch_rnn(tensors)
    again = torch.nn.RNN(3, 9, batch_first=True)
    again.load_state_dict({name: torch.from_numpy(np.array(v)) for name, v in back.items()})
    assert error(again(obs)[0].detach().numpy(), rnn(obs)[0].detach().numpy()) <= 2e-5


def test_tensors_of_any_layout():
    net, obs = layer(), observations()
    plain, _ = net(obs)
    spread = torch.empty(11, 4, 3).transpose(0, 1).copy_(obs)
    assert not spread.is_contiguous()
    assert torch.equal(net(spread)[0], plain)
    read_only = obs.numpy().copy()
    read_only.flags.writeable = False
    assert torch.equal(net(torch.from_numpy(read_only.copy()))[0], plain)


FAULTS = [
    ("obs of another size", lambda net: net(torch.zeros(2, 3, 4)), ValueError, "(B, T, K)"),
    ("obs without time", lambda net: net(torch.zeros(2, 3)), ValueError, "(B, T, K)"),
    ("obs of another type", lambda net: net(torch.zeros(2, 3, 3).int()), ValueError, "int32"),
    ("obs of float16", lambda net: net(torch.zeros(2, 3, 3).half()), ValueError, "float16"),
    ("obs of NumPy", lambda net: net(np.zeros((2, 3, 3))), TypeError, "ndarray"),
    ("obs without steps", lambda net: net(torch.zeros(2, 0, 3)), ValueError, "zero"),
    ("NaN", lambda net: net(torch.full((2, 3, 3), torch.nan)), ValueError, "NaN"),
    ("a device of its own", lambda net: net(torch.zeros(2, 3, 3, device="meta")), ValueError, "meta"),
    ("a state of another layer", lambda net: net(torch.zeros(2, 3, 3), layer().blank(2)), ValueError,
     "another layer"),
    ("a state of another batch", lambda net: net(torch.zeros(2, 3, 3), net.blank(3)), ValueError,
     "3 episodes"),
    ("a step of another batch", lambda net: net.step(torch.zeros(2, 3), net.blank(3)), ValueError,
     "3 episodes"),
    ("no state", lambda net: net.step(torch.zeros(2, 3), None), (TypeError, AttributeError), ""),
    ("m without use", lambda net: net(torch.zeros(2, 3, 3), m=torch.zeros(2, 3)), ValueError,
     "m_input"),
    ("a gradient of what has none", lambda net: net(torch.zeros(2, 3, 3),
     gate_reset=torch.zeros(2, 3).requires_grad_()), ValueError, "gate_reset"),
    ("pickling a state", lambda net: pickle.dumps(net.blank(2)), TypeError, "tensors()"),
    ("an empty trajectory", lambda net: net.replay(net.blank(2, record=True).trajectory), ValueError,
     "no steps"),
    ("a rule that is none", lambda net: PlasticRNN(3, 5, rule="hebb"), ValueError, "decay"),
    ("a leak above 1", lambda net: PlasticRNN(3, 5, leak=1.5), ValueError, "leak"),
    ("a state of other tensors", lambda net: net.state({"y": torch.zeros(2, 9), "h": torch.zeros(9, 9)}),
     ValueError, "h: found (9, 9), wanted (2, 9, 9)"),
    ("no episodes", lambda net: net.blank(0), ValueError, "batch"),
]  # fmt: skip


@pytest.mark.parametrize("what, run, kind, words", FAULTS, ids=[fault[0] for fault in FAULTS])
def test_what_is_refused(what, run, kind, words):
    net = layer()
    with pytest.raises(kind) as caught:
        run(net)
    assert words in str(caught.value)
    net(torch.zeros(2, 3, 3))


def test_a_second_derivative_is_refused_in_words():
    net = layer()
    obs = observations().requires_grad_()
    out, _ = net(obs)
    (slope,) = torch.autograd.grad(out.sum(), obs, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        slope.sum().backward()


def test_cases_by_torch_are_those_by_numpy(case):
    tensors, settings = read_case(case)
    if not any(name in tensors for name in ("dy", "dh", "dout")):
        return
    weights = {name: tensors.pop(name) for name in ("dy", "dh", "dout") if name in tensors}
    settings = {k: v for k, v in settings.items() if k not in ("loss", "out_loss")}
    given = {name: torch.from_numpy(value).double() for name, value in tensors.items()}
    for name, value in given.items():
        if _case.TENSORS.get(name, name) not in _case.FIXED:
            value.requires_grad_()
    found = functional.episodes(device="cpu", **settings, **given)
    pairs = [(found[name[1:]], torch.from_numpy(value).double()) for name, value in weights.items()]
    sum((one * two).sum() for one, two in pairs).backward()
    exact = he.numpy.gradients(
        device="cpu",
        **settings,
        **{name: value.astype(np.float64) for name, value in {**tensors, **weights}.items()},
    )
    for name, value in given.items():
        if value.requires_grad:
            assert error(value.grad.numpy(), exact[f"grad_{name}"]) <= 1e-12, name
