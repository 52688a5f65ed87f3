/* The order in which a call checks its arguments: calls with several bad ones, and which error wins.
 *
 * A program has a table of calls, `CASES`, and runs it with `check_order`. Every call fails, so none
 * changes what the next one sees.
 */
#ifndef ERRORS_ORDER_H
#define ERRORS_ORDER_H

#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "abi.h"

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

/* Arguments that are known only at run time; no call has a number like these. */
enum {
    ZERO = 0x41000000, /* two pages of zeros that can be written */
    FF,                /* of 0xff bytes */
    ONES,              /* of 64-bit numbers that are 1 */
    SHORT,             /* a time of one nanosecond, then ones */
    READONLY,          /* zeros that cannot be written */
    UNALIGNED,         /* the second byte of ZERO */
    REGULAR,           /* descriptors */
    READ_FILE,
    PIPE_READ,
    PIPE_WRITE,
    DIRECTORY,
    PATH_ONLY,
    SOCKET,
    EPOLL,
    EVENT,
    CHILD_FD, /* a pidfd of CHILD */
    CHILD,    /* a child that sleeps */
    SELF,
    LONG_PATH, /* path names: longer than PATH_MAX, */
    EMPTY,
    ABSENT,
    SUBDIR,     /* a directory, */
    NAME,       /* a file, */
    BELOW_FILE, /* and a name below it */
    VALUES
};
#define NOT_OPEN 999
#define KERNEL 0xffff800000000000
#define TOP 0x7ffffffff000 /* the end of user space */
#define FREE 0x10000000    /* nothing is mapped here */

struct order_case {
    int number;
    int error;
    int line;
    const char *text;
    unsigned long args[6];
};
#define FAILS(expected, call, ...) \
    {SYS_##call, expected, __LINE__, #call "(" #__VA_ARGS__ ")", {__VA_ARGS__}}

#define TOUCHED 256 /* bytes of a buffer that a call may have written */

static unsigned long order_values[VALUES - ZERO];

/* Buffers as they are before every call. */
static void fill_buffers(void)
{
    unsigned long *ones = (unsigned long *)order_values[ONES - ZERO];
    unsigned long *brief = (unsigned long *)order_values[SHORT - ZERO];

    memset((void *)order_values[0], 0, TOUCHED);
    memset((void *)order_values[FF - ZERO], 0xff, TOUCHED);
    for (int i = 0; i < TOUCHED / 8; i++)
        ones[i] = brief[i] = 1;
    brief[0] = 0;
}

static unsigned long memory(int fill, int protection)
{
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    memset(pages, fill, 8192);
    CHECK(mprotect(pages, 8192, protection) == 0);
    return (unsigned long)pages;
}

static void prepare_values(void)
{
    static char long_path[6000];
    char directory[] = "orderXXXXXX"; /* where the test is run */
    unsigned long *value = order_values - ZERO;
    int ends[2];

    CHECK(mkdtemp(directory) != NULL && chdir(directory) == 0 && mkdir("d", 0755) == 0);
    value[ZERO] = memory(0, PROT_READ | PROT_WRITE);
    value[UNALIGNED] = value[ZERO] + 1;
    value[FF] = memory(0xff, PROT_READ | PROT_WRITE);
    value[ONES] = memory(0, PROT_READ | PROT_WRITE);
    value[SHORT] = memory(0, PROT_READ | PROT_WRITE);
    value[READONLY] = memory(0, PROT_READ);
    CHECK((value[REGULAR] = open("file", O_RDWR | O_CREAT, 0644)) > 0);
    CHECK(write(value[REGULAR], "hello", 5) == 5);
    CHECK((value[READ_FILE] = open("file", O_RDONLY)) > 0);
    CHECK((value[DIRECTORY] = open("d", O_RDONLY)) > 0);
    CHECK((value[PATH_ONLY] = open("d", O_PATH)) > 0);
    CHECK(pipe(ends) == 0);
    value[PIPE_READ] = ends[0];
    value[PIPE_WRITE] = ends[1];
    CHECK((value[SOCKET] = socket(AF_UNIX, SOCK_STREAM, 0)) > 0);
    CHECK((value[EPOLL] = epoll_create1(0)) > 0);
    CHECK((value[EVENT] = eventfd(0, 0)) > 0);
    value[SELF] = getpid();
    if ((value[CHILD] = fork()) == 0) {
        alarm(60);
        pause();
        _exit(0);
    }
    CHECK((value[CHILD_FD] = syscall(SYS_pidfd_open, value[CHILD], 0)) > 0);
    memset(long_path, 'a', sizeof(long_path) - 1);
    value[LONG_PATH] = (unsigned long)long_path;
    value[EMPTY] = (unsigned long)"";
    value[ABSENT] = (unsigned long)"nothere";
    value[SUBDIR] = (unsigned long)"d";
    value[NAME] = (unsigned long)"file";
    value[BELOW_FILE] = (unsigned long)"file/x";
}

/* Make the calls; say which did not fail as Linux lets it. */
static int check_order(const struct order_case *cases, int count)
{
    int wrong = 0;

    prepare_values();
    for (int i = 0; i < count; i++) {
        unsigned long a[6];

        fill_buffers();
        for (int j = 0; j < 6; j++) {
            a[j] = cases[i].args[j];
            if (a[j] >= ZERO && a[j] < VALUES)
                a[j] = order_values[a[j] - ZERO];
        }
        long got = syscall(cases[i].number, a[0], a[1], a[2], a[3], a[4], a[5]);
        if (got == -1 && errno == cases[i].error)
            continue;
        fprintf(stderr, "line %d: %s gave %ld, %s instead of %s\n", cases[i].line, cases[i].text, got,
                got == -1 ? strerrorname_np(errno) : "no error", strerrorname_np(cases[i].error));
        wrong++;
    }
    kill(order_values[CHILD - ZERO], SIGKILL);
    return wrong > 0;
}

#endif
