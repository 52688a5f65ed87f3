/* POSIX message queues: mq_open(3), mq_send(3), mq_receive(3), mq_notify(3), mqueue files. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char name[64], other[64], buffer[8192];
static struct mq_attr attr;

static int ends(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static mqd_t make(const char *path, long count, long size, int flags) {
    struct mq_attr a = {.mq_maxmsg = count, .mq_msgsize = size};
    mqd_t q = mq_open(path, O_CREAT | O_EXCL | flags, 0600, &a);
    CHECK(q >= 0);
    return q;
}

static int is(mqd_t q, const char *text, unsigned priority) {
    unsigned seen = 99;
    memset(buffer, 0, sizeof buffer);
    long n = mq_receive(q, buffer, sizeof buffer, &seen);
    return n == (long)strlen(text) && !strcmp(buffer, text) && seen == priority;
}

static void until_asleep(pid_t pid) {
    char path[64], text[256];
    do {
        usleep(2000);
        sprintf(path, "/proc/%d/stat", pid);
        FILE *f = fopen(path, "r");
        fgets(text, sizeof text, f);
        fclose(f);
    } while (strrchr(text, ')')[2] != 'S');
    usleep(10000);
}

static void opening(void) {
    CHECK_ERR(mq_open(name, O_RDWR), ENOENT);
    CHECK_ERR(mq_open("noslash", O_RDWR), EINVAL);
    CHECK_ERR(mq_open("/", O_RDWR), ENOENT);
    CHECK_ERR(mq_open("/a/b", O_RDWR), EACCES);
    CHECK_ERR(mq_open("/..", O_RDWR), EACCES);
    char large[300] = "/";
    memset(large + 1, 'x', 256);
    CHECK_ERR(mq_open(large, O_RDWR), ENAMETOOLONG);
    CHECK_ERR(syscall(SYS_mq_open, (void *)8, O_RDWR, 0, 0), EFAULT);
    CHECK_ERR(mq_open(name, O_CREAT | O_RDWR, 0600, (void *)8), EFAULT);
    struct mq_attr bad[] = {{0, 0, 10}, {0, 1, 0}, {0, -1, 10}, {0, 1, -1}, {0, 65537, 10},
                            {0, 1, (16 << 20) + 1}, {0, LONG_MAX, LONG_MAX}};
    for (int i = 0; i < 7; i++) CHECK_ERR(mq_open(name, O_CREAT | O_RDWR, 0600, bad + i), EINVAL);
    umask(022);
    mqd_t q = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0666, 0);
    CHECK(q >= 0);
    struct stat st;
    CHECK(fstat(q, &st) == 0 && st.st_mode == (S_IFREG | 0644) && st.st_size == 80);
    CHECK(st.st_nlink == 1 && st.st_uid == getuid());
    CHECK(fcntl(q, F_GETFD) == FD_CLOEXEC && fcntl(q, F_GETFL) == O_RDWR);
    CHECK(mq_getattr(q, &attr) == 0 && attr.mq_maxmsg == 10 && attr.mq_msgsize == 8192);
    CHECK(attr.mq_flags == 0 && attr.mq_curmsgs == 0);
    CHECK_ERR(mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, 0), EEXIST);
    CHECK_ERR(mq_open(name, O_RDWR | O_WRONLY), EINVAL);
    mqd_t again = mq_open(name, O_CREAT | O_WRONLY | O_NONBLOCK, 0600, bad);
    CHECK(again >= 0 && mq_getattr(again, &attr) == 0 && attr.mq_flags == O_NONBLOCK);
    mqd_t reader = mq_open(name, O_RDONLY);
    CHECK(mq_send(again, "x", 1, 1) == 0);
    CHECK_ERR(mq_send(reader, "x", 1, 1), EBADF);
    CHECK_ERR(mq_receive(again, buffer, 8192, 0), EBADF);
    CHECK_ERR(mq_send(0, "x", 1, 1), EBADF);
    CHECK_ERR(mq_send(999, "x", 1, 1), EBADF);
    CHECK_ERR(mq_getattr(0, &attr), EBADF);
    CHECK_ERR(mq_notify(0, 0), EBADF);
    CHECK(mq_close(again) == 0 && mq_close(reader) == 0);
    CHECK(mq_unlink(name) == 0);
    CHECK_ERR(mq_unlink(name), ENOENT);
    CHECK_ERR(mq_unlink("/a/b"), EACCES);
    CHECK_ERR(mq_open(name, O_RDWR), ENOENT);
    CHECK(is(q, "x", 1) && fstat(q, &st) == 0 && st.st_nlink == 0);
    CHECK(mq_close(q) == 0);
    CHECK_ERR(mq_close(q), EBADF);
}

static void sending(void) {
    mqd_t q = make(name, 4, 100, O_RDWR | O_NONBLOCK);
    CHECK(mq_send(q, "low", 3, 1) == 0 && mq_send(q, "high", 4, 7) == 0);
    CHECK(mq_send(q, "low2", 4, 1) == 0 && mq_send(q, "", 0, 32767) == 0);
    CHECK_ERR(mq_send(q, "no", 2, 0), EAGAIN);
    CHECK(mq_getattr(q, &attr) == 0 && attr.mq_curmsgs == 4);
    CHECK_ERR(mq_send(q, "no", 2, 32768), EINVAL);
    CHECK_ERR(mq_send(q, buffer, 101, 0), EMSGSIZE);
    CHECK_ERR(mq_receive(q, buffer, 99, 0), EMSGSIZE);
    CHECK(is(q, "", 32767) && is(q, "high", 7) && is(q, "low", 1) && is(q, "low2", 1));
    CHECK_ERR(mq_receive(q, buffer, 100, 0), EAGAIN);
    CHECK_ERR(mq_send(q, (void *)8, 10, 0), EFAULT);
    CHECK(mq_send(q, "lost", 4, 0) == 0);
    CHECK_ERR(mq_receive(q, (void *)8, 100, 0), EFAULT);
    CHECK_ERR(mq_receive(q, buffer, 100, 0), EAGAIN);

    struct mq_attr new = {.mq_flags = 0, .mq_maxmsg = 77}, old;
    CHECK(mq_setattr(q, &new, &old) == 0 && old.mq_flags == O_NONBLOCK && old.mq_maxmsg == 4);
    CHECK(mq_getattr(q, &attr) == 0 && attr.mq_flags == 0 && attr.mq_maxmsg == 4);
    new.mq_flags = O_APPEND;
    CHECK_ERR(mq_setattr(q, &new, 0), EINVAL);
    CHECK_ERR(mq_setattr(0, &new, 0), EINVAL);

    struct timespec t, before, after;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += 40000000;
    if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK_ERR(mq_timedreceive(q, buffer, 100, 0, &t), ETIMEDOUT);
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK((after.tv_sec - before.tv_sec) * 1000000000L + after.tv_nsec - before.tv_nsec > 30000000);
    CHECK_ERR(mq_timedreceive(q, buffer, 100, 0, &t), ETIMEDOUT);
    CHECK(mq_timedsend(q, "late", 4, 3, &t) == 0);
    CHECK(mq_timedreceive(q, buffer, 100, 0, &t) == 4);
    t.tv_nsec = 1000000000;
    CHECK_ERR(mq_timedreceive(q, buffer, 100, 0, &t), EINVAL);
    CHECK_ERR(mq_timedsend(0, buffer, 100, 0, &t), EINVAL);
    t.tv_nsec = 0;
    t.tv_sec = -1;
    CHECK_ERR(mq_timedsend(q, buffer, 100, 0, &t), EINVAL);
    CHECK_ERR(mq_timedsend(q, buffer, 100, 0, (void *)8), EFAULT);
    CHECK(mq_close(q) == 0 && mq_unlink(name) == 0);
}

static volatile int caught, code, from;
static volatile long with;
static void handler(int signo, siginfo_t *info, void *context) {
    caught = signo;
    code = info->si_code;
    from = info->si_pid;
    with = (long)info->si_value.sival_ptr;
}

static void waiting(void) {
    mqd_t q = make(name, 1, 100, O_RDWR);
    pid_t child = fork();
    if (!child) _exit(is(q, "hello", 5) ? 0 : 1);
    until_asleep(child);
    CHECK(mq_send(q, "hello", 5, 5) == 0 && ends(child) == 0);
    CHECK(mq_send(q, "one", 3, 0) == 0);
    child = fork();
    if (!child) _exit(mq_send(q, "two", 3, 0) ? errno : 0);
    until_asleep(child);
    CHECK(is(q, "one", 0) && ends(child) == 0 && is(q, "two", 0));

    struct sigaction act = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &act, 0);
    child = fork();
    if (!child) _exit(mq_receive(q, buffer, 100, 0) < 0 ? errno : 0);
    until_asleep(child);
    kill(child, SIGUSR1);
    CHECK(ends(child) == EINTR);
    act.sa_flags |= SA_RESTART;
    sigaction(SIGUSR1, &act, 0);
    child = fork();
    if (!child) _exit(mq_receive(q, buffer, 100, 0) == 3 && caught == SIGUSR1 ? 0 : 1);
    until_asleep(child);
    kill(child, SIGUSR1);
    until_asleep(child);
    CHECK(mq_send(q, "end", 3, 0) == 0 && ends(child) == 0);

    /* poll, epoll */
    struct pollfd p = {q, POLLIN | POLLOUT};
    CHECK(poll(&p, 1, 0) == 1 && p.revents == POLLOUT);
    int ep = epoll_create1(0);
    struct epoll_event e = {EPOLLIN, {.u32 = 7}};
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, q, &e) == 0 && epoll_wait(ep, &e, 1, 0) == 0);
    CHECK(mq_send(q, "x", 1, 0) == 0);
    CHECK(epoll_wait(ep, &e, 1, 0) == 1 && e.events == EPOLLIN && e.data.u32 == 7);
    CHECK(poll(&p, 1, 0) == 1 && p.revents == POLLIN);
    CHECK(is(q, "x", 0) && epoll_wait(ep, &e, 1, 0) == 0);
    child = fork();
    if (!child) {
        p.events = POLLIN;
        _exit(poll(&p, 1, 5000) == 1 ? 0 : 1);
    }
    until_asleep(child);
    CHECK(mq_send(q, "x", 1, 0) == 0 && ends(child) == 0);
    close(ep);
    CHECK(mq_close(q) == 0 && mq_unlink(name) == 0);
}

