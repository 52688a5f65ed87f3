/* Impossible answers and notices of a server, protocols, user namespaces. fuse(4). Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include "fuse.h"
#include <sys/prctl.h>
#include <sys/xattr.h>

static int device;
static struct fuse_in_header *in = (void *)fuse_buffer;
static char *body = fuse_buffer + sizeof(struct fuse_in_header);

/* The next request of this kind; those before it are answered as usual. */
static void next(uint32_t opcode)
{
    for (;;) {
        CHECK(read(device, fuse_buffer, sizeof(fuse_buffer)) > 0);
        if (in->opcode == opcode)
            return;
        serve_one(device, in, body);
    }
}

static long answer(int error, const void *data, size_t size)
{
    struct fuse_out_header out = {sizeof(out) + size, error, in->unique};
    struct iovec both[2] = {{&out, sizeof(out)}, {(void *)data, size}};
    return writev(device, both, 2);
}

static long notify(int code, const void *data, size_t size)
{
    struct fuse_out_header out = {sizeof(out) + size, code, 0};
    struct iovec both[2] = {{&out, sizeof(out)}, {(void *)data, size}};
    return writev(device, both, 2);
}

static int call(int which)
{
    struct stat st;
    char buffer[9000];
    int fd;
    switch (which) {
    case FUSE_LOOKUP: /* a name that nobody knows yet */
        snprintf(buffer, sizeof(buffer), "mnt/%d", getpid());
        return stat(buffer, &st);
    case FUSE_GETATTR:
        return stat("mnt/file", &st);
    case FUSE_STATX:
        return stat("mnt/typed", &st);
    case FUSE_READDIR:
        fd = open("mnt", O_RDONLY | O_DIRECTORY);
        return fd < 0 ? fd : getdents64(fd, buffer, sizeof(buffer));
    case FUSE_READ:
        fd = open("mnt/file", O_RDONLY);
        return fd < 0 ? fd : read(fd, buffer, 100);
    case FUSE_WRITE:
        fd = open("mnt/file", O_RDWR);
        return fd < 0 ? fd : write(fd, buffer, 100);
    case FUSE_READLINK:
        return readlink("mnt/link", buffer, sizeof(buffer));
    case FUSE_LISTXATTR:
        return listxattr("mnt/file", buffer, sizeof(buffer));
    case FUSE_MKDIR:
        return mkdir("mnt/new", 0755);
    case FUSE_LSEEK:
        fd = open("mnt/file", O_RDONLY);
        return fd < 0 ? fd : lseek(fd, 1, SEEK_DATA);
    default:
        return 0;
    }
}

/* A child makes a call; this is how it has to end. Serves what comes after the odd answer. */
static pid_t child;

static void begin(int which)
{
    child = fork();
    CHECK(child >= 0);
    if (!child) {
        close(device);
        errno = 0;
        int result = call(which);
        _exit(result < 0 ? errno : 0);
    }
    next(which == FUSE_STATX ? FUSE_GETATTR : which);
}

static void ended(int line, int error)
{
    int status;
    fcntl(device, F_SETFL, O_NONBLOCK);
    for (int tries = 0; waitpid(child, &status, WNOHANG) != child; tries++) {
        CHECK(tries < 20000);
        if (read(device, fuse_buffer, sizeof(fuse_buffer)) > 0)
            serve_one(device, in, body);
        else
            usleep(1000);
    }
    fcntl(device, F_SETFL, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != error) {
        fprintf(stderr, "line %d: status %x instead of error %d\n", line, status, error);
        exit(1);
    }
}
#define ENDED(error) ended(__LINE__, error)

