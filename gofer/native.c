/* File calls for the Gofer that Python's os module lacks. See _build.py.
 *
 * Names come from the caller checked: one component, no slash, never "." or "..".
 * All functions return a value >= 0, or -errno.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <linux/fs.h>
#include <linux/openat2.h>

#ifndef __NR_fchmodat2
#define __NR_fchmodat2 452
#endif

#ifndef AT_HANDLE_FID
#define AT_HANDLE_FID 0x200
#endif

#define BLOCK 96 /* gofer/p9/attributes.py */
#define QID 13
#define NOBODY ((uint32_t)-1) /* as an owner: as it is */
enum { BTIME = 1, NO_ACL = 2, NO_DEFAULT_ACL = 4, NO_XATTRS = 8 };

static int result(long rc) { return rc < 0 ? -errno : (int)rc; }

/* The only way in which the Gofer opens anything: beneath dirfd, through no link of any kind. */
int gofer_open(int dirfd, const char *name, uint64_t flags, uint32_t mode)
{
    struct open_how how = {
        .flags = flags | O_NOFOLLOW | O_CLOEXEC,
        .mode = mode,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
    };
    if (!(flags & O_PATH))
        how.flags |= O_NONBLOCK | O_NOCTTY;
    for (int i = 0;; i++) {
        long fd = syscall(__NR_openat2, dirfd, name, &how, sizeof how);
        /* EAGAIN: a rename or mount raced with the lookup; openat2(2) says to try again. */
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR) || i == 32)
            return result(fd);
    }
}

/* A FIFO by its name in the empty root. It does not wait for who has the other end. */
int gofer_open_fifo(const char *path, uint64_t access)
{
    struct open_how how = {
        .flags = access | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
    };
    return result(syscall(__NR_openat2, AT_FDCWD, path, &how, sizeof how));
}

/* Seconds past the year 2262 do not fit; they are clamped. */
static int64_t nanoseconds(const struct statx_timestamp *t)
{
    if (t->tv_sec > INT64_MAX / 1000000000 - 1)
        return INT64_MAX;
    if (t->tv_sec < INT64_MIN / 1000000000 + 1)
        return INT64_MIN;
    return t->tv_sec * 1000000000 + t->tv_nsec;
}

static uint8_t *put32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); return p + 4; }
static uint8_t *put64(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); return p + 8; }

static int lacks(int fd, const char *name)
{
    return fgetxattr(fd, name, NULL, 0) < 0 && (errno == ENODATA || errno == EOPNOTSUPP);
}

/* Which access control lists (acl(5)) there are certainly not. It takes a real descriptor: a file's
 * own, or one of a directory, opened unless that would mount something. */
static uint32_t lists(int dirfd, const char *name, const struct statx *x)
{
    if (S_ISREG(x->stx_mode) && !*name)
        return lacks(dirfd, "system.posix_acl_access") ? NO_ACL : 0;
    if (!S_ISDIR(x->stx_mode) || x->stx_attributes & STATX_ATTR_AUTOMOUNT)
        return 0;
    int fd = gofer_open(dirfd, *name ? name : ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return 0;
    uint32_t flags = lacks(fd, "system.posix_acl_access") ? NO_ACL : 0;
    if (lacks(fd, "system.posix_acl_default"))
        flags |= NO_DEFAULT_ACL;
    close(fd);
    return flags;
}

static void pack(const struct statx *x, uint32_t flags, uint8_t *p)
{
    p = put32(p, x->stx_mode);
    p = put32(p, x->stx_uid);
    p = put32(p, x->stx_gid);
    p = put32(p, x->stx_nlink);
    p = put64(p, makedev(x->stx_dev_major, x->stx_dev_minor));
    p = put64(p, x->stx_ino);
    p = put64(p, makedev(x->stx_rdev_major, x->stx_rdev_minor));
    p = put64(p, x->stx_size);
    p = put64(p, x->stx_blocks);
    p = put64(p, (uint64_t)nanoseconds(&x->stx_atime));
    p = put64(p, (uint64_t)nanoseconds(&x->stx_mtime));
    p = put64(p, (uint64_t)nanoseconds(&x->stx_ctime));
    p = put64(p, (uint64_t)nanoseconds(&x->stx_btime));
    p = put32(p, x->stx_blksize);
    put32(p, flags | (x->stx_mask & STATX_BTIME ? BTIME : 0));
}

/* statx of a child, or of the descriptor itself if the name is empty; follows nothing. */
int gofer_stat(int dirfd, const char *name, uint8_t *block)
{
    struct statx x;
    int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH);
    int rc = statx(dirfd, name, flags, STATX_BASIC_STATS | STATX_BTIME, &x);
    if (rc < 0)
        return -errno;
    pack(&x, lists(dirfd, name, &x), block);
    return 0;
}

