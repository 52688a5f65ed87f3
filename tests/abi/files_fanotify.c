/* fanotify(7): marks, events with descriptors, with handles, with names. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef FAN_REPORT_FD_ERROR
#define FAN_REPORT_FD_ERROR 0x2000
#endif

static char events[1 << 16];
static struct fanotify_event_metadata *event;
static ssize_t left;

static int group(unsigned flags)
{
    int fd = fanotify_init(flags | FAN_NONBLOCK | FAN_CLOEXEC, O_RDONLY);
    CHECK(fd >= 0);
    return fd;
}

static void mark(int fd, unsigned how, uint64_t mask, const char *path)
{
    CHECK(fanotify_mark(fd, FAN_MARK_ADD | how, mask, AT_FDCWD, path) == 0);
}

static void load(int fd)
{
    left = read(fd, events, sizeof events);
    CHECK(left > 0);
    event = (void *)events;
}

static void nothing(int fd)
{
    CHECK_ERR(read(fd, events, sizeof events), EAGAIN);
}

/* The event that is next has this mask; it stays there to be looked at. */
static void expect(uint64_t mask)
{
    CHECK(FAN_EVENT_OK(event, left));
    if (event->mask != mask) {
        fprintf(stderr, "an event %llx, not %llx\n", (long long)event->mask, (long long)mask);
        exit(1);
    }
    CHECK(event->vers == FANOTIFY_METADATA_VERSION && event->reserved == 0);
    CHECK(event->metadata_len == FAN_EVENT_METADATA_LEN);
}

static void next(void)
{
    if (event->fd >= 0)
        close(event->fd);
    event = FAN_EVENT_NEXT(event, left);
}

static void end(int fd)
{
    CHECK(left == 0);
    nothing(fd);
}

/* One event with this mask, and no other. */
static void only(int fd, uint64_t mask)
{
    load(fd);
    expect(mask);
    next();
    end(fd);
}

static void handle_of(const char *path, char *handle)
{
    struct file_handle *h = (void *)handle;
    int mount;
    memset(handle, 0, 64);
    h->handle_bytes = 64 - sizeof *h;
    CHECK(name_to_handle_at(AT_FDCWD, path, h, &mount, 0) == 0);
}

/* The nth record of the event: whose handle it has, and the name behind that. */
static void record(int nth, int type, const char *path, const char *name)
{
    char *at = (char *)event + event->metadata_len, *stop = (char *)event + event->event_len;
    char wanted[64];
    struct statfs fs;
    for (int i = 0; i < nth; i++)
        at += ((struct fanotify_event_info_header *)at)->len;
    struct fanotify_event_info_fid *info = (void *)at;
    CHECK(at < stop && info->hdr.info_type == type && info->hdr.pad == 0);
    CHECK(info->hdr.len % 4 == 0 && at + info->hdr.len <= stop);
    struct file_handle *h = (void *)info->handle, *w = (void *)wanted;
    if (path) {
        handle_of(path, wanted);
        CHECK(h->handle_bytes == w->handle_bytes && h->handle_type == w->handle_type);
        CHECK(memcmp(h->f_handle, w->f_handle, h->handle_bytes) == 0);
    }
    CHECK(statfs("t", &fs) == 0 && memcmp(&fs.f_fsid, &info->fsid, sizeof info->fsid) == 0);
    char *told = (char *)h->f_handle + h->handle_bytes;
    if (name)
        CHECK(strcmp(told, name) == 0);
    else
        CHECK(told == at + info->hdr.len);
}

/* So many records the event has. */
static void records(int count)
{
    char *at = (char *)event + event->metadata_len, *stop = (char *)event + event->event_len;
    while (at < stop) {
        at += ((struct fanotify_event_info_header *)at)->len;
        count--;
    }
    CHECK(at == stop && count == 0);
}

static void touch(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY, 0644);
    CHECK(fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0);
}

static void look(const char *path)
{
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && close(fd) == 0);
}

