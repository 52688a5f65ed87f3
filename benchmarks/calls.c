/* The median cost of single system calls: prints "name nanoseconds" lines. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 31 };

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

#define MEASURE(name, count, body)                                   \
    do {                                                             \
        double cost[ROUNDS];                                         \
        for (int round = 0; round < ROUNDS; round++) {               \
            double start = now_ns();                                 \
            for (int i = 0; i < (count); i++) {                      \
                body;                                                \
            }                                                        \
            cost[round] = (now_ns() - start) / (count);              \
        }                                                            \
        qsort(cost, ROUNDS, sizeof cost[0], compare);                \
        printf("%s %.1f\n", name, cost[ROUNDS / 2]);                 \
        fflush(stdout);                                              \
    } while (0)

int main(void)
{
    static char buffer[65536];
    struct stat st;
    struct timespec t;
    int null = open("/dev/null", O_WRONLY), zero = open("/dev/zero", O_RDONLY);
    int epoll = epoll_create1(0);
    int file = open("/tmp/calls.data", O_RDWR | O_CREAT, 0600);
    struct epoll_event event;

    if (file < 0 || pwrite(file, buffer, sizeof buffer, 0) != sizeof buffer)
        return 1;
    MEASURE("getpid", 2000, syscall(SYS_getpid));
    MEASURE("getppid", 500, syscall(SYS_getppid));
    MEASURE("write /dev/null", 500, (void)!write(null, buffer, 1));
    MEASURE("read /dev/zero 4 KiB", 500, (void)!read(zero, buffer, 4096));
    MEASURE("epoll_wait(0)", 500, epoll_wait(epoll, &event, 1, 0));
    MEASURE("clock_gettime (vDSO)", 5000, clock_gettime(CLOCK_MONOTONIC, &t));
    MEASURE("clock_gettime (call)", 500, syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t));
    MEASURE("sched_yield", 500, syscall(SYS_sched_yield));
    MEASURE("fstat", 500, fstat(file, &st));
    MEASURE("stat", 300, stat("/tmp/calls.data", &st));
    MEASURE("open+close", 200, close(open("/tmp/calls.data", O_RDONLY)));
    MEASURE("pread 4 KiB", 300, (void)!pread(file, buffer, 4096, 0));
    MEASURE("pwrite 4 KiB", 300, (void)!pwrite(file, buffer, 4096, 0));
    MEASURE("pread 64 KiB", 100, (void)!pread(file, buffer, 65536, 0));
    MEASURE("mmap+touch+munmap 1 MiB", 10, {
        char *p = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int k = 0; k < 1 << 20; k += 4096)
            p[k] = 1;
        munmap(p, 1 << 20);
    });
    MEASURE("fork+wait", 5, {
        pid_t pid = fork();
        if (!pid)
            _exit(0);
        waitpid(pid, NULL, 0);
    });
    unlink("/tmp/calls.data");
    return 0;
}
