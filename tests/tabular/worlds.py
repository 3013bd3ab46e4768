"""Drawn decision processes and grids, and every episode of a small one with its probability."""

from collections.abc import Iterator

import numpy as np
from hypothesis import strategies as st

from minirlhf.tabular.grid import Grid
from minirlhf.tabular.process import DecisionProcess, Episode
from minirlhf.testing.strategies import floats

SMALL = Grid("S.~ .#. ..G", slip=0.2, puddle_reward=-3.0, goal_reward=5.0)
"""Eight cells to walk on: a learner meets each of them a thousand times in a second."""
GAMMA = 0.9


def starting_anywhere(process: DecisionProcess) -> DecisionProcess:
    """One state more, where every episode begins, and whose every action leads to any living state, for nothing.

    From the one start of a grid some corner would be seen too rarely to be held against a tolerance.
    """
    grown = [(0, 1), (0, 0), (0, 1)]
    transitions, rewards = np.pad(process.transitions, grown), np.pad(process.rewards, grown)
    transitions[-1, :, :-1] = ~process.terminal / (~process.terminal).sum()
    return DecisionProcess(transitions, rewards, np.append(process.terminal, False), process.states)


@st.composite
def processes(draw: st.DrawFn, states: int = 4, actions: int = 3, lowest: float = -3.0) -> DecisionProcess:
    """Any process with these sizes whose last state is terminal, and which ends from everywhere sooner or later."""
    weights = np.abs(draw(floats((states, actions, states)))) + 0.1  # no transition is impossible
    rewards = np.maximum(draw(floats((states, actions, states), limit=3.0)), lowest)
    terminal = np.arange(states) == states - 1
    return DecisionProcess(weights / weights.sum(axis=2, keepdims=True), rewards, terminal, 0)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Up to 4 x 4 cells of every kind; whether the goal can be reached is left to chance."""
    height, width = draw(st.integers(1, 4)), draw(st.integers(2, 4))
    cells = draw(st.lists(st.sampled_from("...#~C"), min_size=height * width, max_size=height * width))
    start, goal = draw(st.permutations(range(height * width)))[:2]
    cells[start], cells[goal] = "S", "G"
    rows = ["".join(cells[first : first + width]) for first in range(0, len(cells), width)]
    return Grid("\n".join(rows), slip=draw(st.sampled_from([0.0, 0.1, 0.5])))


def every_episode(process: DecisionProcess, policy: np.ndarray, longest: int) -> Iterator[tuple[float, Episode]]:
    """(probability, episode) of all that can happen in at most `longest` steps; a longer one is cut there."""

    def onward(state: int, chance: float, steps: list[tuple[int, int, float]]) -> Iterator[tuple[float, Episode]]:
        if process.terminal[state] or len(steps) == longest:
            states, actions, rewards = zip(*steps, strict=True)
            yield chance, Episode(np.array(states), np.array(actions), np.array(rewards))
            return
        for action in range(process.actions):
            for following in np.flatnonzero(process.transitions[state, action]):
                likely = chance * policy[state, action] * process.transitions[state, action, following]
                step = (state, action, process.rewards[state, action, following])
                yield from onward(int(following), likely, [*steps, step])

    yield from onward(process.start, 1.0, [])