static void errors(void)
{
    CHECK_ERR(fanotify_init(1 << 30, 0), EINVAL);
    CHECK_ERR(fanotify_init(0, O_CREAT), EINVAL);
    CHECK_ERR(fanotify_init(0, 3), EINVAL);
    CHECK_ERR(fanotify_init(FAN_REPORT_NAME, 0), EINVAL);
    CHECK_ERR(fanotify_init(FAN_REPORT_TARGET_FID | FAN_REPORT_FID, 0), EINVAL);
    CHECK_ERR(fanotify_init(FAN_REPORT_PIDFD | FAN_REPORT_TID, 0), EINVAL);
    CHECK_ERR(fanotify_init(FAN_CLASS_CONTENT | FAN_REPORT_FID, 0), EINVAL);
    CHECK_ERR(fanotify_init(FAN_CLASS_CONTENT | FAN_CLASS_PRE_CONTENT, 0), EINVAL);

    int fd = group(0), fid = group(FAN_REPORT_FID), plain = open("t", O_RDONLY), path = open("t", O_PATH);
    touch("t/f");
    CHECK_ERR(fanotify_mark(-1, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, "t"), EBADF);
    CHECK_ERR(fanotify_mark(plain, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, "t"), EINVAL);
    CHECK_ERR(fanotify_mark(-1, FAN_MARK_ADD, 0, AT_FDCWD, "t"), EINVAL);
    CHECK_ERR(fanotify_mark(-1, FAN_MARK_ADD | FAN_MARK_REMOVE, FAN_OPEN, AT_FDCWD, "t"), EINVAL);
    CHECK_ERR(fanotify_mark(-1, 0, FAN_OPEN, AT_FDCWD, "t"), EINVAL);
    CHECK_ERR(fanotify_mark(-1, FAN_MARK_ADD | 0x10000, FAN_OPEN, AT_FDCWD, "t"), EINVAL);
    CHECK_ERR(fanotify_mark(-1, FAN_MARK_FLUSH | FAN_MARK_ONLYDIR, 0, AT_FDCWD, "t"), EINVAL);
    CHECK_ERR(fanotify_mark(-1, FAN_MARK_ADD, 1ULL << 40, AT_FDCWD, "t"), EINVAL);
    CHECK_ERR(fanotify_mark(-1, FAN_MARK_ADD, FAN_Q_OVERFLOW, AT_FDCWD, "t"), EINVAL);
    CHECK_ERR(fanotify_mark(-1, FAN_MARK_ADD | FAN_MARK_IGNORE | FAN_MARK_IGNORED_MASK, FAN_OPEN,
                            AT_FDCWD, "t"), EINVAL);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, "t/none"), ENOENT);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, (char *)8), EFAULT);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_ONLYDIR, FAN_OPEN, AT_FDCWD, "t/f"), ENOTDIR);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN, -1, NULL), EBADF);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN, path, NULL), EBADF);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD, FAN_CREATE, AT_FDCWD, "t"), EINVAL);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, "t"), EINVAL);
    CHECK_ERR(fanotify_mark(fid, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_CREATE, AT_FDCWD, "t"), EINVAL);
    CHECK_ERR(fanotify_mark(fid, FAN_MARK_ADD, FAN_RENAME, AT_FDCWD, "t"), EINVAL);
    CHECK_ERR(fanotify_mark(fid, FAN_MARK_ADD, FAN_FS_ERROR, AT_FDCWD, "t"), EINVAL);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_MOUNT | FAN_MARK_EVICTABLE, FAN_OPEN, AT_FDCWD,
                            "t"), EINVAL);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_IGNORE, FAN_OPEN, AT_FDCWD, "t"), EISDIR);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_IGNORE | FAN_MARK_MOUNT, FAN_OPEN, AT_FDCWD,
                            "t"), EINVAL);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_IGNORE_SURV, FAN_OPEN | FAN_ONDIR, AT_FDCWD,
                            "t/f"), ENOTDIR);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_REMOVE, FAN_OPEN, AT_FDCWD, "t"), ENOENT);
    mark(fd, FAN_MARK_IGNORE_SURV, FAN_OPEN, "t/f");
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_IGNORED_MASK, FAN_OPEN, AT_FDCWD, "t/f"), EEXIST);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_IGNORE, FAN_OPEN, AT_FDCWD, "t/f"), EEXIST);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_EVICTABLE, FAN_OPEN, AT_FDCWD, "t/f"), EEXIST);
    CHECK(fanotify_mark(fd, FAN_MARK_FLUSH, 0, AT_FDCWD, NULL) == 0);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_REMOVE, FAN_OPEN, AT_FDCWD, "t/f"), ENOENT);
    CHECK_ERR(write(fd, "\0\0\0\0\0\0\0\0", 8), EINVAL);
    CHECK_ERR(write(fd, "", 1), EINVAL);
    nothing(fd);
    CHECK(unlink("t/f") == 0);
    close(fd), close(fid), close(plain), close(path);
}

