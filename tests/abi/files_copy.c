/* sendfile, splice, tee, vmsplice, copy_file_range, memfd with seals, inotify. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <signal.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define BAD ((void *)8)

static int make(const char *path, const char *text)
{
    int fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0644);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

static void copies(void)
{
    char buf[64];
    int a = make("a", "0123456789"), b = make("b", ""), ends[2], more[2];
    off_t off = 2;
    CHECK(pipe(ends) == 0 && pipe(more) == 0);
    CHECK_ERR(sendfile(99, 99, BAD, 1), EFAULT);
    CHECK_ERR(sendfile(99, 98, &off, 1), EBADF);
    CHECK_ERR(sendfile(99, ends[0], &off, 1), ESPIPE);
    CHECK(sendfile(b, a, &off, 4) == 4 && off == 6);
    CHECK(lseek(a, 0, SEEK_CUR) == 0 && lseek(b, 0, SEEK_CUR) == 4);
    CHECK(pread(b, buf, 10, 0) == 4 && memcmp(buf, "2345", 4) == 0);
    CHECK(sendfile(ends[1], a, 0, 100) == 10 && lseek(a, 0, SEEK_CUR) == 10);
    CHECK(sendfile(ends[1], a, 0, 100) == 0);
    CHECK(read(ends[0], buf, 64) == 10);

    CHECK_ERR(syscall(SYS_splice, 99, BAD, 99, BAD, 1L, 64), EINVAL);
    CHECK_ERR(syscall(SYS_splice, 99, BAD, 99, BAD, 1L, 0), EBADF);
    CHECK_ERR(splice(ends[0], &off, b, 0, 1, 0), ESPIPE);
    CHECK_ERR(splice(a, 0, b, 0, 1, 0), EINVAL);
    CHECK_ERR(splice(ends[0], 0, ends[1], 0, 1, 0), EINVAL);
    CHECK_ERR(splice(ends[0], 0, b, 0, 1, SPLICE_F_NONBLOCK), EAGAIN);
    off = 7;
    CHECK(splice(a, &off, ends[1], 0, 10, 0) == 3 && off == 10);
    CHECK(tee(ends[0], more[1], 2, 0) == 2);
    CHECK(read(more[0], buf, 10) == 2 && memcmp(buf, "78", 2) == 0);
    CHECK(splice(ends[0], 0, more[1], 0, 100, 0) == 3);
    off = 0;
    CHECK(splice(more[0], 0, b, &off, 100, 0) == 3 && off == 3);
    CHECK(pread(b, buf, 10, 0) == 4 && memcmp(buf, "7895", 4) == 0);
    struct iovec iov = {"hello", 5};
    CHECK(vmsplice(ends[1], &iov, 1, 0) == 5 && read(ends[0], buf, 64) == 5);

    loff_t in = 0, out = 3;
    CHECK_ERR(copy_file_range(99, BAD, 98, BAD, 1, 1), EBADF);
    CHECK_ERR(copy_file_range(a, &in, b, &out, 1, 1), EINVAL);
    CHECK_ERR(copy_file_range(ends[0], 0, b, 0, 1, 0), EINVAL);
    CHECK(copy_file_range(a, &in, b, &out, 100, 0) == 10 && in == 10 && out == 13);
    CHECK(copy_file_range(a, &in, b, &out, 100, 0) == 0);
    in = 0, out = 5;
    CHECK_ERR(copy_file_range(a, &in, a, &out, 6, 0), EINVAL);
    CHECK(copy_file_range(a, &in, a, &out, 5, 0) == 5);
    CHECK(pread(a, buf, 10, 0) == 10 && memcmp(buf, "0123401234", 10) == 0);
    int app = open("b", O_WRONLY | O_APPEND);
    CHECK_ERR(copy_file_range(a, 0, app, 0, 1, 0), EBADF);
}

static void memfds(void)
{
    struct stat st;
    char buf[80], link[40];
    CHECK_ERR(syscall(SYS_memfd_create, BAD, 1 << 20), EINVAL);
    CHECK_ERR(syscall(SYS_memfd_create, BAD, 0), EFAULT);
    CHECK_ERR(memfd_create("huge", MFD_HUGETLB | 17u << 26), ENODEV);
    int plain = memfd_create("plain", MFD_CLOEXEC), fd = memfd_create("seals", MFD_ALLOW_SEALING);
    CHECK(fcntl(plain, F_GETFD) == FD_CLOEXEC && fcntl(plain, F_GETFL) == (O_RDWR | 0100000));
    CHECK(fcntl(plain, F_GET_SEALS) == F_SEAL_SEAL);
    CHECK_ERR(fcntl(plain, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, buf, sizeof buf);
    CHECK(n > 0 && memcmp(buf, "/memfd:seals (deleted)", n) == 0);
    CHECK(ftruncate(fd, 8192) == 0 && write(fd, "data", 4) == 4);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    CHECK_ERR(ftruncate(fd, 100), EPERM);
    CHECK_ERR(ftruncate(fd, 10000), EPERM);
    CHECK_ERR(pwrite(fd, "x", 1, 8192), EPERM);
    char *p = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED && memcmp(p, "data", 4) == 0);
    p[5000] = 'q';
    CHECK(pread(fd, buf, 1, 5000) == 1 && buf[0] == 'q');
    CHECK_ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    CHECK(munmap(p, 8192) == 0);
    p = mmap(0, 8192, PROT_READ, MAP_SHARED, fd, 0); /* mprotect could make it writable */
    CHECK_ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    CHECK(munmap(p, 8192) == 0);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
    CHECK_ERR(pwrite(fd, "x", 1, 0), EPERM);
    CHECK(mmap(0, 4096, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EPERM);
    CHECK(mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL) == 0);
    CHECK_ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), EPERM);
    CHECK(fstat(fd, &st) == 0 && st.st_size == 8192 && S_ISREG(st.st_mode));
    int grown = memfd_create("grown", MFD_ALLOW_SEALING);
    char room[8000] = {0};
    CHECK(ftruncate(grown, 6000) == 0);
    p = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, grown, 0);
    CHECK_ERR(fcntl(grown, F_ADD_SEALS, 0x20 /* F_SEAL_EXEC: and no write, as it can be executed */),
              EBUSY);
    CHECK(fcntl(grown, F_ADD_SEALS, F_SEAL_GROW | 0x10 /* F_SEAL_FUTURE_WRITE */) == 0);
    CHECK_ERR(madvise(p, 4096, MADV_REMOVE), EPERM);
    munmap(p, 8192);
    close(grown);
    grown = memfd_create("grown", MFD_ALLOW_SEALING);
    CHECK(ftruncate(grown, 6000) == 0 && fcntl(grown, F_ADD_SEALS, F_SEAL_GROW) == 0);
    CHECK(pwrite(grown, room, 8000, 1000) == 4096 - 1000); /* whole pages only */
    CHECK_ERR(pwrite(grown, room, 8000, 5000), EPERM);
    CHECK(pwrite(grown, room, 1000, 5000) == 1000);
    CHECK_ERR(fallocate(grown, 1 /* FALLOC_FL_KEEP_SIZE */, 0, 10000), EPERM);
    close(grown);
    int program = memfd_create("program", MFD_ALLOW_SEALING);
    CHECK(fchmod(program, 0700) == 0);
    CHECK(fcntl(program, F_ADD_SEALS, 0x20 /* F_SEAL_EXEC */) == 0);
    CHECK_ERR(fchmod(program, 0600), EPERM);
    CHECK_ERR(fchmod(program, 0710), EPERM);
    CHECK(fchmod(program, 0744) == 0);
    CHECK_ERR(ftruncate(program, 1), EPERM);
}

