/* What takes set-id bits and security.capability away from a file: who changes its bytes, who changes
 * its owner. CAP_FSETID keeps the bits where bytes change, and nothing keeps the capabilities. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/falloc.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const unsigned char CAPS[20] = {1, 0, 0, 2, 0, 4};
static const char *name;
static int fd, source; /* the file, and one whose bytes are copied */

static struct iovec vector = {"x", 1};

static int op_write(void) { return write(fd, "x", 1); }
static int op_pwrite(void) { return pwrite(fd, "x", 1, 2); }
static int op_writev(void) { return writev(fd, &vector, 1); }
static int op_append(void) { return pwritev2(fd, &vector, 1, -1, RWF_APPEND); }
static int op_write_nowhere(void) { return write(fd, NULL, 1) < 0 && errno == EFAULT ? 0 : -1; }
static int op_ftruncate(void) { return ftruncate(fd, 1); }
static int op_ftruncate_same(void) { return ftruncate(fd, 4); }
static int op_truncate(void) { return truncate(name, 200); }
static int op_open_truncate(void) { return close(open(name, O_WRONLY | O_TRUNC)); }
static int op_fallocate(void) { return fallocate(fd, 0, 0, 100); }
static int op_keep_size(void) { return fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 8192); }
static int op_punch(void) { return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096); }
static int op_copy_file_range(void) { return copy_file_range(source, NULL, fd, NULL, 4, 0) - 4; }
static int op_sendfile(void) { return sendfile(fd, source, NULL, 4) - 4; }
static int op_splice(void)
{
    int ends[2], result;
    CHECK(pipe(ends) == 0 && write(ends[1], "abc", 3) == 3);
    result = splice(ends[0], NULL, fd, NULL, 3, 0);
    return close(ends[0]) + close(ends[1]) + result - 3;
}

static int op_chown_none(void) { return fchown(fd, -1, -1); }
static int op_chown_same(void) { return fchown(fd, 0, 0); }
static int op_chown_user(void) { return chown(name, 5, -1); }
static int op_chown_group(void) { return lchown(name, -1, 5); }

static int op_nothing(void) { return write(fd, "", 0); }
static int op_open(void) { return close(open(name, O_RDWR | O_CREAT, 0600)); }
static int op_times(void) { return futimens(fd, NULL); }
static int op_chmod(void) { return fchmod(fd, 06755); }
static int op_xattr(void) { return fsetxattr(fd, "trusted.other", "1", 1, 0); }
static int op_copy_nothing(void) { lseek(source, 0, SEEK_END); return copy_file_range(source, NULL, fd, NULL, 4, 0); }
static int op_mapped(void)
{
    char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    *at = 1;
    return msync(at, 4096, MS_SYNC) + munmap(at, 4096);
}

typedef int operation(void);
static operation *const BYTES[] = {
    op_write, op_pwrite, op_writev, op_append, op_write_nowhere, op_ftruncate, op_ftruncate_same,
    op_truncate, op_open_truncate, op_fallocate, op_keep_size, op_punch, op_copy_file_range, op_sendfile,
    op_splice,
};
static operation *const OWNERS[] = {op_chown_none, op_chown_same, op_chown_user, op_chown_group};
static operation *const NEITHER[] = {op_nothing, op_open, op_times, op_chmod, op_xattr, op_copy_nothing, op_mapped};

static void fsetid(int on)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    CHECK(syscall(SYS_capget, &head, data) == 0);
    data[0].effective = (data[0].effective & ~(1u << CAP_FSETID)) | (on ? 1u << CAP_FSETID : 0);
    CHECK(syscall(SYS_capset, &head, data) == 0);
}

