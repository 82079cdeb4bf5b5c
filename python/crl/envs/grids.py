"""The published mazes, as text: see layouts.py."""

from __future__ import annotations

LAYOUTS: dict[str, str] = {
    "u": """
        #####
        #RGG#
        ###G#
        #GGG#
        #####""",
    "u_eval": """
        #####
        #R..#
        ###.#
        #GGG#
        #####""",
    "u_single_eval": """
        #####
        #R..#
        ###.#
        #G..#
        #####""",
    "u2": """
        ######
        #RGGG#
        ####G#
        #GGGG#
        ######""",
    "u2_eval": """
        ######
        #R...#
        ####.#
        #GGGG#
        ######""",
    "u3": """
        #######
        #RGGGG#
        #####G#
        #GGGGG#
        #######""",
    "u3_eval": """
        #######
        #R....#
        #####.#
        #GGGGG#
        #######""",
    "u3_single_eval": """
        #######
        #R....#
        #####.#
        #G....#
        #######""",
    "u4": """
        #####
        #GGG#
        #R#G#
        ###G#
        #G#G#
        #GGG#
        #####""",
    "u4_eval": """
        #####
        #...#
        #R#.#
        ###.#
        #G#.#
        #GGG#
        #####""",
    "u5": """
        ########
        #GGGGGG#
        #R####G#
        ######G#
        #G####G#
        #GGGGGG#
        ########""",
    "u5_eval": """
        ########
        #......#
        #R####.#
        ######.#
        #G####G#
        #GGGGGG#
        ########""",
    "u5_single_eval": """
        ########
        #......#
        #R####.#
        ######.#
        #G####.#
        #......#
        ########""",
    "u6": """
        #######
        #GGGGG#
        #R###G#
        #####G#
        #G###G#
        #GGGGG#
        #######""",
    "u6_eval": """
        #######
        #.....#
        #R###.#
        #####.#
        #G###G#
        #GGGGG#
        #######""",
    "u7": """
        ######
        #GGGG#
        #R##G#
        ####G#
        #G##G#
        #GGGG#
        ######""",
    "u7_eval": """
        ######
        #....#
        #R##.#
        ####.#
        #G##G#
        #GGGG#
        ######""",
    "big": """
        ########
        #RG##GG#
        #GG#GGG#
        ##GGG###
        #GG#GGG#
        #G#GG#G#
        #GGG#GG#
        ########""",
    "big_eval": """
        ########
        #R.##GG#
        #..#.GG#
        ##...###
        #..#...#
        #.#G.#G#
        #.GG#GG#
        ########""",
    "big_eval_9_goals": """
        ########
        #R.##GG#
        #..#..G#
        ##...###
        #..#...#
        #.#G.#G#
        #.GG#GG#
        ########""",
    "hardest": """
        ############
        #RGGG#GGGGG#
        #G##G#G#G#G#
        #GGGGGG#GGG#
        #G####G###G#
        #GG#G#GGGGG#
        ##G#G#G#G###
        #GG#GGG#GGG#
        ############""",
}

ROOMS: dict[str, str] = {
    "spiral_11x11": """
        ############
        #GGGGGGGGGG#
        #G########G#
        #G#GGGGGG#G#
        #G#G####G#G#
        #G#G#RG#G#G#
        #G#G##G#G#G#
        #G#GGGG#G#G#
        #G######G#G#
        #GGGGGGGG#G#
        ##########G#
        ############""",
    "nine_rooms": """
        #################
        #RGGG#GGGGGGGGGG#
        #GGGG#GGGGG#GGGG#
        #GGGGGGGGGG#GGGG#
        #GGGG#GGGGG#GGGG#
        ##G######G###G###
        #GGGG#GGGGG#GGGG#
        #GGGG#GGGGGGGGGG#
        #GGGG#GGGGG#GGGG#
        #GGGGGGGGGG#GGGG#
        #GGGG#GGGGG#GGGG#
        ####G##G####G####
        #GGGG#GGGGG#GGGG#
        #GGGG#GGGGGGGGGG#
        #GGGGGGGGGG#GGGG#
        #GGGG#GGGGG#GGGG#
        #################""",
}
"""Grids of the 2D navigation of 2022, walled in; `R` where single-goal work starts."""