static void lengths_and_numbers(void)
{
    struct fuse_attr_out attr = {0};
    attr_of(2, &attr.attr);
    begin(FUSE_GETATTR);
    CHECK_ERR(answer(0, &attr, sizeof(attr) - 1), EINVAL);
    CHECK_ERR(answer(0, &attr, sizeof(attr)), ENOENT); /* it is over */
    ENDED(EIO);
    begin(FUSE_GETATTR);
    CHECK_ERR(answer(1, NULL, 0), EINVAL);
    CHECK_ERR(answer(-512, NULL, 0), EINVAL);
    CHECK_ERR(answer(-100000, NULL, 0), EINVAL);
    struct fuse_out_header out = {sizeof(out) + 4, 0, in->unique};
    CHECK_ERR(write(device, &out, sizeof(out)), EINVAL);
    CHECK_ERR(write(device, &out, sizeof(out) - 1), EINVAL);
    CHECK_ERR(write(device, (void *)8, sizeof(out)), EFAULT);
    out.len = sizeof(out);
    out.unique += 1000;
    CHECK_ERR(write(device, &out, sizeof(out)), ENOENT);
    CHECK(answer(-EDOM, NULL, 0) == sizeof(out)); /* all that did nothing to it */
    ENDED(EDOM);
    begin(FUSE_GETATTR);
    CHECK_ERR(answer(-EDOM, &attr, 8), EINVAL);
    ENDED(EIO);
    begin(FUSE_GETATTR);
    CHECK(answer(-133, NULL, 0) == sizeof(out));
    ENDED(133);
    S->open_flags = FOPEN_DIRECT_IO; /* else Linux asks again, for a page */
    begin(FUSE_READ);
    CHECK_ERR(answer(0, fuse_buffer, ((struct fuse_read_in *)body)->size + 1), EINVAL);
    ENDED(EIO);
    S->open_flags = 0;
    begin(FUSE_READLINK);
    CHECK_ERR(answer(0, fuse_buffer + 8192, 4096), EINVAL);
    ENDED(EIO);
    begin(FUSE_WRITE);
    struct fuse_write_out wrote = {101};
    CHECK(answer(0, &wrote, sizeof(wrote)) > 0);
    ENDED(EIO);
}

static void impossible_files(void)
{
    struct fuse_entry_out entry;
    entry_of(2, &entry);
    entry.attr.mode = 0;
    begin(FUSE_LOOKUP);
    CHECK(answer(0, &entry, sizeof(entry)) > 0);
    ENDED(EIO);
    entry_of(2, &entry);
    entry.attr.size = 1ULL << 63;
    begin(FUSE_LOOKUP);
    CHECK(answer(0, &entry, sizeof(entry)) > 0);
    ENDED(EIO);
    struct fuse_attr_out attr = {0};
    attr_of(4, &attr.attr);
    attr.attr.mode = S_IFDIR | 0755;
    begin(FUSE_STATX);
    CHECK(answer(0, &attr, sizeof(attr)) > 0);
    ENDED(EIO);
    begin(FUSE_MKDIR);
    entry_of(2, &entry); /* no directory */
    CHECK(answer(0, &entry, sizeof(entry)) > 0);
    ENDED(EIO);
    begin(FUSE_MKDIR);
    entry_of(0, &entry);
    CHECK(answer(0, &entry, sizeof(entry)) > 0);
    ENDED(EIO);
    begin(FUSE_MKDIR);
    entry_of(1, &entry); /* the root */
    CHECK(answer(0, &entry, sizeof(entry)) > 0);
    ENDED(EIO);
    begin(FUSE_LOOKUP); /* numbers that are odd, but can be */
    entry_of(2, &entry);
    entry.attr.ino = entry.attr.blocks = -1ULL;
    entry.attr.atime = entry.attr.mtime = entry.attr.ctime = -1ULL >> 1;
    entry.attr.atimensec = entry.attr.nlink = entry.attr.uid = entry.attr.gid = -1;
    entry.attr.rdev = entry.attr.blksize = -1;
    entry.attr_valid = entry.entry_valid = 0;
    CHECK(answer(0, &entry, sizeof(entry)) > 0);
    ENDED(0);
}