/* After the operation on a new file of this mode and group: its mode and whether it has capabilities. */
static void after(operation *change, int group, int mode, int new_mode, int has_caps)
{
    struct stat now;
    fd = open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
    CHECK(fd >= 0 && write(fd, "data", 4) == 4 && fchown(fd, -1, group) == 0 && lseek(source, 0, SEEK_SET) == 0);
    CHECK(fchmod(fd, mode) == 0 && fsetxattr(fd, "security.capability", CAPS, sizeof CAPS, 0) == 0);
    CHECK(fstat(fd, &now) == 0 && (now.st_mode & 07777) == mode);
    CHECK(change() >= 0);
    CHECK(stat(name, &now) == 0);
    if ((now.st_mode & 07777) != new_mode)
        fprintf(stderr, "mode %o of group %d is %o, not %o\n", mode, group, now.st_mode & 07777, new_mode);
    CHECK((now.st_mode & 07777) == new_mode);
    if (has_caps)
        CHECK(getxattr(name, "security.capability", NULL, 0) == sizeof CAPS);
    else
        CHECK_ERR(getxattr(name, "security.capability", NULL, 0), ENODATA);
    CHECK(close(fd) == 0 && unlink(name) == 0);
}

#define EACH(list) for (unsigned i = 0; i < sizeof list / sizeof *list; i++)

static void files(void)
{
    CHECK((source = open("source", O_CREAT | O_RDWR, 0600)) >= 0 && write(source, "from here", 9) == 9);
    EACH(BYTES) {
        after(BYTES[i], 0, 06777, 06777, 0);
        after(BYTES[i], 0, 0644, 0644, 0);
    }
    EACH(OWNERS) {
        after(OWNERS[i], 0, 06777, 0777, 0);
        after(OWNERS[i], 0, 02745, 02745, 0);
        after(OWNERS[i], 0, 0644, 0644, 0);
    }
    EACH(NEITHER)
        after(NEITHER[i], 0, 06755, 06755, 1);
    fsetid(0);
    EACH(BYTES) {
        after(BYTES[i], 0, 06777, 0777, 0);
        after(BYTES[i], 0, 04700, 0700, 0);
        after(BYTES[i], 0, 02745, 02745, 0); /* a member of the group may set it */
    }
    EACH(NEITHER)
        after(NEITHER[i], 0, 06755, 06755, 1);
    after(op_chown_none, 0, 06766, 02766, 0);
    after(op_chown_user, 0, 06766, 02766, 0);
    after(op_chown_group, 0, 06766, 0766, 0); /* no member of the new one */
    after(op_chown_group, 0, 02766, 02766, 0);
    fsetid(1);
    CHECK(close(source) == 0 && unlink("source") == 0);
}

/* Who is no member of the group, and has no capability. */
static void strangers(void)
{
    struct stat now;
    int modes[][2] = {{06777, 0777}, {02755, 0755}, {02745, 0745}, {06666, 0666}, {0644, 0644}};
    CHECK(chmod(".", 0777) == 0);
    for (int i = 0; i < 5; i++) {
        fd = open("stranger", O_CREAT | O_EXCL | O_RDWR, 0600);
        CHECK(fchown(fd, 1000, 5) == 0 && fchmod(fd, modes[i][0]) == 0);
        pid_t child = fork();
        if (!child) {
            CHECK(setresgid(1000, 1000, 1000) == 0 && setresuid(1000, 1000, 1000) == 0);
            CHECK(write(fd, "x", 1) == 1);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        CHECK(fstat(fd, &now) == 0 && (now.st_mode & 07777) == modes[i][1]);
        CHECK(close(fd) == 0 && unlink("stranger") == 0);
    }
}

/* A directory keeps all of it. */
static void directories(void)
{
    struct stat now;
    CHECK(mkdir("d", 0700) == 0 && chmod("d", 06777) == 0);
    CHECK(setxattr("d", "security.capability", CAPS, sizeof CAPS, 0) == 0);
    CHECK(chown("d", 5, 5) == 0 && stat("d", &now) == 0 && (now.st_mode & 07777) == 06777);
    CHECK(getxattr("d", "security.capability", NULL, 0) == sizeof CAPS);
    CHECK(rmdir("d") == 0);
}

int main(void)
{
    umask(0);
    name = "file";
    files();
    strangers();
    directories();
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    CHECK(mkdir("t", 0700) == 0 && mount("none", "t", "tmpfs", 0, NULL) == 0 && chdir("t") == 0);
    files();
    strangers();
    directories();
    CHECK(chdir("..") == 0 && umount2("t", MNT_DETACH) == 0);
    return 0;
}
