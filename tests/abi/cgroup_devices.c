/* bpf(2): programs that say which devices those in a control group may use. */
#define _GNU_SOURCE
#include "abi.h"
#include "ns.h"
#include <fcntl.h>
#include <linux/bpf.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define I(op, to, by, offset, number) ((struct bpf_insn){op, to, by, offset, number})
#define SET(to, number) I(BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, number)
#define GET(size, to, offset) I(BPF_LDX | BPF_MEM | size, to, 1, offset, 0)
#define EXIT I(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define LOAD(...)                                                                                  \
    load((struct bpf_insn[]){__VA_ARGS__},                                                         \
         sizeof((struct bpf_insn[]){__VA_ARGS__}) / sizeof(struct bpf_insn))

static union bpf_attr attr;
static char top[64], below[80];

static int bpf(int command)
{
    int result = syscall(SYS_bpf, command, &attr, sizeof attr);
    return result < 0 ? -errno : result;
}

static int load(struct bpf_insn *program, int count)
{
    memset(&attr, 0, sizeof attr);
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.insns = (unsigned long)program;
    attr.insn_cnt = count;
    attr.license = (unsigned long)"GPL";
    strcpy(attr.prog_name, "abi");
    return bpf(BPF_PROG_LOAD);
}

static int attach(int cgroup, int program, int flags, int replaced)
{
    memset(&attr, 0, sizeof attr);
    attr.target_fd = cgroup;
    attr.attach_bpf_fd = program;
    attr.attach_type = BPF_CGROUP_DEVICE;
    attr.attach_flags = flags;
    attr.replace_bpf_fd = replaced;
    return bpf(BPF_PROG_ATTACH);
}

static int detach(int cgroup, int program)
{
    memset(&attr, 0, sizeof attr);
    attr.target_fd = cgroup;
    attr.attach_bpf_fd = program;
    attr.attach_type = BPF_CGROUP_DEVICE;
    return bpf(BPF_PROG_DETACH);
}

/* How many there are, or -errno; the first ids. */
static int query(int cgroup, int flags, unsigned *ids, int room)
{
    memset(&attr, 0, sizeof attr);
    attr.query.target_fd = cgroup;
    attr.query.attach_type = BPF_CGROUP_DEVICE;
    attr.query.query_flags = flags;
    attr.query.prog_ids = (unsigned long)ids;
    attr.query.prog_cnt = room;
    int result = bpf(BPF_PROG_QUERY);
    return result < 0 ? result : (int)attr.query.prog_cnt;
}

static unsigned id_of(int program)
{
    struct bpf_prog_info info = {0};
    memset(&attr, 0, sizeof attr);
    attr.info.bpf_fd = program;
    attr.info.info_len = sizeof info;
    attr.info.info = (unsigned long)&info;
    CHECK(bpf(BPF_OBJ_GET_INFO_BY_FD) == 0);
    CHECK(info.type == BPF_PROG_TYPE_CGROUP_DEVICE && !strcmp(info.name, "abi"));
    return info.id;
}

/* What somebody in the group `where` gets: the errno of open(2), or 0. */
static int opens(const char *where, const char *path, int flags)
{
    char procs[100];
    pid_t child = fork();
    if (!child) {
        snprintf(procs, sizeof procs, "%s/cgroup.procs", where);
        CHECK(write_text(procs, "0") == 1);
        _exit(open(path, flags) < 0 ? errno : 0);
    }
    return status_of(child) >> 8;
}

static int makes(const char *where, mode_t kind, dev_t device)
{
    char procs[100];
    pid_t child = fork();
    if (!child) {
        snprintf(procs, sizeof procs, "%s/cgroup.procs", where);
        CHECK(write_text(procs, "0") == 1);
        int error = mknod("made", kind | 0600, device) < 0 ? errno : 0;
        unlink("made");
        _exit(error);
    }
    return status_of(child) >> 8;
}

/* As engines write them: /dev/null to read and to write, no other character devices, block devices
   to be made alone. */