int gofer_open_stat(int dirfd, const char *name, uint64_t flags, uint8_t *block)
{
    int fd = gofer_open(dirfd, name, flags, 0);
    if (fd < 0)
        return fd;
    int rc = gofer_stat(fd, "", block);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}

/* Who this process is: asked before its filter is on. */
static uint32_t own, own_group;

void gofer_remember_ids(void)
{
    own = geteuid();
    own_group = getegid();
}

/* Who this thread is again. The order matters: with the user come the capabilities for the rest. */
static void come_back(void)
{
    if (syscall(SYS_setresuid, -1, own, -1) < 0
        || syscall(SYS_setgroups, 0, NULL) < 0
        || syscall(SYS_setresgid, -1, own_group, -1) < 0)
        abort();
}

/* The ids of this thread alone: what glibc calls changes all of them. An ordinary user's namespace
 * has nobody else, and setgroups(2) is denied there: then nothing has changed. */
static int become(uint32_t uid, uint32_t gid, const uint32_t *groups, size_t count)
{
    if (syscall(SYS_setgroups, count, groups) < 0)
        return -errno;
    if (syscall(SYS_setresgid, -1, gid, -1) == 0 && syscall(SYS_setresuid, -1, uid, -1) == 0)
        return 0;
    int rc = -errno;
    come_back();
    return rc;
}

/* A socket of `kind`, connected to the name `path` as somebody else: as whom the other side sees
 * (SO_PEERCRED), and as whom Linux asks whether it may be. Does not block. */
int gofer_connect(const char *path, int kind, uint32_t uid, uint32_t gid, const uint32_t *groups,
                  size_t count)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int stranger = uid != own || gid != own_group || count;
    int rc = stranger ? become(uid, gid, groups, count) : 0;
    if (rc == 0) {
        rc = result(connect(fd, (struct sockaddr *)&address, sizeof address));
        if (stranger)
            come_back();
    }
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}

/* A socket of `kind` with the new name `name` in the working directory, and this mode. */
int gofer_bind(const char *name, int kind, uint32_t mode)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strnlen(name, sizeof address.sun_path);
    memcpy(address.sun_path, name, length);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    int fd = socket(AF_UNIX, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int rc = result(fchmod(fd, mode)); /* unix_bind_bsd() takes it from there */
    if (rc == 0)
        rc = result(bind(fd, (struct sockaddr *)&address, size));
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}

/* listen(2) as somebody else, whom those who connect see (SO_PEERCRED); as this process, if it may
 * not be that. */
int gofer_listen(int fd, int backlog, uint32_t uid, uint32_t gid, const uint32_t *groups,
                 size_t count)
{
    int stranger = uid != own || gid != own_group || count;
    if (stranger && become(uid, gid, groups, count) < 0)
        stranger = 0;
    int rc = result(listen(fd, backlog));
    if (stranger)
        come_back();
    return rc;
}

/* connect(2) and bind(2) take a name and no descriptor: see gofer_watch. */
int gofer_chdir(int dirfd) { return result(fchdir(dirfd)); }

int gofer_chown(int fd, uint32_t uid, uint32_t gid)
{
    return result(fchownat(fd, "", uid, gid, AT_EMPTY_PATH));
}

/* fchmod(2) refuses O_PATH descriptors; fchmodat2(2) came with Linux 6.6. */
int gofer_chmod(int fd, uint32_t mode)
{
    long rc = syscall(__NR_fchmodat2, fd, "", mode, AT_EMPTY_PATH);
    if (rc < 0 && errno == ENOSYS)
        rc = fchmod(fd, mode);
    return result(rc);
}

static struct timespec timespec_of(int64_t ns)
{
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    if (t.tv_nsec < 0) {
        t.tv_nsec += 1000000000;
        t.tv_sec -= 1;
    }
    return t;
}

static int before(const struct statx_timestamp *a, const struct timespec *b)
{
    return a->tv_sec < b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec < b->tv_nsec);
}