static void told(union sigval v) { with = v.sival_int; }

static void notifying(void) {
    mqd_t q = make(name, 5, 100, O_RDWR), twin = dup(q);
    struct sigaction act = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGUSR2, &act, 0);
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
    ev.sigev_value.sival_ptr = (void *)0x123456789abc;
    CHECK(mq_notify(q, &ev) == 0);
    CHECK_ERR(mq_notify(q, &ev), EBUSY);
    char text[200] = "";
    CHECK(pread(q, text, sizeof text, 0) == 74 || strlen(text) > 50);
    char want[200];
    sprintf(want, "QSIZE:%-10d NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n", 0, SIGEV_SIGNAL,
            SIGUSR2, getpid());
    CHECK(!strcmp(text, want));
    pid_t child = fork();
    if (!child) {
        CHECK_ERR(mq_notify(q, &ev), EBUSY);
        CHECK(mq_notify(q, 0) == 0); /* not ours: nothing happens */
        CHECK(mq_send(q, "ping", 4, 0) == 0);
        _exit(0);
    }
    CHECK(ends(child) == 0);
    CHECK(caught == SIGUSR2 && code == SI_MESGQ && from == child && with == 0x123456789abc);
    caught = 0;
    CHECK(mq_send(q, "more", 4, 0) == 0 && !caught);
    CHECK(mq_notify(q, &ev) == 0); /* free again; only an empty queue tells */
    CHECK(mq_send(q, "more", 4, 0) == 0 && !caught);
    for (int i = 0; i < 3; i++) CHECK(mq_receive(q, buffer, 100, 0) == 4);
    child = fork();
    if (!child) _exit(mq_receive(q, buffer, 100, 0) == 2 ? 0 : 1);
    until_asleep(child);
    CHECK(mq_send(q, "hi", 2, 0) == 0 && !caught && ends(child) == 0);
    CHECK(mq_send(q, "ring", 4, 0) == 0 && caught == SIGUSR2 && mq_receive(q, buffer, 100, 0) == 4);
    caught = 0;
    CHECK(mq_notify(q, &ev) == 0 && mq_notify(q, 0) == 0);
    CHECK(mq_send(q, "ring", 4, 0) == 0 && !caught && mq_receive(q, buffer, 100, 0) == 4);
    CHECK(mq_notify(q, &ev) == 0 && close(twin) == 0); /* any close by the process ends it */
    CHECK(mq_send(q, "ring", 4, 0) == 0 && !caught && mq_receive(q, buffer, 100, 0) == 4);
    ev.sigev_notify = SIGEV_NONE;
    CHECK(mq_notify(q, &ev) == 0);
    CHECK_ERR(mq_notify(q, &ev), EBUSY);
    CHECK(mq_send(q, "ring", 4, 0) == 0 && mq_notify(q, &ev) == 0 && mq_notify(q, 0) == 0);
    ev.sigev_notify = 99;
    CHECK_ERR(mq_notify(q, &ev), EINVAL);
    ev.sigev_notify = SIGEV_SIGNAL;
    ev.sigev_signo = 65;
    CHECK_ERR(mq_notify(q, &ev), EINVAL);
    CHECK_ERR(syscall(SYS_mq_notify, q, (void *)8), EFAULT);
    ev.sigev_notify = SIGEV_THREAD;
    ev.sigev_value.sival_ptr = buffer;
    ev.sigev_signo = 999;
    CHECK_ERR(syscall(SYS_mq_notify, q, &ev), EBADF);
    CHECK(mq_close(q) == 0 && mq_unlink(name) == 0);
}

