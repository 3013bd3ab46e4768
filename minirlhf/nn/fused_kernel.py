"""FlashAttention-2 as three Triton kernels: forward, gradient of keys and values, gradient of queries.

Dao 2023, arXiv:2307.08691, algorithms 1 and 2; `reference/fused_attention.py` derives every line. One program has one
block of queries (or of keys) of one head of one row of the batch, and writes what no other program writes: no atomics,
so the result is deterministic. Scores and sums are float32 whatever the inputs are. Needs Triton (extra "fused").
"""

import triton
import triton.language as tl

NOTHING = tl.constexpr(-float("inf"))


@triton.jit
def block_of(base, places, columns, stride, count, width):
    """Rows `places` of a [count width] matrix, 0 beyond its edges. [places columns]."""
    inside = (places[:, None] < count) & (columns[None, :] < width)
    return tl.load(base + places[:, None] * stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def put_block(base, values, places, columns, stride, count, width):
    inside = (places[:, None] < count) & (columns[None, :] < width)
    tl.store(base + places[:, None] * stride + columns[None, :], values, mask=inside)


@triton.jit
def product(x, y, UPCAST: tl.constexpr):
    """x @ y in float32. UPCAST is for the interpreter, whose NumPy knows no bfloat16."""
    if UPCAST:
        x, y = x.to(tl.float32), y.to(tl.float32)
    return tl.dot(x, y, input_precision="ieee")


@triton.jit
def scores_of(q, k, rows, columns, scale, tokens, length, offset, CAUSAL: tl.constexpr, UPCAST: tl.constexpr):
    """q kᵀ scale, -inf where row must not look at column. [rows columns] float32."""
    visible = (columns[None, :] < length) & (rows[:, None] < tokens)
    if CAUSAL:
        visible = visible & (columns[None, :] <= rows[:, None] + offset)
    return tl.where(visible, product(q, tl.trans(k), UPCAST) * scale, NOTHING)


@triton.jit
def forward_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, log_sums_ptr, lengths_ptr, scale, tokens, keys, offset, heads, kv_heads, width,
    CAUSAL: tl.constexpr, UPCAST: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """out and log-sum-exp of one block of queries; all tensors [B heads T K], contiguous."""
    row, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    shared = row * kv_heads + head // (heads // kv_heads)
    length = tl.load(lengths_ptr + row)
    rows = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inner = tl.arange(0, WIDTH)
    q = block_of(q_ptr + tl.program_id(1) * tokens * width, rows, inner, width, tokens, width)
    largest = tl.full((BLOCK_Q,), NOTHING, tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    gathered = tl.zeros((BLOCK_Q, WIDTH), tl.float32)
    end = length
    if CAUSAL:
        end = tl.minimum(length, (tl.program_id(0) + 1) * BLOCK_Q + offset)
    for first in range(0, end, BLOCK_K):
        columns = first + tl.arange(0, BLOCK_K)
        k = block_of(k_ptr + shared * keys * width, columns, inner, width, keys, width)
        v = block_of(v_ptr + shared * keys * width, columns, inner, width, keys, width)
        scores = scores_of(q, k, rows, columns, scale, tokens, length, offset, CAUSAL, UPCAST)
        larger = tl.maximum(largest, tl.max(scores, 1))
        safe = tl.where(larger == NOTHING, 0.0, larger)  # a row that has seen nothing yet
        weights, shrink = tl.exp(scores - safe[:, None]), tl.exp(largest - safe)
        total = total * shrink + tl.sum(weights, 1)
        gathered = gathered * shrink[:, None] + product(weights.to(v.dtype), v, UPCAST)
        largest = larger
    some = total > 0
    divisor = tl.where(some, total, 1.0)
    out = gathered / divisor[:, None]
    put_block(out_ptr + tl.program_id(1) * tokens * width, out, rows, inner, width, tokens, width)
    log_sums = tl.where(some, largest + tl.log(divisor), NOTHING)
    tl.store(log_sums_ptr + tl.program_id(1) * tokens + rows, log_sums, mask=rows < tokens)


@triton.jit
def weights_and_dscores(
    q,
    k,
    v,
    dout,
    log_sums,
    row_sums,
    rows,
    columns,
    scale,
    tokens,
    length,
    offset,
    CAUSAL: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """The tile's weights, made again, and the gradient of its scores before the scale. Two [rows columns]."""
    scores = scores_of(q, k, rows, columns, scale, tokens, length, offset, CAUSAL, UPCAST)
    safe = tl.where(log_sums == NOTHING, 0.0, log_sums)
    weights = tl.exp(scores - safe[:, None])
    dweights = product(dout, tl.trans(v), UPCAST)
    return weights, weights * (dweights - row_sums[:, None]) * scale


@triton.jit
def keys_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, log_sums_ptr, row_sums_ptr, dk_ptr, dv_ptr, lengths_ptr, scale, tokens, keys,
    offset, heads, kv_heads, width,
    CAUSAL: tl.constexpr, UPCAST: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """dk and dv of one block of keys, summed over the queries of every head that shares them."""
    row, shared = tl.program_id(1) // kv_heads, tl.program_id(1) % kv_heads
    group = heads // kv_heads
    length = tl.load(lengths_ptr + row)
    columns = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    inner = tl.arange(0, WIDTH)
    k = block_of(k_ptr + tl.program_id(1) * keys * width, columns, inner, width, keys, width)
    v = block_of(v_ptr + tl.program_id(1) * keys * width, columns, inner, width, keys, width)
    dk = tl.zeros((BLOCK_K, WIDTH), tl.float32)
    dv = tl.zeros((BLOCK_K, WIDTH), tl.float32)
    begin = 0
    if CAUSAL:  # earlier queries do not see these keys
        begin = tl.maximum(tl.program_id(0) * BLOCK_K - offset, 0) // BLOCK_Q * BLOCK_Q
    for member in range(0, group):
        head = row * heads + shared * group + member
        for start in range(begin, tokens, BLOCK_Q):
            rows = start + tl.arange(0, BLOCK_Q)
            q = block_of(q_ptr + head * tokens * width, rows, inner, width, tokens, width)
            dout = block_of(dout_ptr + head * tokens * width, rows, inner, width, tokens, width)
            log_sums = tl.load(log_sums_ptr + head * tokens + rows, mask=rows < tokens, other=0.0)
            row_sums = tl.load(row_sums_ptr + head * tokens + rows, mask=rows < tokens, other=0.0)
            weights, dscores = weights_and_dscores(
                q, k, v, dout, log_sums, row_sums, rows, columns, scale, tokens, length, offset, CAUSAL, UPCAST
            )
            dv += product(tl.trans(weights.to(dout.dtype)), dout, UPCAST)
            dk += product(tl.trans(dscores.to(q.dtype)), q, UPCAST)
    put_block(dk_ptr + tl.program_id(1) * keys * width, dk, columns, inner, width, keys, width)
    put_block(dv_ptr + tl.program_id(1) * keys * width, dv, columns, inner, width, keys, width)


@triton.jit
def queries_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, log_sums_ptr, row_sums_ptr, dq_ptr, lengths_ptr, scale, tokens, keys, offset,
    heads, kv_heads, width,
    CAUSAL: tl.constexpr, UPCAST: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """dq of one block of queries, summed over the keys it may look at."""
    row, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    shared = row * kv_heads + head // (heads // kv_heads)
    length = tl.load(lengths_ptr + row)
    rows = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inner = tl.arange(0, WIDTH)
    q = block_of(q_ptr + tl.program_id(1) * tokens * width, rows, inner, width, tokens, width)
    dout = block_of(dout_ptr + tl.program_id(1) * tokens * width, rows, inner, width, tokens, width)
    log_sums = tl.load(log_sums_ptr + tl.program_id(1) * tokens + rows, mask=rows < tokens, other=0.0)
    row_sums = tl.load(row_sums_ptr + tl.program_id(1) * tokens + rows, mask=rows < tokens, other=0.0)
    dq = tl.zeros((BLOCK_Q, WIDTH), tl.float32)
    end = length
    if CAUSAL:
        end = tl.minimum(length, (tl.program_id(0) + 1) * BLOCK_Q + offset)
    for first in range(0, end, BLOCK_K):
        columns = first + tl.arange(0, BLOCK_K)
        k = block_of(k_ptr + shared * keys * width, columns, inner, width, keys, width)
        v = block_of(v_ptr + shared * keys * width, columns, inner, width, keys, width)
        _, dscores = weights_and_dscores(
            q, k, v, dout, log_sums, row_sums, rows, columns, scale, tokens, length, offset, CAUSAL, UPCAST
        )
        dq += product(dscores.to(k.dtype), k, UPCAST)
    put_block(dq_ptr + tl.program_id(1) * tokens * width, dq, rows, inner, width, tokens, width)
