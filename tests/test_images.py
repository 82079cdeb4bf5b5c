"""Images as observations and goals: drawn, stored once, seen by convolutions, learnt from."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_resume import assert_same, resume, start

import crl
import crl.envs as envs
from crl import TrajectoryBuffer
from crl.agent import Agent
from crl.collector import Collector, UniformPolicy
from crl.config import TrainConfig
from crl.envs import registry
from crl.envs.layouts import Maze
from crl.envs.pictures import FLOOR, POINT, SIZE, WALL, MazeCamera, PointMazeImages
from crl.images import ENCODERS, SMALLEST_IMAGE, Vision, random_crops
from crl.networks import Actor, ResidualMLP, build_network
from crl.resolution import resolve

IMAGE = (64, 64, 3)
NAME = "point_u_maze_image"


def rows(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 64 * 64 * 3), dtype=np.uint8)


# --- the camera -------------------------------------------------------------------------------------------------------


def test_the_camera_shows_walls_floor_and_the_point():
    maze = Maze.named("u")
    goal = maze.centres("G")[-1:]
    (image,) = MazeCamera(maze)(goal, goal)
    pixels = SIZE / 5  # a cell's; the maze is 5 by 5
    for i, j in np.ndindex(5, 5):
        seen = tuple(image[int((i + 0.15) * pixels), int((j + 0.15) * pixels)])
        assert seen == (WALL if maze.grid[i, j] == "#" else FLOOR)
    i, j = maze.find("G")[-1]
    assert tuple(image[int((i + 0.5) * pixels), int((j + 0.5) * pixels)]) == POINT


@pytest.mark.parametrize("layout", ["u3", "big", "hardest"])
def test_mazes_of_any_shape_fill_the_longer_side(layout):
    maze = Maze.named(layout)
    far = np.full((1, 2), -100.0)
    image = MazeCamera(maze)(far, far)[0]
    floor = (image == FLOOR).all(-1)
    pixels = SIZE / max(maze.grid.shape)
    for i, j in np.argwhere(maze.grid != "#"):
        assert floor[int((i + 0.5) * pixels), int((j + 0.5) * pixels)]
    assert floor.sum() == pytest.approx((maze.grid != "#").sum() * pixels**2, rel=0.15)


def test_every_place_looks_different_and_the_disc_is_where_it_is():
    camera = MazeCamera(Maze.named("u"))
    place = np.random.default_rng(0).uniform(3, 13, (100, 2))
    images = camera(place, place).astype(float)
    assert len(np.unique(images.reshape(100, -1), axis=0)) == 100
    blank = camera(place - 1000, place - 1000).astype(float)
    change = np.abs(images - blank).sum(-1)
    change[:, :8, :8] = 0  # where what is outside is seen
    weight = change / change.sum((1, 2), keepdims=True)
    pixel = np.arange(SIZE) + 0.5
    centre = np.stack(((weight.sum(2) * pixel).sum(1), (weight.sum(1) * pixel).sum(1)), 1)
    # A wall differs less from the point than the floor does, so discs over a border seem to lie off it.
    assert np.median(np.abs(centre * 20 / SIZE - 2 - place)) < 0.05


# --- the worlds -------------------------------------------------------------------------------------------------------


def test_the_images_are_those_of_the_same_maze_with_numbers():
    numbers, images = envs.make("point_u_maze", 3, seed=1), envs.make(NAME, 3, seed=1)
    camera, state = MazeCamera(Maze.named("u")), numbers.reset()[0]
    shown, _ = images.reset()
    for _ in range(30):
        velocity = state["observation"][:, 2:]
        place = state["achieved_goal"]
        expected = camera(place, place - 0.3 * velocity).reshape(3, -1)
        np.testing.assert_array_equal(shown["observation"], expected)
        np.testing.assert_array_equal(shown["achieved_goal"], expected)
        goal = state["desired_goal"]
        np.testing.assert_array_equal(shown["desired_goal"], camera(goal, goal).reshape(3, -1))
        assert images.observation_space.contains(shown)
        action = numbers.action_space.sample()
        state, reward, *_, told = numbers.step(action)
        shown, same_reward, *_, info = images.step(action)
        np.testing.assert_array_equal(reward, same_reward)
        np.testing.assert_array_equal(told["distance"], info["distance"])


def test_places_are_commanded_and_states_restored():
    env = envs.make(NAME, 2)
    place = np.array([4.0, 12.0])
    shown, _ = env.reset(options={"goal": place})
    camera = MazeCamera(Maze.named("u"))
    np.testing.assert_array_equal(shown["desired_goal"][0], camera(place[None], place[None]).ravel())
    saved, action = env.state_dict(), env.action_space.sample()
    after = env.step(action)[0]
    env.load_state_dict(saved)
    again = env.step(action)[0]
    assert all(np.array_equal(after[key], again[key]) for key in after)


# --- the buffer -------------------------------------------------------------------------------------------------------


def test_without_achieved_goals_the_goal_is_the_later_observation(tmp_path):
    buffer = crl.TrajectoryBuffer(2, 200, (3, np.uint8), 1, None)
    for t in range(60):
        columns = {"observation": np.full((2, 3), t, np.uint8), "action": np.zeros((2, 1), np.float32)}
        buffer.add(**columns, episode_start=np.full(2, t % 20 == 0))
    path = tmp_path / "saved"
    buffer.save(path)
    for which in (buffer, crl.TrajectoryBuffer.load(path)):
        batch = which.sample(500)
        assert batch.goal.dtype == np.uint8
        np.testing.assert_array_equal(batch.goal[:, 0], batch.observation[:, 0] + batch.offset)
        np.testing.assert_array_equal(batch.goal[:, 0] // 20, batch.observation[:, 0] // 20)
    with pytest.raises(TypeError, match="unknown achieved_goal"):
        buffer.add(**columns, achieved_goal=np.zeros((2, 1)), episode_start=np.zeros(2, bool))


# --- the networks -----------------------------------------------------------------------------------------------------


def test_the_convolutions_are_those_published():
    """Against torch's own layers, one after the other, as DQN has them: 8/4, 4/2, 3/1 with 32, 64, 64 filters."""
    network = build_network("residual", 64 * 64 * 3 + 2, 7, 16, 4, torch.Generator().manual_seed(0), image=IMAGE)
    assert isinstance(network, Vision)
    layers = [layer for layer in network.convolutions if isinstance(layer, torch.nn.Conv2d)]
    sizes = [(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride) for layer in layers]
    assert sizes == [(3, 32, (8, 8), (4, 4)), (32, 64, (4, 4), (2, 2)), (64, 64, (3, 3), (1, 1))]
    image, rest = torch.from_numpy(rows(5)).float(), torch.randn(5, 2)
    x = image.view(5, 64, 64, 3).permute(0, 3, 1, 2) / 255
    for layer in layers:
        x = torch.relu(torch.nn.functional.conv2d(x, layer.weight, layer.bias, layer.stride))
    assert x[0].numel() == 64 * 4 * 4
    expected = network.network(torch.cat((x.flatten(1), rest), 1))
    torch.testing.assert_close(network(torch.cat((image, rest), 1)), expected)


