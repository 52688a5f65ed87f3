/* Locks with an owner: FUTEX_LOCK_PI and its relatives, robust mutexes, exit of threads. */
#define _GNU_SOURCE
#include "abi.h"
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint32_t word, condition;
static volatile int step;

static long futex(uint32_t *addr, int op, uint32_t value, void *timeout, uint32_t *addr2,
                  uint32_t value3)
{
    return syscall(SYS_futex, addr, op, value, timeout, addr2, value3);
}

static uint32_t tid(void)
{
    return (uint32_t)syscall(SYS_gettid);
}

static void *locker(void *out)
{
    long result = futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0);
    *(long *)out = result;
    if (result == 0) {
        if ((word & FUTEX_TID_MASK) != tid())
            *(long *)out = 100;
        step++;
        if (futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0))
            *(long *)out = 200;
    }
    return NULL;
}

static void inheritance(void)
{
    struct timespec soon;
    pthread_t threads[3];
    long results[3] = {-5, -5, -5};
    CHECK(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0 && word == tid());
    CHECK_ERR(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0), EDEADLK);
    CHECK_ERR(futex(&word, FUTEX_TRYLOCK_PI_PRIVATE, 0, NULL, NULL, 0), EDEADLK);
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, locker, &results[i]);
    usleep(50000);
    while (word != (tid() | FUTEX_WAITERS))
        usleep(1000);
    CHECK(step == 0);
    CHECK(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        CHECK(results[i] == 0);
    }
    CHECK(step == 3 && (word & FUTEX_TID_MASK) == 0);
    CHECK_ERR(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0), EPERM);
    word = 0x3ffffff; /* nobody's */
    CHECK_ERR(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0), ESRCH);
    word = 0;
    CHECK(futex(&word, FUTEX_TRYLOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);
    CHECK(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0 && word == 0);
    (void)soon;
}

static void *timed(void *out)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 30000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    errno = 0;
    futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, &until, NULL, 0);
    *(int *)out = errno;
    return NULL;
}

static void timeouts(void)
{
    pthread_t thread;
    int error = 0;
    CHECK(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);
    pthread_create(&thread, NULL, timed, &error);
    pthread_join(thread, NULL);
    CHECK(error == ETIMEDOUT);
    CHECK(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);
    CHECK((word & FUTEX_TID_MASK) == 0);
}

static void *requeued(void *out)
{
    long result = futex(&condition, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, NULL, &word, 0);
    *(long *)out = result;
    if (result == 0 && (word & FUTEX_TID_MASK) != tid())
        *(long *)out = 100;
    if (futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0))
        *(long *)out = 200;
    return NULL;
}

static void requeueing(void)
{
    pthread_t threads[3];
    long results[3] = {-5, -5, -5}, moved = 0;
    CHECK(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, requeued, &results[i]);
    usleep(50000);
    CHECK_ERR(futex(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)10, &word, 9), EAGAIN);
    do { /* however late they come to it */
        long some = futex(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)10, &word, 0);
        CHECK(some >= 0 && (moved += some) <= 3);
        usleep(1000);
    } while (moved < 3);
    usleep(20000);
    CHECK((word & FUTEX_TID_MASK) == tid());
    CHECK(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        CHECK(results[i] == 0);
    }
}

struct shared {
    pthread_mutex_t mutex;
    volatile int held;
};

static void *die_with_it(void *argument)
{
    pthread_mutex_lock(argument);
    return NULL;
}

static void robust(int shared_flag, int protocol)
{
    pthread_mutexattr_t attr;
    struct shared *s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attr, shared_flag);
    pthread_mutexattr_setprotocol(&attr, protocol);
    CHECK(pthread_mutex_init(&s->mutex, &attr) == 0);

    pthread_t thread;
    pthread_create(&thread, NULL, die_with_it, &s->mutex);
    pthread_join(thread, NULL);
    CHECK(pthread_mutex_lock(&s->mutex) == EOWNERDEAD);
    CHECK(pthread_mutex_consistent(&s->mutex) == 0 && pthread_mutex_unlock(&s->mutex) == 0);
    CHECK(pthread_mutex_lock(&s->mutex) == 0 && pthread_mutex_unlock(&s->mutex) == 0);
    if (shared_flag == PTHREAD_PROCESS_SHARED) {
        /* somebody waits while the owner is killed */
        pid_t child = fork();
        if (!child) {
            pthread_mutex_lock(&s->mutex);
            s->held = 1;
            for (;;)
                pause();
        }
        while (!s->held)
            usleep(1000);
        pid_t second = fork();
        if (!second) {
            usleep(30000);
            kill(child, SIGKILL);
            _exit(0);
        }
        CHECK(pthread_mutex_lock(&s->mutex) == EOWNERDEAD);
        CHECK(pthread_mutex_consistent(&s->mutex) == 0 && pthread_mutex_unlock(&s->mutex) == 0);
        CHECK(waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGKILL);
        CHECK(waitpid(second, &status, 0) == second);
    }
    munmap(s, 4096);
}

static void lists(void)
{
    void *head = NULL;
    size_t size = 0;
    CHECK_ERR(syscall(SYS_set_robust_list, NULL, 23), EINVAL);
    CHECK(syscall(SYS_get_robust_list, 0, &head, &size) == 0 && size == 24 && head);
    CHECK_ERR(syscall(SYS_get_robust_list, 99999999, &head, &size), ESRCH);
    CHECK_ERR(syscall(SYS_get_robust_list, 0, 8, &size), EFAULT);
    /* a list that makes no sense ends quietly */
    pid_t child = fork();
    if (!child) {
        static void *loop[3];
        loop[0] = loop;
        loop[2] = (void *)8;
        syscall(SYS_set_robust_list, loop, 24);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    child = fork();
    if (!child) {
        syscall(SYS_set_robust_list, 4096, 24);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int turns;

static void *worker(void *parity)
{
    for (int i = 0; i < 300; i++) {
        pthread_mutex_lock(&mutex);
        while (turns % 4 != (long)parity)
            pthread_cond_wait(&cond, &mutex);
        turns++;
        pthread_cond_broadcast(&cond);
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static void ordinary_ones(void)
{
    pthread_t threads[4];
    for (long i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, worker, (void *)i);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(turns == 1200);
}

int main(void)
{
    inheritance();
    timeouts();
    requeueing();
    robust(PTHREAD_PROCESS_PRIVATE, PTHREAD_PRIO_NONE);
    robust(PTHREAD_PROCESS_SHARED, PTHREAD_PRIO_NONE);
    robust(PTHREAD_PROCESS_SHARED, PTHREAD_PRIO_INHERIT);
    lists();
    ordinary_ones();
    return 0;
}
