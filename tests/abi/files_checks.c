/* Which check of a call on files comes first, and what calls on special files answer. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "abi.h"

static char *edge; /* the last byte before a hole */

static void xattr_names(void)
{
    int file = open("x", O_CREAT | O_RDWR, 0644), ends[2];
    CHECK(file >= 0);
    CHECK(pipe(ends) == 0);
    CHECK_ERR(fgetxattr(file, "user", NULL, 0), EOPNOTSUPP);
    CHECK_ERR(fsetxattr(file, "nosuch.a", "", 0, 0), EOPNOTSUPP);
    CHECK_ERR(fsetxattr(file, "user.", "", 0, 0), EINVAL);
    CHECK_ERR(fsetxattr(ends[0], "user.", "", 0, 0), EPERM);
    CHECK_ERR(fgetxattr(ends[0], "user.", NULL, 0), ENODATA);
    CHECK_ERR(fremovexattr(ends[0], "user"), EOPNOTSUPP);
    close(file);
    close(ends[0]);
    close(ends[1]);
}

static void ioctls(void)
{
    int file = open("x", O_RDWR), ends[2], value = 0, epoll = epoll_create1(0);
    CHECK(pipe(ends) == 0);
    CHECK_ERR(ioctl(epoll, 0x5499, 0), EINVAL);
    CHECK(ioctl(ends[0], FIGETBSZ, &value) == 0 && value == 4096);
    CHECK_ERR(ioctl(ends[1], FIGETBSZ, 1), EFAULT);
    close(file);
    close(epoll);
    close(ends[0]);
    close(ends[1]);
}

static void vectors(void)
{
    int file = open("x", O_RDWR), directory = open(".", O_RDONLY);
    struct iovec nothing = {edge, 0}, one = {"a", 1};
    CHECK(syscall(SYS_writev, file, &one, 0x100000001) == 1);
    CHECK_ERR(syscall(SYS_writev, file, &one, 0x100000401), EINVAL);
    CHECK(syscall(SYS_readv, file, &nothing, 0x100000001) == 0);
    close(file);
    close(directory);
}

static void unreadable_memory(void)
{
    int ends[2], pair[2], file = open("y", O_CREAT | O_RDWR, 0644);
    CHECK(pipe(ends) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK_ERR(write(ends[1], edge, 8), EFAULT);
    CHECK_ERR(write(pair[0], edge, 8), EFAULT);
    CHECK(write(ends[1], edge - 4095, 8192) == 4096);
    CHECK(write(file, edge, 8) == 1);
    for (int i = 0; i < 2; i++) {
        close(ends[i]);
        close(pair[i]);
    }
    close(file);
}

static void attributes_of_anonymous_inodes(void)
{
    int event = eventfd(0, 0);
    CHECK_ERR(fchown(event, 0, 0), EOPNOTSUPP);
    CHECK_ERR(fchmod(event, 0600), EOPNOTSUPP);
    close(event);
}

static void offsets_of_mappings(void)
{
    off_t last = 0x7ffffffffffff000;
    int file = open("x", O_RDWR);
    void *at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, last);
    CHECK(at != MAP_FAILED);
    munmap(at, 4096);
    CHECK_ERR((long)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, last), EOVERFLOW);
    close(file);
}

static void orders(void)
{
    int directory = open(".", O_RDONLY), ends[2];
    CHECK_ERR(syscall(SYS_getdents64, directory, edge, -1), EINVAL);
    CHECK_ERR(mount("none", ".", "tmpfs", 0x80000000, NULL), EINVAL);
    CHECK_ERR(pipe2(ends, O_EXCL), ENOPKG);
    int file = open("x", O_RDWR);
    CHECK_ERR(fallocate(file, FALLOC_FL_INSERT_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4096), EOPNOTSUPP);
    close(file);
    close(directory);
}

