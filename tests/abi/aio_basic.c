/* Asynchronous I/O: io_setup(2), io_submit(2), io_getevents(2), io_cancel(2), the ring. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int io_setup(unsigned n, aio_context_t *c) { return syscall(SYS_io_setup, n, c); }
static int io_destroy(aio_context_t c) { return syscall(SYS_io_destroy, c); }
static long io_submit(aio_context_t c, long n, struct iocb **p) {
    return syscall(SYS_io_submit, c, n, p);
}
static long io_getevents(aio_context_t c, long least, long most, struct io_event *e, void *t) {
    return syscall(SYS_io_getevents, c, least, most, e, t);
}
static long io_cancel(aio_context_t c, struct iocb *p, struct io_event *e) {
    return syscall(SYS_io_cancel, c, p, e);
}

struct ring {
    unsigned id, nr, head, tail, magic, compat, incompat, header;
    struct io_event events[];
};

static struct io_event ev[64];
static struct timespec none;

static struct iocb prepare(int op, int fd, void *buf, long n, long offset) {
    struct iocb cb = {.aio_lio_opcode = op, .aio_fildes = fd, .aio_buf = (long)buf,
                      .aio_nbytes = n, .aio_offset = offset, .aio_data = 77};
    return cb;
}

static long submit(aio_context_t c, struct iocb *cb) { return io_submit(c, 1, &cb); }

/* Submit, and the result of the event. */
static long run(aio_context_t c, struct iocb *cb) {
    CHECK(submit(c, cb) == 1);
    CHECK(io_getevents(c, 1, 1, ev, 0) == 1);
    CHECK(ev[0].obj == (long)cb && ev[0].data == cb->aio_data && ev[0].res2 == 0);
    return ev[0].res;
}

static long number_in(const char *path) {
    long n;
    FILE *f = fopen(path, "r");
    CHECK(f && fscanf(f, "%ld", &n) == 1);
    fclose(f);
    return n;
}

static void contexts(void) {
    aio_context_t c = 0, other = 1, moved;
    long before = number_in("/proc/sys/fs/aio-nr");
    CHECK(number_in("/proc/sys/fs/aio-max-nr") >= 65536);
    CHECK_ERR(io_setup(1, (void *)8), EFAULT);
    CHECK_ERR(io_setup(1, &other), EINVAL);
    CHECK_ERR(io_setup(0, &c), EINVAL);
    CHECK_ERR(io_setup(0x7fffffff, &c), EINVAL);
    CHECK_ERR(io_setup(3000000, &c), EAGAIN);
    CHECK(io_setup(10, &c) == 0 && c != 0);
    CHECK(number_in("/proc/sys/fs/aio-nr") == before + 10);
    struct ring *ring = (void *)c;
    CHECK(ring->magic == 0xa10a10a1 && ring->compat == 1 && ring->incompat == 0);
    CHECK(ring->header == 32 && ring->nr >= 22 && ring->head == 0 && ring->tail == 0);
    char line[256], name[64];
    int found = 0;
    sprintf(name, "%lx-", (long)c);
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps))
        found |= !strncmp(line, name, strlen(name)) && strstr(line, "rw-s") && strstr(line, "/[aio]");
    fclose(maps);
    CHECK(found);
    int status;
    pid_t child = fork();
    if (!child) {
        CHECK_ERR(io_getevents(c, 0, 1, ev, &none), EINVAL);
        CHECK_ERR(io_destroy(c), EINVAL);
        _exit(7);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 7 << 8);
    other = 0;
    CHECK(io_setup(1, &other) == 0 && other != c);
    /* it moves, but does not grow; it must be readable */
    long size = (32 + ring->nr * 32 + 4095) & -4096;
    char *room = mmap(0, size + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK_ERR((long)mremap((void *)c, size, size + 4096, MREMAP_MAYMOVE), EFAULT);
    moved = (long)mremap((void *)c, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, room);
    CHECK(moved == (long)room);
    CHECK_ERR(io_getevents(c, 0, 1, ev, &none), EINVAL);
    CHECK(io_getevents(moved, 0, 1, ev, &none) == 0);
    CHECK(mprotect(room, 4096, PROT_NONE) == 0);
    CHECK_ERR(io_getevents(moved, 0, 1, ev, &none), EINVAL);
    CHECK_ERR(io_destroy(moved), EINVAL);
    CHECK(mprotect(room, 4096, PROT_READ) == 0);
    c = moved;
    CHECK(io_destroy(c) == 0);
    CHECK_ERR(io_destroy(c), EINVAL);
    CHECK_ERR(io_getevents(c, 0, 1, ev, &none), EINVAL);
    CHECK_ERR(io_submit(c, 0, 0), EINVAL);
    CHECK_ERR(io_destroy(0), EINVAL);
    CHECK_ERR(io_destroy(-1), EINVAL);
    CHECK(io_submit(other, 0, 0) == 0);
    CHECK_ERR(io_submit(other, -1, 0), EINVAL);
    CHECK(io_destroy(other) == 0);
    CHECK(number_in("/proc/sys/fs/aio-nr") == before);
}

