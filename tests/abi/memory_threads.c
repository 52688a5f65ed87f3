/* platforms: native kvm
 * Threads map, use and unmap memory at the same time, while processes are forked: nobody ever sees
 * another's bytes, and fresh memory is always zero. */
#define _GNU_SOURCE
#include "abi.h"
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define RW (PROT_READ | PROT_WRITE)
#define THREADS 3
#define ROUNDS 120

static uint64_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

static uint64_t *word(char *base, int page)
{
    return (uint64_t *)(base + (size_t)page * PAGE);
}

static void use(uint64_t tag, uint64_t *seed)
{
    int pages = 1 + (int)(next(seed) % 700), cut = (int)(next(seed) % (unsigned)pages);
    char *area = mmap(0, (size_t)pages * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED);
    for (int i = 0; i < pages; i++) {
        CHECK(*word(area, i) == 0);
        *word(area, i) = tag + (unsigned)i;
    }
    switch (next(seed) % 5) {
    case 0:
        CHECK(mprotect(area, (size_t)pages * PAGE, PROT_READ) == 0);
        CHECK(mprotect(area, (size_t)pages * PAGE, RW) == 0);
        break;
    case 1: {
        char *moved = mremap(area, (size_t)pages * PAGE, (size_t)(pages + 50) * PAGE,
                             MREMAP_MAYMOVE);
        CHECK(moved != MAP_FAILED);
        CHECK(*word(moved, pages + 49) == 0);
        CHECK(munmap(moved + (size_t)pages * PAGE, 50 * PAGE) == 0);
        area = moved;
        break;
    }
    case 2: {
        pid_t child = fork();
        if (!child) {
            for (int i = 0; i < pages; i++) {
                if (*word(area, i) != tag + (unsigned)i)
                    _exit(1);
                *word(area, i) = 1;
            }
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        break;
    }
    case 3:
        CHECK(madvise(word(area, cut), PAGE, MADV_DONTNEED) == 0);
        CHECK(*word(area, cut) == 0);
        *word(area, cut) = tag + (unsigned)cut;
        break;
    }
    for (int i = 0; i < pages; i++)
        CHECK(*word(area, i) == tag + (unsigned)i);
    CHECK(munmap(area, (size_t)cut * PAGE + PAGE) == 0);
    for (int i = cut + 1; i < pages; i++)
        CHECK(*word(area, i) == tag + (unsigned)i);
    if (cut + 1 < pages)
        CHECK(munmap(word(area, cut + 1), (size_t)(pages - cut - 1) * PAGE) == 0);
}

static void *work(void *argument)
{
    uint64_t number = (uintptr_t)argument, seed = number;
    for (uint64_t round = 0; round < ROUNDS; round++)
        use(number << 48 | round << 16, &seed);
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    return 0;
}
