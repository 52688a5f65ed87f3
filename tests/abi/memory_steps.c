/* Calls on many mappings at once, while other threads fault, map, fork and read in the same memory:
 * each sees what was before the call or what is after it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "abi.h"

enum { PAGE = 4096, PAIRS = 400, ROUNDS = 3 };
#define SIZE ((long)PAIRS * 2 * PAGE)

static char *area;
static atomic_int over;
static atomic_long tries;

/* Every other page read-only: two mappings for each pair. */
static void split(void)
{
    CHECK(mmap(area, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
          == area);
    memset(area, 7, SIZE);
    for (int i = 0; i < PAIRS; i++)
        CHECK(!mprotect(area + (long)i * 2 * PAGE, PAGE, PROT_READ));
}

/* Run `body` in another thread for as long as `work` takes, and until it had a turn. */
static void beside(void *(*body)(void *), void (*work)(void))
{
    pthread_t thread;
    over = 0;
    tries = 0;
    split();
    CHECK(!pthread_create(&thread, NULL, body, NULL));
    for (int i = 0; i < ROUNDS; i++) {
        split();
        work();
    }
    long seen = tries;
    while (tries <= seen + 1)
        usleep(1000);
    over = 1;
    CHECK(!pthread_join(thread, NULL));
}

static int can_be_written(char *page)
{
    static __thread int zero = -1;
    if (zero < 0)
        zero = open("/dev/zero", O_RDONLY);
    return read(zero, page, 1) == 1;
}

/* A page of the area is always there: old, or new and zero. */
static void *touch(void *unused)
{
    for (unsigned at = 0; !over; at += 37, tries++) {
        char value = ((volatile char *)area)[(long)(at % (PAIRS * 2)) * PAGE];
        CHECK(value == 7 || value == 0);
    }
    return unused;
}

static void replace(void)
{
    CHECK(mmap(area, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
          == area);
}

/* A child has all of the new rights, or all of the old ones, or nothing. */
static void *make_children(void *unused)
{
    while (!over) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (!child) {
            int first = can_be_written(area + SIZE / 2 + PAGE);
            _exit(first != can_be_written(area + SIZE - PAGE));
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        tries++;
    }
    return unused;
}

static void protect(void)
{
    CHECK(!mprotect(area, SIZE, PROT_READ | PROT_WRITE));
    CHECK(!mprotect(area, SIZE, PROT_READ));
    CHECK(!madvise(area, SIZE, MADV_DONTFORK) && !madvise(area, SIZE, MADV_DOFORK));
}

/* What is mapped meanwhile stays, and lies outside of what goes. */
static void *map_others(void *unused)
{
    while (!over) {
        char *other = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(other != MAP_FAILED);
        CHECK(other + 3 * PAGE <= area || other >= area + SIZE);
        other[PAGE] = 5;
        CHECK(!mprotect(other + PAGE, PAGE, PROT_READ) && other[PAGE] == 5);
        CHECK(!munmap(other, 3 * PAGE));
        tries++;
    }
    return unused;
}

static void lock_and_look(void)
{
    static unsigned char vector[PAIRS * 2];
    CHECK(!mlock(area, SIZE) && !mincore(area, SIZE, vector));
    for (int i = 0; i < PAIRS * 2; i++)
        CHECK(vector[i] & 1);
    CHECK(!munlock(area, SIZE));
}

/* Maps, read while mappings change, has whole lines. */
static void *read_maps(void *unused)
{
    while (!over) {
        FILE *maps = fopen("/proc/self/maps", "r");
        unsigned long low, high;
        char line[512];
        CHECK(maps != NULL);
        while (fgets(line, sizeof line, maps))
            CHECK(sscanf(line, "%lx-%lx", &low, &high) == 2 && low < high);
        fclose(maps);
        tries++;
    }
    return unused;
}

static void unmap(void)
{
    char *half = area + SIZE / 2;
    CHECK(!munmap(half, SIZE / 2));
    CHECK_ERR(msync(half, PAGE, MS_ASYNC), ENOMEM);
    CHECK(!msync(area, SIZE / 2, MS_ASYNC));
    CHECK(mremap(area, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, half) == half && half[0] == 7);
}

/* All is gone when the parent hears of the end. */
static void end_with_many(void)
{
    int id = shmget(IPC_PRIVATE, PAGE, 0600);
    struct shmid_ds state;
    CHECK(id >= 0);
    split();
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (!child)
            _exit(shmat(id, NULL, 0) == (void *)-1);
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        CHECK(!shmctl(id, IPC_STAT, &state) && state.shm_nattch == 0);
    }
    CHECK(!shmctl(id, IPC_RMID, NULL));
}

int main(void)
{
    area = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED);
    beside(touch, replace);
    beside(make_children, protect);
    beside(map_others, lock_and_look);
    beside(read_maps, replace);
    beside(make_children, unmap);
    end_with_many();
    puts("ok");
    return 0;
}
