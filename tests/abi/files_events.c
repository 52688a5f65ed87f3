/* pipes, FIFOs, poll, select, epoll, eventfd: readiness and the order of checks. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BAD ((void *)8)

static volatile int got_signal;
static void on_signal(int signo) { got_signal = signo; }

static void wrong(void)
{
    struct epoll_event ev = {EPOLLIN};
    struct timespec bad = {0, 2000000000};
    int ep = epoll_create1(0), ends[2], file = open("plain", O_CREAT | O_RDWR, 0644);
    CHECK(pipe(ends) == 0);
    CHECK_ERR(pipe2(BAD, 1), EINVAL);
    CHECK_ERR(pipe2(BAD, 0), EFAULT);
    CHECK_ERR(syscall(SYS_eventfd2, 0, 4), EINVAL);
    CHECK_ERR(epoll_create(0), EINVAL);
    CHECK_ERR(epoll_create1(1), EINVAL);
    CHECK_ERR(epoll_ctl(99, 99, 99, BAD), EFAULT);
    CHECK_ERR(epoll_ctl(99, 99, 99, &ev), EBADF);
    CHECK_ERR(epoll_ctl(ep, 99, 99, &ev), EBADF);
    CHECK_ERR(epoll_ctl(ep, 99, file, &ev), EPERM);
    CHECK_ERR(epoll_ctl(ends[0], 99, ends[1], &ev), EINVAL);
    CHECK_ERR(epoll_ctl(ep, 99, ends[0], &ev), EINVAL);
    CHECK_ERR(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &ev), EINVAL);
    CHECK_ERR(epoll_ctl(ep, EPOLL_CTL_MOD, ends[0], &ev), ENOENT);
    CHECK_ERR(epoll_ctl(ep, EPOLL_CTL_DEL, ends[0], BAD), ENOENT);
    CHECK_ERR(epoll_wait(99, BAD, 0, 0), EBADF);
    CHECK_ERR(epoll_wait(ep, BAD, 0, 0), EINVAL);
    CHECK_ERR(epoll_wait(ends[0], &ev, 1, 0), EINVAL);
    CHECK_ERR(poll(BAD, 1, 0), EFAULT);
    CHECK_ERR(poll(BAD, 1u << 30, 0), EINVAL);
    CHECK_ERR(syscall(SYS_ppoll, BAD, 1, &bad, 0, 8), EINVAL);
    CHECK_ERR(syscall(SYS_ppoll, BAD, 1, BAD, 0, 8), EFAULT);
    CHECK_ERR(syscall(SYS_ppoll, BAD, 1, 0, &bad, 3), EINVAL);
    CHECK_ERR(syscall(SYS_select, -1, BAD, 0, 0, 0), EINVAL);
    CHECK_ERR(syscall(SYS_select, 1, BAD, 0, 0, 0), EFAULT);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(60, &set);
    struct timeval zero = {0, 0};
    CHECK_ERR(select(64, &set, 0, 0, &zero), EBADF);
    close(ep);
    close(ends[0]);
    close(ends[1]);
    close(file);
}

static void pipes(void)
{
    int ends[2], n;
    char buf[70000] = {0};
    CHECK(pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
    CHECK(fcntl(ends[0], F_GETFL) == O_NONBLOCK && fcntl(ends[1], F_GETFL) == (O_WRONLY | O_NONBLOCK));
    CHECK(fcntl(ends[0], F_GETFD) == FD_CLOEXEC);
    CHECK_ERR(read(ends[0], buf, 1), EAGAIN);
    CHECK_ERR(write(ends[0], buf, 1), EBADF);
    CHECK_ERR(read(ends[1], buf, 1), EBADF);
    CHECK(write(ends[1], buf, 70000) == 65536);
    CHECK_ERR(write(ends[1], buf, 1), EAGAIN);
    CHECK(ioctl(ends[0], FIONREAD, &n) == 0 && n == 65536);
    CHECK(fcntl(ends[0], F_GETPIPE_SZ) == 65536);
    CHECK_ERR(fcntl(ends[0], F_SETPIPE_SZ, 4096), EBUSY);
    CHECK(read(ends[0], buf, 70000) == 65536);
    CHECK(fcntl(ends[0], F_SETPIPE_SZ, 5000) == 8192);
    CHECK(write(ends[1], buf, 5000) == 5000);
    CHECK_ERR(write(ends[1], buf, 4096), EAGAIN);
    signal(SIGPIPE, on_signal);
    close(ends[0]);
    got_signal = 0;
    CHECK_ERR(write(ends[1], buf, 1), EPIPE);
    CHECK(got_signal == SIGPIPE);
    CHECK(write(ends[1], buf, 0) == 0);
    close(ends[1]);
    CHECK(pipe2(ends, O_DIRECT) == 0);
    CHECK(write(ends[1], "abc", 3) == 3 && write(ends[1], "de", 2) == 2);
    CHECK(read(ends[0], buf, 2) == 2 && read(ends[0], buf, 10) == 2 && buf[0] == 'd');
    close(ends[1]);
    CHECK(read(ends[0], buf, 10) == 0);
    close(ends[0]);
}

static void *writer(void *arg)
{
    char buf[200000];
    memset(buf, 'z', sizeof buf);
    return (void *)write(*(int *)arg, buf, sizeof buf);
}

static void sleeping(void)
{
    int ends[2];
    char buf[50000];
    void *wrote;
    size_t got = 0;
    pthread_t thread;
    CHECK(pipe(ends) == 0);
    CHECK(pthread_create(&thread, 0, writer, &ends[1]) == 0);
    while (got < 200000) {
        ssize_t n = read(ends[0], buf, sizeof buf);
        CHECK(n > 0 && buf[0] == 'z' && buf[n - 1] == 'z');
        got += n;
    }
    CHECK(pthread_join(thread, &wrote) == 0 && (long)wrote == 200000);
    close(ends[0]);
    close(ends[1]);
}

static void fifos(void)
{
    int status, r, w;
    char c;
    CHECK(mkfifo("fifo", 0600) == 0);
    CHECK_ERR(open("fifo", O_WRONLY | O_NONBLOCK), ENXIO);
    CHECK((r = open("fifo", O_RDONLY | O_NONBLOCK)) >= 0);
    CHECK(read(r, &c, 1) == 0);
    struct pollfd p = {r, POLLIN};
    CHECK(poll(&p, 1, 0) == 0);
    CHECK((w = open("fifo", O_WRONLY)) >= 0);
    CHECK_ERR(read(r, &c, 1), EAGAIN);
    CHECK(write(w, "x", 1) == 1 && poll(&p, 1, -1) == 1 && p.revents == POLLIN);
    close(w);
    CHECK(poll(&p, 1, 0) == 1 && p.revents == (POLLIN | POLLHUP));
    CHECK(read(r, &c, 1) == 1 && read(r, &c, 1) == 0);
    close(r);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open("fifo", O_WRONLY);
        _exit(write(fd, "hi", 2) != 2);
    }
    CHECK((r = open("fifo", O_RDONLY)) >= 0);
    CHECK(read(r, &c, 1) == 1 && c == 'h');
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    close(r);
}

static void polls(void)
{
    int ends[2], other[2];
    CHECK(pipe(ends) == 0 && pipe(other) == 0);
    struct pollfd p[4] = {{ends[0], POLLIN}, {ends[1], POLLOUT}, {-1, POLLIN, 7}, {99, POLLIN}};
    CHECK(poll(p, 2, 0) == 1 && p[0].revents == 0 && p[1].revents == POLLOUT);
    CHECK(poll(p, 4, 0) == 2 && p[2].revents == 0 && p[3].revents == POLLNVAL);
    CHECK(write(ends[1], "x", 1) == 1);
    CHECK(poll(p, 1, -1) == 1 && p[0].revents == POLLIN);
    close(other[0]);
    struct pollfd q = {other[1], 0};
    CHECK(poll(&q, 1, 0) == 1 && q.revents == POLLERR);
    struct timespec a, b, wait = {0, 20000000};
    clock_gettime(CLOCK_MONOTONIC, &a);
    CHECK(poll(0, 0, 20) == 0);
    clock_gettime(CLOCK_MONOTONIC, &b);
    CHECK((b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec >= 20000000);
    CHECK(ppoll(0, 0, &wait, 0) == 0);
    fd_set r, w;
    FD_ZERO(&r);
    FD_ZERO(&w);
    FD_SET(ends[0], &r);
    FD_SET(ends[1], &w);
    struct timeval tv = {10, 0};
    CHECK(select(ends[1] + 1, &r, &w, 0, &tv) == 2);
    CHECK(FD_ISSET(ends[0], &r) && FD_ISSET(ends[1], &w) && tv.tv_sec >= 9);
    char c;
    read(ends[0], &c, 1);
    FD_SET(ends[0], &r);
    tv = (struct timeval){0, 1000};
    CHECK(select(ends[0] + 1, &r, 0, 0, &tv) == 0 && !FD_ISSET(ends[0], &r) && tv.tv_usec == 0);
    int file = open("plain", O_RDONLY);
    struct pollfd f = {file, POLLIN | POLLOUT};
    CHECK(poll(&f, 1, 0) == 1 && f.revents == (POLLIN | POLLOUT));
    close(file);
    close(ends[0]);
    close(ends[1]);
    close(other[1]);
}

static void epolls(void)
{
    int ep = epoll_create1(EPOLL_CLOEXEC), ends[2], dup_in;
    struct epoll_event ev = {EPOLLIN, {.u64 = 42}}, out[4];
    CHECK(pipe(ends) == 0);
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, ends[0], &ev) == 0);
    CHECK_ERR(epoll_ctl(ep, EPOLL_CTL_ADD, ends[0], &ev), EEXIST);
    CHECK(epoll_wait(ep, out, 4, 0) == 0);
    CHECK(write(ends[1], "xy", 2) == 2);
    for (int i = 0; i < 3; i++)
        CHECK(epoll_wait(ep, out, 4, -1) == 1 && out[0].events == EPOLLIN && out[0].data.u64 == 42);
    ev.events = EPOLLIN | EPOLLET;
    CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, ends[0], &ev) == 0);
    CHECK(epoll_wait(ep, out, 4, 0) == 1 && epoll_wait(ep, out, 4, 0) == 0);
    CHECK(write(ends[1], "z", 1) == 1);
    CHECK(epoll_wait(ep, out, 4, 0) == 1 && epoll_wait(ep, out, 4, 0) == 0);
    ev.events = EPOLLIN | EPOLLONESHOT;
    CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, ends[0], &ev) == 0);
    CHECK(epoll_wait(ep, out, 4, 0) == 1 && epoll_wait(ep, out, 4, 0) == 0);
    CHECK(write(ends[1], "z", 1) == 1 && epoll_wait(ep, out, 4, 0) == 0);
    ev.events = EPOLLIN;
    CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, ends[0], &ev) == 0);
    CHECK(epoll_wait(ep, out, 4, 0) == 1);
    /* the item is of the open file, not of the number */
    CHECK((dup_in = dup(ends[0])) >= 0);
    close(ends[0]);
    CHECK(epoll_wait(ep, out, 4, 0) == 1);
    close(dup_in);
    CHECK(epoll_wait(ep, out, 4, 0) == 0);
    close(ends[1]);
    /* hang-up is told unasked */
    CHECK(pipe(ends) == 0);
    ev.events = 0;
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, ends[0], &ev) == 0);
    close(ends[1]);
    CHECK(epoll_wait(ep, out, 4, 0) == 1 && out[0].events == EPOLLHUP);
    CHECK(epoll_ctl(ep, EPOLL_CTL_DEL, ends[0], 0) == 0);
    close(ends[0]);
    /* only the last writer that goes is an event */
    int reader, writers[2];
    CHECK(mkfifo("events", 0600) == 0 && (reader = open("events", O_RDONLY | O_NONBLOCK)) >= 0);
    CHECK((writers[0] = open("events", O_WRONLY)) >= 0 && (writers[1] = open("events", O_RDWR)) >= 0);
    CHECK(write(writers[0], "x", 1) == 1);
    ev.events = EPOLLIN | EPOLLET;
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, reader, &ev) == 0);
    CHECK(epoll_wait(ep, out, 4, 0) == 1 && epoll_wait(ep, out, 4, 0) == 0);
    close(writers[0]);
    CHECK(epoll_wait(ep, out, 4, 0) == 0);
    close(writers[1]);
    CHECK(epoll_wait(ep, out, 4, 0) == 1 && out[0].events == (EPOLLIN | EPOLLHUP));
    close(reader);
    /* nested */
    int inner = epoll_create1(0);
    ev.events = EPOLLIN;
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, inner, &ev) == 0);
    CHECK_ERR(epoll_ctl(inner, EPOLL_CTL_ADD, ep, &ev), ELOOP);
    CHECK(pipe(ends) == 0);
    CHECK(epoll_ctl(inner, EPOLL_CTL_ADD, ends[1], &(struct epoll_event){EPOLLOUT}) == 0);
    CHECK(epoll_wait(ep, out, 4, 0) == 1);
    CHECK_ERR(epoll_ctl(ep, EPOLL_CTL_ADD, inner, &(struct epoll_event){EPOLLIN | EPOLLEXCLUSIVE}),
              EINVAL);
    close(inner);
    CHECK(epoll_wait(ep, out, 4, 0) == 0);
    CHECK(epoll_wait(ep, out, 4, 5) == 0);
    close(ep);
}