/* A sealed size is kept page by page; a mapping that could become writable counts. */
static void sealed(void)
{
    static char buf[20000];
    char link[40];
    int fd = memfd_create("size", MFD_ALLOW_SEALING);
    CHECK(ftruncate(fd, 10000) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_GROW) == 0);
    CHECK(pwrite(fd, buf, 10000, 0) == 10000);
    CHECK(pwrite(fd, buf, sizeof buf, 0) == 8192);
    CHECK(pwrite(fd, buf, 3000, 8000) == 192);
    CHECK_ERR(pwrite(fd, buf, 3000, 8200), EPERM);
    CHECK_ERR(pwrite(fd, buf, 10, 9995), EPERM);
    char *p = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
    CHECK_ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    CHECK(munmap(p, 4096) == 0);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int reader = open(link, O_RDONLY);
    p = mmap(0, 4096, PROT_READ, MAP_SHARED, reader, 0);
    CHECK(p != MAP_FAILED && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
    CHECK_ERR(mprotect(p, 4096, PROT_READ | PROT_WRITE), EACCES);
    CHECK(munmap(p, 4096) == 0 && close(reader) == 0 && close(fd) == 0);
}

static void beyond(void)
{
    loff_t far = 0x7fffffffffffffff - 5;
    int ends[2], fd = open("far", O_RDWR | O_CREAT, 0600);
    CHECK(pipe(ends) == 0 && write(ends[1], "bytes", 5) == 5);
    CHECK_ERR(splice(ends[0], 0, fd, &far, 10, 0), EINVAL);
    CHECK_ERR(splice(ends[0], 0, fd, 0, -1, 0), EINVAL);
    CHECK_ERR(splice(fd, &far, ends[1], 0, 10, 0), EINVAL);
    CHECK_ERR(splice(fd, 0, ends[1], 0, -1, 0), EINVAL);
    CHECK_ERR(sendfile(ends[1], fd, &far, 10), EINVAL);
    CHECK_ERR(sendfile(ends[1], fd, 0, -1), EINVAL);
    CHECK(close(ends[0]) == 0 && close(ends[1]) == 0 && close(fd) == 0 && unlink("far") == 0);
    int zero = open("/dev/zero", O_RDWR), full = open("/dev/full", O_WRONLY);
    CHECK_ERR(sendfile(full, zero, 0, 1), EINVAL);
    CHECK(pipe(ends) == 0 && close(ends[0]) == 0 && signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    CHECK_ERR(sendfile(ends[1], zero, 0, 1), EPIPE);
    CHECK(sendfile(zero, zero, 0, 5) == 5);
}

static char events[4096];
static int fd_in;

static void expect(int count, ...)
{
    __builtin_va_list args;
    __builtin_va_start(args, count);
    ssize_t n = read(fd_in, events, sizeof events);
    char *at = events;
    for (int i = 0; i < count; i++) {
        unsigned mask = __builtin_va_arg(args, unsigned);
        const char *name = __builtin_va_arg(args, const char *);
        struct inotify_event *e = (void *)at;
        CHECK(at < events + n);
        if (e->mask != mask || strcmp(e->len ? e->name : "", name)) {
            fprintf(stderr, "event %d: %x %s, not %x %s\n", i, e->mask, e->len ? e->name : "", mask,
                    name);
            exit(1);
        }
        at += sizeof *e + e->len;
    }
    CHECK(at == events + n);
    __builtin_va_end(args);
}

static void watches(void)
{
    int n, fd;
    CHECK_ERR(inotify_init1(1), EINVAL);
    CHECK_ERR(inotify_add_watch(99, BAD, 0), EINVAL);
    CHECK_ERR(inotify_add_watch(99, BAD, IN_OPEN), EBADF);
    fd_in = inotify_init1(IN_NONBLOCK);
    CHECK_ERR(inotify_add_watch(fd_in, BAD, IN_OPEN), EFAULT);
    CHECK_ERR(inotify_rm_watch(fd_in, 77), EINVAL);
    CHECK(mkdir("w", 0755) == 0);
    int wd = inotify_add_watch(fd_in, "w", IN_ALL_EVENTS);
    CHECK(wd == 1);
    CHECK_ERR(read(fd_in, events, 100), EAGAIN);
    fd = open("w/f", O_CREAT | O_RDWR, 0644);
    expect(2, IN_CREATE, "f", IN_OPEN, "f");
    CHECK(write(fd, "x", 1) == 1 && write(fd, "y", 1) == 1 && pread(fd, events, 1, 0) == 1);
    expect(2, IN_MODIFY, "f", IN_ACCESS, "f");
    CHECK(fchmod(fd, 0600) == 0);
    close(fd);
    expect(2, IN_ATTRIB, "f", IN_CLOSE_WRITE, "f");
    CHECK(rename("w/f", "w/g") == 0);
    expect(2, IN_MOVED_FROM, "f", IN_MOVED_TO, "g");
    struct inotify_event *e = (void *)events;
    CHECK(e->cookie != 0 && ((struct inotify_event *)(events + 32))->cookie == e->cookie);
    CHECK(mkdir("w/d", 0755) == 0 && rmdir("w/d") == 0 && unlink("w/g") == 0);
    expect(3, IN_CREATE | IN_ISDIR, "d", IN_DELETE | IN_ISDIR, "d", IN_DELETE, "g");
    CHECK(ioctl(fd_in, FIONREAD, &n) == 0 && n == 0);
    CHECK(rmdir("w") == 0);
    expect(2, IN_DELETE_SELF, "", IN_IGNORED, "");
    fd = make("one", "");
    close(fd);
    wd = inotify_add_watch(fd_in, "one", IN_OPEN | IN_ONESHOT);
    CHECK(wd == 2);
    close(open("one", O_RDONLY));
    expect(2, IN_OPEN, "", IN_IGNORED, "");
    wd = inotify_add_watch(fd_in, "one", IN_OPEN);
    CHECK(inotify_add_watch(fd_in, "one", IN_CLOSE | IN_MASK_ADD) == wd);
    CHECK_ERR(inotify_add_watch(fd_in, "one", IN_OPEN | IN_MASK_CREATE), EEXIST);
    CHECK_ERR(inotify_add_watch(fd_in, "one", IN_OPEN | IN_ONLYDIR), ENOTDIR);
    close(open("one", O_RDONLY));
    struct pollfd p = {fd_in, POLLIN};
    CHECK(poll(&p, 1, 0) == 1);
    CHECK_ERR(read(fd_in, events, 8), EINVAL);
    expect(2, IN_OPEN, "", IN_CLOSE_NOWRITE, "");
    CHECK(inotify_rm_watch(fd_in, wd) == 0);
    expect(1, IN_IGNORED, "");
}

/* A removed file hears of it before its directory does; a directory is told as one of its unmount. */
static void last_events(void)
{
    fd_in = inotify_init1(IN_NONBLOCK);
    CHECK(mkdir("u", 0755) == 0);
    close(make("u/f", ""));
    CHECK(inotify_add_watch(fd_in, "u", IN_DELETE) == 1);
    CHECK(inotify_add_watch(fd_in, "u/f", IN_ATTRIB | IN_DELETE_SELF) == 2);
    CHECK(unlink("u/f") == 0);
    expect(4, IN_ATTRIB, "", IN_DELETE_SELF, "", IN_IGNORED, "", IN_DELETE, "f");
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return;
    CHECK(mount(NULL, "u", "tmpfs", 0, NULL) == 0);
    CHECK(inotify_add_watch(fd_in, "u", IN_CREATE) == 3);
    CHECK(umount("u") == 0);
    expect(2, IN_UNMOUNT | IN_ISDIR, "", IN_IGNORED, "");
}

/* Within one file: a descriptor that is both sides has one position, which both begin at; what is put
 * at the end is read again. */
static void within_one_file(void)
{
    enum { SIZE = 5000, MANY = 300000 };
    static char data[MANY + SIZE], found[MANY + SIZE];
    struct stat now;
    off_t at;
    int fd = open("within", O_CREAT | O_RDWR, 0600), other = open("within", O_RDWR);
    for (int i = 0; i < SIZE; i++)
        data[i] = i % 251;
    CHECK(write(fd, data, SIZE) == SIZE && lseek(fd, 0, SEEK_SET) == 0);
    CHECK(sendfile(fd, fd, NULL, SIZE) == SIZE && lseek(fd, 0, SEEK_CUR) == SIZE);
    CHECK(lseek(fd, 1000, SEEK_SET) == 1000 && sendfile(fd, fd, NULL, MANY) == SIZE - 1000);
    CHECK(lseek(fd, 0, SEEK_CUR) == SIZE && fstat(fd, &now) == 0 && now.st_size == SIZE);
    CHECK(pread(fd, found, sizeof found, 0) == SIZE && !memcmp(found, data, SIZE));
    CHECK(sendfile(fd, fd, NULL, 10) == 0);

    int lags[] = {1, 3, 100, SIZE};
    for (int i = 0; i < 4; i++) {
        int lag = lags[i], start = SIZE - lag;
        CHECK(ftruncate(fd, SIZE) == 0 && lseek(fd, 0, SEEK_END) == SIZE);
        for (int k = SIZE; k < SIZE + MANY; k++)
            data[k] = data[k - lag];
        if (i % 2) {
            CHECK(lseek(other, start, SEEK_SET) == start && sendfile(fd, other, NULL, MANY) == MANY);
            CHECK(lseek(other, 0, SEEK_CUR) == start + MANY);
        } else {
            at = start;
            CHECK(sendfile(fd, fd, &at, MANY) == MANY && at == start + MANY);
        }
        CHECK(lseek(fd, 0, SEEK_CUR) == SIZE + MANY && fstat(fd, &now) == 0 && now.st_size == SIZE + MANY);
        CHECK(pread(fd, found, sizeof found, 0) == SIZE + MANY && !memcmp(found, data, SIZE + MANY));
    }
    CHECK(close(fd) == 0 && close(other) == 0 && unlink("within") == 0);
}

int main(void)
{
    copies();
    memfds();
    sealed();
    beyond();
    watches();
    last_events();
    within_one_file();
    return 0;
}