static void user(mqd_t q) {
    if (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000)) _exit(20);
    CHECK_ERR(mq_open(name, O_RDWR), EACCES);
    CHECK(mq_open(name, O_RDONLY) >= 0);
    CHECK_ERR(mq_unlink(name), EACCES);
    struct mq_attr a = {.mq_maxmsg = 11, .mq_msgsize = 10};
    CHECK_ERR(mq_open(other, O_CREAT | O_RDWR, 0600, &a), EINVAL);
    a.mq_maxmsg = 10;
    a.mq_msgsize = 8193;
    CHECK_ERR(mq_open(other, O_CREAT | O_RDWR, 0600, &a), EINVAL);
    struct rlimit limit = {10000, 10000};
    setrlimit(RLIMIT_MSGQUEUE, &limit);
    a.mq_msgsize = 1000;
    CHECK_ERR(mq_open(other, O_CREAT | O_RDWR, 0600, &a), EMFILE);
    a.mq_msgsize = 900;
    mqd_t mine = mq_open(other, O_CREAT | O_RDWR, 0600, &a);
    CHECK(mine >= 0);
    char second[64];
    sprintf(second, "%s-2", other);
    CHECK_ERR(mq_open(second, O_CREAT | O_RDWR, 0600, &a), EMFILE);
    CHECK(mq_unlink(other) == 0);
    CHECK_ERR(mq_open(second, O_CREAT | O_RDWR, 0600, &a), EMFILE);
    CHECK(mq_close(mine) == 0 && (mine = mq_open(second, O_CREAT | O_RDWR, 0600, &a)) >= 0);
    CHECK(mq_unlink(second) == 0);
    _exit(0);
}