/* which: bit 0 atime, bit 1 mtime is changed; bit 2, 3: to the value given, else to now. */
int gofer_utimens(int fd, int64_t atime_ns, int64_t mtime_ns, int which)
{
    struct timespec t[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
    if (which & 1)
        t[0] = which & 4 ? timespec_of(atime_ns) : (struct timespec){0, UTIME_NOW};
    if (which & 2)
        t[1] = which & 8 ? timespec_of(mtime_ns) : (struct timespec){0, UTIME_NOW};
    return result(utimensat(fd, "", t, AT_EMPTY_PATH));
}

int gofer_renameat2(int olddir, const char *old, int newdir, const char *name, uint32_t flags)
{
    return result(syscall(__NR_renameat2, olddir, old, newdir, name, flags));
}

int gofer_link(int fd, int newdir, const char *newname)
{
    return result(linkat(fd, "", newdir, newname, AT_EMPTY_PATH));
}

/* Owner of something just made, whose attributes are `block`; what they are then. Mostly it has the
 * right one already, and a journal has less to do. chown clears the set-id bits, so they come after
 * it; the others are as it was made, of which a default list has a say. -1 for an id: as it is. */
int gofer_own(int fd, uint32_t mode, uint32_t uid, uint32_t gid, uint8_t *block)
{
    uint32_t made[3]; /* mode, uid, gid */
    memcpy(made, block, sizeof made);
    int rc = 0, changes = (uid != NOBODY && uid != made[1]) || (gid != NOBODY && gid != made[2]);
    if (changes)
        rc = gofer_chown(fd, uid, gid);
    if (!rc && mode & 07000)
        rc = gofer_chmod(fd, (mode & 07000) | (made[0] & 0777));
    if (!rc && (changes || mode & 07000))
        rc = gofer_stat(fd, "", block);
    return rc;
}

/* A new regular file with its owner; its descriptor. What cannot be given away is not left behind. */
int gofer_create(int dirfd, const char *name, uint64_t access, uint32_t mode, uint32_t uid,
                 uint32_t gid, uint8_t *block)
{
    int fd = gofer_open(dirfd, name, access | O_CREAT | O_EXCL, mode & 0777);
    if (fd < 0)
        return fd;
    int rc = gofer_stat(fd, "", block);
    if (!rc)
        rc = gofer_own(fd, mode, uid, gid, block);
    if (!rc)
        return fd;
    close(fd);
    unlinkat(dirfd, name, 0);
    return rc;
}

int gofer_unlink(int dirfd, const char *name) { return result(unlinkat(dirfd, name, 0)); }

/* What a file has when it gets its name. -1 for an id: as it is. `which`: the times that have been set
 * since, as gofer_utimens has it; the others become `time_ns` where they are older. */
struct given {
    uint32_t mode, uid, gid;
    int which;
    int64_t time_ns, atime_ns, mtime_ns;
};

/* A file without a name gets all that it has at once. */
static int give(int fd, int dir, const char *name, const struct given *g)
{
    struct statx x;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x) < 0)
        return -errno;
    int rc = 0, which = g->which;
    if ((g->uid != NOBODY && g->uid != x.stx_uid) || (g->gid != NOBODY && g->gid != x.stx_gid))
        rc = gofer_chown(fd, g->uid, g->gid);
    if (!rc && (x.stx_mode & 07777) != g->mode)
        rc = gofer_chmod(fd, g->mode);
    const struct timespec t = timespec_of(g->time_ns);
    if (!(which & 1) && before(&x.stx_atime, &t))
        which |= 5;
    if (!(which & 2) && before(&x.stx_mtime, &t))
        which |= 10;
    if (!rc && which)
        rc = gofer_utimens(fd, g->which & 1 ? g->atime_ns : g->time_ns,
                           g->which & 2 ? g->mtime_ns : g->time_ns, which);
    return rc ? rc : gofer_link(fd, dir, name);
}

int gofer_name(int fd, int dir, const char *name, uint32_t mode, uint32_t uid, uint32_t gid,
               int64_t time_ns)
{
    const struct given g = {.mode = mode, .uid = uid, .gid = gid, .time_ns = time_ns};
    return give(fd, dir, name, &g);
}

/* What is made in a directory gets of it: the number of its project (0: of none), or -1 where it has
 * a default ACL. */
int64_t gofer_inherited(int fd)
{
    struct fsxattr x;
    if (fgetxattr(fd, "system.posix_acl_default", NULL, 0) > 0)
        return -1;
    if (ioctl(fd, FS_IOC_FSGETXATTR, &x) < 0 || !(x.fsx_xflags & FS_XFLAG_PROJINHERIT))
        return 0;
    return x.fsx_projid;
}

int gofer_syncfs(int fd) { return result(syncfs(fd)); }

int gofer_notify(void) { return result(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)); }

/* inotify(7) takes a name and no descriptor, so the working directory stands in for one; afterwards
 * that is `home` again, which is held anyway. `name`: of a file in it, or "." for itself. What has
 * that name by now may be watched already, and for more. */
