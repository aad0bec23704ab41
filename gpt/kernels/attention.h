/* What one query reads: softmax(q k^T * scale) v for all heads, the keys cut into chunks so that threads share them. */

#define CHUNK 64 /* keys */

/* q and z (H, D); k and v (G, S, D), the keys of a head `k_step` numbers after those of the head before, values
   `v_step`. parts (H, chunks, D + 2): of each chunk the weighted values, then the largest score and the sum of weights,
   both relative to that score. */
typedef struct {
    const float *q, *k, *v;
    float *z, *parts;
    long H, G, S, D, k_step, v_step, chunks;
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
    const float *k = job->k + g * job->k_step + first * D, *v = job->v + g * job->v_step + first * D;
    for (long h = g * heads; h < (g + 1) * heads; h++) {
        float weights[CHUNK] = {0}, most = -INFINITY, sum = 0;
        float *part = job->parts + (h * job->chunks + chunk) * (D + 2);
        for (long s = 0; s < n; s++) {
            weights[s] = product_of(job->q + h * D, k + s * D, D) * job->scale;
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

/* The chunks of one head together. */
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
