"""A linear layer, forward and backward.

    y_no = Σ_i x_ni W_oi + b_o

Each weight W_oi is used once per row n, each input x_ni once per output o, so by the chain rule

    dx_ni = Σ_o dy_no W_oi        dW_oi = Σ_n dy_no x_ni        db_o = Σ_n dy_no
    dx    = dy W                  dW    = dyᵀ x                 db   = column sums of dy.

Check the shapes and you have remembered the formulas: there is one way only to multiply them to the right size.
"""

from minirlhf.reference.softmax import Array


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x [... I], weight [O I], bias [O] -> [... O]."""
    y = x @ weight.T
    return y if bias is None else y + bias


def linear_grad(x: Array, weight: Array, dout: Array) -> tuple[Array, Array, Array]:
    """(dx [... I], dweight [O I], dbias [O]) from the gradient dout [... O] of the output."""
    rows, drows = x.reshape(-1, x.shape[-1]), dout.reshape(-1, dout.shape[-1])
    return dout @ weight, drows.T @ rows, drows.sum(axis=0)