static void descriptors(void)
{
    struct pollfd poller = {.events = POLLIN};
    struct stat st, mine;
    int fd = group(0), waiting = 0;
    char byte;
    touch("t/f");
    mark(fd, 0, FAN_OPEN | FAN_MODIFY | FAN_CLOSE | FAN_ACCESS, "t/f");
    poller.fd = fd;
    CHECK(poll(&poller, 1, 0) == 0);
    touch("t/f");
    CHECK(poll(&poller, 1, 0) == 1 && poller.revents == POLLIN);
    CHECK(ioctl(fd, FIONREAD, &waiting) == 0 && waiting == FAN_EVENT_METADATA_LEN);
    CHECK_ERR(read(fd, events, FAN_EVENT_METADATA_LEN - 1), EINVAL);
    load(fd);
    expect(FAN_OPEN | FAN_MODIFY | FAN_CLOSE_WRITE);
    CHECK(event->pid == getpid() && event->event_len == FAN_EVENT_METADATA_LEN);
    CHECK(fstat(event->fd, &st) == 0 && stat("t/f", &mine) == 0 && st.st_ino == mine.st_ino);
    CHECK((fcntl(event->fd, F_GETFL) & O_ACCMODE) == O_RDONLY && fcntl(event->fd, F_GETFD) == 0);
    CHECK(read(event->fd, &byte, 1) == 1 && byte == 'x');
    next();
    end(fd); /* nobody hears of what was done by that descriptor */

    int file = open("t/f", O_RDONLY);
    CHECK(read(file, &byte, 1) == 1 && truncate("t/f", 1) == 0 && close(file) == 0);
    only(fd, FAN_OPEN | FAN_ACCESS | FAN_CLOSE_NOWRITE); /* truncate(2) has no descriptor */
    CHECK(fanotify_mark(fd, FAN_MARK_REMOVE, FAN_OPEN | FAN_ACCESS, AT_FDCWD, "t/f") == 0);
    look("t/f");
    only(fd, FAN_CLOSE_NOWRITE);
    CHECK(fanotify_mark(fd, FAN_MARK_REMOVE, FAN_MODIFY | FAN_CLOSE, AT_FDCWD, "t/f") == 0);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_REMOVE, FAN_MODIFY, AT_FDCWD, "t/f"), ENOENT);

    mark(fd, 0, FAN_OPEN, "t");
    look("t/f");
    look("t");
    nothing(fd); /* neither children nor directories were asked for */
    mark(fd, 0, FAN_OPEN | FAN_ONDIR, "t");
    look("t/f");
    look("t");
    only(fd, FAN_OPEN);
    mark(fd, 0, FAN_EVENT_ON_CHILD, "t");
    look("t/f");
    only(fd, FAN_OPEN);
    look("t/f");
    look("t");
    load(fd);
    expect(FAN_OPEN);
    CHECK(fstat(event->fd, &st) == 0 && S_ISREG(st.st_mode));
    next();
    expect(FAN_OPEN);
    CHECK(fstat(event->fd, &st) == 0 && S_ISDIR(st.st_mode));
    next();
    end(fd);
    CHECK(unlink("t/f") == 0);
    close(fd);
}

static void ignoring(void)
{
    int fd = group(0);
    touch("t/f");
    touch("t/g");
    mark(fd, FAN_MARK_MOUNT, FAN_OPEN | FAN_CLOSE_WRITE, "t");
    mark(fd, FAN_MARK_IGNORED_MASK, FAN_OPEN, "t/f");
    look("t/f");
    nothing(fd);
    look("t/g");
    only(fd, FAN_OPEN);
    touch("t/f");
    only(fd, FAN_CLOSE_WRITE); /* a write ends it */
    look("t/f");
    only(fd, FAN_OPEN);
    mark(fd, FAN_MARK_IGNORE_SURV, FAN_OPEN, "t/f");
    touch("t/f");
    only(fd, FAN_CLOSE_WRITE);
    look("t/f");
    nothing(fd);
    CHECK(fanotify_mark(fd, FAN_MARK_REMOVE | FAN_MARK_IGNORE, FAN_OPEN, AT_FDCWD, "t/f") == 0);
    look("t/f");
    only(fd, FAN_OPEN);
    mark(fd, FAN_MARK_IGNORE_SURV, FAN_OPEN | FAN_EVENT_ON_CHILD, "t");
    look("t/f");
    nothing(fd);
    CHECK(fanotify_mark(fd, FAN_MARK_FLUSH, 0, AT_FDCWD, NULL) == 0);
    look("t/f");
    only(fd, FAN_OPEN);
    CHECK(fanotify_mark(fd, FAN_MARK_FLUSH | FAN_MARK_MOUNT, 0, AT_FDCWD, NULL) == 0);
    look("t/f");
    nothing(fd);
    CHECK(unlink("t/f") == 0 && unlink("t/g") == 0);
    close(fd);
}

