/* Products with matrices that are stored in few bits.

   A weight is scale * code + minimum, with one scale and one minimum for every `group` inputs of an output, or it is a
   number of 16 bits. Either is turned into a float in registers, and all arithmetic is float32: the result is that of
   the float32 matrix, up to the order of its sums. A row's result does not depend on what stands beside it. */

#define WIDE 2 /* vectors of a block, so that one waits for its sums while the other adds */
#define BLOCK (LANES * WIDE)
#define PIECE 16 /* inputs whose sum is taken beforehand; groups are of one or two */

/* Outputs go by LANES, the last ones padded with anything: codes (out / LANES, in * bits / 32, LANES), the code of an
   earlier input in lower bits of its word; scales (out / LANES, in / group, LANES): with `halves` the scale as float16
   in the lower half of a word and the minimum in the upper one, else (..., 2, LANES) float32; bias (out) or null. With 16
   bits there are no scales: codes are numbers, float16 with `halves`, else bfloat16. */
typedef struct {
    const uint32_t *codes, *scales;
    const float *bias;
    long in, out, bits, group, halves;
} Matrix;

/* y (rows, out) = x (rows, in) W^T + bias + residual (rows, out), which may be null; a row of y or residual begins
   `stride` after the one before. sums (rows, in / PIECE) are those of x. */
typedef struct {
    const Matrix *matrix;
    const float *x, *sums, *residual;
    float *y;
    long rows, stride;
} Linear;

/* Sums of a row of x, for the minima. */
static void sum_pieces(const float *x, float *sums, long in) {
    for (long i = 0; i < in / PIECE; i++, x += PIECE) {
        Four sum = {0}, four;
        for (int k = 0; k < PIECE; k += 4, sum += four) memcpy(&four, x + k, sizeof four);
        sums[i] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
}

/* One row's outputs of one block, where they belong. Not inlined: compilers take their time over every copy. */
static __attribute__((noinline)) void put(const Linear *job, long block, long row, float *result) {
    const Matrix *matrix = job->matrix;
    const long first = block * BLOCK, left = matrix->out - first, width = left < BLOCK ? left : BLOCK;
    const long at = row * job->stride + first;
    if (matrix->bias)
        for (long i = 0; i < width; i++) result[i] += matrix->bias[first + i];
    if (job->residual) /* which may be y itself */
        for (long i = 0; i < width; i++) result[i] += job->residual[at + i];
    memcpy(job->y + at, result, width * sizeof *result);
}

/* The k-th number in each word. */
INLINE Floats number(Words packed, int k, const int bits, const int halves) {
    if (bits < 16) return __builtin_convertvector((Ints)((packed >> (bits * k)) & ((1u << bits) - 1)), Floats);
    if (halves) return from_halves(packed >> (16 * k));
    return (Floats)(k ? packed & 0xffff0000 : packed << 16);
}

/* Outputs of one block for all `count` rows from `row` on; what follows is constant wherever this is inlined. */
INLINE void tile(const Linear *job, long block, long row, const int count, const int bits, const int group,
                 const int halves) {
    const int per_word = 32 / bits, pieces = group / PIECE;
    const Matrix *matrix = job->matrix;
    const long in = matrix->in, groups = in / group;
    const long code_step = in / per_word * LANES, scale_step = groups * (2 - halves) * LANES;
    const uint32_t *codes = matrix->codes + block * WIDE * code_step;
    const uint32_t *scales = matrix->scales + block * WIDE * scale_step;
    const float *x = job->x + row * in, *sums = job->sums + row * (in / PIECE);
    Floats total[ROWS][WIDE] = {0};
    for (long g = 0; g < groups; g++) {
        Floats part[ROWS][WIDE] = {0};
        for (int word = 0; word < group / per_word; word++) {
            Words packed[WIDE];
#pragma GCC unroll 2
            for (int w = 0; w < WIDE; w++) packed[w] = words(codes + w * code_step + word * LANES);
#pragma GCC unroll 8
            for (int k = 0; k < per_word; k++)
#pragma GCC unroll 2
                for (int w = 0; w < WIDE; w++) {
                    const Floats code = number(packed[w], k, bits, halves);
#pragma GCC unroll 8
                    for (int r = 0; r < count; r++) part[r][w] += code * x[r * in + word * per_word + k];
                }
        }
        codes += group / per_word * LANES;
        x += group;
        if (bits == 16) {
#pragma GCC unroll 8
            for (int r = 0; r < count; r++)
#pragma GCC unroll 2
                for (int w = 0; w < WIDE; w++) total[r][w] += part[r][w];
            continue;
        }
        float sum[ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < count; r++) {
            const float *first = sums + r * (in / PIECE) + g * pieces;
            sum[r] = pieces == 2 ? first[0] + first[1] : first[0];
        }
#pragma GCC unroll 2
        for (int w = 0; w < WIDE; w++) {
            const uint32_t *both = scales + w * scale_step;
            const Floats scale = halves ? from_halves(words(both)) : floats(both);
            const Floats minimum = halves ? from_halves(words(both) >> 16) : floats(both + LANES);
#pragma GCC unroll 8
            for (int r = 0; r < count; r++) {
                total[r][w] += scale * part[r][w];
                total[r][w] += minimum * sum[r];
            }
        }
        scales += (2 - halves) * LANES;
    }
#pragma GCC unroll 8
    for (int r = 0; r < count; r++) {
        float result[BLOCK];
        memcpy(result, total[r], sizeof result);
        put(job, block, row + r, result);
    }
}

INLINE void all_rows(const Linear *job, long block, const int bits, const int group, const int halves) {
    long row = 0;
    for (; row + ROWS <= job->rows; row += ROWS) tile(job, block, row, ROWS, bits, group, halves);
    for (; row + 4 <= job->rows; row += 4) tile(job, block, row, 4, bits, group, halves);
    for (; row + 2 <= job->rows; row += 2) tile(job, block, row, 2, bits, group, halves);
    if (row < job->rows) tile(job, block, row, 1, bits, group, halves);
}

static void linear_block(const void *argument, long block) {
    const Linear *job = argument;
    const Matrix *matrix = job->matrix;
    if (matrix->bits == 4 && matrix->group == 32 && matrix->halves) all_rows(job, block, 4, 32, 1);
    if (matrix->bits == 4 && matrix->group == 32 && !matrix->halves) all_rows(job, block, 4, 32, 0);
    if (matrix->bits == 8 && matrix->group == 32 && matrix->halves) all_rows(job, block, 8, 32, 1);
    if (matrix->bits == 8 && matrix->group == 32 && !matrix->halves) all_rows(job, block, 8, 32, 0);
    if (matrix->bits == 8 && matrix->group == 16 && matrix->halves) all_rows(job, block, 8, 16, 1);
    if (matrix->bits == 8 && matrix->group == 16 && !matrix->halves) all_rows(job, block, 8, 16, 0);
    if (matrix->bits == 16 && matrix->halves) all_rows(job, block, 16, 32, 1);
    if (matrix->bits == 16 && !matrix->halves) all_rows(job, block, 16, 32, 0);
}

static Phase phase_of(const Linear *job) {
    return (Phase){linear_block, job, (job->matrix->out + BLOCK - 1) / BLOCK};
}
