"""One update (forward, backward, Adam) of the decay rule in JAX: scan over steps, vmap over
episodes.

    python benches/peers/jax_step.py --neurons 1001 --steps 106 --batch 1 [--checkpoint]

With --checkpoint only every tenth trace is kept and the rest is computed again. Prints one
JSON object: median seconds per update and peak memory. The same arithmetic as
`hebbian bench`.
"""

import argparse
import json
import resource
import statistics
import time

import jax
import jax.numpy as jnp

BLOCK = 10


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--neurons", type=int, default=1001)
    parser.add_argument("--steps", type=int, default=106)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--checkpoint", action="store_true")
    options = parser.parse_args()
    n, steps, batch = options.neurons, options.steps, options.batch

    # on an NVIDIA GPU, f32 as all others compute it
    jax.config.update("jax_default_matmul_precision", "highest")
    keys = jax.random.split(jax.random.key(0), 4)
    parameters = {"w": 0.01 * jax.random.normal(keys[0], (n, n)),
                  "alpha": 0.01 * jax.random.normal(keys[1], (n, n)),
                  "eta": jnp.float32(0.01)}
    shown = jnp.sign(jax.random.normal(keys[2], (batch, 7, n)))
    stimuli = shown[:, jnp.arange(steps) % 7]
    target = jnp.sign(jax.random.normal(keys[3], (batch, n)))

    def episode(p, stimuli, target):
        def step(state, u):
            y, hebb = state
            new = jnp.tanh(y @ (p["w"] + p["alpha"] * hebb) + u)
            hebb = (1 - p["eta"]) * hebb + p["eta"] * jnp.outer(y, new)
            return (new, hebb), None

        state = (jnp.zeros(n), jnp.zeros((n, n)))
        if options.checkpoint:
            whole = steps // BLOCK * BLOCK
            block = jax.checkpoint(lambda state, us: jax.lax.scan(step, state, us))
            state, _ = jax.lax.scan(block, state, stimuli[:whole].reshape(-1, BLOCK, n))
            stimuli = stimuli[whole:]
        (y, _), _ = jax.lax.scan(step, state, stimuli)
        return ((y - target) ** 2).sum()

    def loss(p):
        return jax.vmap(episode, (None, 0, 0))(p, stimuli, target).mean()

    @jax.jit
    def update(p, m, v, k):
        g = jax.grad(loss)(p)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        scale = jnp.sqrt(1 - 0.999**k) / (1 - 0.9**k)
        p = jax.tree.map(lambda p, m, v: p - 1e-4 * scale * m / (jnp.sqrt(v) + 1e-8), p, m, v)
        return p, m, v

    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state, seconds = (parameters, zeros, zeros), []
    for k in range(2 + options.updates):
        start = time.perf_counter()
        state = jax.block_until_ready(update(*state, jnp.float32(k + 1)))
        if k >= 2:
            seconds.append(time.perf_counter() - start)
    # (none for the CPU)
    on_device = jax.devices()[0].memory_stats() or {}
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({
        "peer": f"jax {jax.__version__}" + (" checkpoint" if options.checkpoint else ""),
        "seconds_per_update": statistics.median(seconds),
        "peak_memory_bytes": on_device.get("peak_bytes_in_use", host),
    }))


if __name__ == "__main__":
    main()