def test_an_actor_sees_both_images_with_the_same_eyes():
    actor = Actor(64 * 64 * 3, 64 * 64 * 3, 2, 16, 4, image=IMAGE)
    assert isinstance(actor.network, Vision)
    assert isinstance(actor.network.network, ResidualMLP)
    assert actor.network.network.input.dense.in_features == 2 * 64 * 4 * 4
    here, there = (torch.from_numpy(rows(4, seed)).float() for seed in (0, 1))
    means = [actor(*pair)[0] for pair in ((here, there), (there, here), (here, here))]
    assert not torch.allclose(means[0], means[1])
    assert not torch.allclose(means[0], means[2])


def test_what_moves_before_the_backdrop_is_soon_told_apart():
    """Fifty updates; with a grey backdrop the loss of larger networks and batches was still at chance after 300."""
    env = envs.make("point_spiral_11x11_image", 64, seed=0)
    buffer = TrajectoryBuffer(64, 64 * 60, ((64 * 64 * 3,), np.uint8), (2,), None)
    Collector(env, UniformPolicy(2, [0]), buffer, seed=0).collect(60)
    settings = {"env": "point_spiral_11x11_image", "width": 16, "batch_size": 64, "gamma": 0.9, "actor_goals": "random"}
    config = resolve(TrainConfig(**settings), device="cpu", num_cores=1).config
    agent = Agent(env.env_spec, config)
    losses = [float(agent.update(buffer.sample(64, gamma=0.9))["train/contrastive_loss"]) for _ in range(50)]
    assert np.mean(losses[:5]) > np.log(64) - 0.2
    assert np.mean(losses[-5:]) < np.log(64) - 0.5
    state = agent.state_dict()
    assert state["inputs.backdrop"].std() > 10
    copied = Agent(env.env_spec, config)
    copied.load_state_dict(state)
    shown, goal = env.reset(seed=1)[0]["observation"], env.reset(seed=2)[0]["desired_goal"]
    torch.testing.assert_close(copied.act(shown, goal, deterministic=True), agent.act(shown, goal, deterministic=True))
    policy = copied.policy()
    agent.update(buffer.sample(64, gamma=0.9))  # no later batch changes the backdrop
    assert torch.equal(agent.state_dict()["inputs.backdrop"], state["inputs.backdrop"])
    torch.testing.assert_close(policy.act(shown, goal, deterministic=True), copied.act(shown, goal, deterministic=True))


