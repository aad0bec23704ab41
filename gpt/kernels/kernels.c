/* A layer of a quantised model on a processor, float32 throughout. Compiled and called by native.py. */

#include <stdlib.h>

#include "vectors.h"

#include "pool.h"

#include "product.h"

#include "attention.h"

long block_size(void) { return BLOCK; }

long lanes(void) { return LANES; }

/* y (rows, out) = x (rows, in) W^T + bias. */
void linear(const Matrix *matrix, const float *x, float *y, long rows, long threads) {
    float *sums = malloc(rows * (matrix->in / PIECE) * sizeof *sums);
    for (long row = 0; row < rows; row++)
        sum_pieces(x + row * matrix->in, sums + row * (matrix->in / PIECE), matrix->in);
    const Linear job = {matrix, x, sums, 0, y, rows, matrix->out};
    const Phase phase = phase_of(&job);
    run(&phase, 1, threads);
    free(sums);
}

/* y = x / rms(x) * weight for one row of `dim` numbers. */
static void normalise(const float *x, const float *weight, float *y, long dim, float eps) {
    const long whole = dim / LANES * LANES;
    Floats squares = {0};
    float sum = 0;
    for (long i = 0; i < whole; i += LANES) squares += floats(x + i) * floats(x + i);
    for (int lane = 0; lane < LANES; lane++) sum += squares[lane];
    for (long i = whole; i < dim; i++) sum += x[i] * x[i];
    const float scale = 1 / sqrtf(sum / dim + eps);
    for (long i = 0; i < dim; i++) y[i] = x[i] * scale * weight[i];
}

void rms_norm(const float *x, const float *weight, float *y, long rows, long dim, double eps) {
    for (long row = 0; row < rows; row++) normalise(x + row * dim, weight, y + row * dim, dim, eps);
}

/* ---- a block ----------------------------------------------------------------------------------------------------- */

/* The matrices of queries, keys and values lie one below the other in `count` parts: heads of queries, as many as
   `n_head`, and of keys, `n_kv_head`, come first in a row of theirs. post_norm_1, post_norm_2 (of what attention and the
   MLP give), q_norm and k_norm (of a head) may be null. The gate opens by GELU with `gelu`, else by SiLU. */
typedef struct {
    const float *norm_1, *norm_2, *post_norm_1, *post_norm_2, *q_norm, *k_norm;
    Matrix qkv[3], out, gate, up, down;
    long count, n_head, n_kv_head, head_dim, gelu;
    double eps;
} Block;

/* Rows of x, what is made of each: its norm where there is a weight, else itself; and its sums. */
typedef struct {
    const float *x, *weight;
    float *normed, *sums;
    long dim;
    float eps;
} Rows;

static void prepare_row(const void *argument, long row) {
    const Rows *rows = argument;
    const float *x = rows->x + row * rows->dim;
    if (rows->weight) {
        float *normed = rows->normed + row * rows->dim;
        normalise(x, rows->weight, normed, rows->dim, rows->eps);
        x = normed;
    }
    sum_pieces(x, rows->sums + row * (rows->dim / PIECE), rows->dim);
}

/* Queries and keys in rows of x, each head normalised where there is a norm, and its first `turned` numbers turned; cos
   and sin (angles, turned), row i takes those of i % angles. */
typedef struct {
    const Block *block;
    float *x;
    const float *cos, *sin;
    long stride, turned, angles;
} Heads;

static void turn_row(const void *argument, long row) {
    const Heads *job = argument;
    const Block *block = job->block;
    const long half = job->turned / 2, angle = row % job->angles * job->turned;
    const float *cos = job->cos + angle, *sin = job->sin + angle;
    for (long head = 0; head < block->n_head + block->n_kv_head; head++) {
        float *x = job->x + row * job->stride + head * block->head_dim;
        const float *norm = head < block->n_head ? block->q_norm : block->k_norm;
        if (norm) normalise(x, norm, x, block->head_dim, block->eps);
        for (long i = 0; i < half; i++) {
            const float a = x[i], b = x[half + i];
            x[i] = a * cos[i] - b * sin[i];
            x[half + i] = b * cos[half + i] + a * sin[half + i];
        }
    }
}

/* qkv (rows, out of all parts) of x (rows, in): norm, products, norms of heads, rotation. */
void before_attention(const Block *block, const float *x, const float *cos, const float *sin, long turned, long angles,
                      float *qkv, long rows, long threads) {
    const long in = block->qkv[0].in, pieces = in / PIECE;
    float *room = malloc(rows * (in + pieces) * sizeof *room);
    const Rows norm = {x, block->norm_1, room, room + rows * in, in, block->eps};
    Linear jobs[3];
    Phase phases[5] = {{prepare_row, &norm, rows}};
    long stride = 0, at = 0, n = 1;
    for (long i = 0; i < block->count; i++) stride += block->qkv[i].out;
    for (long i = 0; i < block->count; at += block->qkv[i++].out) {
        jobs[i] = (Linear){&block->qkv[i], room, norm.sums, 0, qkv + at, rows, stride};
        phases[n++] = phase_of(&jobs[i]);
    }
    const Heads heads = {block, qkv, cos, sin, stride, turned, angles};
    if (turned || block->q_norm) phases[n++] = (Phase){turn_row, &heads, rows};
    run(phases, n, threads);
    free(room);
}