static void handles(void)
{
    int fd = group(FAN_REPORT_FID);
    mark(fd, 0, FAN_CREATE | FAN_DELETE | FAN_MOVE | FAN_ATTRIB | FAN_ONDIR | FAN_EVENT_ON_CHILD, "t");
    touch("t/f");
    CHECK(mkdir("t/d", 0755) == 0);
    load(fd);
    expect(FAN_CREATE);
    CHECK(event->fd == FAN_NOFD && event->pid == getpid());
    record(0, FAN_EVENT_INFO_TYPE_FID, "t", NULL);
    records(1);
    next();
    expect(FAN_CREATE | FAN_ONDIR);
    record(0, FAN_EVENT_INFO_TYPE_FID, "t", NULL);
    next();
    end(fd);
    CHECK(chmod("t/f", 0600) == 0);
    load(fd);
    expect(FAN_ATTRIB);
    record(0, FAN_EVENT_INFO_TYPE_FID, "t/f", NULL);
    next();
    end(fd);
    CHECK(rename("t/f", "t/g") == 0 && unlink("t/g") == 0 && rmdir("t/d") == 0);
    load(fd);
    expect(FAN_MOVED_FROM | FAN_MOVED_TO | FAN_DELETE);
    next();
    while (left > 0 && event->mask == FAN_ATTRIB)
        next();
    expect(FAN_DELETE | FAN_ONDIR);
    next();
    while (left > 0)
        next();
    close(fd);

    fd = group(FAN_REPORT_FID);
    touch("t/f");
    mark(fd, 0, FAN_DELETE_SELF | FAN_MOVE_SELF | FAN_ATTRIB, "t/f");
    CHECK(rename("t/f", "t/g") == 0);
    only(fd, FAN_MOVE_SELF);
    CHECK(link("t/g", "t/h") == 0);
    only(fd, FAN_ATTRIB);
    CHECK(unlink("t/g") == 0 && unlink("t/h") == 0);
    only(fd, FAN_ATTRIB | FAN_DELETE_SELF);
    close(fd);
}

static void names(void)
{
    int fd = group(FAN_REPORT_DFID_NAME | FAN_REPORT_FID);
    mark(fd, 0, FAN_CREATE | FAN_DELETE | FAN_OPEN | FAN_CLOSE_WRITE | FAN_ONDIR | FAN_EVENT_ON_CHILD, "t");
    touch("t/f");
    load(fd);
    expect(FAN_CREATE);
    record(0, FAN_EVENT_INFO_TYPE_DFID_NAME, "t", "f");
    records(1);
    next();
    expect(FAN_OPEN | FAN_CLOSE_WRITE);
    record(0, FAN_EVENT_INFO_TYPE_DFID_NAME, "t", "f");
    record(1, FAN_EVENT_INFO_TYPE_FID, "t/f", NULL);
    records(2);
    next();
    end(fd);
    look("t");
    load(fd);
    expect(FAN_OPEN | FAN_ONDIR);
    record(0, FAN_EVENT_INFO_TYPE_DFID_NAME, "t", ".");
    records(1);
    next();
    end(fd);
    CHECK(unlink("t/f") == 0);
    load(fd);
    expect(FAN_DELETE);
    record(0, FAN_EVENT_INFO_TYPE_DFID_NAME, "t", "f");
    next();
    end(fd);
    close(fd);

    fd = group(FAN_REPORT_DIR_FID);
    touch("t/f");
    mark(fd, 0, FAN_CREATE | FAN_OPEN | FAN_EVENT_ON_CHILD | FAN_ONDIR, "t");
    look("t/f");
    load(fd);
    expect(FAN_OPEN);
    record(0, FAN_EVENT_INFO_TYPE_FID, "t", NULL); /* of the directory for all that */
    records(1);
    next();
    end(fd);
    CHECK(mkdir("t/d", 0755) == 0);
    load(fd);
    expect(FAN_CREATE | FAN_ONDIR);
    record(0, FAN_EVENT_INFO_TYPE_DFID, "t", NULL);
    next();
    end(fd);
    CHECK(rmdir("t/d") == 0);
    close(fd);

    fd = group(FAN_REPORT_DFID_NAME);
    mark(fd, 0, FAN_OPEN, "t/f"); /* of a file itself: with its name all the same */
    look("t/f");
    load(fd);
    expect(FAN_OPEN);
    record(0, FAN_EVENT_INFO_TYPE_DFID_NAME, "t", "f");
    records(1);
    next();
    end(fd);
    CHECK(unlink("t/f") == 0);
    close(fd);
}

