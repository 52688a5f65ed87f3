/* futex(2): wait, wake, requeue, FUTEX_WAKE_OP, futex_waitv(2), between threads and processes. */
#define _GNU_SOURCE
#include "abi.h"
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BAD ((uint32_t *)16)
static uint32_t a, b, spare;

static long futex(uint32_t *addr, int op, uint32_t value, void *timeout, uint32_t *addr2,
                  uint32_t value3)
{
    return syscall(SYS_futex, addr, op, value, timeout, addr2, value3);
}

struct request {
    uint32_t *addr;
    int op;
    uint32_t value, bitset;
    struct timespec *timeout;
    long result;
    int error;
};

static void *waiter(void *argument)
{
    struct request *r = argument;
    errno = 0;
    r->result = futex(r->addr, r->op, r->value, r->timeout, NULL, r->bitset);
    r->error = errno;
    return NULL;
}

/* Wait until so many sleep on `addr`: they are moved to `other` and back, all of them together, as
 * one whose call is made again in between (after a stop, in a snapshot) sleeps on `addr` anew. */
static void await_sleepers(uint32_t *addr, int private, long wanted, uint32_t *other)
{
    const int move = FUTEX_CMP_REQUEUE | private;
    for (long there = 0, back = 0; there < wanted || back < wanted;) {
        there = futex(addr, move, 0, (void *)wanted, other, *addr);
        back = futex(other, move, 0, (void *)wanted, addr, *other);
        CHECK(there >= 0 && back >= 0);
        if (there < wanted)
            usleep(1000);
    }
}

/* Wake as many as wanted, however long they take to arrive. */
static void wake_all(uint32_t *addr, int op, int wanted, uint32_t bitset)
{
    int woken = 0;
    for (int i = 0; i < 5000 && woken < wanted; i++) {
        long n = futex(addr, op, wanted - woken, NULL, NULL, bitset);
        CHECK(n >= 0);
        woken += n;
        if (woken < wanted)
            usleep(1000);
    }
    CHECK(woken == wanted);
}

static void errors(void)
{
    struct timespec bad_time = {0, 1000000000}, past = {0, 1};
    CHECK_ERR(futex(&a, FUTEX_WAIT, 1, NULL, NULL, 0), EAGAIN);
    CHECK_ERR(futex(&a, FUTEX_WAIT, 1, &bad_time, NULL, 0), EINVAL);
    CHECK_ERR(futex(&a, FUTEX_WAIT, 1, (void *)8, NULL, 0), EFAULT);
    CHECK_ERR(futex(BAD, FUTEX_WAIT, 0, NULL, NULL, 0), EFAULT);
    CHECK_ERR(futex(BAD, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0), EFAULT);
    CHECK_ERR(futex((void *)((char *)&a + 1), FUTEX_WAIT, 0, NULL, NULL, 0), EINVAL);
    CHECK_ERR(futex((void *)((char *)&a + 2), FUTEX_WAKE, 1, NULL, NULL, 0), EINVAL);
    CHECK_ERR(futex(BAD, FUTEX_WAKE, 1, NULL, NULL, 0), EFAULT);
    CHECK(futex(BAD, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) == 0);
    CHECK_ERR(futex(&a, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0), EINVAL);
    CHECK_ERR(futex(&a, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0), EINVAL);
    CHECK_ERR(futex(&a, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1, NULL, NULL, 0), ENOSYS);
    CHECK_ERR(futex(&a, 99, 0, NULL, NULL, 0), ENOSYS);
    CHECK_ERR(futex(&a, FUTEX_CMP_REQUEUE, 1, (void *)1, &b, 77), EAGAIN);
    CHECK_ERR(futex(&a, FUTEX_REQUEUE, -1, (void *)1, &b, 0), EINVAL);
    CHECK_ERR(futex(&a, FUTEX_WAIT_BITSET, 0, &past, NULL, ~0u), ETIMEDOUT);
}

static void timeouts(void)
{
    struct timespec wait = {0, 30000000}, start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    CHECK_ERR(futex(&a, FUTEX_WAIT_PRIVATE, 0, &wait, NULL, 0), ETIMEDOUT);
    clock_gettime(CLOCK_MONOTONIC, &now);
    long ns = (now.tv_sec - start.tv_sec) * 1000000000 + now.tv_nsec - start.tv_nsec;
    CHECK(ns >= 30000000 && ns < 2000000000);
    clock_gettime(CLOCK_REALTIME, &start);
    start.tv_nsec += 20000000;
    start.tv_sec += start.tv_nsec / 1000000000;
    start.tv_nsec %= 1000000000;
    CHECK_ERR(futex(&a, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &start, NULL, 1), ETIMEDOUT);
    clock_gettime(CLOCK_REALTIME, &now);
    CHECK(now.tv_sec > start.tv_sec ||
          (now.tv_sec == start.tv_sec && now.tv_nsec >= start.tv_nsec));
}