/* hidden (rows, out) = silu(gate) * up, or gelu(gate) * up, a block of outputs at a time; there are whole ones only. */
typedef struct {
    Linear gate, up;
    float *hidden;
    long gelu;
} Gated;

/* SiLU is x / (1 + e^-x); GELU, by its usual approximation with tanh, is x / (1 + e^(-2 z)). */
INLINE Floats opened(Floats x, long gelu) {
    const Floats z = gelu ? 0x1.988454p0f * (x + 0.044715f * x * x * x) : x; /* 2 sqrt(2 / pi) */
    return x / (1 + exponential(-z));
}

static void gated_block(const void *argument, long block) {
    const Gated *job = argument;
    const long out = job->gate.matrix->out, first = block * BLOCK;
    linear_block(&job->gate, block);
    linear_block(&job->up, block);
    for (long row = 0; row < job->gate.rows; row++)
        for (long i = first; i < first + BLOCK; i += LANES) {
            const float *gate = job->gate.y + row * out + i, *up = job->up.y + row * out + i;
            const Floats hidden = opened(floats(gate), job->gelu) * floats(up);
            memcpy(job->hidden + row * out + i, &hidden, sizeof hidden);
        }
}

/* y = x + norm(added) for rows of `dim` numbers; y may be x. */
typedef struct {
    const float *x, *added, *weight;
    float *y;
    long dim;
    float eps;
} Sum;

static void add_row(const void *argument, long row) {
    const Sum *job = argument;
    const long at = row * job->dim;
    float normed[job->dim];
    normalise(job->added + at, job->weight, normed, job->dim, job->eps);
    for (long i = 0; i < job->dim; i++) job->y[at + i] = job->x[at + i] + normed[i];
}

/* A product that is added to x, after its norm if it has one (it is kept in `added` until then); y may be x. */
typedef struct {
    Linear product;
    Sum sum;
} Branch;

static long phases_of(Branch *branch, const float *x, const float *norm, float *added, float *y, float eps,
                      Phase *phases) {
    branch->product.residual = norm ? 0 : x, branch->product.y = norm ? added : y;
    branch->sum = (Sum){x, added, norm, y, branch->product.matrix->out, eps};
    phases[0] = phase_of(&branch->product);
    phases[1] = (Phase){add_row, &branch->sum, branch->product.rows};
    return norm ? 2 : 1;
}

/* y (rows, C) = x + out(z) + MLP of its norm; z (rows, in of out). */
void after_attention(const Block *block, const float *x, const float *z, float *y, long rows, long threads) {
    const long width = block->out.in, dim = block->out.out, inner = block->gate.out;
    float *room = malloc(rows * (width / PIECE + 2 * dim + dim / PIECE + 3 * inner + inner / PIECE) * sizeof *room);
    float *sums = room, *normed = sums + rows * (width / PIECE), *added = normed + rows * dim;
    float *normed_sums = added + rows * dim, *gate = normed_sums + rows * (dim / PIECE), *up = gate + rows * inner;
    float *hidden = up + rows * inner, *hidden_sums = hidden + rows * inner;
    const Rows heads = {z, 0, 0, sums, width, 0}, norm = {y, block->norm_2, normed, normed_sums, dim, block->eps};
    const Rows inside = {hidden, 0, 0, hidden_sums, inner, 0};
    const Gated gated = {{&block->gate, normed, normed_sums, 0, gate, rows, inner},
                         {&block->up, normed, normed_sums, 0, up, rows, inner},
                         hidden,
                         block->gelu};
    Branch read = {.product = {&block->out, z, sums, 0, 0, rows, dim}};
    Branch made = {.product = {&block->down, hidden, hidden_sums, 0, 0, rows, dim}};
    Phase phases[MOST_PHASES] = {{prepare_row, &heads, rows}};
    long n = 1 + phases_of(&read, x, block->post_norm_1, added, y, block->eps, phases + 1);
    phases[n++] = (Phase){prepare_row, &norm, rows};
    phases[n++] = (Phase){gated_block, &gated, inner / BLOCK};
    phases[n++] = (Phase){prepare_row, &inside, rows};
    n += phases_of(&made, y, block->post_norm_2, added, y, block->eps, phases + n);
    run(phases, n, threads);
    free(room);
}

/* z (T, H, D) of T queries, as Attention. */
void attention(const float *q, const float *k, const float *v, const uint8_t *mask, float *z, const long *shape,
               double scale, long threads) {
    const long H = shape[0], G = shape[1], T = shape[2], S = shape[3], D = shape[4], chunks = (S + CHUNK - 1) / CHUNK;
    Attention job = {q, k, v, mask, z, 0, H, G, T, S, D, shape[5], shape[6], shape[7], shape[8], shape[9], chunks, scale};
    if (T > 1 || mask) {
        const Phase phase = {attention_tile, &job, G * ((T + TILE - 1) / TILE)};
        run(&phase, 1, threads);
        return;
    }
    job.parts = malloc(H * chunks * (D + 2) * sizeof *job.parts);
    const Phase phases[] = {{attention_chunk, &job, G * chunks}, {attention_head, &job, H}};
    run(phases, 2, threads);
    free(job.parts);
}
