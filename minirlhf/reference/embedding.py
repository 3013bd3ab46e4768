"""An embedding: row ids[n] of a table, forward and backward.

    x_n = E[ids_n],      dE[v] = Σ over the n with ids_n = v of dx_n.

It is a linear layer whose input is a one-hot vector; nobody multiplies by all those zeros. A token that comes twice
collects both gradients, one that does not come gets none.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.softmax import Array


def embedding(table: Array, ids: NDArray[np.int64]) -> Array:
    """table [V D], ids int [...] -> [... D]."""
    return table[ids]


def embedding_grad(table: Array, ids: NDArray[np.int64], dout: Array) -> Array:
    """The gradient [V D] of the table from the gradient dout [... D] of the output."""
    gradient = np.zeros(table.shape)
    for index in np.ndindex(ids.shape):
        gradient[ids[index]] += dout[index]
    return gradient
