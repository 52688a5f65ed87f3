/* /proc/PID/io: what threads read and wrote, what of it is the process's. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

struct io {
    long rchar, wchar, syscr, syscw;
};

/* Reading it is counted, too, but only after it was written. */
static struct io counts(const char *path)
{
    static __thread char text[400];
    struct io io;
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    ssize_t n = read(fd, text, sizeof text - 1);
    CHECK(n > 0 && close(fd) == 0);
    text[n] = 0;
    CHECK(sscanf(text, "rchar: %ld\nwchar: %ld\nsyscr: %ld\nsyscw: %ld\nread_bytes: ", &io.rchar,
                 &io.wchar, &io.syscr, &io.syscw) == 4);
    return io;
}

static int fd;
static long text_size;

static void *writes(void *unused)
{
    struct io io = counts("/proc/thread-self/io");
    CHECK(!io.rchar && !io.wchar && !io.syscr && !io.syscw);
    io = counts("/proc/thread-self/io");
    text_size = io.rchar;
    CHECK(text_size > 80 && io.syscr == 1);
    for (int i = 0; i < 100; i++)
        CHECK(pwrite(fd, "xy", 2, 0) == 2);
    io = counts("/proc/thread-self/io");
    CHECK(io.syscw == 100 && io.wchar == 200 && io.syscr == 2);
    return unused;
}

int main(void)
{
    char buf[100];
    pthread_t thread;
    struct io before, after;
    fd = open("counted", O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && unlink("counted") == 0);
    before = counts("/proc/self/io");
    CHECK(pthread_create(&thread, 0, writes, 0) == 0 && pthread_join(thread, 0) == 0);
    after = counts("/proc/thread-self/io");
    CHECK(after.syscw == before.syscw);
    after = counts("/proc/self/io");
    CHECK(after.syscw == before.syscw + 100 && after.wchar == before.wchar + 200);

    before = counts("/proc/thread-self/io");
    struct iovec iov[2] = {{buf, 1}, {buf + 1, 1}};
    CHECK(preadv(fd, iov, 2, 0) == 2 && pread(fd, buf, 100, 1) == 1 && read(fd, buf, 0) == 0);
    CHECK(writev(fd, iov, 2) == 2);
    CHECK(read(-1, buf, 1) == -1 && write(-1, buf, 1) == -1);
    int out = open("out", O_RDWR | O_CREAT, 0600);
    off_t at = 0;
    CHECK(sendfile(out, fd, &at, 10) == 2 && unlink("out") == 0);
    after = counts("/proc/thread-self/io");
    CHECK(after.wchar == before.wchar + 4 && after.syscw == before.syscw + 2);
    CHECK(after.syscr == before.syscr + 5 && after.rchar > before.rchar + 5 + 80);

    int ends[2], status;
    before = counts("/proc/self/io");
    CHECK(pipe(ends) == 0);
    if (!fork()) {
        CHECK(read(ends[0], buf, 10) == 3);
        _exit(0);
    }
    usleep(20000);
    CHECK(write(ends[1], "abc", 3) == 3 && wait(&status) > 0 && status == 0);
    after = counts("/proc/self/io");
    CHECK(after.syscw == before.syscw + 1 && after.syscr == before.syscr + 2);
    return 0;
}