static void files(void) {
    aio_context_t c = 0;
    char data[8192], back[8192];
    int fd = open("aio-file", O_CREAT | O_RDWR | O_TRUNC, 0600);
    CHECK(fd >= 0 && io_setup(8, &c) == 0);
    for (int i = 0; i < sizeof data; i++) data[i] = i * 7;
    struct iocb w = prepare(IOCB_CMD_PWRITE, fd, data, sizeof data, 100);
    w.aio_key = 5;
    CHECK(run(c, &w) == sizeof data && w.aio_key == 0 && lseek(fd, 0, SEEK_CUR) == 0);
    struct iocb r = prepare(IOCB_CMD_PREAD, fd, back, sizeof back, 100);
    CHECK(run(c, &r) == sizeof back && !memcmp(data, back, sizeof back));
    r.aio_offset = 8192;
    CHECK(run(c, &r) == 100 && !memcmp(data + 8092, back, 100));
    r.aio_offset = 10000;
    CHECK(run(c, &r) == 0);
    struct iovec v[2] = {{back + 10, 20}, {back + 100, 30}};
    struct iocb rv = prepare(IOCB_CMD_PREADV, fd, v, 2, 100);
    CHECK(run(c, &rv) == 50 && !memcmp(back + 10, data, 20) && !memcmp(back + 100, data + 20, 30));
    struct iocb wv = prepare(IOCB_CMD_PWRITEV, fd, v, 2, 0);
    CHECK(run(c, &wv) == 50);
    struct iocb sync = prepare(IOCB_CMD_FSYNC, fd, 0, 0, 0), dsync = prepare(IOCB_CMD_FDSYNC, fd, 0, 0, 0);
    CHECK(run(c, &sync) == 0 && run(c, &dsync) == 0);
    sync.aio_nbytes = 1;
    CHECK_ERR(submit(c, &sync), EINVAL);

    /* what fails at once, and what the event tells */
    r.aio_offset = -1;
    CHECK_ERR(submit(c, &r), EINVAL);
    r.aio_offset = 0;
    r.aio_buf = 8;
    CHECK(run(c, &r) == -EFAULT);
    r.aio_buf = -1UL;
    CHECK_ERR(submit(c, &r), EFAULT);
    r.aio_buf = (long)back;
    r.aio_nbytes = -1;
    CHECK_ERR(submit(c, &r), EINVAL);
    r.aio_nbytes = 10;
    r.aio_fildes = 999;
    CHECK_ERR(submit(c, &r), EBADF);
    r.aio_fildes = fd;
    r.aio_reserved2 = 1;
    CHECK_ERR(submit(c, &r), EINVAL);
    r.aio_reserved2 = 0;
    r.aio_lio_opcode = IOCB_CMD_NOOP;
    CHECK_ERR(submit(c, &r), EINVAL);
    r.aio_lio_opcode = 99;
    CHECK_ERR(submit(c, &r), EINVAL);
    r.aio_lio_opcode = IOCB_CMD_PREAD;
    r.aio_rw_flags = 0x80000000;
    CHECK_ERR(submit(c, &r), EOPNOTSUPP);
    r.aio_rw_flags = 0;
    r.aio_flags = IOCB_FLAG_IOPRIO;
    r.aio_reqprio = 2 << 13 | 4;
    CHECK(run(c, &r) == 10);
    r.aio_reqprio = 4;
    CHECK_ERR(submit(c, &r), EINVAL);
    r.aio_reqprio = 7 << 13;
    CHECK_ERR(submit(c, &r), EINVAL);
    r.aio_flags = 0;
    rv.aio_nbytes = 1025;
    CHECK_ERR(submit(c, &rv), EINVAL);
    rv.aio_buf = 8;
    rv.aio_nbytes = 1;
    CHECK_ERR(submit(c, &rv), EFAULT);
    CHECK_ERR(submit(c, (void *)8), EFAULT);
    CHECK_ERR(io_submit(c, 1, (void *)8), EFAULT);
    int ro = open("aio-file", O_RDONLY), dir = open(".", O_RDONLY), path = open("aio-file", O_PATH);
    struct iocb bad = prepare(IOCB_CMD_PWRITE, ro, data, 10, 0);
    CHECK_ERR(submit(c, &bad), EBADF);
    bad = prepare(IOCB_CMD_PREAD, dir, data, 10, 0);
    CHECK_ERR(submit(c, &bad), EINVAL);
    bad.aio_fildes = path;
    CHECK_ERR(submit(c, &bad), EBADF);
    close(ro);
    close(dir);
    close(path);

    /* appending */
    int app = open("aio-file", O_WRONLY | O_APPEND);
    w = prepare(IOCB_CMD_PWRITE, app, "end", 3, 0);
    CHECK(run(c, &w) == 3 && lseek(fd, 0, SEEK_END) == 8295);
    w = prepare(IOCB_CMD_PWRITE, fd, "end", 3, 0);
    w.aio_rw_flags = 0x10; /* RWF_APPEND */
    CHECK(run(c, &w) == 3 && lseek(fd, 0, SEEK_END) == 8298);
    close(app);

    /* many; the first bad one stops them */
    struct iocb cbs[8], *p[8];
    for (int i = 0; i < 8; i++) {
        cbs[i] = prepare(IOCB_CMD_PREAD, fd, back + i * 10, 10, 100 + i * 10);
        cbs[i].aio_data = i;
        p[i] = cbs + i;
    }
    cbs[5].aio_fildes = 999;
    CHECK(io_submit(c, 8, p) == 5);
    CHECK(io_getevents(c, 5, 8, ev, &none) == 5);
    for (int i = 0; i < 5; i++) CHECK(ev[i].data == i && ev[i].res == 10 && ev[i].obj == (long)p[i]);
    CHECK_ERR(io_submit(c, 3, p + 5), EBADF);
    close(fd);
    unlink("aio-file");
    CHECK(io_destroy(c) == 0);
}

