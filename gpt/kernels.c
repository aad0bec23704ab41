/* Products with quantised matrices on a processor, the threads that share them, and the norm between them. Compiled and
   called by native.py.

   A weight is scale * code + minimum, with one scale and one minimum for every `group` inputs of an output. Codes are
   turned into floats in registers, and all arithmetic is float32: the result is that of the dequantised matrix, up to
   the order of its sums. A row's result does not depend on what stands beside it. Vectors are written in the dialect
   that gcc and clang share, so the same text serves AVX-512, AVX2 and NEON. */

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16 /* outputs in a vector */
#define ROWS 6   /* rows that share the unpacking of a code: as many as registers hold */
#else
#define LANES 8
#define ROWS 4
#endif
#define WIDE 2 /* vectors of a block, so that one waits for its sums while the other adds */
#define BLOCK (LANES * WIDE)
#define INLINE static inline __attribute__((always_inline))

typedef float Four __attribute__((vector_size(16)));
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

/* ---- the product ------------------------------------------------------------------------------------------------ */

/* y (rows, out) = x (rows, in) W^T. Outputs go by LANES, the last ones padded with anything:
   codes (out / LANES, in * bits / 32, LANES), the code of an earlier input in lower bits of its word;
   scales (out / LANES, in / group, LANES): with `halves` the scale as float16 in the lower half of a word and the minimum
   in the upper one, else (..., 2, LANES) float32; sums (rows, in / group), those of x. */
typedef struct {
    const float *x, *sums;
    const uint32_t *codes, *scales;
    float *y;
    long rows, in, out;
    int bits, group, halves;
} Linear;

INLINE Floats floats(const void *from) {
    Floats vector;
    memcpy(&vector, from, sizeof vector);
    return vector;
}

INLINE Words words(const uint32_t *from) {
    Words vector;
    memcpy(&vector, from, sizeof vector);
    return vector;
}

/* Numbers from the lower halves of words, float16: exponents are moved up by a factor, which holds for small ones too. */
INLINE Floats from_halves(Words halves) {
    const Words sign = (halves & 0x8000) << 16, number = (Words)((Floats)((halves & 0x7fff) << 13) * 0x1p112f);
    return (Floats)(sign | number);
}

/* `rows` rows of one block of outputs; all after `row` are constants wherever this is inlined. */
INLINE void tile(const Linear *job, long block, long row, const int rows, const int bits, const int group,
                 const int halves) {
    const int per_word = 32 / bits;
    const uint32_t mask = (1u << bits) - 1;
    const long in = job->in, groups = in / group;
    const long code_step = in / per_word * LANES, scale_step = groups * (2 - halves) * LANES;
    const uint32_t *codes = job->codes + block * WIDE * code_step;
    const uint32_t *scales = job->scales + block * WIDE * scale_step;
    const float *x = job->x + row * in, *sums = job->sums + row * groups;
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
                    const Floats code = __builtin_convertvector((Ints)((packed[w] >> (bits * k)) & mask), Floats);
#pragma GCC unroll 8
                    for (int r = 0; r < rows; r++) part[r][w] += code * x[r * in + word * per_word + k];
                }
        }
#pragma GCC unroll 2
        for (int w = 0; w < WIDE; w++) {
            const uint32_t *both = scales + w * scale_step;
            const Floats scale = halves ? from_halves(words(both)) : floats(both);
            const Floats minimum = halves ? from_halves(words(both) >> 16) : floats(both + LANES);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                total[r][w] += scale * part[r][w];
                total[r][w] += minimum * sums[r * groups + g];
            }
        }
        codes += group / per_word * LANES;
        scales += (2 - halves) * LANES;
        x += group;
    }
    const long first = block * BLOCK, left = job->out - first;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        float *y = job->y + (row + r) * job->out + first;
        if (left >= BLOCK)
            memcpy(y, total[r], sizeof total[r]);
        else
            memcpy(y, total[r], left * sizeof *y);
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
    if (job->bits == 4 && job->group == 32 && job->halves) all_rows(job, block, 4, 32, 1);
    if (job->bits == 4 && job->group == 32 && !job->halves) all_rows(job, block, 4, 32, 0);
    if (job->bits == 8 && job->group == 32 && job->halves) all_rows(job, block, 8, 32, 1);
    if (job->bits == 8 && job->group == 32 && !job->halves) all_rows(job, block, 8, 32, 0);
    if (job->bits == 8 && job->group == 16 && job->halves) all_rows(job, block, 8, 16, 1);
    if (job->bits == 8 && job->group == 16 && !job->halves) all_rows(job, block, 8, 16, 0);
}

