"""A replay buffer for Stable-Baselines3's off-policy algorithms, in place of its HerReplayBuffer."""

import numpy as np
from gymnasium import spaces
from plane import Plane
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.type_aliases import DictReplayBufferSamples

import crl

COLUMNS = ("achieved_goal", "next_observation", "next_achieved_goal", "desired_goal", "terminated")


class TrajectoryReplayBuffer(ReplayBuffer):
    """Trajectories in a `crl.TrajectoryBuffer`; goals drawn when sampled, also from trajectories that are not over yet.

    Args:
        compute_reward: as of a Gymnasium goal environment: (achieved_goal, desired_goal, info) -> [B].
        goal: how goals are drawn: see `crl.TrajectoryBuffer.sample`.
        real: share of the rows that keep the goal they were collected with.
    """

    def __init__(
        self,
        buffer_size,
        observation_space,
        action_space,
        device="auto",
        n_envs=1,
        optimize_memory_usage=False,
        handle_timeout_termination=True,
        *,
        compute_reward,
        goal="uniform",
        real=0.2,
        seed=0,
    ):
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs)
        if not isinstance(observation_space, spaces.Dict) or not isinstance(action_space, spaces.Box):
            raise TypeError("expected a goal environment with continuous actions")
        observation, goals = observation_space["observation"], observation_space["desired_goal"]
        self.trajectories = crl.TrajectoryBuffer(
            n_envs,
            buffer_size,
            observation=(observation.shape, observation.dtype),
            action=action_space.shape,
            achieved_goal=(goals.shape, goals.dtype),
            extras={"desired_goal": (goals.shape, goals.dtype), "terminated": ((), bool)},
            seed=seed,
        )
        self.compute_reward, self.goal, self.real = compute_reward, goal, real
        self.first = np.ones(n_envs, bool)

    def add(self, obs, next_obs, action, reward, done, infos):
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        self.trajectories.add(**obs, action=action, terminated=done & ~truncated, episode_start=self.first)
        self.first = done.copy()
        for i in np.flatnonzero(done):  # The final observation is a row too, and only this environment has it.
            with self.trajectories.writer(i, i + 1) as writer:
                final = {key: value[i : i + 1] for key, value in next_obs.items()}
                writer.add(**final, action=action[i : i + 1], terminated=np.array([False]), episode_start=[False])

    def sample(self, batch_size, env=None):
        batch = self.trajectories.sample(batch_size, goal=self.goal, columns=COLUMNS)
        goal, real = batch.goal, int(self.real * batch_size)
        goal[:real] = batch.desired_goal[:real]
        reward = self.compute_reward(batch.next_achieved_goal, goal, [{}] * batch_size)

        def shown(observation, achieved_goal):
            whole = {"observation": observation, "achieved_goal": achieved_goal, "desired_goal": goal}
            return {key: self.to_torch(value) for key, value in self._normalize_obs(whole, env).items()}

        return DictReplayBufferSamples(
            observations=shown(batch.observation, batch.achieved_goal),
            actions=self.to_torch(batch.action),
            next_observations=shown(batch.next_observation, batch.next_achieved_goal),
            dones=self.to_torch(batch.terminated[:, None].astype(np.float32)),
            rewards=self.to_torch(self._normalize_reward(reward[:, None].astype(np.float32), env)),
        )

    def size(self):
        return len(self.trajectories)


def main(steps=6000):
    """Train on the plane for `steps` steps; the mean return of 50 episodes: -20 never reaches the goal, -5 is good."""
    envs = make_vec_env(Plane, n_envs=8, seed=0)
    model = SAC(
        "MultiInputPolicy",
        envs,
        replay_buffer_class=TrajectoryReplayBuffer,
        replay_buffer_kwargs={"compute_reward": Plane().compute_reward},
        buffer_size=100_000,
        learning_starts=200,
        gamma=0.9,
        learning_rate=1e-3,
        ent_coef="auto_0.05",
        policy_kwargs={"net_arch": [64, 64]},
        device="cpu",
        seed=0,
    )
    model.learn(steps)
    return evaluate_policy(model, envs, n_eval_episodes=50)[0], model


if __name__ == "__main__":
    print(f"mean return: {main()[0]:.1f}")