def test_the_residual_encoder_is_stages_of_residual_blocks():
    """Against torch's own functions, one after the other, and every weight by the name that a checkpoint gives it."""
    generator = torch.Generator().manual_seed(0)
    network = build_network("mlp", 64 * 64 * 3 + 2, 7, 16, 2, generator, image=IMAGE, encoder="residual")
    weights = dict(network.named_parameters())
    image, rest = torch.from_numpy(rows(5)).float(), torch.randn(5, 2)

    def convolved(x, name, stride=1):
        name = f"convolutions.{name}"
        return F.conv2d(x, weights.pop(f"{name}.weight"), weights.pop(f"{name}.bias"), stride, padding=1)

    x = torch.relu(convolved(image.view(5, 64, 64, 3).permute(0, 3, 1, 2) / 255, "stem", 2))
    for stage in range(3):
        x = F.max_pool2d(convolved(x, f"stages.{stage}.convolution"), 3, 2, 1)
        for block in range(2):
            inner = torch.relu(convolved(torch.relu(x), f"stages.{stage}.blocks.{block}.first"))
            x = x + convolved(inner, f"stages.{stage}.blocks.{block}.second")
    x = torch.relu(x)
    assert x.shape[1:] == (64, 4, 4)
    assert all(name.startswith("network.") for name in weights)
    expected = network.network(torch.cat((x.flatten(1), rest), 1))
    torch.testing.assert_close(network(torch.cat((image, rest), 1)), expected)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_pixels_get_no_gradient_and_actions_beside_them_do(encoder):
    network = build_network("mlp", 64 * 64 * 3 + 2, 1, 8, 2, image=IMAGE, encoder=encoder)
    x = torch.cat((torch.from_numpy(rows(2)).float(), torch.randn(2, 2)), 1).requires_grad_()
    network(x).sum().backward()
    assert not x.grad[:, :-2].any()
    assert x.grad[:, -2:].all()
    assert all(p.grad.any() for p in network.convolutions.parameters())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_seed_alone_decides_the_weights(encoder):
    def make():
        generator = torch.Generator().manual_seed(3)
        return build_network("mlp", 64 * 64 * 3, 4, 8, 2, generator, image=IMAGE, encoder=encoder)

    before = torch.random.get_rng_state()
    one, two = make(), make()
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_images_too_small_for_the_convolutions_are_refused():
    with pytest.raises(ValueError, match=f"at least {SMALLEST_IMAGE} by {SMALLEST_IMAGE}, got 20 by 64"):
        build_network("mlp", 20 * 64 * 3, 4, 8, 2, image=(20, 64, 3))
    small = build_network("mlp", 5 * 7 * 3, 4, 8, 2, image=(5, 7, 3), encoder="residual")
    assert small(torch.zeros(2, 5 * 7 * 3)).shape == (2, 4)


# --- random crops -----------------------------------------------------------------------------------------------------


def moved(image, down, right):
    """An image (H, W, C) cropped out of itself padded by its edges, pixel by pixel."""
    height, width, _ = image.shape
    result = np.empty_like(image)
    for i, j in np.ndindex(height, width):
        result[i, j] = image[min(max(i + down, 0), height - 1), min(max(j + right, 0), width - 1)]
    return result


