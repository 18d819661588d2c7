"""The operator on JAX's arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbian_engine as he
from hebbian_engine import _case
from conftest import error, read_case, read_expected

N, B, T = 7, 3, 5
KEYWORDS_FIXED = {keyword for keyword, name in _case.TENSORS.items() if name in _case.FIXED}
RNG = np.random.default_rng(4)


def tensors(rule="decay"):
    found = {
        "w": RNG.normal(0, 0.4, (N, N)),
        "alpha": RNG.normal(0, 0.4, (N, N)),
        "drive": RNG.normal(0, 1, (B, T, N)),
    }
    known = he.Rule(rule)
    if rule in ("decay", "oja", "retroactive", "delta"):
        shapes = {"eta": (N,)}
    elif rule in ("none", "modulated"):
        shapes = {}
    else:
        sizes = {"network": (1,), "neuron": (N,), "connection": (N, N)}
        shapes = {name.replace(".", "_"): sizes[per[0]] for name, per, _ in known.parameters}
    if known.reads_m:
        shapes.update(mod_w=(N,), mod_b=(), fanout_w=(N,), fanout_b=(N,))
    found.update({name: 0.1 + 0.1 * RNG.random(shape) for name, shape in shapes.items()})
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def loss(found, rule):
    y, h = he.jax.plastic(rule=rule, device="cpu", **found)
    return (y * y).sum() + (h * h).sum()


@pytest.mark.parametrize("rule", he.Rule.names())
def test_grad_and_jit(rule):
    given = tensors(rule)
    y, h = jax.jit(lambda found: he.jax.plastic(rule=rule, device="cpu", **found))(given)
    exact = he.numpy.episodes(rule=rule, device="cpu", **given)
    np.testing.assert_array_equal(y, exact["y"])
    np.testing.assert_array_equal(h, exact["h"])
    slopes = jax.jit(jax.grad(loss), static_argnums=1)(given, rule)
    wanted = he.numpy.gradients(
        rule=rule, device="cpu", dy=2 * exact["y"], dh=2 * exact["h"], **given
    )
    for name in given:
        assert error(slopes[name], wanted[f"grad_{name}"]) <= 1e-6, name


@pytest.mark.parametrize("rule", ["decay", "modulated", "bcm"])
def test_vmap_over_episodes_and_over_networks(rule):
    given = tensors(rule)
    many = RNG.normal(0, 1, (4, B, T, N)).astype(np.float32)

    def one(drive, w):
        return he.jax.plastic(rule=rule, device="cpu", **{**given, "drive": drive, "w": w})

    whole = jax.vmap(one, (0, None))(many, given["w"])
    ws = given["w"] * np.arange(1, 5, dtype=np.float32)[:, None, None] / 4
    networks = jax.vmap(one)(many, ws)
    for k in range(4):
        for found, exact in zip(whole, one(many[k], given["w"])):
            assert error(found[k], exact) <= 2e-5
        for found, exact in zip(networks, one(many[k], ws[k])):
            assert error(found[k], exact) <= 2e-5


@pytest.mark.parametrize("rule", ["decay", "retroactive"])
def test_grad_of_vmap_and_vmap_of_grad(rule):
    given = tensors(rule)
    many = RNG.normal(0, 1, (4, B, T, N)).astype(np.float32)

    def one(found, drive):
        return loss({**found, "drive": drive}, rule)

    each = [jax.grad(one)(given, drive) for drive in many]
    of_sum = jax.grad(lambda found: jax.vmap(one, (None, 0))(found, many).sum())(given)
    of_each = jax.vmap(jax.grad(one), (None, 0))(given, many)
    for name in given:
        total = sum(np.asarray(slopes[name], np.float64) for slopes in each)
        assert error(of_sum[name], total) <= 2e-5, name
        for k in range(4):
            assert error(of_each[name][k], each[k][name]) <= 2e-5, name


def test_vmap_of_a_population_that_shares_its_data():
    given = {name: np.stack([value] * 2) for name, value in tensors().items()}
    given["w"][1] *= 0.5
    many = RNG.normal(0, 1, (3, 1, B, T, N)).astype(np.float32)

    def one(drive, w):
        y, h = he.jax.plastic(device="cpu", **{**given, "drive": drive, "w": w})
        return (y * y).sum() + h.sum(), y

    (_, found), slopes = jax.vmap(jax.value_and_grad(one, (0, 1), has_aux=True), (0, None))(
        many, given["w"]
    )
    for k in range(3):
        (_, y), (d_drive, d_w) = jax.value_and_grad(one, (0, 1), has_aux=True)(many[k], given["w"])
        assert error(found[k], y) <= 2e-5
        assert error(slopes[0][k], d_drive) <= 2e-5 and error(slopes[1][k], d_w) <= 2e-5


def test_vmap_knows_a_start_value_from_a_parameter():
    text = """
