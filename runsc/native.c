/* The system calls that Python 3.11 has no function for: each gives -errno where it fails. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* Part of CPython's stable ABI since 3.7; the limited API that cffi selects hides them. */
extern void PyOS_BeforeFork(void);
extern void PyOS_AfterFork_Parent(void);
extern void PyOS_AfterFork_Child(void);

static int result(long r) { return r < 0 ? -errno : (int)r; }

/* fork(2) into new namespaces, with the parent left where it is.
 *
 * As os.fork: CPython's three hooks around the call. As glibc's fork: the kernel writes the
 * child's thread id where glibc keeps it (the address that set_tid_address was called with).
 * The caller is single-threaded, so the locks that glibc would take are free. */
int rs_spawn(unsigned long flags)
{
    int *tid = NULL;
    if (prctl(PR_GET_TID_ADDRESS, &tid, 0, 0, 0) != 0)
        tid = NULL;
    if (tid)
        flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyOS_BeforeFork();
    long pid = syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, tid, NULL);
    int error = errno;
    if (pid == 0)
        PyOS_AfterFork_Child();
    else
        PyOS_AfterFork_Parent();
    PyGILState_Release(gil);
    return pid < 0 ? -error : (int)pid;
}

int rs_unshare(int flags) { return result(unshare(flags)); }
int rs_setns(int fd, int type) { return result(setns(fd, type)); }

int rs_bind(int fd, const uint8_t *address, uint32_t size)
{
    return result(bind(fd, (const struct sockaddr *)address, size));
}

int rs_mount(const char *source, const char *target, const char *type,
                    unsigned long flags, const char *data)
{
    return result(mount(source, target, type, flags, data));
}

int rs_umount(const char *target, int flags) { return result(umount2(target, flags)); }

int rs_open_tree(int dirfd, const char *path, unsigned flags)
{
    return result(syscall(SYS_open_tree, dirfd, path, flags));
}

/* Attaches what open_tree gave. */
int rs_move_mount(int fd, int dirfd, const char *path, unsigned flags)
{
    return result(syscall(SYS_move_mount, fd, "", dirfd, path, flags));
}

int rs_mount_setattr(int fd, unsigned flags, uint64_t set)
{
    struct { uint64_t set, clear, propagation, userns_fd; } attr = { set, 0, 0, 0 };
    return result(syscall(SYS_mount_setattr, fd, "", flags, &attr, sizeof attr));
}

/* MOUNT_ATTR_IDMAP: the owners of its files are those that this user namespace has. */
int rs_mount_idmap(int fd, unsigned flags, int userns)
{
    struct { uint64_t set, clear, propagation, userns_fd; } attr = {
        MOUNT_ATTR_IDMAP, 0, 0, (uint64_t)userns,
    };
    return result(syscall(SYS_mount_setattr, fd, "", flags, &attr, sizeof attr));
}

int rs_pivot_root(const char *new_root, const char *put_old)
{
    return result(syscall(SYS_pivot_root, new_root, put_old));
}

int rs_syncfs(int fd) { return result(syncfs(fd)); }

int rs_prctl(int op, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
    return result(prctl(op, a, b, c, d));
}

int rs_capset(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2];
    for (int i = 0; i < 2; i++) {
        data[i].effective = (uint32_t)(effective >> (32 * i));
        data[i].permitted = (uint32_t)(permitted >> (32 * i));
        data[i].inheritable = (uint32_t)(inheritable >> (32 * i));
    }
    return result(syscall(SYS_capset, &head, data));
}

int rs_close_range(unsigned first, unsigned last)
{
    return result(syscall(SYS_close_range, first, last, 0));
}

/* SECCOMP_SET_MODE_FILTER. A positive result is the thread that could not be synchronised. */
int rs_seccomp(unsigned flags, const uint8_t *program, unsigned short count)
{
    struct sock_fprog fprog = { count, (struct sock_filter *)program };
    return result(syscall(SYS_seccomp, 1, flags, &fprog));
}

/* landlock(7). `flags` other than 0 ask a question; the attributes do not matter then. */
int rs_landlock_ruleset(uint64_t files, uint64_t net, uint64_t scoped, unsigned flags)
{
    struct { uint64_t files, net, scoped; } attr = { files, net, scoped };
    size_t size = flags ? 0 : sizeof attr; /* zeros at the end are taken by older kernels */
    return result(syscall(SYS_landlock_create_ruleset, flags ? NULL : &attr, size, flags));
}

/* LANDLOCK_RULE_PATH_BENEATH */
int rs_landlock_allow(int ruleset, int fd, uint64_t access)
{
    struct { uint64_t access; int32_t fd; } __attribute__((packed)) attr = { access, fd };
    return result(syscall(SYS_landlock_add_rule, ruleset, 1, &attr, 0));
}