@pytest.mark.parametrize("padding", [1, 4])
def test_crops_are_those_of_a_slow_loop(padding):
    shape, count = (9, 7, 2), 60
    random = np.random.default_rng(padding)
    images = random.integers(0, 256, (count, *shape)).astype(np.float32)
    uniform = random.random((count, 3), dtype=np.float32)
    uniform[0] = (0.5, 0.0, 1 - 2**-24)  # as far as it goes
    cropped = random_crops(torch.from_numpy(images.reshape(count, -1)), shape, padding, torch.from_numpy(uniform))
    offsets = []
    for image, (whether, *place), found in zip(images, uniform, cropped.numpy().reshape(images.shape), strict=True):
        down, right = (int(u * np.float32(2 * padding + 1)) - padding if whether >= 0.5 else 0 for u in place)
        offsets.append((down, right))
        np.testing.assert_array_equal(found, moved(image, down, right))
    assert offsets[0] == (-padding, padding)
    assert {offset for pair in offsets for offset in pair} == set(range(-padding, padding + 1))


def crops(agent, batch, count):
    """What the algorithm is given of `batch` in so many updates: images (2, B, H, W, C) of observations and goals."""
    given, backward = [], agent.algorithm.backward

    def recorded(seen):
        given.append(torch.stack((seen.observation, seen.goal)).view(2, -1, *IMAGE).numpy())
        return backward(seen)

    agent.algorithm.backward = recorded
    for _ in range(count):
        agent.update(batch)
    return given


def image_agent(**settings):
    small = {"env": NAME, "width": 8, "batch_size": 4, "num_threads": 1, "network": "mlp", "depth": 1}
    return Agent(envs.spec(NAME), resolve(TrainConfig(**small, **settings), device="cpu", num_cores=1).config)


def test_every_image_of_a_batch_is_cropped_by_itself():
    """What stands before the backdrop moves; the seed decides how, what is saved goes on, half is as it was."""
    batch = crl.Batch(rows(16), np.zeros((16, 2), np.float32), rows(16, 1), np.ones(16, np.int32))
    agent, again, other = (image_agent(crop_padding=2, seed=seed) for seed in (0, 0, 1))
    first, then = crops(agent, batch, 2)
    (whole,) = crops(image_agent(), batch, 1)
    backdrop = np.concatenate((batch.observation, batch.goal)).mean(0, dtype=np.float64)
    np.testing.assert_allclose(whole[1].reshape(16, -1), batch.goal - backdrop, atol=1e-3)
    all_offsets = list(np.ndindex(5, 5))
    offsets = np.zeros((2, 16), dtype=int)
    for which in np.ndindex(2, 16):
        padded = np.pad(whole[which], ((2, 2), (2, 2), (0, 0)), mode="edge")
        candidates = [k for k, (d, r) in enumerate(all_offsets) if (padded[d:, r:][:64, :64] == first[which]).all()]
        assert len(candidates) == 1
        offsets[which] = candidates[0]
    stayed = offsets == all_offsets.index((2, 2))
    assert 8 <= stayed.sum() <= 25
    assert (offsets[0] != offsets[1]).sum() > 8  # a goal is not moved as its observation is, which would tell the pair
    assert not np.array_equal(first, then)
    assert not np.array_equal(crops(other, batch, 1)[0], first)
    np.testing.assert_array_equal(crops(again, batch, 1)[0], first)
    resumed = image_agent(crop_padding=2)
    resumed.load_state_dict(again.state_dict())
    np.testing.assert_array_equal(crops(resumed, batch, 1)[0], then)


@pytest.mark.parametrize("change", [{"observation_dim": 5}, {"goal_dim": 2, "goal_indices": (0, 1)}])
def test_a_spec_whose_sizes_are_not_its_images_is_refused(change):
    with pytest.raises(ValueError, match="with images of"):
        dataclasses.replace(envs.spec(NAME), **change)


# --- all of it --------------------------------------------------------------------------------------------------------


def test_training_from_images_resumes_where_it_was(tiny, monkeypatch):
    short = partial(PointMazeImages, "short_images", "u", episode_length=8)
    monkeypatch.setitem(registry._factories, "short_images", short)
    sizes = {"num_envs": 2, "unroll_length": 5, "updates_per_collect": 1, "learning_starts": 10, "eval_interval": 20}
    images = partial(tiny, env="short_images", batch_size=4, num_eval_episodes=2, buffer_capacity=200, **sizes)
    start(images("straight", total_env_steps=40))
    start(images("parts", total_env_steps=20))
    done = resume(images("parts").run_dir, total_env_steps=40)
    assert done.env_steps == 40
    assert_same(images("straight").run_dir, done.run_dir)