name = "mine"
[parameters]
k0 = { per = "neuron", init = 0.1 }
[post]
mean = { start = 0.5, next = "0.9 * mean + 0.1 * y" }
[trace]
H = "H + k0 * x * (y - mean)"
"""
    rule = he.Rule.from_text(text)
    given = {name: value for name, value in tensors("none").items() if name != "drive"}
    given["rule_k0"] = np.full(N, 0.2, np.float32)
    starts = RNG.normal(0, 1, (4, B, N)).astype(np.float32)
    many = RNG.normal(0, 1, (4, B, T, N)).astype(np.float32)

    def one(drive, mean0):
        return he.jax.plastic(rule=rule, drive=drive, rule_mean0=mean0, device="cpu", **given)[0]

    found = jax.vmap(one)(many, starts)
    for k in range(4):
        assert error(found[k], one(many[k], starts[k])) <= 2e-5


def test_float64_where_jax_has_it():
    with jax.enable_x64(True):
        given = {name: jnp.asarray(value, jnp.float64) for name, value in tensors().items()}
        slopes = jax.grad(loss)(given, "decay")
        step = 1e-6
        shift = dict(given, w=given["w"].at[2, 3].add(step))
        back = dict(given, w=given["w"].at[2, 3].add(-step))
        difference = (loss(shift, "decay") - loss(back, "decay")) / (2 * step)
        assert abs(difference - slopes["w"][2, 3]) <= 1e-6 * max(1, abs(difference))


def test_what_is_refused():
    given = tensors()
    given["alpha"] = given["alpha"][:, :-1]
    with pytest.raises(Exception, match="alpha: found"):
        jax.block_until_ready(he.jax.plastic(device="cpu", **given))
    with pytest.raises(ValueError, match="one of none, decay"):
        he.jax.plastic(rule="hebb", device="cpu", **tensors())


def test_every_fixture_that_jax_can_say(case):
    tensors, settings = read_case(case)
    if settings["loss"] or settings["out_loss"] or "dout" in tensors or "out_w" in tensors:
        return
    if "target" in tensors:
        return
    settings = {k: v for k, v in settings.items() if k not in ("loss", "out_loss")}
    weights = {name: tensors.pop(name, 0.0) for name in ("dy", "dh")}
    floats = {n: v.astype(np.float32) for n, v in tensors.items() if n not in KEYWORDS_FIXED}
    fixed = {n: v.astype(np.float32) for n, v in tensors.items() if n in KEYWORDS_FIXED}

    def weighted(floats):
        y, h = he.jax.plastic(device="cpu", **settings, **floats, **fixed)
        return (y * weights["dy"]).sum() + (h * weights["dh"]).sum()

    slopes = jax.jit(jax.grad(weighted))(floats)
    expected = read_expected(case)
    for name in floats:
        assert error(slopes[name], expected[f"grad_{name}"]) <= 2e-5, name
