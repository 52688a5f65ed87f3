/* read, write, positions, vectors: values and the order of checks. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define BAD ((void *)8)
#define BIG (1ul << 63)

static volatile int got_signal;
static void on_signal(int signo) { got_signal = signo; }

static void wrong(int file, int pipe_in)
{
    char c;
    struct iovec iov = {&c, 1}, bad_iov = {BAD, 1}, huge = {&c, (size_t)-1};
    CHECK_ERR(read(99, BAD, 1), EBADF);
    CHECK_ERR(read(file, BAD, BIG), EFAULT);
    CHECK_ERR(write(99, BAD, 1), EBADF);
    CHECK_ERR(write(file, BAD, 1), EFAULT);
    CHECK(write(file, BAD, 0) == 0 || errno == EFAULT);
    CHECK_ERR(pread(99, BAD, 1, -1), EINVAL);
    CHECK_ERR(pread(99, BAD, 1, 0), EBADF);
    CHECK_ERR(pread(pipe_in, BAD, 1, 0), ESPIPE);
    CHECK_ERR(pwrite(pipe_in, BAD, 1, 0), ESPIPE);
    CHECK_ERR(pwrite(file, BAD, 1, -1), EINVAL);
    CHECK_ERR(pwrite(file, BAD, 1, 0), EFAULT);
    CHECK_ERR(readv(99, BAD, -1), EBADF);
    CHECK_ERR(readv(file, BAD, 1025), EINVAL);
    CHECK_ERR(readv(file, BAD, 1), EFAULT);
    CHECK(readv(file, BAD, 0) == 0);
    CHECK_ERR(writev(file, &huge, 1), EINVAL);
    CHECK_ERR(writev(file, &bad_iov, 1), EFAULT);
    CHECK_ERR(preadv(file, &iov, 1, -1), EINVAL);
    CHECK_ERR(syscall(SYS_preadv2, file, &iov, 1, 0, 0, 1 << 30), EOPNOTSUPP);
    CHECK_ERR(lseek(99, 0, 99), EBADF);
    CHECK_ERR(lseek(file, 0, 99), EINVAL);
    CHECK_ERR(lseek(file, -1, SEEK_SET), EINVAL);
    CHECK_ERR(lseek(pipe_in, 0, SEEK_SET), ESPIPE);
}

static void positions(void)
{
    char buf[16] = {0};
    struct stat st;
    int fd = open("f", O_CREAT | O_RDWR | O_TRUNC, 0644), other;
    CHECK(write(fd, "0123456789", 10) == 10);
    CHECK(lseek(fd, 0, SEEK_CUR) == 10);
    CHECK(read(fd, buf, 4) == 0);
    CHECK(lseek(fd, -3, SEEK_END) == 7);
    CHECK(read(fd, buf, 16) == 3 && memcmp(buf, "789", 3) == 0);
    CHECK(pread(fd, buf, 4, 2) == 4 && memcmp(buf, "2345", 4) == 0);
    CHECK(pwrite(fd, "AB", 2, 0) == 2);
    CHECK(lseek(fd, 0, SEEK_CUR) == 10);
    CHECK((other = dup(fd)) >= 0);
    CHECK(lseek(other, 1, SEEK_SET) == 1);
    CHECK(lseek(fd, 0, SEEK_CUR) == 1);
    close(other);
    CHECK(lseek(fd, 100000, SEEK_SET) == 100000);
    CHECK(read(fd, buf, 4) == 0);
    CHECK(write(fd, "x", 1) == 1);
    CHECK(fstat(fd, &st) == 0 && st.st_size == 100001 && st.st_blocks * 512 < 100001);
    CHECK(lseek(fd, 20000, SEEK_DATA) >= 90000);
    CHECK_ERR(lseek(fd, 100001, SEEK_DATA), ENXIO);
    CHECK_ERR(lseek(fd, 200000, SEEK_HOLE), ENXIO);
    CHECK(lseek(fd, 100000, SEEK_HOLE) == 100001);
    CHECK(pread(fd, buf, 4, 50000) == 4 && memcmp(buf, "\0\0\0\0", 4) == 0);
    CHECK(ftruncate(fd, 5) == 0);
    CHECK(lseek(fd, 0, SEEK_END) == 5);
    CHECK(ftruncate(fd, 8) == 0);
    CHECK(pread(fd, buf, 8, 0) == 8 && memcmp(buf, "AB234\0\0\0", 8) == 0);
    CHECK_ERR(ftruncate(fd, -1), EINVAL);
    close(fd);
    fd = open("f", O_WRONLY | O_APPEND);
    CHECK(write(fd, "end", 3) == 3 && lseek(fd, 0, SEEK_CUR) == 11);
    CHECK(pwrite(fd, "!", 1, 0) == 1);
    CHECK(lseek(fd, 0, SEEK_END) == 12);
    CHECK(fcntl(fd, F_SETFL, 0) == 0);
    CHECK(pwrite(fd, "!", 1, 0) == 1);
    CHECK(lseek(fd, 0, SEEK_END) == 12);
    close(fd);
}

static void vectors(void)
{
    char a[3], b[5] = {0};
    struct iovec out[2] = {{"abc", 3}, {"defgh", 5}}, in[3] = {{a, 3}, {0, 0}, {b, 5}};
    int fd = open("v", O_CREAT | O_RDWR | O_TRUNC, 0644);
    CHECK(writev(fd, out, 2) == 8);
    CHECK(preadv(fd, in, 3, 1) == 7);
    CHECK(memcmp(a, "bcd", 3) == 0 && memcmp(b, "efgh", 4) == 0);
    CHECK(syscall(SYS_pwritev2, fd, out, 1, -1L, -1L, RWF_APPEND) == 3);
    CHECK(lseek(fd, 0, SEEK_CUR) == 11);
    CHECK(syscall(SYS_preadv2, fd, in, 1, 0, 0, RWF_NOWAIT) == 3);
    /* a bad part after a good one: what could be done counts */
    struct iovec half[2] = {{a, 3}, {BAD, 5}};
    CHECK(preadv(fd, half, 2, 0) == 3);
    close(fd);
}

