/* Mounting by descriptors: fsopen … move_mount, mount_setattr, statmount. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MS_REC 16384
#define MS_PRIVATE (1 << 18)
#define MS_SHARED (1 << 20)
#define MS_SLAVE (1 << 19)
#define BAD ((void *)8)
#ifndef MNT_ID_REQ_SIZE_VER1
#define MNT_ID_REQ_SIZE_VER1 32
#endif
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);

static long fsopen(const char *t, unsigned f) { return syscall(SYS_fsopen, t, f); }
static long fspick(int d, const char *p, unsigned f) { return syscall(SYS_fspick, d, p, f); }
static long fsmount(int f, unsigned fl, unsigned a) { return syscall(SYS_fsmount, f, fl, a); }
static long fsconfig(int f, unsigned c, const void *k, const void *v, int a)
{
    return syscall(SYS_fsconfig, f, c, k, v, a);
}
static long open_tree(int d, const char *p, unsigned f) { return syscall(SYS_open_tree, d, p, f); }
static long move_mount(int d, const char *p, int e, const char *q, unsigned f)
{
    return syscall(SYS_move_mount, d, p, e, q, f);
}
static long setattr(int d, const char *p, unsigned f, void *a, size_t n)
{
    return syscall(SYS_mount_setattr, d, p, f, a, n);
}

static void put(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY, 0644);
    CHECK(fd >= 0);
    close(fd);
}

static uint64_t unique(const char *path)
{
    struct statx sx;
    CHECK(statx(AT_FDCWD, path, 0, 0x4000 /* STATX_MNT_ID_UNIQUE */, &sx) == 0);
    CHECK(sx.stx_mask & 0x4000);
    return sx.stx_mnt_id;
}

