"""Mazes of one's own in a run: they stay with it, and judge it."""

import pytest
from conftest import Quiet

from crl import config, run
from crl.errors import ConfigError
from crl.trainer import train

GRID = "#####\n#RGG#\n#.#.#\n#####\n"


def test_a_run_keeps_its_layout_after_the_file_is_gone(tiny, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(GRID, encoding="utf-8")
    settings = {"layout": str(path), "total_env_steps": 160, "eval_interval": 160}
    result = train(tiny("own", **settings), reporter=Quiet())
    path.unlink()
    written = (result.run_dir / "config.yaml").read_text()
    assert "layout: |\n  #####\n  #RGG#\n  #.#.#\n  #####\n" in written
    assert config.read_settings(result.run_dir / "config.yaml")["layout"] == GRID
    resumed = train(resume=result.run_dir, reporter=Quiet(), total_env_steps=320)
    assert resumed.env_steps == 320
    distance = run.evaluate_run(result.run_dir, num_eval_episodes=2).final_distance
    assert distance != run.evaluate_run(result.run_dir, num_eval_episodes=2, layout="u").final_distance
    with pytest.raises(ConfigError, match=r"layout is of point_short .*; it says nothing about point_u_maze"):
        run.evaluate_run(result.run_dir, eval_env="point_maze", layout="u")


def resolved(**settings):
    return config.resolve(config.TrainConfig(**settings), device="cpu", num_cores=1).config


def test_an_evaluation_uses_the_layout_of_the_environment_it_is_of():
    far = resolved(env="point_maze", eval_env="point_maze_eval", layout=GRID)
    assert far.env_options == far.eval_env_options == {"layout": GRID}
    other = resolved(env="point_maze", eval_env="point_big_maze", layout="u3")
    assert (other.env_options, other.eval_env_options) == ({"layout": "u3"}, {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env": "ant", "layout": "u"}, "environment 'ant' has no option 'layout'"),
        ({"env": "ant_maze", "layout": "nowhere.txt"}, "layout 'nowhere.txt': there is no such file"),
        ({"env": "ant_maze", "layout": GRID.replace(".", "?")}, r"row 2, column 1 \(from 0\) holds '\?'"),
    ],
)
def test_a_layout_that_cannot_be_is_a_configuration_error(settings, message):
    with pytest.raises(ConfigError, match=message):
        resolved(**settings)