int gofer_watch(int notify, int dirfd, const char *name, int home)
{
    const uint32_t itself = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR;
    const uint32_t other = IN_DONT_FOLLOW | IN_MASK_ADD;
    if (fchdir(dirfd) < 0)
        return -errno;
    uint32_t mask = IN_ATTRIB | (strcmp(name, ".") ? other : itself);
    int rc = result(inotify_add_watch(notify, name, mask));
    return fchdir(home) < 0 ? -errno : rc;
}

int gofer_unwatch(int notify, int number) { return result(inotify_rm_watch(notify, number)); }

/* fanotify(7): each event tells directory, name and who made it. */
int gofer_hearing(void)
{
    return result(fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_DFID_NAME, 0));
}

/* Hear of a directory; its handle, as events have it, is a struct file_handle in `handle`. */
int gofer_hear_of(int group, int dirfd, uint8_t *handle, uint32_t room)
{
    const uint64_t mask = FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO | FAN_ATTRIB
                          | FAN_CLOSE_WRITE | FAN_ONDIR | FAN_EVENT_ON_CHILD;
    struct file_handle *h = (struct file_handle *)handle;
    int mount;
    h->handle_bytes = room - (uint32_t)sizeof *h;
    int rc = name_to_handle_at(dirfd, "", h, &mount, AT_EMPTY_PATH | AT_HANDLE_FID);
    if (rc < 0 && errno == EINVAL) /* before Linux 6.5 */
        rc = name_to_handle_at(dirfd, "", h, &mount, AT_EMPTY_PATH);
    if (rc < 0 || fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_ONLYDIR, mask, dirfd, ".") < 0)
        return -errno;
    return (int)(sizeof *h + h->handle_bytes);
}

int gofer_hear_nothing(int group)
{
    return result(fanotify_mark(group, FAN_MARK_FLUSH, 0, AT_FDCWD, NULL));
}

/* Whether an event is the end of a file of O_TMPFILE: its name there is a # and a number, and nothing
 * has that name. `home`: the directory that such files are made in, `handle`: as gofer_hear_of has it. */
static int is_nameless(const uint8_t *event, const struct fanotify_event_metadata *m, int home,
                       const uint8_t *handle)
{
    struct fanotify_event_info_fid info;
    struct file_handle h;
    struct statx x;
    size_t at = m->metadata_len + sizeof info, size = sizeof h, end = m->event_len;

    if (home < 0 || m->mask != FAN_CLOSE_WRITE || at + size > end)
        return 0;
    memcpy(&h, handle, sizeof h);
    size += h.handle_bytes;
    if (at + size + 2 > end || memcmp(event + at, handle, size) || event[at + size] != '#')
        return 0;
    const char *name = (const char *)event + at + size;
    return memchr(name, 0, end - at - size)
           && statx(home, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &x) < 0
           && errno == ENOENT;
}

/* Events that are not of process `maker`, which makes most of them, and not the end of a file without
 * a name (see above); 0: there are none. */
int64_t gofer_heard(int group, int maker, int home, const uint8_t *handle, uint8_t *out, size_t room)
{
    struct fanotify_event_metadata m; /* in `out` it stands at multiples of 4 */
    for (;;) {
        ssize_t n = read(group, out, room);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        size_t kept = 0, at = 0;
        while (at + sizeof m <= (size_t)n) {
            memcpy(&m, out + at, sizeof m);
            if (m.event_len < sizeof m || m.event_len > (size_t)n - at)
                return -EIO;
            int is_told = m.pid != maker && !is_nameless(out + at, &m, home, handle);
            if (is_told || m.mask & FAN_Q_OVERFLOW) {
                memmove(out + kept, out + at, m.event_len);
                kept += m.event_len;
            }
            at += m.event_len;
        }
        if (kept)
            return (int64_t)kept;
    }
}

/* Rstatfs of gofer/p9/messages.py. */
struct gofer_statfs {
    uint32_t fs_type, bsize;
    uint64_t blocks, bfree, bavail, files, ffree, fsid;
    uint32_t namelen;
};

int gofer_statfs(int fd, struct gofer_statfs *out)
{
    struct statfs s;
    if (fstatfs(fd, &s) < 0)
        return -errno;
    *out = (struct gofer_statfs){
        .fs_type = (uint32_t)s.f_type,
        .bsize = (uint32_t)s.f_bsize,
        .blocks = s.f_blocks,
        .bfree = s.f_bfree,
        .bavail = s.f_bavail,
        .files = s.f_files,
        .ffree = s.f_ffree,
        .namelen = (uint32_t)s.f_namelen,
    };
    memcpy(&out->fsid, &s.f_fsid, sizeof out->fsid);
    return 0;
}

