/* seccomp(2) and threads: SECCOMP_FILTER_FLAG_TSYNC, the end of one thread. */
#define _GNU_SOURCE
#include "abi.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static sem_t ready, go;
static long answer;
static int answer_errno;
static pid_t worker_tid;

static long on(long number, unsigned action, unsigned flags)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {4, code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static int status_of(void (*run)(void))
{
    pid_t child = fork();
    if (!child) {
        run();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static void *asks(void *own_filter)
{
    worker_tid = syscall(SYS_gettid);
    if (own_filter)
        CHECK(on(SYS_getpgrp, SECCOMP_RET_ERRNO | 1, 0) == 0);
    sem_post(&ready);
    while (sem_wait(&go))
        ;
    answer = syscall(SYS_getppid);
    answer_errno = errno;
    return NULL;
}

static pthread_t start(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    CHECK(sem_init(&ready, 0, 0) == 0 && sem_init(&go, 0, 0) == 0);
    CHECK(pthread_create(&thread, NULL, run, argument) == 0);
    while (sem_wait(&ready))
        ;
    return thread;
}

static void not_synchronised(void)
{
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    pthread_t thread = start(asks, NULL);
    CHECK(on(SYS_getppid, SECCOMP_RET_ERRNO | 44, 0) == 0);
    sem_post(&go);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(answer > 0);
}

static void synchronised(void)
{
    pthread_t thread = start(asks, NULL);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(on(SYS_getppid, SECCOMP_RET_ERRNO | 44, SECCOMP_FILTER_FLAG_TSYNC) == 0);
    sem_post(&go);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(answer == -1 && answer_errno == 44);
}

static void in_the_way(void)
{
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    pthread_t thread = start(asks, "own filter");
    CHECK(on(SYS_getppid, SECCOMP_RET_ERRNO | 44, SECCOMP_FILTER_FLAG_TSYNC) == worker_tid);
    CHECK_ERR(on(SYS_getppid, SECCOMP_RET_ERRNO | 44,
                 SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH), ESRCH);
    CHECK(prctl(PR_GET_SECCOMP) == 0);
    sem_post(&go);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void *dies(void *none)
{
    worker_tid = syscall(SYS_gettid);
    CHECK(on(SYS_getppid, SECCOMP_RET_KILL_THREAD, 0) == 0);
    sem_post(&ready);
    syscall(SYS_getppid);
    _exit(1);
}

static void one_thread_dies(void)
{
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    pthread_t thread = start(dies, NULL);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(syscall(SYS_getppid) > 0);
}

static void *dies_with_all(void *none)
{
    CHECK(on(SYS_getppid, SECCOMP_RET_KILL_PROCESS, 0) == 0);
    sem_post(&ready);
    syscall(SYS_getppid);
    return NULL;
}

static void all_die(void)
{
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    pthread_join(start(dies_with_all, NULL), NULL);
    for (;;)
        pause();
}

int main(void)
{
    CHECK(status_of(not_synchronised) == 0);
    CHECK(status_of(synchronised) == 0);
    CHECK(status_of(in_the_way) == 0);
    CHECK(status_of(one_thread_dies) == 0);
    int status = status_of(all_die);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
    return 0;
}