static void waking(void)
{
    pthread_t threads[3];
    struct request r[3];
    for (int i = 0; i < 3; i++) {
        r[i] = (struct request){&a, FUTEX_WAIT_PRIVATE, 0, 0, NULL, -2, 0};
        pthread_create(&threads[i], NULL, waiter, &r[i]);
    }
    wake_all(&a, FUTEX_WAKE_PRIVATE, 3, 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        CHECK(r[i].result == 0);
    }
    CHECK(futex(&a, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) == 0);
}

static void bitsets(void)
{
    pthread_t thread;
    struct request r = {&a, FUTEX_WAIT_BITSET_PRIVATE, 0, 6, NULL, -2, 0};
    pthread_create(&thread, NULL, waiter, &r);
    await_sleepers(&a, FUTEX_PRIVATE_FLAG, 1, &spare);
    CHECK(futex(&a, FUTEX_WAKE_BITSET_PRIVATE, 1, NULL, NULL, 9) == 0);
    wake_all(&a, FUTEX_WAKE_BITSET_PRIVATE, 1, 4);
    pthread_join(thread, NULL);
    CHECK(r.result == 0);
}

static void requeueing(void)
{
    pthread_t threads[4];
    struct request r[4];
    for (int i = 0; i < 4; i++) {
        r[i] = (struct request){&a, FUTEX_WAIT_PRIVATE, 0, 0, NULL, -2, 0};
        pthread_create(&threads[i], NULL, waiter, &r[i]);
    }
    await_sleepers(&a, FUTEX_PRIVATE_FLAG, 4, &spare);
    CHECK(futex(&a, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)2, &b, 0) == 3);
    CHECK(futex(&a, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0) == 1);
    CHECK(futex(&b, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0) == 2);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

static void wake_op(void)
{
    pthread_t threads[2];
    struct request r[2] = {{&a, FUTEX_WAIT_PRIVATE, 0, 0, NULL, -2, 0},
                           {&b, FUTEX_WAIT_PRIVATE, 5, 0, NULL, -2, 0}};
    b = 5;
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, waiter, &r[i]);
    await_sleepers(&a, FUTEX_PRIVATE_FLAG, 1, &spare);
    await_sleepers(&b, FUTEX_PRIVATE_FLAG, 1, &spare);
    /* b was 5 > 4: both */
    CHECK(futex(&a, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &b,
                FUTEX_OP(FUTEX_OP_ADD, 10, FUTEX_OP_CMP_GT, 4)) == 2);
    CHECK(b == 15);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    CHECK(futex(&a, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &b,
                FUTEX_OP(FUTEX_OP_ANDN, 3, FUTEX_OP_CMP_EQ, 15)) == 0);
    CHECK(b == 12);
    CHECK(futex(&a, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &b,
                FUTEX_OP(FUTEX_OP_SET | FUTEX_OP_OPARG_SHIFT, 4, FUTEX_OP_CMP_NE, -1)) == 0);
    CHECK(b == 16);
    CHECK_ERR(futex(&a, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, BAD, 0), EFAULT);
    b = 0;
}

static void between_processes(int flags, const char *what)
{
    int fd = -1, status;
    if (!(flags & MAP_ANONYMOUS)) {
        fd = memfd_create("futex", 0);
        CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
    }
    uint32_t *word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, flags, fd, 0);
    CHECK(word != MAP_FAILED);
    pid_t child = fork();
    if (!child) {
        /* at another address too */
        uint32_t *mine = word;
        if (fd >= 0)
            mine = mmap(NULL, 4096, PROT_READ | PROT_WRITE, flags, fd, 0);
        struct timespec timeout = {5, 0};
        while (!__atomic_load_n(mine, __ATOMIC_SEQ_CST))
            if (futex(mine, FUTEX_WAIT, 0, &timeout, NULL, 0) && errno == ETIMEDOUT)
                _exit(1);
        _exit(7);
    }
    await_sleepers(word, 0, 1, word + 1);
    *word = 1;
    wake_all(word, FUTEX_WAKE, 1, 0);
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7);
    munmap(word, 4096);
    (void)what;
}

static void *poster(void *none)
{
    wake_all(&b, FUTEX_WAKE_PRIVATE, 1, 0);
    return none;
}

static void several(void)
{
    struct futex_waitv words[2] = {{0, (uintptr_t)&a, FUTEX_32 | FUTEX_PRIVATE_FLAG, 0},
                                   {0, (uintptr_t)&b, FUTEX_32 | FUTEX_PRIVATE_FLAG, 0}};
    struct timespec past = {0, 1};
    pthread_t thread;
    CHECK_ERR(syscall(SYS_futex_waitv, words, 0, 0, NULL, 0), EINVAL);
    CHECK_ERR(syscall(SYS_futex_waitv, words, 2, 1, NULL, 0), EINVAL);
    CHECK_ERR(syscall(SYS_futex_waitv, BAD, 2, 0, NULL, 0), EFAULT);
    CHECK_ERR(syscall(SYS_futex_waitv, words, 2, 0, &past, 99), EINVAL);
    CHECK_ERR(syscall(SYS_futex_waitv, words, 2, 0, &past, CLOCK_MONOTONIC), ETIMEDOUT);
    words[1].val = 3;
    CHECK_ERR(syscall(SYS_futex_waitv, words, 2, 0, NULL, 0), EAGAIN);
    words[1].val = 0;
    pthread_create(&thread, NULL, poster, NULL);
    CHECK(syscall(SYS_futex_waitv, words, 2, 0, NULL, 0) == 1);
    pthread_join(thread, NULL);
}

