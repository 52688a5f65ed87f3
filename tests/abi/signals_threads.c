/* Signals of processes with threads: who takes them, who dies, where they are directed. */
#define _GNU_SOURCE
#include "abi.h"
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int taken_by, ready, count;

static int tid(void)
{
    return (int)syscall(SYS_gettid);
}

static void handler(int signo)
{
    (void)signo;
    taken_by = tid();
    __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
}

static void *open_thread(void *out)
{
    sigset_t none;
    sigemptyset(&none);
    *(volatile int *)out = tid();
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    ready = 1;
    while (!count)
        usleep(1000);
    return NULL;
}

static void goes_to_who_does_not_block(void)
{
    sigset_t block;
    pthread_t thread;
    int other = 0;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    signal(SIGUSR1, handler);
    pthread_sigmask(SIG_BLOCK, &block, NULL);
    pthread_create(&thread, NULL, open_thread, &other);
    while (!ready)
        usleep(1000);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    pthread_join(thread, NULL);
    CHECK(count == 1 && taken_by == other && other != tid());
    /* directed at a thread it is that thread's alone */
    sigset_t pending;
    pthread_kill(pthread_self(), SIGUSR1);
    sigpending(&pending);
    CHECK(count == 1 && sigismember(&pending, SIGUSR1));
    pthread_sigmask(SIG_UNBLOCK, &block, NULL);
    CHECK(count == 2 && taken_by == tid());
}

static void *loop(void *none)
{
    for (;;)
        ;
    return none;
}

static void *killer(void *signo)
{
    usleep(10000);
    kill(getpid(), (int)(long)signo);
    for (;;)
        pause();
    return NULL;
}

static void *fault(void *none)
{
    *(volatile int *)8 = 1;
    return none;
}

static int dies(void *(*run)(void *), long argument)
{
    int status;
    pid_t child = fork();
    if (!child) {
        pthread_t thread;
        pthread_create(&thread, NULL, loop, NULL);
        pthread_create(&thread, NULL, run, (void *)argument);
        pthread_join(thread, NULL);
        for (;;)
            pause();
    }
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static void all_threads_die(void)
{
    CHECK(dies(killer, SIGTERM) == SIGTERM);
    CHECK(dies(killer, SIGKILL) == SIGKILL);
    CHECK(dies(killer, SIGUSR2) == SIGUSR2);
    CHECK((dies(killer, SIGQUIT) & 0x7f) == SIGQUIT);
    CHECK((dies(fault, 0) & 0x7f) == SIGSEGV);
}

static void groups(void)
{
    int status, fds[2];
    char c;
    CHECK(pipe(fds) == 0);
    pid_t leader = fork();
    if (!leader) {
        setpgid(0, 0);
        for (int i = 0; i < 3; i++)
            if (!fork()) {
                if (write(fds[1], "x", 1) != 1)
                    _exit(1);
                for (;;)
                    pause();
            }
        if (write(fds[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(fds[1]);
    for (int i = 0; i < 4; i++)
        CHECK(read(fds[0], &c, 1) == 1);
    CHECK(kill(-leader, 0) == 0);
    CHECK(kill(-leader, SIGINT) == 0);
    CHECK(waitpid(leader, &status, 0) == leader && WTERMSIG(status) == SIGINT);
    /* the pipe ends when the last of the group is gone */
    CHECK(read(fds[0], &c, 1) == 0);
    close(fds[0]);
}

static void storm(void)
{
    /* many signals from another process while this one computes: none lost, nothing corrupted */
    signal(SIGUSR1, handler);
    int signo = SIGRTMIN + 2, status;
    struct sigaction action = {.sa_handler = handler};
    sigaction(signo, &action, NULL);
    count = 0;
    pid_t parent = getpid(), child = fork();
    if (!child) {
        for (int i = 0; i < 500; i++)
            while (sigqueue(parent, signo, (union sigval){.sival_int = i}))
                usleep(100);
        _exit(0);
    }
    double x = 1;
    unsigned long sum = 0;
    for (unsigned long i = 0; count < 500; i++) {
        x = x * 1.0000001 + 0.5;
        sum += i;
        if (i % 1024 == 0 && x > 1e9)
            x = 1;
        if (sum - i * (i + 1) / 2)
            break;
    }
    CHECK(count == 500 && x > 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(void)
{
    goes_to_who_does_not_block();
    all_threads_die();
    groups();
    storm();
    return 0;
}
