"""How fast do the worlds turn, how much of that is physics, and how fast do the peers turn theirs?

    pytest benches/bench_envs.py

Every benchmark makes `STEPS` steps of all its worlds with random actions; `extra_info` holds env steps per second.
Shares compare CPU seconds of two loops that take turns, so that other work on the machine falls on both.
"""

import time
from statistics import median

import gymnasium
import numpy as np
import pytest
from mujoco import MjData
from mujoco.rollout import Rollout

import crl.envs as envs
from crl.envs.physics import cpu_count

STEPS = 10


def large(*values):
    """Left out by `make bench-smoke`."""
    return [pytest.param(value, marks=pytest.mark.large) for value in values]


def actions_of(space, steps=STEPS):
    return np.random.default_rng(0).uniform(-1, 1, (steps, *space.shape)).astype(np.float32)


def measure(benchmark, env):
    """Benchmark `STEPS` vector steps of `env`; only the stepping is timed."""
    env.reset(seed=0)
    measure_steps(benchmark, env.step, actions_of(env.action_space))
    env.close()


def measure_steps(benchmark, step, actions):
    """Benchmark `step` of each of the actions, [steps, envs, ...]."""

    def run():
        for action in actions:
            step(action)

    run()  # warm: threads started, episodes under way
    benchmark(run)
    if benchmark.stats:  # none when benchmarks are disabled
        benchmark.extra_info["env_steps_per_second"] = round(actions[..., 0].size / benchmark.stats.stats.median)


@pytest.mark.parametrize("num_envs", [64, *large(256, 1024)])
@pytest.mark.parametrize("name", ["ant_u_maze", "ant", "humanoid", "arm_push_easy", "reacher", "point_u_maze"])
def test_worlds(benchmark, name, num_envs):
    benchmark.group = "env steps"
    measure(benchmark, envs.make(name, num_envs))


@pytest.mark.parametrize("name", [*large("ant_u_maze", "humanoid"), "ant"])
def test_worlds_at_gymnasiums_fidelity(benchmark, name):
    benchmark.group = "env steps"
    measure(benchmark, envs.make(name, 256, fidelity="gymnasium"))


@pytest.mark.parametrize("vectorization", ["sync", *large("async")])
@pytest.mark.parametrize("name", ["Ant-v5", *large("Humanoid-v5"), "Reacher-v5"])
def test_gymnasiums_own(benchmark, name, vectorization):
    benchmark.group = "env steps"
    measure(benchmark, gymnasium.make_vec(name, num_envs=16, vectorization_mode=vectorization))


# Their own models of the same robots; JAX takes a minute or two to compile each.
PEERS = pytest.mark.peers


@PEERS
@pytest.mark.parametrize("num_envs", [64, *large(256, 1024)])
@pytest.mark.parametrize("name", ["Ant-v4", *large("Humanoid-v4")])
def test_envpool(benchmark, name, num_envs):
    benchmark.group = "env steps"
    envpool = pytest.importorskip("envpool")
    env = envpool.make(name, env_type="gymnasium", num_envs=num_envs, num_threads=cpu_count())
    env.reset()
    actions = actions_of(env.action_space, STEPS * num_envs) * env.action_space.high
    measure_steps(benchmark, env.step, actions.reshape(STEPS, num_envs, -1))


@PEERS
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_envs", [64, *large(256, 1024)])
@pytest.mark.parametrize("backend", ["spring", *large("mjx")])
@pytest.mark.parametrize("name", ["ant", *large("humanoid")])
def test_brax(benchmark, name, backend, num_envs):
    benchmark.group = "env steps"
    brax, jax = pytest.importorskip("brax.envs"), pytest.importorskip("jax")
    env = brax.create(name, backend=backend, batch_size=num_envs, episode_length=1000)
    states, step = [jax.jit(env.reset)(jax.random.PRNGKey(0))], jax.jit(env.step)
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, num_envs, env.action_size)).astype(np.float32)

    def act(action):
        states.append(step(states.pop(), action))
        states[0].obs.block_until_ready()

    act(actions[0])  # the first state has other types than those that follow: it compiles once more
    measure_steps(benchmark, act, actions)


def cpu_seconds(work):
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.parametrize("name", [*large("ant_u_maze", "ant", "humanoid", "arm_push_easy"), "reacher", "point_u_maze"])
def test_share_of_bare_physics(benchmark, name):
    """One thread, 256 worlds: the whole `step` beside MuJoCo's own C loop over the same states and actions."""
    benchmark.group = "share of bare mj_step"
    env = envs.make(name, 256, num_threads=1)
    env.reset(seed=0)
    actions = actions_of(env.action_space)
    # One control step is held for action_repeat physics steps.
    controls = np.stack([env.task.control(action, env.batch) for action in actions], axis=1)
    controls = np.repeat(controls, env.env_spec.action_repeat, axis=1).astype(np.float64)
    size = 1 + env.model.nq + env.model.nv  # time, positions, velocities: a rollout's initial state
    data, rollout = MjData(env.model), Rollout(nthread=0)
    record = np.empty((256, controls.shape[1], size))

    def whole():
        for action in actions:
            env.step(action)

    whole_times, bare_times = [], []

    def turn():
        states = env.batch.state[:, :size].copy()
        whole_times.append(cpu_seconds(whole))
        bare_times.append(
            cpu_seconds(lambda: rollout.rollout([env.model] * 256, [data], states, controls, state=record))
        )

    for _ in range(3):
        turn()
    benchmark(turn)
    share = median(bare / whole for bare, whole in zip(bare_times, whole_times, strict=True))
    steps = 256 * STEPS
    benchmark.extra_info.update(
        share=round(share, 3),
        cpu_us_per_env_step=round(1e6 * median(whole_times) / steps, 2),
        bare_cpu_us_per_env_step=round(1e6 * median(bare_times) / steps, 2),
    )
    if name in ("ant_u_maze", "humanoid"):
        assert share >= 0.85