static void listings(void)
{
    char data[512] = {0};
    struct fuse_dirent *d = (void *)data;
    *d = (struct fuse_dirent){7, 1, 3, DT_REG};
    memcpy(d->name, "a/b", 3);
    begin(FUSE_READDIR);
    CHECK(answer(0, data, 32) > 0);
    ENDED(EIO);
    d->namelen = 0;
    begin(FUSE_READDIR);
    CHECK(answer(0, data, 32) > 0);
    ENDED(EIO);
    d->namelen = 5000;
    begin(FUSE_READDIR);
    CHECK(answer(0, data, 32) > 0);
    ENDED(EIO);
    d->namelen = 100; /* longer than what is there */
    memcpy(d->name, "abc", 3);
    begin(FUSE_READDIR);
    CHECK(answer(0, data, 32) > 0);
    ENDED(0);
    begin(FUSE_READDIR);
    CHECK(answer(0, data, 7) > 0);
    ENDED(0);
    begin(FUSE_LISTXATTR);
    CHECK(answer(0, "abc", 3) > 0);
    ENDED(EIO);
    begin(FUSE_LISTXATTR);
    CHECK(answer(0, "\0a", 3) > 0);
    ENDED(EIO);
}

static void notices(void)
{
    struct fuse_notify_inval_inode_out inode = {99, 0, 0};
    struct {
        struct fuse_notify_inval_entry_out out;
        char name[8];
    } entry = {{1, 4, 0}, "file"};
    CHECK_ERR(notify(0, NULL, 0), EINVAL);
    CHECK_ERR(notify(99, NULL, 0), EINVAL);
    CHECK_ERR(notify(-1, NULL, 0), EINVAL);
    CHECK_ERR(notify(FUSE_NOTIFY_INVAL_INODE, &inode, 8), EINVAL);
    CHECK_ERR(notify(FUSE_NOTIFY_INVAL_INODE, &inode, sizeof(inode)), ENOENT);
    inode.ino = 1;
    CHECK(notify(FUSE_NOTIFY_INVAL_INODE, &inode, sizeof(inode)) > 0);
    CHECK_ERR(notify(FUSE_NOTIFY_INVAL_ENTRY, &entry, 8), EINVAL);
    CHECK_ERR(notify(FUSE_NOTIFY_INVAL_ENTRY, &entry, sizeof(entry.out) + 4), EINVAL);
    CHECK_ERR(notify(FUSE_NOTIFY_INVAL_ENTRY, &entry, sizeof(entry.out) + 6), EINVAL);
    entry.out.namelen = 5000;
    CHECK_ERR(notify(FUSE_NOTIFY_INVAL_ENTRY, &entry, sizeof(entry.out) + 5), ENAMETOOLONG);
    entry.out = (struct fuse_notify_inval_entry_out){50, 4, 0};
    CHECK_ERR(notify(FUSE_NOTIFY_INVAL_ENTRY, &entry, sizeof(entry.out) + 5), ENOENT);

    S->entry_valid = S->attr_valid = 100;
    pid_t server = fork();
    if (!server)
        serve(device);
    struct stat st;
    CHECK(stat("mnt/file", &st) == 0);
    int lookups = S->calls[FUSE_LOOKUP], getattrs = S->calls[FUSE_GETATTR];
    CHECK(stat("mnt/file", &st) == 0 && S->calls[FUSE_LOOKUP] == lookups);
    entry.out.parent = 1;
    CHECK(notify(FUSE_NOTIFY_INVAL_ENTRY, &entry, sizeof(entry.out) + 5) > 0);
    CHECK(stat("mnt/file", &st) == 0 && S->calls[FUSE_LOOKUP] == lookups + 1);
    inode = (struct fuse_notify_inval_inode_out){2, -1, 0};
    getattrs = S->calls[FUSE_GETATTR];
    CHECK(notify(FUSE_NOTIFY_INVAL_INODE, &inode, sizeof(inode)) > 0);
    CHECK(stat("mnt/file", &st) == 0 && S->calls[FUSE_GETATTR] == getattrs + 1);

    S->open_flags = FOPEN_KEEP_CACHE;
    int fd = open("mnt/file", O_RDONLY);
    char *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED && p[0] == 'f');
    S->nodes[2].data[0] = 'g';
    CHECK(p[0] == 'f');
    inode.off = 0;
    CHECK(notify(FUSE_NOTIFY_INVAL_INODE, &inode, sizeof(inode)) > 0);
    CHECK(p[0] == 'g');
    S->nodes[2].data[0] = 'f';
    munmap(p, 4096);
    close(fd);
    S->open_flags = S->entry_valid = S->attr_valid = 0;
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
}