static void rights(void) {
    umask(0);
    struct mq_attr a = {.mq_maxmsg = 1, .mq_msgsize = 1};
    mqd_t q = mq_open(name, O_CREAT | O_RDWR, 0644, &a);
    pid_t child = fork();
    if (!child) user(q);
    CHECK(ends(child) == 0);
    CHECK(mq_close(q) == 0 && mq_unlink(name) == 0);
}

static void mounted(void) {
    CHECK(mkdir("mq", 0755) == 0);
    if (mount("none", "mq", "mqueue", 0, 0)) {
        CHECK(errno == EPERM);
        rmdir("mq");
        return;
    }
    char path[80], text[200] = "";
    struct statfs fs;
    struct stat st;
    CHECK(statfs("mq", &fs) == 0 && fs.f_type == 0x19800202);
    CHECK(stat("mq", &st) == 0 && st.st_mode == (S_IFDIR | 01777));
    mqd_t q = make(name, 5, 100, O_RDWR);
    sprintf(path, "mq%s", name);
    CHECK(stat(path, &st) == 0 && st.st_size == 80 && st.st_mode == (S_IFREG | 0600));
    CHECK(mq_send(q, "12345", 5, 0) == 0);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && read(fd, text, sizeof text) > 50);
    CHECK(!strncmp(text, "QSIZE:5          NOTIFY:0     SIGNO:0     NOTIFY_PID:0", 53));
    CHECK(read(fd, text, sizeof text) == 0 && lseek(fd, 0, SEEK_SET) == 0);
    CHECK_ERR(write(fd, "x", 1), EINVAL);
    CHECK(is(fd, "12345", 0));
    CHECK_ERR(mkdir("mq/dir", 0755), EPERM);
    CHECK_ERR(symlink("a", "mq/link"), EPERM);
    CHECK_ERR(link(path, "mq/hard"), EPERM);
    CHECK_ERR(rename(path, "mq/new"), EPERM);
    close(fd);
    CHECK(unlink(path) == 0);
    CHECK_ERR(mq_unlink(name), ENOENT);
    CHECK(mq_close(q) == 0);
    sprintf(path, "mq%s", other);
    fd = open(path, O_CREAT | O_RDWR, 0600);
    CHECK(fd >= 0 && mq_getattr(fd, &attr) == 0 && attr.mq_maxmsg == 10);
    close(fd);
    CHECK(mq_unlink(other) == 0);
    CHECK(umount("mq") == 0 && rmdir("mq") == 0);
}

int main(void) {
    sprintf(name, "/abi-%d", getpid());
    sprintf(other, "/abi-other-%d", getpid());
    opening();
    sending();
    waiting();
    notifying();
    rights();
    mounted();
    return 0;
}
