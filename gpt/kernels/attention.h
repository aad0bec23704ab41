/* Attention: softmax(q k^T * scale) v for all heads, of one query and of many.

   Keys are cut into chunks, always at the same places. One query's chunks are shared by threads and joined at the end;
   many queries go by tiles, each of which passes over the chunks and corrects what it has as larger scores appear
   (Milakov & Gimelshein 2018, Dao et al. 2022). */

#define CHUNK 64 /* keys */
#define TILE 32  /* queries */
#define BESIDE 4 /* queries that share the loading of keys and values: as many as registers hold */

/* T queries: q (H, T, D), a head `q_head` numbers after the head before and a query `q_row` after the one before; k and
   v (G, S, D), the keys of a head `k_head` numbers after those of the head before, values `v_head`; z (T, H, D).
   mask (T, S), not 0 where one may look, or null; without it query t sees keys 0..t if `causal`, else all.
   parts, for one query, (H, chunks, D + 2): of each chunk the weighted values, then the largest score and the sum of
   weights, both relative to that score. */
typedef struct {
    const float *q, *k, *v;
    const uint8_t *mask;
    float *z, *parts;
    long H, G, T, S, D, q_head, q_row, k_head, v_head, causal, chunks;
    float scale;
} Attention;

INLINE float product_of(const float *a, const float *b, const long D) {
    Floats sum = {0};
    float rest = 0;
    const long whole = D / LANES * LANES;
#pragma GCC unroll 16
    for (long i = 0; i < whole; i += LANES) sum += floats(a + i) * floats(b + i);
    for (long i = whole; i < D; i++) rest += a[i] * b[i];
    return sum_of(sum) + rest;
}

/* The weighted sum of n values of D numbers, LANES of them at `at`. */
INLINE void weigh(const float *weights, const float *v, float *out, long n, const long D, const long whole) {
    Floats sum[whole / LANES];
#pragma GCC unroll 16
    for (long i = 0; i < whole / LANES; i++) sum[i] = (Floats){0};
    for (long s = 0; s < n; s++)
#pragma GCC unroll 16
        for (long i = 0; i < whole / LANES; i++) sum[i] += weights[s] * floats(v + s * D + i * LANES);
    memcpy(out, sum, whole * sizeof *out);
    for (long i = whole; i < D; i++) {
        out[i] = 0;
        for (long s = 0; s < n; s++) out[i] += weights[s] * v[s * D + i];
    }
}

INLINE void read_chunk(const Attention *job, long block, const long D) {
    const long g = block / job->chunks, chunk = block % job->chunks, first = chunk * CHUNK, heads = job->H / job->G;
    const long n = job->S - first < CHUNK ? job->S - first : CHUNK;
    const float *k = job->k + g * job->k_head + first * D, *v = job->v + g * job->v_head + first * D;
    for (long h = g * heads; h < (g + 1) * heads; h++) {
        float weights[CHUNK] = {0}, most = -INFINITY, sum = 0;
        float *part = job->parts + (h * job->chunks + chunk) * (D + 2);
        for (long s = 0; s < n; s++) {
            weights[s] = product_of(job->q + h * job->q_head, k + s * D, D) * job->scale;
            most = weights[s] > most ? weights[s] : most;
        }
        for (long s = 0; s < n; s += LANES) {
            const Floats weight = exponential(floats(weights + s) - most);
            memcpy(weights + s, &weight, sizeof weight);
        }
        for (long s = 0; s < n; s++) sum += weights[s];
        weigh(weights, v, part, n, D, D / LANES * LANES);
        part[D] = most, part[D + 1] = sum;
    }
}

static void attention_chunk(const void *argument, long block) {
    const Attention *job = argument;
    if (job->D == 64)
        read_chunk(job, block, 64);
    else if (job->D == 128)
        read_chunk(job, block, 128);
    else
        read_chunk(job, block, job->D);
}

/* The chunks of one query's head together. */
static void attention_head(const void *argument, long h) {
    const Attention *job = argument;
    const long D = job->D;
    const float *parts = job->parts + h * job->chunks * (D + 2), *end = parts + job->chunks * (D + 2);
    float most = -INFINITY, sum = 0, *z = job->z + h * D;
    for (const float *part = parts; part < end; part += D + 2) most = part[D] > most ? part[D] : most;
    for (long i = 0; i < D; i++) z[i] = 0;
    for (const float *part = parts; part < end; part += D + 2) {
        const float weight = expf(part[D] - most);
        sum += weight * part[D + 1];
        for (long i = 0; i < D; i++) z[i] += weight * part[i];
    }
    for (long i = 0; i < D; i++) z[i] /= sum;
}

/* ---- many queries ------------------------------------------------------------------------------------------------ */

/* What one head of one query has read so far, all relative to its largest score. */
typedef struct {
    float most, sum;
} Read;

/* The keys from `first` on that a query may see, as -1 and 0; none after the last one. */
static void look(const Attention *job, long t, long first, int32_t *seen) {
    for (long s = first; s < first + CHUNK; s++) {
        const int may = job->mask ? s < job->S && job->mask[t * job->S + s] : s < (job->causal ? t + 1 : job->S);
        *seen++ = -(may && s < job->S);
    }
}