static void protocols(void)
{
    struct {
        uint32_t major, minor;
        int error;
    } said[] = {{7, 41, 0}, {7, 12, 0}, {8, 0, ECONNREFUSED}, {6, 0, ECONNREFUSED}};
    for (int i = 0; i < 4; i++) {
        device = open_fuse();
        CHECK(mount_at(device, "mnt", "") == 0);
        CHECK(read(device, fuse_buffer, sizeof(fuse_buffer)) > 0 && in->opcode == FUSE_INIT);
        struct fuse_init_out out = {said[i].major, said[i].minor};
        out.max_write = 4096;
        size_t size = said[i].minor < 23 ? FUSE_COMPAT_22_INIT_OUT_SIZE : sizeof(out);
        CHECK(answer(0, &out, size) > 0);
        pid_t server = fork();
        if (!server)
            serve(device);
        struct stat st;
        if (said[i].error)
            CHECK_ERR(stat("mnt/file", &st), said[i].error);
        else
            CHECK(stat("mnt/file", &st) == 0);
        close(device);
        stop(server);
    }
}

static void write_text(const char *path, const char *what)
{
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0 && write(fd, what, strlen(what)) == (ssize_t)strlen(what));
    close(fd);
}

static void user_namespaces(void)
{
    int outside = open_fuse();
    mknod("fuse-device", S_IFCHR | 0600, makedev(10, 229));
    CHECK(chmod("fuse-device", 0666) == 0);
    pid_t other = fork();
    if (!other) {
        char map[64];
        CHECK(setgid(1000) == 0 && setuid(1000) == 0);
        CHECK(prctl(PR_SET_DUMPABLE, 1) == 0); /* whose files of /proc are its own */
        CHECK(unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0);
        write_text("/proc/self/setgroups", "deny");
        write_text("/proc/self/uid_map", "0 1000 1");
        write_text("/proc/self/gid_map", "0 1000 1");
        CHECK_ERR(mount_at(outside, "mnt", ""), EINVAL);
        CHECK_ERR(mount("x", "mnt", "fusectl", 0, NULL), EPERM);
        CHECK_ERR(mount("/dev/null", "mnt", "fuseblk", 0, NULL), EPERM);
        int fd = open_fuse();
        snprintf(map, sizeof(map), "fd=%d,rootmode=40000,user_id=1,group_id=0", fd);
        CHECK_ERR(mount("x", "mnt", "fuse", 0, map), EINVAL); /* nobody is 1 */
        CHECK(mount_at(fd, "mnt", ",allow_other") == 0);
        pid_t server = fork();
        if (!server)
            serve(fd);
        close(fd);
        struct stat st;
        S->nodes[2].uid = 0;
        S->nodes[2].gid = 1000; /* which is not mapped */
        CHECK(stat("mnt/file", &st) == 0 && st.st_uid == 0 && st.st_gid == 65534);
        CHECK(S->last[FUSE_LOOKUP].uid == 0 && S->last[FUSE_LOOKUP].gid == 0);
        S->nodes[2].mode = S_IFCHR | 0666; /* a device that root alone could make */
        S->nodes[2].rdev = makedev(1, 3);
        CHECK_ERR(open("mnt/file", O_RDWR), EACCES);
        stop(server);
        _exit(0);
    }
    int status;
    CHECK(waitpid(other, &status, 0) == other && status == 0);
    close(outside);
}

int main(void)
{
    prepare();
    strcpy(S->nodes[make(1, "file", S_IFREG | 0644, NULL)].data, "file");
    S->nodes[2].size = 1000;
    strcpy(S->nodes[make(1, "link", S_IFLNK | 0777, NULL)].data, "file");
    S->nodes[3].size = 4;
    make(1, "typed", S_IFREG | 0644, NULL);
    device = open_fuse();
    CHECK(mount_at(device, "mnt", "") == 0);
    next(FUSE_INIT);
    serve_one(device, in, body);
    lengths_and_numbers();
    impossible_files();
    listings();
    notices();
    close(device);
    CHECK(umount("mnt") == 0);
    protocols();
    user_namespaces();
    return 0;
}