static void renames(void)
{
    int both = group(FAN_REPORT_DFID_NAME), from = group(FAN_REPORT_DFID_NAME);
    int to = group(FAN_REPORT_DFID_NAME), whole = group(FAN_REPORT_DFID_NAME_TARGET);
    CHECK(mkdir("t/a", 0755) == 0 && mkdir("t/b", 0755) == 0);
    touch("t/a/f");
    mark(both, 0, FAN_RENAME, "t/a");
    mark(both, 0, FAN_RENAME, "t/b");
    mark(from, 0, FAN_RENAME, "t/a");
    mark(to, 0, FAN_RENAME, "t/b");
    mark(whole, FAN_MARK_FILESYSTEM, FAN_RENAME | FAN_CREATE, "t");
    CHECK_ERR(fanotify_mark(both, FAN_MARK_ADD, FAN_RENAME, AT_FDCWD, "t/a/f"), ENOTDIR);
    CHECK(rename("t/a/f", "t/b/g") == 0);
    load(both);
    expect(FAN_RENAME);
    record(0, FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, "t/a", "f");
    record(1, FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, "t/b", "g");
    records(2);
    next();
    end(both);
    load(from);
    record(0, FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, "t/a", "f");
    records(1);
    next();
    end(from);
    load(to);
    record(0, FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, "t/b", "g");
    records(1);
    next();
    end(to);
    load(whole);
    expect(FAN_RENAME);
    record(0, FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, "t/a", "f");
    record(1, FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, "t/b", "g");
    record(2, FAN_EVENT_INFO_TYPE_FID, "t/b/g", NULL);
    records(3);
    next();
    end(whole);
    touch("t/b/h");
    load(whole);
    expect(FAN_CREATE);
    record(0, FAN_EVENT_INFO_TYPE_DFID_NAME, "t/b", "h");
    record(1, FAN_EVENT_INFO_TYPE_FID, "t/b/h", NULL);
    records(2);
    next();
    end(whole);
    CHECK(unlink("t/b/g") == 0 && unlink("t/b/h") == 0 && rmdir("t/a") == 0 && rmdir("t/b") == 0);
    close(both), close(from), close(to), close(whole);
}

/* A handle of an event can be opened. */
static void opened(void)
{
    int fd = group(FAN_REPORT_FID), at = open("t", O_RDONLY);
    struct stat st, mine;
    touch("t/f");
    mark(fd, FAN_MARK_FILESYSTEM, FAN_OPEN, "t");
    look("t/f");
    load(fd);
    struct fanotify_event_info_fid *info = (void *)(event + 1);
    int file = open_by_handle_at(at, (void *)info->handle, O_PATH);
    CHECK(file >= 0 && fstat(file, &st) == 0 && stat("t/f", &mine) == 0 && st.st_ino == mine.st_ino);
    CHECK(unlink("t/f") == 0);
    close(file), close(fd), close(at);
}