static void limits(void)
{
    char buf[100] = {0};
    struct rlimit old, small = {50, RLIM_INFINITY};
    int fd = open("l", O_CREAT | O_RDWR | O_TRUNC, 0644);
    signal(SIGXFSZ, on_signal);
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    CHECK(write(fd, buf, 100) == 50);
    CHECK(got_signal == 0);
    CHECK_ERR(write(fd, buf, 1), EFBIG);
    CHECK(got_signal == SIGXFSZ);
    got_signal = 0;
    CHECK_ERR(ftruncate(fd, 51), EFBIG);
    CHECK(got_signal == SIGXFSZ);
    CHECK(ftruncate(fd, 10) == 0);
    setrlimit(RLIMIT_FSIZE, &old);
    close(fd);
}

static void space(void)
{
    struct stat st;
    int fd = open("s", O_CREAT | O_RDWR | O_TRUNC, 0644), ro = open("s", O_RDONLY);
    CHECK_ERR(fallocate(99, -1, -1, 0), EBADF);
    CHECK_ERR(fallocate(fd, -1, -1, 0), EINVAL);
    CHECK_ERR(fallocate(fd, 1 << 20, 0, 1), EOPNOTSUPP);
    CHECK_ERR(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 1), EOPNOTSUPP);
    CHECK_ERR(fallocate(ro, 0, 0, 1), EBADF);
    CHECK(fallocate(fd, 0, 0, 20000) == 0);
    CHECK(fstat(fd, &st) == 0 && st.st_size == 20000 && st.st_blocks >= 40);
    CHECK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 30000) == 0);
    CHECK(fstat(fd, &st) == 0 && st.st_size == 20000);
    CHECK(pwrite(fd, "x", 1, 5000) == 1);
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096) == 0);
    char c = 1;
    CHECK(pread(fd, &c, 1, 5000) == 1 && c == 0);
    CHECK_ERR(fsync(99), EBADF);
    CHECK(fsync(fd) == 0 && fdatasync(fd) == 0 && syncfs(fd) == 0);
    CHECK(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL) == 0);
    CHECK(posix_fadvise(fd, 0, 0, 99) == EINVAL);
    CHECK_ERR(readahead(99, 0, 0), EBADF);
    CHECK_ERR(truncate("s", -1), EINVAL);
    CHECK_ERR(truncate(".", 0), EISDIR);
    CHECK_ERR(truncate("none", 0), ENOENT);
    CHECK_ERR(ftruncate(ro, 0), EINVAL);
    CHECK(truncate("s", 3) == 0);
    CHECK(fstat(fd, &st) == 0 && st.st_size == 3);
}

/* What looks at the buffer last does not mind a bad one; a vector of nothing asks the file nothing. */
static void untouched(int file)
{
    struct iovec none = {NULL, 0}, bad = {BAD, 8};
    int null = open("/dev/null", O_RDWR), full = open("/dev/full", O_RDWR);
    int random = open("/dev/urandom", O_RDWR), comm = open("/proc/self/comm", O_RDWR);
    int dir = open(".", O_RDONLY), ends[2];

    CHECK(lseek(file, 0, SEEK_END) >= 0 && read(file, BAD, 8) == 0);
    CHECK(read(null, BAD, 8) == 0 && write(null, BAD, 8) == 8 && writev(null, &bad, 1) == 8);
    CHECK_ERR(write(full, BAD, 8), ENOSPC);
    CHECK_ERR(write(random, BAD, 8), EFAULT);
    CHECK(writev(full, &none, 1) == 0 && readv(dir, &none, 1) == 0);
    CHECK(lseek(null, 5, SEEK_HOLE) == 0 && lseek(full, -1, SEEK_END) == 0);
    CHECK_ERR(pwrite(comm, "x", 1, 0), ESPIPE);
    CHECK_ERR(sendfile(full, comm, NULL, 1), EINVAL);
    CHECK_ERR(sendfile(full, null, NULL, 1), EINVAL);
    CHECK(sendfile(full, null, NULL, 0) == 0);
    CHECK(pipe2(ends, O_NONBLOCK) == 0);
    CHECK_ERR(read(ends[0], BAD, 1), EAGAIN);
    CHECK(write(ends[1], "abc", 3) == 3);
    CHECK_ERR(read(ends[0], BAD, 1), EFAULT);
    CHECK_ERR(write(ends[1], BAD, 1), EFAULT);
    char got[4];
    CHECK(read(ends[0], got, 4) == 3 && memcmp(got, "abc", 3) == 0);
    CHECK_ERR(splice(ends[0], NULL, null, NULL, 1, 0), EAGAIN);
}

int main(void)
{
    int ends[2], file = open("w", O_CREAT | O_RDWR | O_TRUNC, 0644);
    CHECK(pipe(ends) == 0);
    wrong(file, ends[0]);
    untouched(file);
    positions();
    vectors();
    limits();
    space();
    return 0;
}
