"""`crl` with one more environment, `point_short`: point_maze with episodes of 25 steps, so that tests need not wait."""

from functools import partial

from crl.envs import register
from crl.envs.point import PointMaze

NAME = "point_short"
make = partial(PointMaze, NAME, "u", episode_length=25)

if __name__ == "__main__":
    register(NAME, make)
    from crl.cli import main

    main(prog_name="crl")