static int wait_for(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void processes(void)
{
    int fd = group(FAN_REPORT_PIDFD), ready[2], go[2];
    char byte;
    touch("t/f");
    mark(fd, 0, FAN_OPEN, "t/f");
    CHECK(pipe(ready) == 0 && pipe(go) == 0);
    pid_t pid = fork();
    if (!pid) {
        look("t/f");
        CHECK(write(ready[1], "", 1) == 1 && read(go[0], &byte, 1) == 1);
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    load(fd);
    expect(FAN_OPEN);
    CHECK(event->pid == pid && event->event_len == sizeof *event + sizeof(struct fanotify_event_info_pidfd));
    struct fanotify_event_info_pidfd *info = (void *)(event + 1);
    CHECK(info->hdr.info_type == FAN_EVENT_INFO_TYPE_PIDFD && info->hdr.len == sizeof *info);
    struct pollfd poller = {.fd = info->pidfd, .events = POLLIN};
    CHECK(info->pidfd >= 0 && poll(&poller, 1, 0) == 0);
    CHECK(write(go[1], "", 1) == 1 && wait_for(pid) == 0 && poll(&poller, 1, 0) == 1);
    close(info->pidfd);
    next();
    end(fd);
    pid = fork();
    if (!pid) {
        look("t/f");
        _exit(0);
    }
    CHECK(wait_for(pid) == 0);
    load(fd);
    info = (void *)(event + 1);
    CHECK(event->pid == pid && info->pidfd == FAN_NOPIDFD);
    next();
    end(fd);
    close(fd), close(ready[0]), close(ready[1]), close(go[0]), close(go[1]);
    CHECK(unlink("t/f") == 0);
}

/* Who is not privileged is told handles of what it marked itself, and not who did it. */
static void ordinary(void)
{
    int status;
    CHECK(chmod("t", 0777) == 0);
    touch("t/f");
    CHECK(chmod("t/f", 0666) == 0);
    pid_t pid = fork();
    if (!pid) {
        CHECK(setgroups(0, 0) == 0 && setresgid(1000, 1000, 1000) == 0 && setresuid(1000, 1000, 1000) == 0);
        CHECK_ERR(fanotify_init(0, 0), EPERM);
        CHECK_ERR(fanotify_init(FAN_REPORT_FID | FAN_UNLIMITED_QUEUE, 0), EPERM);
        CHECK_ERR(fanotify_init(FAN_REPORT_FID | FAN_REPORT_PIDFD, 0), EPERM);
        CHECK_ERR(fanotify_init(FAN_CLASS_CONTENT, 0), EPERM);
        int fd = group(FAN_REPORT_FID);
        CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_OPEN, AT_FDCWD, "t"), EPERM);
        CHECK_ERR(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_OPEN, AT_FDCWD, "t"), EPERM);
        mark(fd, 0, FAN_OPEN, "t/f");
        look("t/f");
        load(fd);
        expect(FAN_OPEN);
        CHECK(event->pid == getpid() && event->fd == FAN_NOFD);
        next();
        end(fd);
        pid_t other = fork();
        if (!other) {
            look("t/f");
            _exit(0);
        }
        CHECK(waitpid(other, &status, 0) == other && status == 0);
        load(fd);
        expect(FAN_OPEN);
        CHECK(event->pid == 0);
        _exit(0);
    }
    CHECK(wait_for(pid) == 0);
    CHECK(chmod("t", 0755) == 0 && unlink("t/f") == 0);
}

static void shown(void)
{
    int fd = group(FAN_REPORT_FID);
    char path[64], text[1024], line[256];
    struct stat st;
    touch("t/f");
    CHECK(stat("t/f", &st) == 0);
    mark(fd, 0, FAN_OPEN, "t/f");
    mark(fd, FAN_MARK_IGNORE_SURV, FAN_CLOSE_WRITE, "t/f");
    mark(fd, FAN_MARK_MOUNT, FAN_OPEN, "t");
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    int info = open(path, O_RDONLY), n = read(info, text, sizeof text - 1);
    CHECK(n > 0);
    text[n] = 0;
    CHECK(strstr(text, "fanotify flags:203 event-flags:8000\n"));
    snprintf(line, sizeof line, "fanotify ino:%lx sdev:", (long)st.st_ino);
    CHECK(strstr(text, line));
    CHECK(strstr(text, " mflags:440 mask:20 ignored_mask:8 fhandle-bytes:c fhandle-type:1 f_handle:"));
    CHECK(strstr(text, "fanotify mnt_id:") && strstr(text, " mflags:0 mask:20 ignored_mask:0\n"));
    CHECK(unlink("t/f") == 0);
    close(info), close(fd);
}