struct entry {
    uint64_t ino;
    int64_t off;
    unsigned short reclen;
    unsigned char type;
    char name[];
};

static int is_dots(const char *name)
{
    return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

struct listing {
    int fd;
    uint64_t dotdot; /* the inode number to show for "..", 0: its own */
};

typedef uint8_t *emitter(const struct listing *of, const struct entry *e, uint8_t *p, uint8_t *end);

/* Entries from the cookie `offset` on, as many as fit. 0 at the end of the directory. */
static int64_t list(const struct listing *of, uint64_t offset, uint8_t *out, size_t room,
                    emitter *emit)
{
    union {
        struct entry align;
        char bytes[16384];
    } buf;
    uint8_t *p = out, *end = out + room;

    if (lseek(of->fd, (off_t)offset, SEEK_SET) < 0)
        return -errno;
    for (;;) {
        long n = syscall(SYS_getdents64, of->fd, buf.bytes, sizeof buf.bytes);
        if (n < 0)
            return p > out ? p - out : -errno;
        if (n == 0)
            return p - out;
        for (char *at = buf.bytes; at < buf.bytes + n;) {
            const struct entry *e = (const struct entry *)at;
            uint8_t *next = emit(of, e, p, end);
            if (!next)
                return p > out ? p - out : -EINVAL;
            p = next;
            at += e->reclen;
        }
    }
}

/* qid[13] offset[8] type[1] name[s] */
static uint8_t *emit_plain(const struct listing *of, const struct entry *e, uint8_t *p,
                           uint8_t *end)
{
    size_t len = strlen(e->name);
    if ((size_t)(end - p) < QID + 8 + 1 + 2 + len)
        return NULL;
    *p++ = e->type == DT_DIR ? 0x80 : e->type == DT_LNK ? 0x02 : 0;
    p = put32(p, 0);
    p = put64(p, of->dotdot && !strcmp(e->name, "..") ? of->dotdot : e->ino);
    p = put64(p, (uint64_t)e->off);
    *p++ = e->type;
    uint16_t n = (uint16_t)len;
    memcpy(p, &n, 2);
    memcpy(p + 2, e->name, len);
    return p + 2 + len;
}

/* Of a name whose attributes the host refuses (EACCES, EIO, ESTALE): no links say so. */
static void pack_unknown(int fd, const struct entry *e, uint8_t *p)
{
    struct statx in = {0};
    (void)statx(fd, "", AT_EMPTY_PATH, STATX_INO, &in);
    pack(&(struct statx){
        .stx_mode = (uint16_t)(e->type << 12),
        .stx_ino = e->ino,
        .stx_dev_major = in.stx_dev_major,
        .stx_dev_minor = in.stx_dev_minor,
    }, 0, p);
}

/* attributes[96] offset[8] name[s] */
static uint8_t *emit_attr(const struct listing *of, const struct entry *e, uint8_t *p,
                          uint8_t *end)
{
    size_t len = strlen(e->name);
    if (is_dots(e->name))
        return p;
    if ((size_t)(end - p) < BLOCK + 8 + 2 + len)
        return NULL;
    int rc = gofer_stat(of->fd, e->name, p);
    if (rc == -ENOENT)
        return p; /* it went away since getdents */
    if (rc < 0)
        pack_unknown(of->fd, e, p);
    p = put64(p + BLOCK, (uint64_t)e->off);
    uint16_t n = (uint16_t)len;
    memcpy(p, &n, 2);
    memcpy(p + 2, e->name, len);
    return p + 2 + len;
}

int64_t gofer_readdir(int fd, uint64_t offset, uint8_t *out, size_t room, uint64_t dotdot)
{
    const struct listing of = {fd, dotdot};
    return list(&of, offset, out, room, emit_plain);
}

int64_t gofer_readdir_attr(int fd, uint64_t offset, uint8_t *out, size_t room)
{
    const struct listing of = {fd, 0};
    return list(&of, offset, out, room, emit_attr);
}

static int forget(struct dl_phdr_info *object, size_t size, void *unused)
{
    (void)size, (void)unused;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || (segment->p_flags & PF_W))
            continue;
        uintptr_t start = object->dlpi_addr + segment->p_vaddr, first = start & ~(page - 1);
        madvise((void *)first, start + segment->p_memsz - first, MADV_DONTNEED);
    }
    return 0;
}

/* Of programs and libraries those pages that are as in their files are the page cache's alone. */
void gofer_forget_code(void)
{
    dl_iterate_phdr(forget, NULL);
}