static int new_tmpfs(const char *size)
{
    int fd = fsopen("tmpfs", FSOPEN_CLOEXEC);
    CHECK(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
    CHECK(fsconfig(fd, FSCONFIG_SET_STRING, "source", "mine", 0) == 0);
    CHECK(fsconfig(fd, FSCONFIG_SET_STRING, "size", size, 0) == 0);
    CHECK(fsconfig(fd, FSCONFIG_CMD_CREATE, 0, 0, 0) == 0);
    int mnt = fsmount(fd, FSMOUNT_CLOEXEC, 0);
    CHECK(mnt >= 0);
    close(fd);
    return mnt;
}

static void contexts(void)
{
    char text[200] = {0};
    CHECK_ERR(fsopen("nonsense", 0), ENODEV);
    CHECK_ERR(fsopen("tmpfs", 2), EINVAL);
    CHECK_ERR(fsopen(BAD, 0), EFAULT);
    int fd = fsopen("tmpfs", 0);
    CHECK(fd >= 0 && fcntl(fd, F_GETFD) == 0);
    CHECK_ERR(read(fd, text, 10), ENODATA);
    CHECK_ERR(fsconfig(-1, FSCONFIG_SET_FLAG, "ro", 0, 0), EINVAL);
    CHECK_ERR(fsconfig(fd, 100, 0, 0, 0), EOPNOTSUPP);
    CHECK_ERR(fsconfig(fd, FSCONFIG_SET_FLAG, "ro", "x", 0), EINVAL);
    CHECK_ERR(fsconfig(fd, FSCONFIG_SET_FLAG, 0, 0, 0), EINVAL);
    CHECK_ERR(fsconfig(fd, FSCONFIG_SET_STRING, "size", 0, 0), EINVAL);
    CHECK_ERR(fsconfig(fd, FSCONFIG_CMD_CREATE, "x", 0, 0), EINVAL);
    CHECK_ERR(fsconfig(0, FSCONFIG_CMD_CREATE, 0, 0, 0), EINVAL);
    CHECK_ERR(fsconfig(99, FSCONFIG_CMD_CREATE, 0, 0, 0), EBADF);
    CHECK_ERR(fsconfig(fd, FSCONFIG_SET_FLAG, BAD, 0, 0), EFAULT);
    CHECK_ERR(fsconfig(fd, FSCONFIG_SET_STRING, "nonsense", "1", 0), EINVAL);
    CHECK(read(fd, text, 100) > 0 && strstr(text, "nonsense") && text[0] == 'e');
    CHECK_ERR(fsconfig(fd, FSCONFIG_SET_STRING, "nr_inodes", "zz", 0), EINVAL);
    CHECK_ERR(read(fd, text, 3), EMSGSIZE);
    CHECK_ERR(fsconfig(fd, FSCONFIG_CMD_RECONFIGURE, 0, 0, 0), EBUSY);
    CHECK_ERR(fsmount(fd, 0, 0), EINVAL);
    CHECK_ERR(fsmount(fd, 2, 0), EINVAL);
    CHECK_ERR(fsmount(fd, 0, 1 << 30), EINVAL);
    CHECK_ERR(fsmount(0, 0, 0), EINVAL);
    CHECK(fsconfig(fd, FSCONFIG_SET_STRING, "source", "here", 0) == 0);
    CHECK_ERR(fsconfig(fd, FSCONFIG_SET_STRING, "source", "here", 0), EINVAL);
    CHECK(fsconfig(fd, FSCONFIG_SET_STRING, "size", "64k", 0) == 0);
    CHECK(fsconfig(fd, FSCONFIG_CMD_CREATE, 0, 0, 0) == 0);
    CHECK_ERR(fsconfig(fd, FSCONFIG_CMD_CREATE, 0, 0, 0), EBUSY);
    CHECK_ERR(fsconfig(fd, FSCONFIG_SET_FLAG, "ro", 0, 0), EBUSY);
    int mnt = fsmount(fd, 0, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME);
    CHECK(mnt >= 0);
    CHECK_ERR(fsmount(fd, 0, 0), EBUSY);
    /* a mount without a place can be used */
    int file = openat(mnt, "f", O_CREAT | O_RDWR, 0600);
    CHECK(file >= 0 && write(file, "abc", 3) == 3);
    close(file);
    CHECK_ERR(move_mount(mnt, "", AT_FDCWD, "m", 0), ENOENT);
    CHECK_ERR(move_mount(mnt, "", AT_FDCWD, "m", 1 << 20), EINVAL);
    CHECK_ERR(move_mount(mnt, "", AT_FDCWD, "none", MOVE_MOUNT_F_EMPTY_PATH), ENOENT);
    CHECK_ERR(move_mount(mnt, "", AT_FDCWD, "file", MOVE_MOUNT_F_EMPTY_PATH), EINVAL);
    CHECK(move_mount(mnt, "", AT_FDCWD, "m", MOVE_MOUNT_F_EMPTY_PATH) == 0);
    struct statvfs vfs;
    CHECK(access("m/f", F_OK) == 0 && statvfs("m", &vfs) == 0);
    CHECK(vfs.f_blocks * vfs.f_bsize == 65536 && vfs.f_flag & ST_NODEV && vfs.f_flag & ST_NOATIME);
    CHECK_ERR(umount2("m", 0), EBUSY); /* the descriptor holds it */
    close(mnt);
    CHECK(fsconfig(fd, FSCONFIG_SET_STRING, "size", "128k", 0) == 0);
    CHECK(fsconfig(fd, FSCONFIG_CMD_RECONFIGURE, 0, 0, 0) == 0);
    CHECK(statvfs("m", &vfs) == 0 && vfs.f_blocks * vfs.f_bsize == 131072);
    close(fd);
    /* the same through fspick */
    CHECK_ERR(fspick(AT_FDCWD, "m", 16), EINVAL);
    CHECK_ERR(fspick(AT_FDCWD, "file", 0), EINVAL);
    CHECK_ERR(fspick(AT_FDCWD, "", 0), ENOENT);
    fd = fspick(AT_FDCWD, "m", FSPICK_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_ERR(fsconfig(fd, FSCONFIG_CMD_CREATE, 0, 0, 0), EBUSY);
    CHECK(fsconfig(fd, FSCONFIG_SET_FLAG, "ro", 0, 0) == 0);
    CHECK(fsconfig(fd, FSCONFIG_CMD_RECONFIGURE, 0, 0, 0) == 0);
    CHECK_ERR(open("m/g", O_CREAT | O_RDWR, 0600), EROFS);
    close(fd);
    CHECK(umount2("m", 0) == 0);
}

static void trees(void)
{
    int mnt = new_tmpfs("1m");
    CHECK(move_mount(mnt, "", AT_FDCWD, "m", MOVE_MOUNT_F_EMPTY_PATH) == 0);
    close(mnt);
    put("m/f");
    CHECK(mkdir("m/d", 0755) == 0 && mount("sub", "m/d", "tmpfs", 0, 0) == 0);
    put("m/d/inner");
    CHECK_ERR(open_tree(AT_FDCWD, "m", 1 << 30), EINVAL);
    CHECK_ERR(open_tree(AT_FDCWD, "m", AT_RECURSIVE), EINVAL);
    CHECK_ERR(open_tree(AT_FDCWD, "none", 0), ENOENT);
    int fd = open_tree(AT_FDCWD, "m", 0);
    CHECK(fd >= 0 && fcntl(fd, F_GETFL) & O_PATH);
    CHECK_ERR(umount2("m/d/..", 0), EBUSY);
    close(fd);
    fd = open_tree(AT_FDCWD, "m", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    CHECK(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
    CHECK(faccessat(fd, "f", F_OK, 0) == 0);
    CHECK_ERR(faccessat(fd, "d/inner", F_OK, 0), ENOENT);
    close(fd);
    fd = open_tree(AT_FDCWD, "m", OPEN_TREE_CLONE | AT_RECURSIVE);
    CHECK(fd >= 0 && faccessat(fd, "d/inner", F_OK, 0) == 0);
    CHECK(move_mount(fd, "", AT_FDCWD, "n", MOVE_MOUNT_F_EMPTY_PATH) == 0);
    CHECK(access("n/d/inner", F_OK) == 0);
    close(fd);
    CHECK(umount2("n", 2 /* MNT_DETACH */) == 0);
    /* by paths, as mount --move */
    CHECK_ERR(move_mount(AT_FDCWD, "m", AT_FDCWD, "m/d", 0), ELOOP);
    CHECK_ERR(move_mount(AT_FDCWD, "m/d/inner", AT_FDCWD, "file", 0), EINVAL);
    CHECK(move_mount(AT_FDCWD, "m", AT_FDCWD, "n", 0) == 0);
    CHECK(access("n/d/inner", F_OK) == 0);
    CHECK_ERR(access("m/d", F_OK), ENOENT);
    /* below what is there */
    int low = new_tmpfs("8k");
    int x = openat(low, "low", O_CREAT | O_RDWR, 0600);
    close(x);
    CHECK_ERR(move_mount(low, "", AT_FDCWD, "m",
                         MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_BENEATH), EINVAL);
    CHECK_ERR(move_mount(low, "", AT_FDCWD, "n",
                         MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_BENEATH | MOVE_MOUNT_SET_GROUP),
              EINVAL);
    CHECK(move_mount(low, "", AT_FDCWD, "n", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_BENEATH) == 0);
    close(low);
    CHECK(access("n/f", F_OK) == 0);
    CHECK(umount2("n/d", 0) == 0 && umount2("n", 0) == 0 && access("n/low", F_OK) == 0);
    CHECK(umount2("n", 0) == 0);
    /* into a group */
    CHECK(mount("a", "m", "tmpfs", 0, 0) == 0 && mount(0, "m", 0, MS_SHARED, 0) == 0);
    int copy = open_tree(AT_FDCWD, "m", OPEN_TREE_CLONE);
    CHECK(copy >= 0);
    struct mount_attr private = {.propagation = MS_PRIVATE};
    CHECK(setattr(copy, "", AT_EMPTY_PATH, &private, sizeof private) == 0);
    CHECK(move_mount(copy, "", AT_FDCWD, "n", MOVE_MOUNT_F_EMPTY_PATH) == 0);
    close(copy);
    CHECK_ERR(move_mount(AT_FDCWD, "file", AT_FDCWD, "n", MOVE_MOUNT_SET_GROUP), EINVAL);
    CHECK(move_mount(AT_FDCWD, "m", AT_FDCWD, "n", MOVE_MOUNT_SET_GROUP) == 0);
    CHECK(mkdir("m/s", 0755) == 0 && mount("b", "m/s", "tmpfs", 0, 0) == 0);
    put("m/s/seen");
    CHECK(access("n/s/seen", F_OK) == 0);
    CHECK(umount2("m/s", 0) == 0 && umount2("n", 0) == 0 && umount2("m", 0) == 0);
}

static void attributes(void)
{
    struct mount_attr a = {0};
    struct statvfs vfs;
    char big[40] = {0};
    CHECK(mount("a", "m", "tmpfs", 0, 0) == 0 && mkdir("m/d", 0755) == 0);
    CHECK(mount("b", "m/d", "tmpfs", 0, 0) == 0);
    CHECK_ERR(setattr(AT_FDCWD, "m", 1, &a, sizeof a), EINVAL);
    CHECK_ERR(setattr(AT_FDCWD, "m", 0, &a, 8), EINVAL);
    CHECK_ERR(setattr(AT_FDCWD, "m", 0, &a, 5000), E2BIG);
    CHECK_ERR(setattr(AT_FDCWD, "m", 0, BAD, sizeof a), EFAULT);
    CHECK(setattr(AT_FDCWD, "none", 0, &a, sizeof a) == 0); /* nothing to do */
    CHECK(setattr(AT_FDCWD, "m", 0, big, sizeof big) == 0);
    big[39] = 1;
    CHECK_ERR(setattr(AT_FDCWD, "m", 0, big, sizeof big), E2BIG);
    a.attr_set = 1ull << 40;
    CHECK_ERR(setattr(AT_FDCWD, "m", 0, &a, sizeof a), EINVAL);
    a.attr_set = MOUNT_ATTR_NOATIME;
    CHECK_ERR(setattr(AT_FDCWD, "m", 0, &a, sizeof a), EINVAL);
    a.attr_clr = MOUNT_ATTR__ATIME;
    CHECK(setattr(AT_FDCWD, "m", 0, &a, sizeof a) == 0);
    CHECK(statvfs("m", &vfs) == 0 && vfs.f_flag & ST_NOATIME);
    a = (struct mount_attr){.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC};
    CHECK_ERR(setattr(AT_FDCWD, "none", 0, &a, sizeof a), ENOENT);
    CHECK_ERR(setattr(AT_FDCWD, "m/d/..", 0, &(struct mount_attr){.propagation = 3}, 32), EINVAL);
    int fd = open("m/d/w", O_CREAT | O_RDWR, 0600);
    CHECK_ERR(setattr(AT_FDCWD, "m", AT_RECURSIVE, &a, sizeof a), EBUSY);
    CHECK(statvfs("m", &vfs) == 0 && !(vfs.f_flag & ST_RDONLY)); /* all or nothing */
    close(fd);
    CHECK(setattr(AT_FDCWD, "m", AT_RECURSIVE, &a, sizeof a) == 0);
    CHECK_ERR(open("m/d/x", O_CREAT | O_RDWR, 0600), EROFS);
    CHECK(statvfs("m", &vfs) == 0 && vfs.f_flag & ST_RDONLY && vfs.f_flag & ST_NOEXEC);
    CHECK(vfs.f_flag & ST_NOATIME);
    a = (struct mount_attr){.attr_clr = MOUNT_ATTR_RDONLY};
    CHECK(setattr(AT_FDCWD, "m", 0, &a, sizeof a) == 0);
    CHECK(statvfs("m", &vfs) == 0 && !(vfs.f_flag & ST_RDONLY) && vfs.f_flag & ST_NOEXEC);
    a = (struct mount_attr){.attr_set = MOUNT_ATTR_RDONLY};
    CHECK_ERR(setattr(AT_FDCWD, "m/d/..", 0, &(struct mount_attr){.attr_set = MOUNT_ATTR_IDMAP,
                                              .userns_fd = 99}, 32), EBADF);
    CHECK_ERR(setattr(AT_FDCWD, "/proc/self", 0, &a, sizeof a), EINVAL);
    CHECK(umount2("m/d", 0) == 0 && umount2("m", 0) == 0);
}

struct known {
    struct statmount head;
    char text[1000];
};

static void information(void)
{
    struct known s;
    uint64_t ids[64];
    struct mnt_id_req req = {.size = MNT_ID_REQ_SIZE_VER0};
    CHECK(mount("origin", "m", "tmpfs", MS_NOSUID, 0) == 0 && mkdir("m/d", 0755) == 0);
    CHECK(mount("b", "m/d", "tmpfs", MS_RDONLY, 0) == 0);
    CHECK(mount(0, "m", 0, MS_SHARED, 0) == 0);
    req.mnt_id = unique("m");
    CHECK(req.mnt_id > 0xffffffff / 2);
    req.param = STATMOUNT_SB_BASIC | STATMOUNT_MNT_BASIC | STATMOUNT_FS_TYPE | STATMOUNT_MNT_ROOT
                | STATMOUNT_MNT_POINT;
    CHECK(syscall(SYS_statmount, &req, &s, sizeof s, 0) == 0);
    CHECK((s.head.mask & req.param) == req.param);
    CHECK(s.head.mnt_id == req.mnt_id && s.head.mnt_parent_id == unique("."));
    CHECK(s.head.mnt_attr & MOUNT_ATTR_NOSUID && s.head.mnt_propagation == MS_SHARED);
    CHECK(s.head.mnt_peer_group > 0 && s.head.sb_magic == 0x01021994);
    char cwd[900];
    CHECK(getcwd(cwd, 890));
    strcat(cwd, "/m");
    CHECK(!strcmp(s.head.str + s.head.fs_type, "tmpfs"));
    CHECK(!strcmp(s.head.str + s.head.mnt_root, "/"));
    CHECK(!strcmp(s.head.str + s.head.mnt_point, cwd));
    CHECK_ERR(syscall(SYS_statmount, &req, &s, 520, 0), EOVERFLOW);
    CHECK_ERR(syscall(SYS_statmount, &req, &s, sizeof s, 8), EINVAL);
    CHECK_ERR(syscall(SYS_statmount, BAD, &s, sizeof s, 0), EFAULT);
    req.param = 0;
    CHECK(syscall(SYS_listmount, &req, ids, 64, 0) == 1 && ids[0] == unique("m/d"));
    CHECK(syscall(SYS_listmount, &req, ids, 0, 0) == 0);
    CHECK_ERR(syscall(SYS_listmount, &req, ids, 64, 8), EINVAL);
    /* a newer struct whose new fields are 0, and are not */
    struct {
        struct mnt_id_req known;
        char rest[500];
    } newer = {.known = req};
    newer.known.size = sizeof newer;
    CHECK(syscall(SYS_listmount, &newer, ids, 64, 0) == 1 && ids[0] == unique("m/d"));
    CHECK(syscall(SYS_statmount, &newer, &s, sizeof s, 0) == 0);
    newer.rest[499] = 1;
    CHECK_ERR(syscall(SYS_listmount, &newer, ids, 64, 0), E2BIG);
    CHECK_ERR(syscall(SYS_statmount, &newer, &s, sizeof s, 0), E2BIG);
    newer.known.size = 4097;
    CHECK_ERR(syscall(SYS_statmount, &newer, &s, sizeof s, 0), E2BIG);
    req.mnt_id = ids[0];
    CHECK(syscall(SYS_listmount, &req, ids, 64, 0) == 0);
    req.mnt_id = LSMT_ROOT;
    int n = syscall(SYS_listmount, &req, ids, 64, 0);
    CHECK(n >= 3);
    for (int i = 1; i < n; i++) CHECK(ids[i] > ids[i - 1]);
    uint64_t second = ids[1];
    req.param = ids[0];
    CHECK(syscall(SYS_listmount, &req, ids, 64, 0) == n - 1 && ids[0] == second);
    req.mnt_id = unique("m/d") + (1 << 30);
    req.param = STATMOUNT_FS_TYPE;
    CHECK_ERR(syscall(SYS_statmount, &req, &s, sizeof s, 0), ENOENT);
    req.size = 8;
    CHECK_ERR(syscall(SYS_statmount, &req, &s, sizeof s, 0), EINVAL);
    CHECK(umount2("m/d", 0) == 0 && umount2("m", 0) == 0);
}

int main(void)
{
    CHECK(unshare(CLONE_NEWNS) == 0);
    CHECK(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    CHECK(mkdir("m", 0755) == 0 && mkdir("n", 0755) == 0);
    put("file");
    contexts();
    trees();
    attributes();
    information();
    /* without the right */
    int fd = open_tree(AT_FDCWD, "/", 0);
    struct mount_attr a = {.attr_set = MOUNT_ATTR_RDONLY};
    CHECK(setresuid(1000, 1000, 1000) == 0);
    CHECK_ERR(fsopen("tmpfs", 99), EPERM);
    CHECK_ERR(fspick(AT_FDCWD, "/", 99), EPERM);
    CHECK_ERR(fsmount(99, 99, 0), EPERM);
    CHECK_ERR(open_tree(AT_FDCWD, "/", OPEN_TREE_CLONE), EPERM);
    CHECK(open_tree(AT_FDCWD, "/", 0) >= 0);
    CHECK_ERR(move_mount(fd, "", AT_FDCWD, "m", 1 << 20), EPERM);
    CHECK_ERR(setattr(AT_FDCWD, "/", 0, &a, sizeof a), EPERM);
    return 0;
}