static void programs(void)
{
    int fd = group(0), from = open("/proc/self/exe", O_RDONLY), n;
    int to = open("t/program", O_CREAT | O_WRONLY, 0755);
    while ((n = read(from, events, sizeof events)) > 0)
        CHECK(write(to, events, n) == n);
    close(from), close(to);
    mark(fd, 0, FAN_OPEN_EXEC, "t/program");
    look("t/program");
    nothing(fd);
    pid_t pid = fork();
    if (!pid) {
        execl("t/program", "t/program", "go", (char *)0);
        _exit(1);
    }
    CHECK(wait_for(pid) == 0);
    load(fd);
    expect(FAN_OPEN_EXEC);
    CHECK(event->pid == pid);
    next();
    end(fd);
    CHECK(unlink("t/program") == 0);
    close(fd);
}

static void unmounted(void)
{
    int fd = group(FAN_REPORT_FID);
    CHECK(mkdir("t/m", 0755) == 0 && mount("none", "t/m", "tmpfs", 0, 0) == 0);
    touch("t/m/f");
    mark(fd, 0, FAN_OPEN, "t/m/f");
    mark(fd, FAN_MARK_FILESYSTEM, FAN_OPEN, "t/m");
    CHECK(umount("t/m") == 0);
    CHECK_ERR(fanotify_mark(fd, FAN_MARK_REMOVE | FAN_MARK_FILESYSTEM, FAN_OPEN, AT_FDCWD, "t/m"), ENOENT);
    nothing(fd);
    CHECK(rmdir("t/m") == 0);
    close(fd);
}

static void overflow(void)
{
    static char buffer[1 << 21]; /* room for all of them in one read, which may give fewer */
    int fd = group(FAN_REPORT_DFID_NAME), count = 0, lost = 0;
    char path[32];
    CHECK(mkdir("t/many", 0755) == 0);
    mark(fd, 0, FAN_CREATE, "t/many");
    for (int i = 0; i < 16400; i++) {
        snprintf(path, sizeof path, "t/many/%d", i);
        CHECK(symlink("x", path) == 0);
    }
    while ((left = read(fd, buffer, sizeof buffer)) > 0)
        for (event = (void *)buffer; FAN_EVENT_OK(event, left); event = FAN_EVENT_NEXT(event, left)) {
            count++;
            if (event->mask == FAN_Q_OVERFLOW) {
                CHECK(event->fd == FAN_NOFD && event->pid == 0);
                lost++;
            }
        }
    CHECK(count == 16385 && lost == 1);
    close(fd);
}

static void blocking(void)
{
    int fd = fanotify_init(0, O_RDONLY), other = fanotify_init(FAN_REPORT_FID, O_RDONLY);
    touch("t/f");
    mark(fd, 0, FAN_OPEN, "t/f");
    mark(other, 0, FAN_OPEN, "t/f");
    for (int i = 0; i < 2; i++) {
        pid_t pid = fork();
        if (!pid) {
            usleep(20000);
            look("t/f");
            _exit(0);
        }
        load(i ? other : fd);
        expect(FAN_OPEN);
        next();
        CHECK(wait_for(pid) == 0);
    }
    CHECK(unlink("t/f") == 0);
    close(fd), close(other);
}

/* A read that finds no memory leaves no descriptor open. */
static void no_memory(unsigned how)
{
    int fd = group(how), free = dup(fd);
    CHECK(close(free) == 0);
    touch("t/f");
    mark(fd, 0, FAN_OPEN, "t/f");
    look("t/f");
    CHECK_ERR(read(fd, (void *)8, 4096), EFAULT);
    CHECK(dup(fd) == free);
    nothing(fd);
    close(free), close(fd);
    CHECK(unlink("t/f") == 0);
}

int main(int count, char **arguments)
{
    if (count > 1)
        return 0;
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    CHECK(mkdir("t", 0755) == 0 && mount("none", "t", "tmpfs", 0, "mode=0755") == 0);
    errors();
    descriptors();
    ignoring();
    handles();
    names();
    renames();
    opened();
    processes();
    ordinary();
    shown();
    programs();
    unmounted();
    blocking();
    overflow();
    no_memory(FAN_CLASS_NOTIF);
    no_memory(FAN_REPORT_PIDFD);
    no_memory(FAN_REPORT_PIDFD | FAN_REPORT_FID);
    return 0;
}