static volatile int calls;
static void handler(int signo)
{
    (void)signo;
    calls++;
}

static void interrupted(void)
{
    struct sigaction action = {.sa_handler = handler};
    struct itimerval timer = {{0, 20000}, {0, 20000}}, off = {{0, 0}, {0, 0}};
    struct timespec timeout = {5, 0}, until;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    CHECK_ERR(futex(&a, FUTEX_WAIT, 0, NULL, NULL, 0), EINTR);
    setitimer(ITIMER_REAL, &timer, NULL);
    CHECK_ERR(futex(&a, FUTEX_WAIT, 0, &timeout, NULL, 0), EINTR);
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    CHECK_ERR(futex(&a, FUTEX_WAIT, 0, &timeout, NULL, 0), EINTR);
    CHECK(calls >= 3);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 5;
    /* a handler ends it whatever SA_RESTART says */
    CHECK_ERR(futex(&a, FUTEX_WAIT_BITSET, 0, &until, NULL, 1), EINTR);
    setitimer(ITIMER_REAL, &off, NULL);
}

static uint32_t ping, pong;
static void *partner(void *none)
{
    for (uint32_t i = 1; i <= 2000; i++) {
        uint32_t seen;
        while ((seen = __atomic_load_n(&ping, __ATOMIC_SEQ_CST)) != i)
            futex(&ping, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
        __atomic_store_n(&pong, i, __ATOMIC_SEQ_CST);
        futex(&pong, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
    return none;
}

static void ping_pong(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, partner, NULL);
    for (uint32_t i = 1; i <= 2000; i++) {
        uint32_t seen;
        __atomic_store_n(&ping, i, __ATOMIC_SEQ_CST);
        futex(&ping, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
        while ((seen = __atomic_load_n(&pong, __ATOMIC_SEQ_CST)) != i)
            futex(&pong, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    }
    pthread_join(thread, NULL);
}

/* Woken is who sleeps with the same FUTEX_PRIVATE_FLAG, also where no other process could: in
 * anonymous and static memory, in private and shared mappings of a file. */
static void private_and_shared(void)
{
    static const int flags[] = {0, FUTEX_PRIVATE_FLAG};
    static uint32_t word;
    uint32_t *words[4];
    int fd = memfd_create("words", 0);
    CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
    words[0] = &word;
    for (int i = 1; i < 4; i++) {
        int map = i == 1 ? MAP_PRIVATE | MAP_ANONYMOUS : i == 2 ? MAP_PRIVATE : MAP_SHARED;
        words[i] = mmap(NULL, 4096, PROT_READ | PROT_WRITE, map, i == 1 ? -1 : fd, 0);
        CHECK(words[i] != MAP_FAILED);
    }
    uint32_t *again = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            uint32_t *other = words[i] + 1;
            int same = flags[j], different = flags[!j];
            pthread_t thread;
            struct request r = {words[i], FUTEX_WAIT | same, 0};
            *words[i] = *other = 0;
            CHECK(pthread_create(&thread, NULL, waiter, &r) == 0);
            await_sleepers(words[i], same, 1, other);
            CHECK(futex(words[i], FUTEX_WAKE | different, 9, NULL, NULL, 0) == 0);
            CHECK(futex(words[i], FUTEX_WAKE_BITSET | different, 9, NULL, NULL, ~0) == 0);
            CHECK(futex(words[i], FUTEX_CMP_REQUEUE | different, 9, (void *)9, other, 0) == 0);
            CHECK(futex(words[i], FUTEX_WAKE_OP | different, 9, (void *)9, other, 0) == 0);
            if (i == 3 && same) /* without the flag this is the same word */
                CHECK(futex(again, FUTEX_WAKE | same, 9, NULL, NULL, 0) == 0);
            uint32_t *name = i == 3 && !same ? again : words[i];
            CHECK(futex(name, FUTEX_WAKE | same, 9, NULL, NULL, 0) == 1);
            CHECK(pthread_join(thread, NULL) == 0 && r.result == 0);
        }
    for (int i = 1; i < 4; i++)
        CHECK(munmap(words[i], 4096) == 0);
    CHECK(munmap(again, 4096) == 0 && close(fd) == 0);
}

int main(void)
{
    errors();
    private_and_shared();
    timeouts();
    waking();
    bitsets();
    requeueing();
    wake_op();
    between_processes(MAP_SHARED | MAP_ANONYMOUS, "anonymous");
    between_processes(MAP_SHARED, "file");
    several();
    interrupted();
    ping_pong();
    return 0;
}