/* The first key that any of the queries t..end-1 sees, and the one after the last. */
static void reach(const Attention *job, long t, long end, long *first, long *stop) {
    *first = 0, *stop = job->mask || !job->causal ? job->S : end;
    if (!job->mask) return;
    const uint8_t *mask = job->mask;
    long low = job->S, high = 0;
    for (; t < end; t++) {
        for (long s = 0; s < low; s++)
            if (mask[t * job->S + s]) low = s;
        for (long s = job->S; s > high; s--)
            if (mask[t * job->S + s - 1]) high = s;
    }
    *first = low, *stop = high;
}

/* `count` queries of one head, from `t` on, read a chunk of n keys, turned (D, CHUNK), and its values. */
INLINE void read_beside(const Attention *job, long h, long t, const int count, const float *turned, const float *v,
                        const int32_t *seen, long n, Read *read, float *z, const long D) {
    enum { VECTORS = CHUNK / LANES };
    Floats scores[BESIDE][VECTORS] = {0};
    const float *q = job->q + h * job->q_head + t * job->q_row;
    for (long d = 0; d < D; d++)
#pragma GCC unroll 8
        for (int i = 0; i < VECTORS; i++) {
            const Floats keys = floats(turned + d * CHUNK + i * LANES);
#pragma GCC unroll 4
            for (int r = 0; r < count; r++) scores[r][i] += q[r * job->q_row + d] * keys;
        }
    float weights[BESIDE][CHUNK] ALIGNED;
    for (int r = 0; r < count; r++) {
        Floats highest = (Floats){0} - INFINITY, total = {0};
        Ints mask[VECTORS];
        memcpy(mask, seen + r * CHUNK, sizeof mask);
        for (int i = 0; i < VECTORS; i++) {
            scores[r][i] = where(mask[i], scores[r][i] * job->scale, (Floats){0} - INFINITY);
            highest = where(highest > scores[r][i], highest, scores[r][i]);
        }
        const float most = largest_of(highest, read[r].most);
        for (int i = 0; i < VECTORS; i++) {
            scores[r][i] = where(mask[i], exponential(scores[r][i] - most), (Floats){0});
            total += scores[r][i];
        }
        memcpy(weights[r], scores[r], sizeof scores[r]);
        const float sum = sum_of(total);
        const float before = most == read[r].most ? 1 : expf(read[r].most - most);
        for (long d = 0; d < D; d++) z[r * D + d] *= before;
        read[r] = (Read){most, read[r].sum * before + sum};
    }
    for (long d = 0; d + 4 * LANES <= D; d += 4 * LANES) { /* registers for 4 vectors of each */
        Floats sums[BESIDE][4];
#pragma GCC unroll 4
        for (int r = 0; r < count; r++) memcpy(sums[r], z + r * D + d, sizeof sums[r]);
        for (long s = 0; s < n; s++)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                const Floats values = floats(v + s * D + d + i * LANES);
#pragma GCC unroll 4
                for (int r = 0; r < count; r++) sums[r][i] += weights[r][s] * values;
            }
#pragma GCC unroll 4
        for (int r = 0; r < count; r++) memcpy(z + r * D + d, sums[r], sizeof sums[r]);
    }
    for (int r = 0; r < count; r++)
        for (long s = 0; s < n; s++)
            for (long d = D / (4 * LANES) * (4 * LANES); d < D; d++) z[r * D + d] += weights[r][s] * v[s * D + d];
}

/* A tile of queries of all heads that share keys. */
static void attention_tile(const void *argument, long block) {
    const Attention *job = argument;
    const long D = job->D, heads = job->H / job->G, g = block % job->G, tiles = (job->T + TILE - 1) / TILE;
    const long t = (tiles - 1 - block / job->G) * TILE, end = t + TILE < job->T ? t + TILE : job->T; /* the long ones first */
    float turned[D * CHUNK] ALIGNED, z[heads * TILE * D] ALIGNED;
    int32_t seen[TILE * CHUNK] ALIGNED;
    Read read[heads * TILE];
    for (long i = 0; i < heads * TILE; i++) read[i] = (Read){-INFINITY, 0};
    memset(z, 0, sizeof z);
    long first, stop;
    reach(job, t, end, &first, &stop);
    for (long at = first / CHUNK * CHUNK; at < stop; at += CHUNK) {
        const long n = stop - at < CHUNK ? stop - at : CHUNK;
        const float *k = job->k + g * job->k_head + at * D, *v = job->v + g * job->v_head + at * D;
        for (long s = 0; s < CHUNK; s++)
            for (long d = 0; d < D; d++) turned[d * CHUNK + s] = s < n ? k[s * D + d] : 0;
        for (long r = 0; r < end - t; r++) look(job, t + r, at, seen + r * CHUNK);
        for (long h = 0; h < heads; h++) {
            long r = 0;
            for (; r + BESIDE <= end - t; r += BESIDE)
                read_beside(job, g * heads + h, t + r, BESIDE, turned, v, seen + r * CHUNK, n, read + h * TILE + r,
                            z + (h * TILE + r) * D, D);
            for (; r < end - t; r++)
                read_beside(job, g * heads + h, t + r, 1, turned, v, seen + r * CHUNK, n, read + h * TILE + r,
                            z + (h * TILE + r) * D, D);
        }
    }
    for (long h = 0; h < heads; h++)
        for (long r = 0; r < end - t; r++)
            for (long d = 0; d < D; d++)
                job->z[((t + r) * job->H + g * heads + h) * D + d] = z[(h * TILE + r) * D + d] / read[h * TILE + r].sum;
}
