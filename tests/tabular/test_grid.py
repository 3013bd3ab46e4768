"""A drawing becomes the process it shows."""

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose

from minirlhf.errors import UserError
from minirlhf.tabular.grid import CLIFF, MEADOW, MOVES, Grid, decision_process, policy_map
from tests.tabular.worlds import grids

UP, RIGHT, DOWN, LEFT = range(4)


def test_every_transition_of_a_world_of_six_cells():
    """S . C      0 1 2
    # ~ G      3 4 5"""
    process = decision_process(Grid("S.C #~G", slip=0.2, puddle_reward=-5, cliff_reward=-50, goal_reward=7))
    expected = {
        (0, UP): {0: 0.9, 1: 0.1},  # the edge, and its left; its right is state 1
        (0, RIGHT): {1: 0.8, 0: 0.2},  # to the sides: the edge and the wall
        (0, DOWN): {0: 0.9, 1: 0.1},
        (0, LEFT): {0: 1.0},
        (1, RIGHT): {2: 0.8, 1: 0.1, 4: 0.1},
        (1, DOWN): {4: 0.8, 2: 0.1, 0: 0.1},
        (4, RIGHT): {5: 0.8, 1: 0.1, 4: 0.1},
        (4, LEFT): {4: 0.9, 1: 0.1},
        **{(2, action): {0: 1.0} for action in range(4)},  # fallen: back to the start
        **{(state, action): {state: 1.0} for state in (3, 5) for action in range(4)},  # a wall, the goal
    }
    for (state, action), following in expected.items():
        wanted = [following.get(x, 0.0) for x in range(6)]
        assert_allclose(process.transitions[state, action], wanted, atol=1e-12)
    assert process.terminal.tolist() == [False, False, False, True, False, True]
    assert process.start == 0
    assert process.rewards[1, RIGHT].tolist() == [-1, -1, -50, -1, -5, 7]  # what the cell one comes to pays
    assert (process.rewards[[2, 3, 5]] == 0).all()  # the way back from the cliff costs nothing


@given(grids())
def test_one_step_leads_to_a_neighbour_and_walls_cannot_be_entered(grid):
    process, width = decision_process(grid), grid.shape[1]
    for state, cell in enumerate(grid.cells):
        assert process.terminal[state] == (cell in "G#")
        for action in range(len(MOVES)):
            for following in np.flatnonzero(process.transitions[state, action]):
                apart = abs(following // width - state // width) + abs(following % width - state % width)
                assert apart <= 1 or (cell == "C" and following == process.start)
                assert grid.cells[following] != "#" or following == state
    assert grid.cells[process.start] == "S"


def test_a_policy_is_drawn_as_arrows():
    grid = Grid("S.G .#C")
    policy = np.eye(4)[[RIGHT, RIGHT, UP, UP, UP, LEFT]]
    assert policy_map(grid, policy) == "→→G\n↑#C"
    assert policy_map(grid, np.eye(4)[[DOWN, LEFT, UP, UP, UP, LEFT]]) == "↓←G\n↑#C"


def test_the_grids_that_come_along():
    assert CLIFF.shape == (4, 12)
    assert CLIFF.rows[3] == "S" + 10 * "C" + "G"
    assert set(MEADOW.cells) == set(".#SG~")


@pytest.mark.parametrize(
    ("drawing", "options", "said"),
    [
        ("S.x G..", {}, "row 1"),
        ("S.. G.", {}, "row 2"),
        ("... ..G", {}, "0 S and 1 G"),
        ("SS. ..G", {}, "2 S and 1 G"),
        ("S.. ...", {}, "1 S and 0 G"),
        ("S.G", {"slip": 1.5}, "slip is a probability"),
    ],
)
def test_a_drawing_that_is_no_world_is_refused(drawing, options, said):
    with pytest.raises(UserError, match=said):
        Grid(drawing, **options)