static void eventfds(void)
{
    uint64_t v = 5;
    int fd = eventfd(3, EFD_NONBLOCK);
    struct pollfd p = {fd, POLLIN | POLLOUT};
    CHECK(poll(&p, 1, 0) == 1 && p.revents == (POLLIN | POLLOUT));
    CHECK(write(fd, &v, 8) == 8 && read(fd, &v, 8) == 8 && v == 8);
    CHECK_ERR(read(fd, &v, 8), EAGAIN);
    CHECK_ERR(read(fd, &v, 7), EINVAL);
    CHECK_ERR(write(fd, &v, 7), EINVAL);
    v = -1;
    CHECK_ERR(write(fd, &v, 8), EINVAL);
    v = -2;
    CHECK(write(fd, &v, 8) == 8);
    CHECK(poll(&p, 1, 0) == 1 && p.revents == POLLIN);
    v = 1;
    CHECK_ERR(write(fd, &v, 8), EAGAIN);
    close(fd);
    fd = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
    CHECK(read(fd, &v, 8) == 8 && v == 1 && read(fd, &v, 8) == 8 && v == 1);
    CHECK_ERR(read(fd, &v, 8), EAGAIN);
    close(fd);
}

static void signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct epoll_event out;
    struct timespec wait = {5, 0};
    sigset_t block, empty;
    int ep = epoll_create1(0);
    sigaction(SIGUSR1, &sa, 0);
    sigemptyset(&empty);
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    sigprocmask(SIG_BLOCK, &block, 0);
    raise(SIGUSR1);
    got_signal = 0;
    CHECK_ERR(ppoll(0, 0, &wait, &empty), EINTR);
    CHECK(got_signal == SIGUSR1);
    raise(SIGUSR1);
    got_signal = 0;
    CHECK_ERR(epoll_pwait(ep, &out, 1, 5000, &empty), EINTR);
    CHECK(got_signal == SIGUSR1);
    raise(SIGUSR1);
    got_signal = 0;
    CHECK_ERR(pselect(0, 0, 0, 0, &wait, &empty), EINTR);
    CHECK(got_signal == SIGUSR1);
    close(ep);
}

/* Each byte is for one of those who sleep, also where one write brings several; the end is for all. */
static void crowd(void)
{
    int ends[2], status;
    CHECK(pipe(ends) == 0);
    for (int i = 0; i < 4; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (!child) {
            char c;
            close(ends[1]);
            _exit((int)read(ends[0], &c, 1));
        }
    }
    CHECK(write(ends[1], "abc", 3) == 3);
    for (int i = 0; i < 3; i++)
        CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 1);
    CHECK(waitpid(-1, &status, WNOHANG) == 0);
    close(ends[1]);
    CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(ends[0]);
}

int main(void)
{
    wrong();
    pipes();
    sleeping();
    crowd();
    fifos();
    polls();
    epolls();
    eventfds();
    signals();
    return 0;
}