static void events(void) {
    aio_context_t c = 0;
    int zero = open("/dev/zero", O_RDONLY);
    char buf[16];
    CHECK(io_setup(1, &c) == 0);
    struct ring *ring = (void *)c;
    struct iocb cb = prepare(IOCB_CMD_PREAD, zero, buf, 16, 0);
    struct timespec t = {0, 30000000}, before, after;
    CHECK(io_getevents(c, 0, 5, ev, 0) == 0);
    CHECK(io_getevents(c, 1, 5, ev, &none) == 0);
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK(io_getevents(c, 1, 5, ev, &t) == 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK((after.tv_sec - before.tv_sec) * 1000000000L + after.tv_nsec - before.tv_nsec >= 30000000);
    CHECK_ERR(io_getevents(c, 2, 1, ev, 0), EINVAL);
    CHECK_ERR(io_getevents(c, -1, 1, ev, 0), EINVAL);
    CHECK_ERR(io_getevents(c, 0, -1, ev, 0), EINVAL);
    CHECK_ERR(io_getevents(c, 0, 1, ev, (void *)8), EFAULT);

    /* the ring fills up; no events are lost */
    long count = 0;
    while (submit(c, &cb) == 1) {
        cb.aio_data++;
        CHECK(++count < 100000);
    }
    int why = errno; /* Linux deals places out in batches to the CPUs */
    CHECK(why == EAGAIN && count < ring->nr && count > ring->nr / 2 && ring->tail == count);
    CHECK_ERR(io_getevents(c, 1, 1, (void *)8, 0), EFAULT);
    CHECK(io_getevents(c, 1, 40, ev, 0) == 40 && ev[0].data == 77 && ev[39].data == 116);
    CHECK(ring->head == 40);
    for (int i = 0; i < 20; i++) CHECK(submit(c, &cb) == 1);

    /* as libaio takes them: without a call */
    count -= 20;
    while (ring->head != ring->tail) {
        CHECK(ring->events[ring->head].res == 16);
        ring->head = (ring->head + 1) % ring->nr;
        count--;
    }
    CHECK(count == 0);
    CHECK(io_getevents(c, 0, 5, ev, &none) == 0);
    for (int i = 0; i < 5; i++) CHECK(submit(c, &cb) == 1);
    CHECK(io_getevents(c, 5, 64, ev, 0) == 5 && ring->head == ring->tail);
    ring->head = 0xfffffff0; /* nonsense is reduced */
    CHECK(io_getevents(c, 0, 1, ev, &none) >= 0);
    CHECK(io_destroy(c) == 0);
    close(zero);
}

static volatile int caught;
static void handler(int signo) { caught = signo; }

static void *later(void *fd) {
    usleep(50000);
    write((long)fd, "x", 1);
    return 0;
}

static aio_context_t doomed;
static void *destroyer(void *unused) {
    usleep(50000);
    io_destroy(doomed);
    return 0;
}

static void polling(void) {
    aio_context_t c = 0;
    int pipes[2], done = eventfd(0, EFD_NONBLOCK);
    unsigned long n;
    pthread_t thread;
    CHECK(pipe(pipes) == 0 && io_setup(20, &c) == 0);
    struct iocb p = prepare(IOCB_CMD_POLL, pipes[0], (void *)POLLIN, 0, 0);
    p.aio_flags = IOCB_FLAG_RESFD;
    p.aio_resfd = done;
    CHECK(submit(c, &p) == 1 && io_getevents(c, 1, 1, ev, &none) == 0);
    CHECK_ERR(read(done, &n, 8), EAGAIN);
    CHECK(write(pipes[1], "x", 1) == 1);
    CHECK(io_getevents(c, 1, 1, ev, 0) == 1 && ev[0].res & POLLIN && ev[0].obj == (long)&p);
    CHECK(read(done, &n, 8) == 8 && n == 1);
    CHECK(submit(c, &p) == 1 && submit(c, &p) == 1);
    CHECK(read(done, &n, 8) == 8 && n == 2 && io_getevents(c, 2, 2, ev, &none) == 2);
    /* the counter stops one past what write(2) can reach */
    n = -2ul;
    CHECK(write(done, &n, 8) == 8 && submit(c, &p) == 1 && submit(c, &p) == 1);
    struct pollfd overflow = {done, POLLIN | POLLOUT, 0};
    CHECK(io_getevents(c, 2, 2, ev, 0) == 2 && poll(&overflow, 1, 0) == 1);
    CHECK(overflow.revents == (POLLIN | POLLERR) && read(done, &n, 8) == 8 && n == -1ul);
    char byte;
    CHECK(read(pipes[0], &byte, 1) == 1);
    pthread_create(&thread, 0, later, (void *)(long)pipes[1]);
    CHECK(submit(c, &p) == 1 && io_getevents(c, 1, 5, ev, 0) == 1 && ev[0].res & POLLIN);
    pthread_join(thread, 0);
    CHECK(read(pipes[0], &byte, 1) == 1);

    /* bad ones */
    p.aio_resfd = pipes[0];
    CHECK_ERR(submit(c, &p), EINVAL);
    p.aio_resfd = 999;
    CHECK_ERR(submit(c, &p), EBADF);
    p.aio_flags = 0;
    p.aio_buf = 0x10001;
    CHECK_ERR(submit(c, &p), EINVAL);
    p.aio_buf = POLLIN;
    p.aio_nbytes = 1;
    CHECK_ERR(submit(c, &p), EINVAL);
    p.aio_nbytes = 0;

    /* cancelled: an event of 0 */
    CHECK_ERR(io_cancel(c, &p, ev), EINVAL);
    CHECK(submit(c, &p) == 1);
    CHECK_ERR(io_cancel(c, &p, ev), EINPROGRESS);
    CHECK(io_getevents(c, 1, 1, ev, 0) == 1 && ev[0].res == 0 && ev[0].obj == (long)&p);
    CHECK_ERR(io_cancel(c, &p, ev), EINVAL);
    CHECK_ERR(io_cancel(c, (void *)8, ev), EFAULT);
    CHECK_ERR(io_cancel(0, &p, ev), EINVAL);

    /* the other end closes, the descriptor itself closes */
    CHECK(submit(c, &p) == 1 && close(pipes[1]) == 0);
    CHECK(io_getevents(c, 1, 1, ev, 0) == 1 && ev[0].res == POLLHUP);
    close(pipes[0]);
    CHECK(pipe(pipes) == 0);
    p.aio_fildes = pipes[0];
    CHECK(submit(c, &p) == 1 && close(pipes[0]) == 0);
    signal(SIGPIPE, SIG_IGN);
    CHECK(write(pipes[1], "y", 1) == 1);
    CHECK(io_getevents(c, 1, 1, ev, 0) == 1 && ev[0].res & POLLIN);
    while (write(pipes[1], "y", 1) == 1) /* until the file has gone, too */
        usleep(1000);
    CHECK_ERR(write(pipes[1], "y", 1), EPIPE);
    close(pipes[1]);

    /* a regular file is always ready */
    int fd = open("aio-poll", O_CREAT | O_RDWR, 0600);
    p.aio_fildes = fd;
    p.aio_buf = POLLIN | POLLOUT;
    CHECK(run(c, &p) == (POLLIN | POLLOUT));
    p.aio_buf = POLLPRI;
    CHECK_ERR(submit(c, &p), EINVAL);
    close(fd);
    unlink("aio-poll");

    /* signals end the wait */
    struct sigaction act = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &act, 0);
    struct itimerval soon = {{0, 50000}, {0, 50000}}, off = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &soon, 0);
    CHECK_ERR(io_getevents(c, 1, 1, ev, 0), EINTR);
    setitimer(ITIMER_REAL, &off, 0);
    CHECK(caught == SIGALRM);
    caught = 0;
    sigset_t mask;
    sigemptyset(&mask);
    struct {
        sigset_t *set;
        size_t size;
    } both = {&mask, 8};
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGALRM);
    sigprocmask(SIG_BLOCK, &block, 0);
    raise(SIGALRM);
    CHECK(!caught);
    CHECK_ERR(syscall(SYS_io_pgetevents, c, 1, 1, ev, 0, &both), EINTR);
    CHECK(caught == SIGALRM);
    sigset_t now;
    sigprocmask(SIG_SETMASK, 0, &now);
    CHECK(sigismember(&now, SIGALRM));
    both.size = 4;
    CHECK_ERR(syscall(SYS_io_pgetevents, c, 1, 1, ev, &none, &both), EINVAL);
    CHECK(syscall(SYS_io_pgetevents, c, 1, 1, ev, &none, 0) == 0);
    sigprocmask(SIG_UNBLOCK, &block, 0);

    /* destroyed while somebody waits, and with requests in flight */
    CHECK(pipe(pipes) == 0);
    p = prepare(IOCB_CMD_POLL, pipes[0], (void *)POLLIN, 0, 0);
    CHECK(submit(c, &p) == 1);
    doomed = c;
    pthread_create(&thread, 0, destroyer, 0);
    CHECK_ERR(io_getevents(c, 2, 2, ev, 0), EINVAL);
    pthread_join(thread, 0);
    close(pipes[0]);
    close(pipes[1]);
    close(done);
}

