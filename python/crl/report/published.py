"""Scores that were published for tasks of these names: every figure with its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

WANG = "Wang et al. 2025, 1000 Layer Networks for Self-Supervised RL"
OGBENCH = "Park et al. 2025, OGBench"


@dataclass(frozen=True)
class Published:
    """One published figure. `spread` is a standard error, None where none was read."""

    method: str
    metric: str
    value: float
    spread: float | None
    source: str
    conditions: str

    def __str__(self) -> str:
        return f"{self.value:g}" + (f" ± {self.spread:g}" if self.spread is not None else "")


# Time at goal: steps of a 1000-step episode; width 256, batch 512. For depth 4 and 64 each: value, standard error, and
# hours on one A100.
_WANG: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "humanoid": ((12.6, 1.3, 1.48), (649, 19, 10.99)),
    "ant_big_maze_eval": ((61, 20, 2.12), (441, 25, 11.66)),
    "ant_u4_maze_eval": ((11.4, 4.1, 1.98), (286, 36, 11.43)),
    "ant_u5_maze_eval": ((0.97, 0.7, 9.46), (61, 18, 46.40)),
    "ant_hardest_maze_eval": ((215, 8, 5.11), (387, 21, 23.96)),
    "arm_push_easy": ((308, 33, 9.97), (762, 30, 19.52)),
    "arm_push_hard": ((171, 11, 9.74), (410, 13, 18.53)),
    "arm_binpick_hard": ((38, 4, 18.41), (219, 15, 29.64)),
    "humanoid_u_maze_eval": ((3.2, 1.2, 8.72), (159, 33, 46.74)),
    "humanoid_big_maze_eval": ((0.06, 0.04, 12.45), (59, 21, 50.33)),
}
_PHYSICS = {
    "arm": "MJX physics, 25 sub-steps",
    "ant": "Brax spring physics: not the robot that MuJoCo makes of the same file",
    "humanoid": "Brax spring physics: not the robot that MuJoCo makes of the same file",
}
# Offline success, %. Read second-hand, without spreads.
_OGBENCH: dict[str, float] = {
    "ogbench:antmaze-medium-navigate": 95,
    "ogbench:antmaze-large-navigate": 83,
    "ogbench:antmaze-giant-navigate": 16,
    "ogbench:humanoidmaze-medium-navigate": 60,
    "ogbench:humanoidmaze-large-navigate": 24,
    "ogbench:humanoidmaze-giant-navigate": 3,
    "ogbench:cube-single-play": 19,
    "ogbench:scene-play": 19,
    "ogbench:visual-antmaze-medium-navigate": 94,
    "ogbench:visual-antmaze-large-navigate": 84,
    "ogbench:visual-antmaze-giant-navigate": 47,
}


def published(settings: Any) -> list[Published]:
    """What was published for the task of a run with these settings; none for most.

    Args:
        settings: of the run, by file keys: `eval_env` and `dataset` are read. Far-goal layouts were scored on far goals
            alone, so figures are those of `..._eval`.
    """
    found = []
    env = settings["eval_env"] or settings["env"]
    if env in _WANG and not settings["layout"] and not settings["env_options"]:
        for depth, (value, spread, hours) in zip((4, 64), _WANG[env], strict=True):
            conditions = f"100 to 400 M env steps, {hours:g} h on an A100; {_PHYSICS[env.partition('_')[0]]}"
            found.append(Published(f"CRL, depth {depth}", "eval/time_at_goal", value, spread, WANG, conditions))
    for name in {env, settings["dataset"]} & _OGBENCH.keys():
        conditions = "offline; read second-hand"
        found.append(Published("CRL", "eval/success_rate", _OGBENCH[name] / 100, None, OGBENCH, conditions))
    return found