/* Requests that every file system knows, also without being able to do them. */
static void requests_of_file_systems(void)
{
    int file = open("x", O_RDWR | O_TRUNC), directory = open(".", O_RDONLY);
    int other = memfd_create("m", 0), ends[2];
    long size = -1;
    struct {
        struct file_dedupe_range range;
        char rest[4096];
    } dedupe = {{0, 0, 1}};

    CHECK(pipe(ends) == 0);
    CHECK_ERR(ioctl(file, FITHAW, 0), EINVAL);
    CHECK_ERR(ioctl(ends[0], FIFREEZE, 0), EOPNOTSUPP);
    CHECK_ERR(ioctl(file, FICLONE, 99), EBADF);
    CHECK_ERR(ioctl(file, FICLONE, other), EXDEV);
    CHECK_ERR(ioctl(file, FICLONE, directory), EISDIR);
    CHECK_ERR(ioctl(other, FIDEDUPERANGE, 1), EFAULT);
    CHECK_ERR(ioctl(other, FIDEDUPERANGE, &dedupe), EOPNOTSUPP);
    dedupe.range.dest_count = 200;
    CHECK_ERR(ioctl(other, FIDEDUPERANGE, &dedupe), ENOMEM);
    CHECK(ioctl(directory, FIOQSIZE, &size) == 0 && size >= 0);
    CHECK_ERR(ioctl(ends[0], FIOQSIZE, &size), ENOTTY);
    close(file);
    close(directory);
    close(other);
    close(ends[0]);
    close(ends[1]);
}

static void status_flags(void)
{
    int file = open("x", O_RDWR), directory = open(".", O_RDONLY), ends[2], path;
    int temporary = open(".", O_TMPFILE | O_RDWR, 0600);
    unsigned uids[2] = {77, 77};

    CHECK(pipe(ends) == 0);
    CHECK(fcntl(file, F_SETFL, O_DIRECT) == 0 && fcntl(ends[1], F_SETFL, O_DIRECT) == 0);
    CHECK_ERR(fcntl(directory, F_SETFL, O_DIRECT), EINVAL);
    CHECK_ERR(open("/dev/null", O_RDONLY | O_DIRECT), EINVAL);
    CHECK((fcntl(temporary, F_GETFL) & O_TMPFILE) == O_TMPFILE);
    CHECK((path = open("x", O_PATH)) >= 0);
    CHECK(syscall(SYS_fcntl, path, 1028 /* F_CREATED_QUERY */, 0) == 0 || errno == EINVAL);
    CHECK_ERR(fcntl(path, F_GETOWN), EBADF);
    CHECK(fcntl(ends[0], 17 /* F_GETOWNER_UIDS */, uids) == 0 && uids[0] == 0 && uids[1] == 0);
    CHECK_ERR(fsync(open("/proc/self/comm", O_RDWR)), EINVAL);
    CHECK_ERR(fallocate(open("/proc/self/comm", O_RDWR), 0, 0, 1), EOPNOTSUPP);
    CHECK(lseek(ends[0], 0, SEEK_END) == -1 && errno == ESPIPE);
    CHECK(mmap(NULL, 4096, PROT_EXEC, MAP_PRIVATE, ends[0], 0) == MAP_FAILED && errno == EPERM);
    close(file);
    close(directory);
    close(temporary);
    close(path);
    close(ends[0]);
    close(ends[1]);
}

/* Sockets have the name of their protocol as an attribute. */
static void protocol_names(void)
{
    static const struct {
        int family, kind;
        const char *name;
    } kinds[] = {{AF_UNIX, SOCK_STREAM, "UNIX-STREAM"}, {AF_UNIX, SOCK_SEQPACKET, "UNIX"},
                 {AF_INET, SOCK_STREAM, "TCP"},         {AF_INET, SOCK_DGRAM, "UDP"},
                 {AF_INET6, SOCK_STREAM, "TCPv6"},      {AF_NETLINK, SOCK_RAW, "NETLINK"}};
    char text[32];

    for (int i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        int fd = socket(kinds[i].family, kinds[i].kind, 0);
        int size = strlen(kinds[i].name) + 1;
        CHECK(fgetxattr(fd, "system.sockprotoname", text, sizeof(text)) == size);
        CHECK(strcmp(text, kinds[i].name) == 0);
        CHECK(flistxattr(fd, text, sizeof(text)) == 21);
        CHECK_ERR(flistxattr(fd, text, 3), ERANGE);
        close(fd);
    }
    CHECK_ERR(fgetxattr(open("x", O_RDWR), "system.sockprotoname", NULL, 0), EOPNOTSUPP);
}

int main(void)
{
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED && munmap(pages + 4096, 4096) == 0);
    edge = pages + 4095;
    memset(pages, 'a', 4096);
    xattr_names();
    ioctls();
    vectors();
    unreadable_memory();
    attributes_of_anonymous_inodes();
    offsets_of_mappings();
    orders();
    requests_of_file_systems();
    status_flags();
    protocol_names();
    return 0;
}
