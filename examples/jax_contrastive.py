"""Contrastive RL in JAX, many batches a call and a scan over them: `python examples/jax_contrastive.py`."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from plane import Plane, reached

import crl

NUM_ENVS, BATCH, UPDATES, CANDIDATES = 8, 256, 32, 32


def init(key, *sizes):
    pairs = zip(jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True)
    return [(jax.random.normal(k, (n, m)) / np.sqrt(n), jnp.zeros(m)) for k, n, m in pairs]


def mlp(layers, x):
    for weight, bias in layers[:-1]:
        x = jax.nn.swish(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def energy(parameters, observation, action, goal):
    """How reachable each goal is: [B, 2], [B, 2], [B', 2] -> logits [B, B']."""
    phi = mlp(parameters["phi"], jnp.concatenate((observation, action), -1))
    psi = mlp(parameters["psi"], goal)
    return -jnp.sqrt(((phi[:, None] - psi) ** 2).sum(-1) + 1e-6)


def loss(parameters, batch):
    """InfoNCE: the row's own goal among those of all rows."""
    logits = energy(parameters, batch["observation"], batch["action"], batch["goal"])
    return (jax.nn.logsumexp(logits, 1) - jnp.diag(logits)).mean()


@functools.partial(jax.jit, donate_argnums=(0, 1, 2))
def learn(parameters, mean, square, step, batches):
    """One step of Adam for each of the batches [UPDATES, BATCH, ...]: the parameters and their moments, the losses."""

    def update(carry, batch):
        parameters, mean, square, step = carry
        value, gradient = jax.value_and_grad(loss)(parameters, batch)
        step += 1
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
        square = jax.tree.map(lambda s, g: 0.99 * s + 0.01 * g**2, square, gradient)
        rate = 1e-3 * jnp.sqrt(1 - 0.99**step) / (1 - 0.9**step)
        parameters = jax.tree.map(lambda p, m, s: p - rate * m / (jnp.sqrt(s) + 1e-8), parameters, mean, square)
        return (parameters, mean, square, step), value

    return jax.lax.scan(update, (parameters, mean, square, step), batches)


@jax.jit
def act(parameters, key, observation, goal):
    """Of some random actions the one that brings the goal nearest: [N, 2], [N, 2] -> [N, 2]."""
    actions = jax.random.uniform(key, (len(observation), CANDIDATES, 2), minval=-1, maxval=1)
    one = jax.vmap(lambda o, a, g: energy(parameters, jnp.repeat(o[None], CANDIDATES, 0), a, g[None])[:, 0])
    best = one(observation, actions, goal).argmax(1)
    return actions[jnp.arange(len(observation)), best]


def main(rounds=40, steps=42, seed=0):
    """Collect and learn `rounds` times; the share of the last ten rounds' episodes at the goal, and the last loss."""
    envs = gymnasium.vector.SyncVectorEnv([Plane] * NUM_ENVS)
    buffer = crl.TrajectoryBuffer(NUM_ENVS, 100_000, observation=(2,), action=(2,), achieved_goal=(2,), seed=seed)
    key, to_phi, to_psi = jax.random.split(jax.random.key(seed), 3)
    parameters = {"phi": init(to_phi, 4, 64, 64, 16), "psi": init(to_psi, 2, 64, 64, 16)}
    mean, square = (jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
    step = jnp.zeros(())
    shown, _ = envs.reset(seed=seed)
    first, ended = np.ones(NUM_ENVS, bool), np.zeros(NUM_ENVS, bool)
    successes = []
    for number in range(rounds):
        for _ in range(steps):
            key, to_act = jax.random.split(key)
            action = np.asarray(act(parameters, to_act, shown["observation"], shown["desired_goal"]))
            achieved = shown["achieved_goal"]
            buffer.add(observation=shown["observation"], action=action, achieved_goal=achieved, episode_start=first)
            shown, _, terminated, truncated, _ = envs.step(action)
            first, ended = ended, terminated | truncated
            if number >= rounds - 10:
                successes += list(reached(shown["achieved_goal"], shown["desired_goal"])[ended])
        batches = buffer.sample(BATCH, gamma=0.9, num_batches=UPDATES)  # one leading axis more: what scan runs over
        columns = {"observation": batches.observation, "action": batches.action, "goal": batches.goal}
        (parameters, mean, square, step), losses = learn(parameters, mean, square, step, columns)
    envs.close()
    return float(np.mean(successes)), float(losses[-1])


if __name__ == "__main__":
    print("episodes that end at the goal: {:.0%}, loss {:.2f}".format(*main()))
