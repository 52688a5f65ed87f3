/* quotactl(2), quotactl_fd(2) where there are no quotas. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/quota.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef SYS_quotactl_fd
#define SYS_quotactl_fd 443
#endif

#define BAD ((void *)8)
#define ON_FD(fd, cmd, kind) syscall(SYS_quotactl_fd, fd, QCMD(cmd, kind), 0, BAD)

int main(void)
{
    int format, writable, readable;
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    CHECK(mkdir("t", 0755) == 0 && mount("none", "t", "tmpfs", 0, 0) == 0);
    CHECK(mkdir("t/ro", 0755) == 0 && mount("none", "t/ro", "tmpfs", MS_RDONLY, 0) == 0);
    CHECK(mkdir("t/nodev", 0755) == 0 && mount("none", "t/nodev", "tmpfs", MS_NODEV, 0) == 0);
    CHECK((writable = open("t", O_RDONLY)) >= 0 && (readable = open("t/ro", O_PATH)) >= 0);

    CHECK(quotactl(QCMD(Q_SYNC, USRQUOTA), 0, 0, 0) == 0);
    CHECK(quotactl(QCMD(Q_SYNC, GRPQUOTA), 0, 7, BAD) == 0);
    CHECK_ERR(quotactl(QCMD(Q_SYNC, 3), 0, 0, 0), EINVAL);
    CHECK_ERR(quotactl(QCMD(Q_GETFMT, USRQUOTA), 0, 0, (void *)&format), ENODEV);
    CHECK_ERR(quotactl(QCMD(Q_GETFMT, 9), BAD, 0, BAD), EINVAL);
    CHECK_ERR(quotactl(QCMD(Q_GETFMT, USRQUOTA), BAD, 0, BAD), EFAULT);
    CHECK_ERR(quotactl(QCMD(Q_GETFMT, USRQUOTA), "", 0, BAD), ENOENT);
    CHECK_ERR(quotactl(QCMD(Q_GETFMT, USRQUOTA), "t/none", 0, BAD), ENOENT);
    CHECK_ERR(quotactl(QCMD(Q_GETFMT, USRQUOTA), "t", 0, BAD), ENOTBLK);
    CHECK_ERR(quotactl(QCMD(Q_SYNC, USRQUOTA), "/dev/null", 0, BAD), ENOTBLK);
    CHECK_ERR(quotactl(QCMD(Q_QUOTAON, USRQUOTA), "t", 0, BAD), ENOTBLK);
    CHECK_ERR(quotactl(QCMD(0x800055, USRQUOTA), "t", 0, BAD), ENOTBLK);
    CHECK(mknod("t/block", S_IFBLK | 0600, makedev(240, 77)) == 0);
    CHECK(mknod("t/nodev/block", S_IFBLK | 0600, makedev(240, 77)) == 0);
    CHECK_ERR(quotactl(QCMD(Q_GETFMT, USRQUOTA), "t/block", 0, BAD), ENODEV);
    CHECK_ERR(quotactl(QCMD(Q_GETFMT, USRQUOTA), "t/nodev/block", 0, BAD), EACCES);

    CHECK_ERR(ON_FD(-1, Q_GETFMT, USRQUOTA), EBADF);
    CHECK_ERR(ON_FD(-1, Q_GETFMT, 3), EBADF);
    CHECK_ERR(ON_FD(writable, Q_GETFMT, 3), EINVAL);
    CHECK_ERR(ON_FD(writable, Q_GETFMT, USRQUOTA), ENOSYS);
    CHECK_ERR(ON_FD(writable, Q_SYNC, GRPQUOTA), ENOSYS);
    CHECK_ERR(ON_FD(writable, Q_SETQUOTA, USRQUOTA), ENOSYS);
    CHECK_ERR(ON_FD(writable, 0x800055, USRQUOTA), ENOSYS);
    CHECK_ERR(ON_FD(readable, Q_GETFMT, USRQUOTA), ENOSYS);
    CHECK_ERR(ON_FD(readable, Q_GETINFO, USRQUOTA), ENOSYS);
    CHECK_ERR(ON_FD(readable, Q_GETQUOTA, USRQUOTA), EROFS);
    CHECK_ERR(ON_FD(readable, Q_QUOTAON, USRQUOTA), EROFS);
    CHECK_ERR(ON_FD(readable, 0x800055, USRQUOTA), EROFS);
    return 0;
}