static int of_an_engine(void)
{
    return LOAD(GET(BPF_W, 2, 0), I(BPF_ALU | BPF_AND | BPF_K, 2, 0, 0, 0xffff), GET(BPF_W, 3, 0),
                I(BPF_ALU | BPF_RSH | BPF_K, 3, 0, 0, 16), GET(BPF_W, 4, 4), GET(BPF_W, 5, 8),
                /* a block device: to be made */
                I(BPF_JMP | BPF_JNE | BPF_K, 2, 0, 4, BPF_DEVCG_DEV_BLOCK),
                I(BPF_ALU | BPF_MOV | BPF_X, 0, 3, 0, 0),
                I(BPF_ALU | BPF_AND | BPF_K, 0, 0, 0, BPF_DEVCG_ACC_MKNOD),
                I(BPF_JMP | BPF_JNE | BPF_X, 0, 3, 1, 0), I(BPF_JMP | BPF_JA, 0, 0, 5, 0),
                /* c 1:3 */
                I(BPF_JMP | BPF_JNE | BPF_K, 4, 0, 2, 1), I(BPF_JMP | BPF_JNE | BPF_K, 5, 0, 1, 3),
                I(BPF_JMP | BPF_JA, 0, 0, 2, 0), SET(0, 0), EXIT, SET(0, 1), EXIT);
}

static void programs_are_checked(void)
{
    CHECK(LOAD(EXIT) == -EACCES);          // R0 is not set
    CHECK(LOAD(SET(0, 1)) == -EINVAL);     // it does not end
    CHECK(LOAD(SET(0, 1), I(BPF_JMP | BPF_JA, 0, 0, 1, 0), EXIT) == -EINVAL);
    CHECK(LOAD(SET(0, 1), EXIT, EXIT) == -EINVAL);  // never reached
    CHECK(LOAD(SET(10, 1), SET(0, 1), EXIT) == -EACCES);
    CHECK(LOAD(SET(11, 1), SET(0, 1), EXIT) == -EINVAL);
    CHECK(LOAD(GET(BPF_W, 2, 12), SET(0, 1), EXIT) == -EACCES);
    CHECK(LOAD(GET(BPF_DW, 2, 0), SET(0, 1), EXIT) == -EACCES);
    CHECK(LOAD(GET(BPF_H, 2, 4), SET(0, 1), EXIT) == -EACCES);
    CHECK(LOAD(GET(BPF_W, 2, 2), SET(0, 1), EXIT) == -EACCES);
    CHECK(LOAD(I(BPF_LDX | BPF_MEM | BPF_W, 2, 3, 0, 0), SET(0, 1), EXIT) == -EACCES);
    CHECK(LOAD(SET(0, 1), I(BPF_ALU64 | BPF_DIV | BPF_K, 0, 0, 0, 0), EXIT) == -EINVAL);
    CHECK(LOAD(SET(0, 1), I(BPF_ALU | BPF_LSH | BPF_K, 0, 0, 0, 32), EXIT) == -EINVAL);
    CHECK(LOAD(SET(0, 1), I(BPF_ALU64 | BPF_MOV | BPF_K, 0, 2, 0, 1), EXIT) == -EINVAL);
    CHECK(LOAD(I(0x18, 0, 0, 0, 1), I(0, 0, 0, 0, 0)) == -EINVAL);
    CHECK(load(NULL, 0) == -E2BIG && load((void *)16, 2) == -EFAULT);
    int fd = LOAD(GET(BPF_H, 2, 2), GET(BPF_B, 3, 1), I(0x18, 4, 0, 0, -1), I(0, 0, 0, 0, 7),
                  I(BPF_ALU64 | BPF_MOV | BPF_X, 6, 1, 0, 0), SET(0, 1), EXIT);
    CHECK(fd >= 0);
    char byte;
    CHECK_ERR(read(fd, &byte, 1), EINVAL);
    close(fd);
}

static void commands_are_checked(int cgroup, int allow)
{
    memset(&attr, 0, sizeof attr);
    CHECK(bpf(1000) == -EINVAL);
    CHECK(attach(allow, allow, 0, 0) == -EBADF && attach(cgroup, 0, 0, 0) == -EINVAL);
    CHECK(attach(cgroup, -1, 0, 0) == -EBADF && attach(cgroup, allow, 1 << 20, 0) == -EINVAL);
    CHECK(attach(cgroup, allow, BPF_F_ALLOW_MULTI | BPF_F_ALLOW_OVERRIDE, 0) == -EINVAL);
    CHECK(attach(cgroup, allow, BPF_F_REPLACE, allow) == -EINVAL);
    CHECK(detach(cgroup, allow) == -ENOENT && query(cgroup, 0, NULL, 0) == 0);
    memset(&attr, 0, sizeof attr);
    attr.prog_id = -1;
    CHECK(bpf(BPF_PROG_GET_FD_BY_ID) == -ENOENT);
}

