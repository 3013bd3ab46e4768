"""A grid world one can see: a drawing becomes a decision process, and a policy becomes arrows on the drawing.

    . free   # wall   S start   G goal   ~ puddle   C cliff

Who walks against a wall or the edge stays in place. Every step pays what the cell it leads to pays. The goal ends the
episode. Who falls off the cliff is, one step later and for nothing, back at the start: the cliff walk of Sutton and
Barto 2018, Example 6.6. With slip > 0 the ground is wet, and a step goes to the left or right of where it was meant.
"""

from dataclasses import dataclass

import numpy as np

from minirlhf.errors import UserError
from minirlhf.tabular.process import DecisionProcess, Floats

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Action -> (rows down, columns right): up, right, down, left."""
ARROWS = "↑→↓←"
SYMBOLS = ".#SG~C"


@dataclass(frozen=True)
class Grid:
    """A drawing, one line a row, with what its cells pay. Cells are numbered row by row: these are the states.

    slip is the probability of a step to the side: half of it to the left of the direction meant, half to the right.
    Raises: UserError unless the drawing is a rectangle of the six symbols with one S and a G, and slip is in [0, 1].
    """

    drawing: str
    slip: float = 0.0
    step_reward: float = -1.0
    puddle_reward: float = -5.0
    cliff_reward: float = -100.0
    goal_reward: float = -1.0

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, start=1):
            strange = sorted(set(row) - set(SYMBOLS))
            if strange:
                raise UserError(
                    "a cell of the drawing is unknown", where=f"row {number}", found=strange[0], expected=SYMBOLS
                )
            if len(row) != len(self.rows[0]):
                found, expected = (f"{len(each)} cells" for each in (row, self.rows[0]))
                raise UserError(
                    "the rows of the drawing differ in length", where=f"row {number}", found=found, expected=expected
                )
        if self.cells.count("S") != 1 or "G" not in self.cells:
            found = f"{self.cells.count('S')} S and {self.cells.count('G')} G"
            raise UserError("the drawing has no way to go", found=found, expected="one start S and at least one goal G")
        if not 0 <= self.slip <= 1:
            raise UserError("slip is a probability", found=str(self.slip), expected="0 to 1")

    @property
    def rows(self) -> list[str]:
        return self.drawing.split()

    @property
    def cells(self) -> str:
        """The symbol of every state."""
        return "".join(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.rows[0])


CLIFF = Grid("............ ............ ............ SCCCCCCCCCCG")
"""Sutton and Barto 2018, Example 6.6: the short way home leads along the edge."""

MEADOW = Grid("S..~.. .#.~.. .#.... ...#.G", slip=0.2, goal_reward=10.0)
"""Walls, a line of puddles and wet grass: small enough to solve by looking, large enough to need a plan."""


def decision_process(grid: Grid) -> DecisionProcess:
    """The drawing as transition probabilities and rewards, both [S A S]. Walls and goals are terminal states."""
    cells, states = grid.cells, len(grid.cells)
    pays = {"G": grid.goal_reward, "~": grid.puddle_reward, "C": grid.cliff_reward}
    arrival = np.array([pays.get(cell, grid.step_reward) for cell in cells])  # [S]
    terminal = np.array([cell in "G#" for cell in cells])
    cliff = np.array([cell == "C" for cell in cells])
    start = cells.index("S")

    transitions = np.zeros((states, len(MOVES), states))
    for state in range(states):
        for action in range(len(MOVES)):
            if terminal[state]:
                transitions[state, action, state] = 1.0
            elif cliff[state]:
                transitions[state, action, start] = 1.0
            else:
                for turn, chance in ((0, 1 - grid.slip), (-1, grid.slip / 2), (1, grid.slip / 2)):
                    transitions[state, action, neighbour(grid, state, (action + turn) % 4)] += chance
    rewards = np.broadcast_to(arrival, transitions.shape).copy()
    rewards[terminal | cliff] = 0.0
    return DecisionProcess(transitions, rewards, terminal, start)


def neighbour(grid: Grid, state: int, direction: int) -> int:
    """The state one step away; the same one where a wall or the edge is in the way."""
    height, width = grid.shape
    row, column = state // width + MOVES[direction][0], state % width + MOVES[direction][1]
    if not (0 <= row < height and 0 <= column < width):
        return state
    there = row * width + column
    return state if grid.cells[there] == "#" else there


def policy_map(grid: Grid, policy: Floats) -> str:
    """The drawing with an arrow, the likeliest action of a policy [S A], on every cell one can walk on."""
    arrows = [
        cell if cell in "#GC" else ARROWS[action]
        for cell, action in zip(grid.cells, policy.argmax(axis=1), strict=True)
    ]
    width = grid.shape[1]
    return "\n".join("".join(arrows[first : first + width]) for first in range(0, len(arrows), width))
