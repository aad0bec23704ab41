/* Vectors in the dialect that gcc and clang share, so that the same text serves AVX-512, AVX2 and NEON. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16 /* numbers in a vector */
#define ROWS 6   /* rows that share the unpacking of a code: as many as registers hold */
#else
#define LANES 8
#define ROWS 4
#endif
#define ALIGNED __attribute__((aligned(64))) /* a vector that lies across two cache lines takes twice as long */
#define INLINE static inline __attribute__((always_inline))

typedef float Four __attribute__((vector_size(16)));
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

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

INLINE float sum_of(Floats vector) {
    Four sum = {0}, four;
    for (int i = 0; i < LANES; i += 4, sum += four) memcpy(&four, (const char *)&vector + 4 * i, sizeof four);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

INLINE Floats where(Ints mask, Floats yes, Floats no) { return (Floats)((mask & (Ints)yes) | (~mask & (Ints)no)); }

INLINE float largest_of(Floats vector, float other) {
    for (int i = 0; i < LANES; i++) other = vector[i] > other || vector[i] != vector[i] ? vector[i] : other;
    return other;
}

/* e^x within 2 units in the last place; what lies below -87 is taken for -87, above 88 for 88, and NaN stays NaN. */
INLINE Floats exponential(Floats x) {
    const Floats low = (Floats){0} - 87, high = (Floats){0} + 88;
    x = where(x < low, low, where(x > high, high, x));
    const Floats rounder = (Floats){0} + 0x1.8p23f; /* added to a number, it leaves the nearest whole one */
    const Floats n = (x * 0x1.715476p0f + rounder) - rounder;
    const Floats r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f; /* x - n ln 2, |r| <= ln 2 / 2 */
    Floats p = r * (1 / 5040.f) + 1 / 720.f;
    p = p * r + 1 / 120.f;
    p = p * r + 1 / 24.f;
    p = p * r + 1 / 6.f;
    p = p * r + 0.5f;
    p = p * r + 1;
    p = p * r + 1;
    return p * (Floats)((__builtin_convertvector(n, Ints) + 127) << 23);
}
