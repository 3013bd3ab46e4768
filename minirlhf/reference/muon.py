"""Muon, one matrix at a time: momentum, made orthogonal, is the step. NumPy float64.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the size of the step is that of Liu et
al. 2025, arXiv:2502.16982, section 2.2.

**Why orthogonal.** The gradient of a weight matrix is usually dominated by few directions: of M = U Σ Vᵀ most singular
values are small, and what they point at is hardly learned. Muon steps along U Vᵀ, in which every direction counts the
same. Among all matrices O whose singular values are at most 1, U Vᵀ makes ⟨M, O⟩ largest, as Σᵢ σᵢ is an upper bound
(von Neumann's trace inequality) and ⟨M, U Vᵀ⟩ = trace(Σ) reaches it: it is steepest descent where the length of a
step is how much it can change the layer's output, just as sign(g), Adam's first step, is steepest descent where it is
the largest change of one weight.

**Without a singular value decomposition.** An odd polynomial of a matrix acts on its singular values alone:

    p(X) = a X + b (X Xᵀ) X + c (X Xᵀ)² X = U p(Σ) Vᵀ,       p(σ) = a σ + b σ³ + c σ⁵

because X Xᵀ = U Σ² Uᵀ. Divided by its Frobenius norm, M has singular values in [0, 1], and a few such polynomials, one
after the other (Newton–Schulz), bring them close to 1. Which ones? For singular values in [l, h] the quintic whose
largest error max |1 - p(σ)| is the least, e, errs by the same e, with alternating signs, in four places (Chebyshev's
equioscillation: four, because three coefficients are free). It leaves them in [1 - e, 1 + e], which is the [l, h] of
the next: taking the best each time is the best that so many quintics can do (Amsel et al. 2025, "The Polar Express",
arXiv:2505.16932, theorem 3.1). Beginning with [0.01, 1], three of them end in [0.73, 1.27], which trains as well as
exactly 1; smaller singular values still grow more than fiftyfold. Jordan et al. repeat one polynomial five times.

**How large.** U Vᵀ [m n] has min(m, n) singular values 1, so its squares sum to min(m, n) and the root of their mean is
1/√max(m, n). Times 0.2 √max(m, n), a weight moves by 0.2 lr in the mean, about what AdamW's do: one learning rate and
one weight decay serve both.

    m <- β m + (1 - β) g            u = β m + (1 - β) g           (Nesterov's look ahead)
    w <- w - lr (0.2 √max(rows, columns) orthogonalise(u) + decay w)
"""

import numpy as np

from minirlhf.reference.softmax import Array

QUINTICS = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))  # a, b, c of each p


def best_quintic(low: float, high: float) -> tuple[Array, float]:
    """(a, b, c) of the odd quintic nearest to 1 on [low, high], and its largest error e, by Remez' exchange.

    Given four places, solve p(σ) ± e = 1 with alternating signs; then move the places to where the error is largest:
    the two ends, and where p' is 0. At the fixed point both are the same places.
    """
    places = np.linspace(low, high, 4)
    for _ in range(20):
        a, b, c, error = np.linalg.solve(np.stack((places, places**3, places**5, [1, -1, 1, -1]), axis=1), np.ones(4))
        flat = np.sqrt(np.roots((5 * c, 3 * b, a)))  # p'(σ) = a + 3 b σ² + 5 c σ⁴ = 0
        places = np.array([low, *np.sort(flat), high])
    return np.array([a, b, c]), abs(error)


def orthogonalise(matrix: Array) -> Array:
    """U p₃(p₂(p₁(σ / |σ|))) Vᵀ of the matrix U σ Vᵀ [m n]: the same directions, all of about the same length."""
    x = matrix / max(float(np.linalg.norm(matrix)), 1e-20)  # a matrix of zeros stays one
    for a, b, c in QUINTICS:
        gram = x @ x.T  # [m m]
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def muon_step(
    weight: Array, gradient: Array, momentum: Array, learning_rate: float, beta: float, weight_decay: float
) -> tuple[Array, Array]:
    """The new (weight, momentum), both [m n]. momentum starts at 0."""
    momentum = beta * momentum + (1 - beta) * gradient
    ahead = beta * momentum + (1 - beta) * gradient
    update = 0.2 * np.sqrt(max(weight.shape)) * orthogonalise(ahead)
    return weight - learning_rate * (update + weight_decay * weight), momentum
