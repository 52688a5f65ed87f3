/* memfd_secret(2): what can be done with its file, which is little. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

int main(void)
{
    char link[40], byte = 0, id[17];
    int flags, ends[2], fd = syscall(SYS_memfd_secret, 0);
    struct iovec iov = {&byte, 1};
    struct stat st;
    struct statfs room;
    if (fd < 0 && (errno == ENOSYS || errno == ENFILE))
        return 0; /* turned off */
    CHECK_ERR(syscall(SYS_memfd_secret, 1), EINVAL);
    CHECK(fcntl(fd, F_GETFL) == (O_RDWR | 0100000));
    CHECK(fstat(fd, &st) == 0 && st.st_mode == (S_IFREG | 0600) && st.st_nlink == 1);
    CHECK(fstatfs(fd, &room) == 0 && room.f_type == 0x5345434d);
    CHECK_ERR(read(fd, &byte, 1), EINVAL);
    CHECK_ERR(write(fd, &byte, 1), EINVAL);
    CHECK_ERR(readv(fd, &iov, 0), EINVAL);
    CHECK_ERR(writev(fd, &iov, 1), EINVAL);
    CHECK_ERR(pread(fd, &byte, 1, 0), ESPIPE);
    CHECK_ERR(pwrite(fd, &byte, 1, 0), ESPIPE);
    CHECK_ERR(lseek(fd, 0, SEEK_SET), ESPIPE);
    CHECK_ERR(fallocate(fd, 0, 0, 4096), EOPNOTSUPP);
    CHECK_ERR(fcntl(fd, F_GET_SEALS), EINVAL);
    CHECK_ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EINVAL);
    CHECK_ERR(fcntl(fd, F_SETFL, O_DIRECT), EINVAL);
    CHECK_ERR(ioctl(fd, FS_IOC_GETFLAGS, &flags), ENOTTY);
    CHECK_ERR(ioctl(fd, 0x80111500 /* FS_IOC_GETFSUUID */, id), ENOTTY);
    CHECK(pipe(ends) == 0 && write(ends[1], "x", 1) == 1);
    CHECK_ERR(splice(ends[0], 0, fd, 0, 1, 0), EINVAL);
    CHECK_ERR(splice(fd, 0, ends[1], 0, 1, 0), EINVAL);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    CHECK_ERR(open(link, O_RDONLY), ENXIO);
    CHECK(ftruncate(fd, 8192) == 0);
    CHECK_ERR(ftruncate(fd, 4096), EINVAL);
    CHECK(mmap(0, 8192, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED && errno == EINVAL);
    char *p = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED && p[5000] == 0);
    p[5000] = 'x';
    CHECK(p[5000] == 'x' && munmap(p, 8192) == 0);
    CHECK(close(fd) == 0);
    return 0;
}