/* ---- threads -----------------------------------------------------------------------------------------------------

   A product is shared by whoever has time for it: the caller works through the blocks, and helpers take some. Nobody
   waits for a helper that has not begun, so a core that another program keeps busy costs its own share only. Helpers
   sleep between products: looking out for the next one took more from the core's other half than it gave. */

#define MOST_HELPERS 63
#define PAUSES 1000 /* some 15 microseconds that a caller waits for helpers at their last block before it lets go */

typedef void Task(const void *argument, long block);

static struct {
    pthread_mutex_t busy; /* held by the caller whose product the helpers share */
    pthread_mutex_t door;
    pthread_cond_t bell; /* rung for helpers that sleep */
    atomic_long open;    /* the number of the product that may be joined; 0: none */
    atomic_long next;    /* the block that is taken next */
    atomic_long inside;  /* helpers that look at the product */
    atomic_long asleep;
    Task *task;
    const void *argument;
    long blocks, products, helpers;
} pool = {.busy = PTHREAD_MUTEX_INITIALIZER, .door = PTHREAD_MUTEX_INITIALIZER, .bell = PTHREAD_COND_INITIALIZER};

INLINE void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_blocks(void) {
    for (long block; (block = atomic_fetch_add(&pool.next, 1)) < pool.blocks;) pool.task(pool.argument, block);
}

static int is_new(long seen) {
    const long open = atomic_load(&pool.open);
    return open && open != seen;
}

static void *help(void *unused) {
    for (long seen = 0;;) {
        pthread_mutex_lock(&pool.door);
        atomic_fetch_add(&pool.asleep, 1);
        while (!is_new(seen)) pthread_cond_wait(&pool.bell, &pool.door);
        atomic_fetch_sub(&pool.asleep, 1);
        pthread_mutex_unlock(&pool.door);
        atomic_fetch_add(&pool.inside, 1); /* before `open` is read again: then the caller waits for us */
        const long open = atomic_load(&pool.open);
        if (open) {
            seen = open;
            take_blocks();
        }
        atomic_fetch_sub(&pool.inside, 1);
    }
    return unused;
}

static void hire(long helpers) {
    pthread_t thread;
    while (pool.helpers < helpers && pool.helpers < MOST_HELPERS && !pthread_create(&thread, 0, help, 0)) {
        pthread_detach(thread);
        pool.helpers++;
    }
}

static void run(Task *task, const void *argument, long blocks, long threads) {
    if (threads < 2 || blocks < 2 || pthread_mutex_trylock(&pool.busy)) {
        for (long block = 0; block < blocks; block++) task(argument, block);
        return;
    }
    hire(threads - 1);
    pool.task = task, pool.argument = argument, pool.blocks = blocks;
    atomic_store(&pool.next, 0);
    atomic_store(&pool.open, ++pool.products);
    if (atomic_load(&pool.asleep)) {
        pthread_mutex_lock(&pool.door);
        pthread_cond_broadcast(&pool.bell);
        pthread_mutex_unlock(&pool.door);
    }
    take_blocks();
    atomic_store(&pool.open, 0);
    for (int i = 0; atomic_load(&pool.inside); i++) i < PAUSES ? pause_briefly() : (void)sched_yield();
    pthread_mutex_unlock(&pool.busy);
}

/* ---- what native.py calls ---------------------------------------------------------------------------------------- */

long block_size(void) { return BLOCK; }

long lanes(void) { return LANES; }

/* As Linear; `sums` is room for the sums. */
void linear(const float *x, float *sums, const uint32_t *codes, const uint32_t *scales, float *y, long rows,
            long in, long out, long bits, long group, long halves, long threads) {
    for (long g = 0; g < rows * in / group; g++) {
        Four sum = {0}, four;
        for (long i = 0; i < group; i += 4, sum += four) memcpy(&four, x + g * group + i, sizeof four);
        sums[g] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
    const Linear job = {x, sums, codes, scales, y, rows, in, out, bits, group, halves};
    run(linear_block, &job, (out + BLOCK - 1) / BLOCK, threads);
}

/* y = x / rms(x) * weight for rows of `dim` numbers. Torch takes eight calls for this, a tenth of a token's time. */
void rms_norm(const float *x, const float *weight, float *y, long rows, long dim, double eps) {
    const long whole = dim / LANES * LANES;
    for (long row = 0; row < rows; row++, x += dim, y += dim) {
        Floats squares = {0};
        float sum = 0;
        for (long i = 0; i < whole; i += LANES) squares += floats(x + i) * floats(x + i);
        for (int lane = 0; lane < LANES; lane++) sum += squares[lane];
        for (long i = whole; i < dim; i++) sum += x[i] * x[i];
        const float scale = 1 / sqrtf(sum / dim + (float)eps);
        for (long i = 0; i < dim; i++) y[i] = x[i] * scale * weight[i];
    }
}
