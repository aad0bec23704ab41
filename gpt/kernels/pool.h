/* Threads that share a piece of work: phases of independent blocks, a phase beginning when the one before it is done.

   The caller works through the blocks, and helpers take some. Nobody waits for a helper that has not begun, so a core
   that another program keeps busy costs its own share only. Helpers sleep between pieces: looking out for the next one
   took more from the core's other half than it gave. */

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define MOST_HELPERS 63
#define MOST_PHASES 8
#define PAUSES 1000 /* some 15 microseconds that one waits for others at their last block before one lets go */

typedef struct {
    void (*task)(const void *argument, long block);
    const void *argument;
    long blocks;
} Phase;

static struct {
    pthread_mutex_t busy; /* held by the caller whose work the helpers share */
    pthread_mutex_t door;
    pthread_cond_t bell; /* rung for helpers that sleep */
    atomic_long open;    /* the number of the piece that may be joined; 0: none */
    atomic_long inside;  /* helpers that look at it */
    atomic_long asleep;
    atomic_long next[MOST_PHASES]; /* the block that is taken next */
    atomic_long done[MOST_PHASES]; /* blocks that are finished */
    const Phase *phases;
    long count, pieces, helpers;
} pool = {.busy = PTHREAD_MUTEX_INITIALIZER, .door = PTHREAD_MUTEX_INITIALIZER, .bell = PTHREAD_COND_INITIALIZER};

INLINE void wait_a_little(long waited) {
    if (waited >= PAUSES) {
        sched_yield();
        return;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_blocks(void) {
    for (long p = 0; p < pool.count; p++) {
        const Phase *phase = pool.phases + p;
        long taken = 0;
        for (long block; (block = atomic_fetch_add(&pool.next[p], 1)) < phase->blocks; taken++)
            phase->task(phase->argument, block);
        atomic_fetch_add(&pool.done[p], taken);
        for (long i = 0; atomic_load(&pool.done[p]) < phase->blocks; i++) wait_a_little(i);
    }
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

static void run(const Phase *phases, long count, long threads) {
    if (threads < 2 || pthread_mutex_trylock(&pool.busy)) {
        for (const Phase *phase = phases; phase < phases + count; phase++)
            for (long block = 0; block < phase->blocks; block++) phase->task(phase->argument, block);
        return;
    }
    hire(threads - 1);
    pool.phases = phases, pool.count = count;
    for (long p = 0; p < count; p++) {
        atomic_store(&pool.next[p], 0);
        atomic_store(&pool.done[p], 0);
    }
    atomic_store(&pool.open, ++pool.pieces);
    if (atomic_load(&pool.asleep)) {
        pthread_mutex_lock(&pool.door);
        pthread_cond_broadcast(&pool.bell);
        pthread_mutex_unlock(&pool.door);
    }
    take_blocks();
    atomic_store(&pool.open, 0);
    for (long i = 0; atomic_load(&pool.inside); i++) wait_a_little(i);
    pthread_mutex_unlock(&pool.busy);
}