/* LANDLOCK_RULE_NET_PORT */
int rs_landlock_allow_port(int ruleset, uint64_t port, uint64_t access)
{
    struct { uint64_t access, port; } attr = { access, port };
    return result(syscall(SYS_landlock_add_rule, ruleset, 2, &attr, 0));
}

int rs_landlock_restrict(int ruleset)
{
    return result(syscall(SYS_landlock_restrict_self, ruleset, 0));
}

/* IOPRIO_WHO_PROCESS */
int rs_ioprio_get(int pid) { return result(syscall(SYS_ioprio_get, 1, pid)); }
int rs_ioprio_set(int value) { return result(syscall(SYS_ioprio_set, 1, 0, value)); }

int rs_madvise(uint64_t start, size_t size, int advice)
{
    return result(madvise((void *)(uintptr_t)start, size, advice));
}

int rs_notify(void) { return result(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)); }

int rs_watch(int notify, const char *path, uint32_t mask)
{
    return result(inotify_add_watch(notify, path, mask));
}

/* The bytes of a file, for as long as the process lives; NULL if there are none. */
static const void *map(int fd, size_t size)
{
    const void *at = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* A module's compiled file, if it was made of this source as it is now (PEP 552, by time) by a CPython
 * with this magic number; NULL if not. */
static const void *map_compiled(int compiled, int source, const char *stem, const char *tail,
                                const char *magic, uint64_t *size)
{
    struct { char magic[4]; uint32_t flags, time, size; } head;
    char name[NAME_MAX + 1], text_name[NAME_MAX + 1];
    struct stat file, text;
    const void *at = NULL;
    if (snprintf(name, sizeof name, "%s%s", stem, tail) >= (int)sizeof name ||
        snprintf(text_name, sizeof text_name, "%s.py", stem) >= (int)sizeof text_name)
        return NULL;
    int fd = openat(compiled, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &file) == 0 && fstatat(source, text_name, &text, 0) == 0 &&
        pread(fd, &head, sizeof head, 0) == (ssize_t)sizeof head &&
        memcmp(head.magic, magic, sizeof head.magic) == 0 && head.flags == 0 &&
        head.time == (uint32_t)text.st_mtime && head.size == (uint32_t)text.st_size) {
        *size = (uint64_t)file.st_size;
        at = map(fd, (size_t)file.st_size);
    }
    close(fd);
    return at;
}

/* Those of `count` modules of one directory: where each is, or 0. `stems` are their names, each with a
 * zero; what compiled files are called besides is `tail`. */
void rs_map_compiled(const char *directory, const char *cache, const char *stems, int count,
                     const char *tail, const char *magic, uint64_t *at, uint64_t *size)
{
    int source = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int compiled = open(cache, O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < count; i++, stems += strlen(stems) + 1)
        at[i] = (uint64_t)(uintptr_t)map_compiled(compiled, source, stems, tail, magic, &size[i]);
    close(source);
    close(compiled);
}

enum { LARGEST_HOLE = 64 << 10, SMALLEST_HOLE = 24, HOLE_STEP = 16 };

/* Take all that is free between blocks of the heap, so that what is allocated from now on lies behind
 * them: no more than the heap has, as another allocator (a sanitizer's) gives blocks below its end for
 * ever. Preconditions: one arena. */
void rs_fill_heap(void)
{
    uintptr_t end = (uintptr_t)sbrk(0);
    size_t left = mallinfo2().arena;
    for (size_t size = LARGEST_HOLE; size >= SMALLEST_HOLE; size -= HOLE_STEP) {
        void *taken;
        for (;;) {
            taken = malloc(size);
            if (taken == NULL || (uintptr_t)taken >= end || left < size)
                break;
            left -= size;
        }
        free(taken);
    }
}

void rs_one_arena(void) { mallopt(M_ARENA_MAX, 1); }

/* Development only: with SECCOMP_RET_TRAP, say which call the filter refused, and die. */
static int trap_fd = 2;

static void on_sigsys(int signal, siginfo_t *info, void *context)
{
    char text[96];
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    int length = snprintf(text, sizeof text, "seccomp: refused system call %d(%#llx, %#llx)\n",
                          info->si_syscall, (unsigned long long)regs[REG_RDI],
                          (unsigned long long)regs[REG_RSI]);
    ssize_t ignored = write(trap_fd, text, (size_t)length);
    (void)ignored;
    (void)signal;
    _exit(159);
}

int rs_trap_report(int fd)
{
    struct sigaction act;
    memset(&act, 0, sizeof act);
    act.sa_sigaction = on_sigsys;
    act.sa_flags = SA_SIGINFO | SA_NODEFER;
    trap_fd = fd;
    return result(sigaction(SIGSYS, &act, NULL));
}