static void streams(void) {
    aio_context_t c = 0;
    int pipes[2], counter = eventfd(3, 0);
    char buf[16];
    unsigned long n = 5;
    CHECK(pipe(pipes) == 0 && io_setup(4, &c) == 0);
    struct iocb w = prepare(IOCB_CMD_PWRITE, pipes[1], "stream", 6, 0);
    struct iocb r = prepare(IOCB_CMD_PREAD, pipes[0], buf, 16, 0);
    CHECK(run(c, &w) == 6 && run(c, &r) == 6 && !memcmp(buf, "stream", 6));
    struct iocb e = prepare(IOCB_CMD_PREAD, counter, &n, 8, 0);
    CHECK(run(c, &e) == 8 && n == 3);
    struct iocb never = prepare(IOCB_CMD_PWRITE, counter, &n, 8, 0);
    CHECK_ERR(submit(c, &never), EINVAL);
    never = prepare(IOCB_CMD_PREAD, pipes[0], buf, 16, -1);
    CHECK_ERR(submit(c, &never), EINVAL);
    int null = open("/dev/null", O_RDWR);
    never = prepare(IOCB_CMD_FSYNC, null, 0, 0, 0);
    CHECK_ERR(submit(c, &never), EINVAL);
    close(null);
    fcntl(pipes[0], F_SETFL, O_NONBLOCK);
    CHECK(run(c, &r) == -EAGAIN);
    struct iocb sync = prepare(IOCB_CMD_FSYNC, pipes[0], 0, 0, 0);
    CHECK_ERR(submit(c, &sync), EINVAL);
    /* an exit with contexts, requests and a waiter */
    int status;
    pid_t child = fork();
    if (!child) {
        aio_context_t mine = 0;
        CHECK(io_setup(100, &mine) == 0);
        struct iocb p = prepare(IOCB_CMD_POLL, pipes[0], (void *)POLLIN, 0, 0);
        CHECK(submit(mine, &p) == 1);
        signal(SIGALRM, SIG_DFL);
        struct itimerval soon = {{0, 0}, {0, 30000}};
        setitimer(ITIMER_REAL, &soon, 0);
        io_getevents(mine, 1, 1, ev, 0);
        _exit(1);
    }
    CHECK(waitpid(child, &status, 0) == child && status == SIGALRM);
    CHECK(io_destroy(c) == 0);
}

