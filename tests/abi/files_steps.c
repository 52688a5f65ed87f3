/* Reads and writes of many megabytes, while others use the same file and signals come. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include "abi.h"

enum { BLOCK = 3 << 20, BLOCKS = 8 };

static int file;
static atomic_int taken[BLOCKS], ticks;

static void tick(int unused)
{
    ticks++;
}

/* Each thread reads what follows: no byte is read twice. */
static void *read_blocks(void *unused)
{
    unsigned *words = malloc(BLOCK);
    long got;
    while ((got = read(file, words, BLOCK)) > 0) {
        CHECK(got == BLOCK);
        unsigned number = words[0];
        CHECK(number < BLOCKS && words[BLOCK / 4 - 1] == number);
        taken[number]++;
    }
    CHECK(got == 0);
    free(words);
    return unused;
}

/* Each block is written as a whole. */
static void *append(void *number)
{
    unsigned *words = malloc(BLOCK);
    for (int i = 0; i < BLOCK / 4; i++)
        words[i] = (unsigned)(long)number;
    CHECK(write(file, words, BLOCK) == BLOCK);
    free(words);
    return NULL;
}

static void all_threads(void *(*body)(void *))
{
    pthread_t threads[BLOCKS];
    for (long i = 0; i < BLOCKS; i++)
        CHECK(!pthread_create(&threads[i], NULL, body, (void *)i));
    for (int i = 0; i < BLOCKS; i++)
        CHECK(!pthread_join(threads[i], NULL));
}

static void share_a_position(void)
{
    file = open("steps", O_RDWR | O_CREAT | O_TRUNC, 0600); /* a memfd's position has no lock */
    CHECK(file >= 0);
    all_threads(append);
    CHECK(lseek(file, 0, SEEK_CUR) == (off_t)BLOCK * BLOCKS);
    CHECK(lseek(file, 0, SEEK_SET) == 0);
    all_threads(read_blocks);
    for (int i = 0; i < BLOCKS; i++)
        CHECK(taken[i] == 1);
    CHECK(!ftruncate(file, 0) && !fcntl(file, F_SETFL, O_APPEND));
    all_threads(append);
    unsigned first, last;
    for (long i = 0; i < BLOCKS; i++) {
        CHECK(pread(file, &first, 4, i * BLOCK) == 4);
        CHECK(pread(file, &last, 4, (i + 1) * BLOCK - 4) == 4 && first == last);
    }
    close(file);
    unlink("steps");
}

/* Vectors, an end of the memory, an end of the file. */
static void borders(void)
{
    char *memory = mmap(NULL, BLOCK + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED && !munmap(memory + BLOCK, 4096));
    memset(memory, 3, BLOCK);
    file = memfd_create("borders", MFD_ALLOW_SEALING);
    struct iovec vector[3] = {{memory, 5}, {memory + 5, 0}, {memory + 5, BLOCK - 5}};
    CHECK(writev(file, vector, 3) == BLOCK);
    CHECK(pwrite(file, memory, BLOCK + 10, 1) == BLOCK);
    CHECK_ERR(pwrite(file, memory + BLOCK, BLOCK, 0), EFAULT);
    CHECK(lseek(file, 0, SEEK_END) == BLOCK + 1);
    CHECK(pread(file, memory, BLOCK, BLOCK / 2 + 1) == BLOCK - BLOCK / 2);
    CHECK(pread(file, memory, BLOCK, BLOCK + 1) == 0);
    CHECK(preadv(file, vector, 3, 0) == BLOCK);
    CHECK_ERR(pread(file, memory + BLOCK, BLOCK, 0), EFAULT);
    struct rlimit limit = {BLOCK / 2, BLOCK};
    signal(SIGXFSZ, SIG_IGN);
    CHECK(!setrlimit(RLIMIT_FSIZE, &limit));
    CHECK(pwrite(file, memory, BLOCK, 0) == BLOCK / 2);
    CHECK_ERR(pwrite(file, memory, BLOCK, BLOCK / 2), EFBIG);
    limit.rlim_cur = BLOCK;
    CHECK(!setrlimit(RLIMIT_FSIZE, &limit));
    CHECK(!fcntl(file, F_ADD_SEALS, F_SEAL_WRITE));
    CHECK_ERR(pwrite(file, memory, BLOCK, 0), EPERM);
    close(file);
    munmap(memory, BLOCK);
}

/* A device is read in part when a signal comes, never in vain. */
static void signals(const char *path, int writes)
{
    long size = 64 << 20, got;
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct itimerval often = {{0, 3000}, {0, 3000}}, never = {{0, 0}, {0, 0}};
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    int device = open(path, writes ? O_WRONLY : O_RDONLY), seen = ticks;
    CHECK(memory != MAP_FAILED && device >= 0 && !sigaction(SIGALRM, &action, NULL));
    CHECK(!setitimer(ITIMER_REAL, &often, NULL));
    while (ticks < seen + 5) {
        got = writes ? write(device, memory, size) : read(device, memory, size);
        CHECK(got > 0 && got <= size);
    }
    CHECK(!setitimer(ITIMER_REAL, &never, NULL));
    close(device);
    munmap(memory, size);
}

int main(void)
{
    share_a_position();
    borders();
    signals("/dev/zero", 0);
    signals("/dev/urandom", 0);
    signals("/dev/urandom", 1);
    puts("ok");
    return 0;
}