static void devices_are_judged(int cgroup, int inner)
{
    unsigned ids[4] = {0};
    int engine = of_an_engine(), all = LOAD(SET(0, 1), EXIT);
    CHECK(engine >= 0 && all >= 0);
    CHECK(opens(top, "/dev/zero", O_RDONLY) == 0);
    CHECK(attach(cgroup, engine, BPF_F_ALLOW_MULTI, 0) == 0);
    CHECK(attach(cgroup, engine, BPF_F_ALLOW_MULTI, 0) == -EINVAL);
    CHECK(attach(cgroup, all, 0, 0) == -EPERM);
    CHECK(query(cgroup, 0, ids, 4) == 1 && ids[0] == id_of(engine));
    CHECK(query(inner, 0, ids, 4) == 0 && query(inner, BPF_F_QUERY_EFFECTIVE, ids, 4) == 1);
    for (const char *where = top; where; where = where == top ? below : NULL) {
        CHECK(opens(where, "/dev/zero", O_RDONLY) == EPERM);
        CHECK(opens(where, "/dev/null", O_RDWR) == 0);
        CHECK(makes(where, S_IFCHR, makedev(1, 5)) == EPERM);
        CHECK(makes(where, S_IFIFO, 0) == 0);
        CHECK(makes(where, S_IFBLK, makedev(7, 0)) == 0);
    }
    /* Another one as well: both must allow it. */
    CHECK(attach(inner, all, BPF_F_ALLOW_MULTI, 0) == 0);
    CHECK(query(inner, BPF_F_QUERY_EFFECTIVE, ids, 1) == -ENOSPC && attr.query.prog_cnt == 2);
    CHECK(opens(below, "/dev/zero", O_RDONLY) == EPERM);
    CHECK(attach(cgroup, all, BPF_F_ALLOW_MULTI | BPF_F_REPLACE, engine) == 0);
    CHECK(attach(cgroup, engine, BPF_F_ALLOW_MULTI | BPF_F_REPLACE, engine) == -ENOENT);
    CHECK(opens(below, "/dev/zero", O_RDONLY) == 0);
    CHECK(detach(cgroup, engine) == -ENOENT && detach(cgroup, -1) == -EINVAL);
    CHECK(detach(cgroup, all) == 0 && detach(inner, all) == 0);
    /* One that lets nobody below have others; one that does. */
    CHECK(attach(cgroup, engine, 0, 0) == 0 && attach(inner, all, 0, 0) == -EPERM);
    CHECK(detach(cgroup, -1) == 0 && attach(cgroup, engine, BPF_F_ALLOW_OVERRIDE, 0) == 0);
    CHECK(attach(inner, all, BPF_F_ALLOW_OVERRIDE, 0) == 0);
    CHECK(opens(below, "/dev/zero", O_RDONLY) == 0 && opens(top, "/dev/zero", O_RDONLY) == EPERM);
    CHECK(detach(cgroup, engine) == 0);
    close(engine), close(all);
}

/* It stays as long as the group has it, and goes with it. */
static void programs_go_with_the_group(int inner)
{
    unsigned id;
    CHECK(query(inner, 0, &id, 1) == 1);
    memset(&attr, 0, sizeof attr);
    attr.prog_id = id;
    int again = bpf(BPF_PROG_GET_FD_BY_ID);
    CHECK(again >= 0 && id_of(again) == id);
    close(again), close(inner);
    CHECK(rmdir(below) == 0);
}

static void rights_are_needed(void)
{
    pid_t child = fork();
    if (!child) {
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK(LOAD(SET(0, 1), EXIT) == -EPERM && query(0, 0, NULL, 0) == -EPERM);
        _exit(0);
    }
    CHECK(status_of(child) == 0);
}

int main(void)
{
    char place[64] = "/tmp/cgroup-XXXXXX";
    CHECK(mkdtemp(place));
    CHECK(unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mount("none", place, "cgroup2", 0, NULL) == 0);
    snprintf(top, sizeof top, "%s/dev-%d", place, getpid());
    snprintf(below, sizeof below, "%s/in", top);
    CHECK(mkdir(top, 0755) == 0 && mkdir(below, 0755) == 0);
    int cgroup = open(top, O_RDONLY | O_DIRECTORY), inner = open(below, O_RDONLY | O_DIRECTORY);
    int allow = LOAD(SET(0, 1), EXIT);
    CHECK(cgroup >= 0 && inner >= 0 && allow >= 0);
    programs_are_checked();
    commands_are_checked(cgroup, allow);
    devices_are_judged(cgroup, inner);
    programs_go_with_the_group(inner);
    rights_are_needed();
    close(cgroup);
    CHECK(rmdir(top) == 0 && umount2(place, MNT_DETACH) == 0 && rmdir(place) == 0);
    return 0;
}