static void nothing(int signo) {}

/* A child that waits in a call with this number, when it is asleep there. */
static pid_t waiter(int number, long timeout_ns) {
    char path[64], found[64];
    pid_t pid = fork();
    if (!pid) {
        aio_context_t c = 0;
        struct timespec t = {timeout_ns / 1000000000, timeout_ns % 1000000000};
        struct sigaction action = {.sa_handler = nothing, .sa_flags = SA_RESTART};
        CHECK(sigaction(SIGUSR1, &action, NULL) == 0 && io_setup(1, &c) == 0);
        _exit(syscall(number, c, 1, 1, ev, &t, NULL) ? errno : 0);
    }
    for (int i = 0; i < 5000; i++) {
        sprintf(path, "/proc/%d/syscall", pid);
        int fd = open(path, O_RDONLY), size = read(fd, found, 63);
        close(fd);
        if (size > 0 && atoi(found) == number) return pid;
        usleep(1000);
    }
    CHECK(!"it waits");
}

static int told(pid_t pid) {
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* io_getevents(2) is never made again after a signal, io_pgetevents(2) without a handler. */
static void interrupted(void) {
    int status;
    const int calls[] = {SYS_io_getevents, 333};
    for (int i = 0; i < 2; i++) {
        pid_t pid = waiter(calls[i], 30000000000);
        CHECK(kill(pid, SIGUSR1) == 0 && told(pid) == EINTR);
        pid = waiter(calls[i], i ? 500000000 : 30000000000);
        CHECK(kill(pid, SIGSTOP) == 0 && waitpid(pid, &status, WUNTRACED) == pid);
        CHECK(WIFSTOPPED(status) && kill(pid, SIGCONT) == 0);
        CHECK(told(pid) == (i ? 0 : EINTR));
    }
}

int main(void) {
    contexts();
    files();
    events();
    interrupted();
    polling();
    streams();
    return 0;
}
