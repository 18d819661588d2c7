"""The operator on NumPy's arrays: every rule and option, and what is refused."""

import numpy as np
import pytest

import hebbian_engine as he
from conftest import error, read_case, read_expected


@pytest.mark.parametrize("dtype, bound", [(np.float32, 2e-5), (np.float64, 1e-10)])
def test_every_fixture(case, dtype, bound):
    tensors, settings = read_case(case)
    tensors = {name: value.astype(dtype) for name, value in tensors.items()}
    found = he.numpy.gradients(device="cpu", **settings, **tensors)
    expected = read_expected(case)
    assert set(found) == set(expected)
    for name, exact in expected.items():
        assert found[name].shape == exact.shape, name
        assert found[name].dtype == dtype, name
        assert error(found[name], exact) <= bound, name


def test_one_network_is_a_population_of_one(case):
    tensors, settings = read_case(case)
    if tensors["w"].shape[0] != 1:
        return
    whole = he.numpy.gradients(device="cpu", **settings, **tensors)
    one = he.numpy.gradients(
        device="cpu", **settings, **{name: value[0] for name, value in tensors.items()}
    )
    assert set(one) == set(whole)
    for name, exact in whole.items():
        np.testing.assert_array_equal(one[name].reshape(exact.shape), exact, err_msg=name)


RNG = np.random.default_rng(3)
N, B, T = 7, 3, 5


def call(**changes):
    """A call of one network that is right but for the changes."""
    keywords = {
        "w": RNG.normal(0, 0.3, (N, N)).astype(np.float32),
        "alpha": RNG.normal(0, 0.3, (N, N)).astype(np.float32),
        "eta": 0.1,
        "drive": RNG.normal(0, 1, (B, T, N)).astype(np.float32),
        "device": "cpu",
    }
    keywords.update(changes)
    return he.numpy.plastic(**keywords)


def test_shapes_that_a_call_may_have():
    for alpha in (0.1, np.full(N, 0.1), np.full((1, N), 0.1), np.full((1, 1), 0.1)):
        for eta in (0.1, np.full(N, 0.1), np.full(1, 0.1)):
            y, h = call(alpha=alpha, eta=eta)
            assert y.shape == (B, T, N) and h.shape == (B, N, N)
    # not contiguous, read-only, big-endian
    drive = RNG.normal(0, 1, (T, B, N)).astype(np.float32).transpose(1, 0, 2)
    w = np.zeros((N, N), ">f4")
    w.flags.writeable = False
    y, _ = call(drive=drive, w=w, alpha=0.3)
    again, _ = call(drive=drive.copy(), w=np.zeros((N, N), np.float32), alpha=0.3)
    np.testing.assert_array_equal(y, again)


@pytest.mark.parametrize(
    "changes, kind, words",
    [
        ({"alpha": np.zeros((N, N - 1))}, ValueError,
         f"alpha: found ({N}, {N - 1}), wanted ({N}, {N}) or (1, {N}) or (1, 1)"),
        ({"w": np.zeros(N)}, ValueError, "w: found 1 axes"),
        ({"drive": np.zeros((B, T, N + 1))}, ValueError, "drive: found"),
        ({"drive": np.zeros((B, 0, N))}, ValueError, "no size of zero"),
        ({"drive": np.full((B, T, N), np.nan)}, ValueError, "drive: found NaN"),
        ({"drive": np.zeros((B, T, N), int)}, ValueError, "drive: found int64"),
        ({"drive": np.zeros((B, T, N), complex)}, ValueError, "drive: found complex128"),
        ({"drive": None}, ValueError, "drive: found no such tensor"),
        ({"w": None}, TypeError, "w: not given"),
        ({"rule": "hebb"}, ValueError, "wanted one of none, decay"),
        ({"rule": "hebb", "activation": "tan"}, ValueError, "rule: found hebb"),
        ({"activation": "tan"}, ValueError, "nearest: tanh"),
        ({"clip": -1.0}, ValueError, "clip"),
        ({"device": "tpu"}, ValueError, "device"),
        ({"device": "gpu:99"}, he.DeviceError, "99"),
        ({"clmap": np.zeros((B, T, N))}, TypeError, "nearest: clamp"),
        ({"clamp": np.full((B, T, N), 0.5)}, ValueError, "wanted 0 or 1"),
        ({"m_input": np.zeros((B, T))}, ValueError, "m_input"),
        ({"leak": np.full(N, 2.0)}, ValueError, "above 0 and at most 1"),
        ({"rule": "custom"}, ValueError, "rule.text"),
        ({"activation": "linear", "w": np.full((N, N), 1e30)}, he.Diverged, "not finite"),
    ],
)  # fmt: skip
def test_what_is_refused(changes, kind, words):
    with pytest.raises(kind, match=".*") as caught:
        call(**changes)
    assert words in str(caught.value)
    # and the process is as it was
    call()


@pytest.mark.parametrize("name", ["alpha", "eta"])
def test_one_number_for_a_population_is_refused(name):
    networks = {
        "w": np.zeros((2, N, N)),
        "alpha": np.zeros((2, 1)),
        "eta": np.full((2, 1), 0.1),
        "drive": np.zeros((2, B, T, N)),
    }
    y, _ = call(**networks)
    assert y.shape == (2, B, T, N)
    with pytest.raises(ValueError, match=f"{name}: found one number"):
        call(**{**networks, name: 0.1})


def test_a_text_with_a_fault_is_refused_where_it_is():
    with pytest.raises(ValueError) as caught:
        he.Rule.from_text('name = "mine"\n[trace]\nH = "H + x * q"\n')
    assert "q" in str(caught.value)


def test_a_rule_can_be_pickled_and_compared():
    import pickle

    text = 'name = "mine"\n[trace]\nH = "H + 0.1 * x * y"\n'
    for rule in (he.Rule("bcm"), he.Rule.from_text(text)):
        again = pickle.loads(pickle.dumps(rule))
        assert again == rule and hash(again) == hash(rule) and again.text == rule.text
