/* A file system in memory, served to the kernel by the raw protocol of /dev/fuse: linux/fuse.h. */
#ifndef ABI_FUSE_H
#define ABI_FUSE_H

#include <dirent.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROOM (1 << 18)
#define NODES 64

struct node {
    uint64_t parent;
    char name[64];
    uint32_t mode, nlink, uid, gid, rdev, open;
    uint64_t size, atime, mtime;
    char xattr[64], value[64];
    uint32_t value_size;
    char data[1 << 19];
};

/* What the test sees of its server, and tells it to do. */
struct shared {
    int calls[64]; /* by operation */
    struct fuse_in_header last[64];
    struct fuse_init_in init;
    uint32_t offered;        /* flags for the answer to INIT */
    uint32_t open_flags;     /* FOPEN_* */
    uint64_t attr_valid, entry_valid;
    int errors[64];          /* answer these operations with an error */
    int hang[64];            /* do not answer these */
    int lock_errors;
    uint64_t hung;           /* the number of the request that was not answered, */
    uint64_t interrupted;    /* and of the one that was to be interrupted */
    uint64_t flush_owner, lock_owner, write_flags, write_size, open_how, create_how, create_umask;
    uint64_t setattr_valid, release_flags, forgotten;
    struct node nodes[NODES]; /* 1 is the root */
};

static struct shared *S;
static char fuse_buffer[ROOM];

static int open_fuse(void)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0) { /* a container has the device, but perhaps no name for it */
        mknod("fuse-device", S_IFCHR | 0600, makedev(10, 229));
        fd = open("fuse-device", O_RDWR | O_CLOEXEC);
    }
    CHECK(fd >= 0);
    return fd;
}

static void answer_to(int fd, uint64_t unique, int error, const void *data, size_t size)
{
    struct fuse_out_header out = {sizeof(out) + size, error, unique};
    struct iovec both[2] = {{&out, sizeof(out)}, {(void *)data, size}};
    writev(fd, both, 2); /* who asked may be gone */
}

static void attr_of(uint64_t id, struct fuse_attr *attr)
{
    struct node *n = &S->nodes[id];
    memset(attr, 0, sizeof(*attr));
    attr->ino = id;
    attr->size = n->size;
    attr->blocks = (n->size + 511) / 512;
    attr->mode = n->mode;
    attr->nlink = n->nlink;
    attr->uid = n->uid;
    attr->gid = n->gid;
    attr->rdev = n->rdev;
    attr->atime = n->atime;
    attr->mtime = attr->ctime = n->mtime;
    attr->blksize = 4096;
}

static void entry_of(uint64_t id, struct fuse_entry_out *entry)
{
    memset(entry, 0, sizeof(*entry));
    entry->nodeid = id;
    entry->entry_valid = S->entry_valid;
    entry->attr_valid = S->attr_valid;
    if (id)
        attr_of(id, &entry->attr);
}

static uint64_t find(uint64_t parent, const char *name)
{
    for (uint64_t id = 2; id < NODES; id++)
        if (S->nodes[id].parent == parent && strcmp(S->nodes[id].name, name) == 0)
            return id;
    return 0;
}

static uint64_t make(uint64_t parent, const char *name, uint32_t mode, struct fuse_in_header *in)
{
    uint64_t id = 2;
    while (S->nodes[id].mode)
        id++;
    struct node *n = &S->nodes[id];
    memset(n, 0, sizeof(*n));
    n->parent = parent;
    strcpy(n->name, name);
    n->mode = mode;
    n->nlink = S_ISDIR(mode) ? 2 : 1;
    n->mtime = 1000;
    if (in) {
        n->uid = in->uid;
        n->gid = in->gid;
    }
    return id;
}

static size_t list(uint64_t id, uint64_t offset, size_t room, char *to, int plus)
{
    size_t used = 0;
    for (uint64_t i = offset; i < NODES; i++) {
        struct node *n = &S->nodes[i];
        const char *name = i == 0 ? "." : i == 1 ? ".." : n->name;
        if (i > 1 && (n->parent != id || !n->name[0]))
            continue;
        size_t before = plus ? sizeof(struct fuse_entry_out) : 0, length = strlen(name);
        size_t size = before + FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + length);
        if (used + size > room)
            break;
        memset(to + used, 0, size);
        if (plus)
            entry_of(i > 1 ? i : 0, (void *)(to + used));
        struct fuse_dirent *d = (void *)(to + used + before);
        d->ino = i > 1 ? i : 1;
        d->off = i + 1;
        d->namelen = length;
        d->type = i > 1 ? n->mode >> 12 : DT_DIR;
        memcpy(d->name, name, length);
        used += size;
    }
    return used;
}

static void serve_one(int fd, struct fuse_in_header *in, char *body)
{
    struct node *n = in->nodeid < NODES ? &S->nodes[in->nodeid] : NULL;
    union {
        struct fuse_entry_out entry;
        struct fuse_attr_out attr;
        struct fuse_open_out open;
        struct fuse_write_out write;
        struct fuse_statfs_out statfs;
        struct fuse_getxattr_out xattr;
        struct fuse_lseek_out seek;
        struct fuse_lk_out lock;
        struct fuse_ioctl_out ioctl;
        struct fuse_init_out init;
        char bytes[4096];
    } out;
    static char data[1 << 18];
    uint64_t unique = in->unique, id;
    memset(&out, 0, sizeof(out));
    S->calls[in->opcode]++;
    S->last[in->opcode] = *in;
    if (in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET) {
        S->forgotten++;
        return;
    }
    if (in->opcode == FUSE_INTERRUPT) {
        S->interrupted = ((struct fuse_interrupt_in *)body)->unique;
        if (S->interrupted == S->hung) {
            S->hung = 0; /* before who asked goes on, and asks again */
            answer_to(fd, S->interrupted, -EINTR, NULL, 0);
        }
        return;
    }
    if (S->hang[in->opcode]) {
        S->hung = unique;
        return;
    }
    if (S->errors[in->opcode]) {
        answer_to(fd, unique, -S->errors[in->opcode], NULL, 0);
        return;
    }
#define ANSWER(what) answer_to(fd, unique, 0, &(what), sizeof(what))
#define ERROR(number) answer_to(fd, unique, -(number), NULL, 0)
    switch (in->opcode) {
    case FUSE_INIT:
        S->init = *(struct fuse_init_in *)body;
        out.init.major = FUSE_KERNEL_VERSION;
        out.init.minor = FUSE_KERNEL_MINOR_VERSION;
        out.init.flags = S->offered & S->init.flags;
        out.init.max_write = 1 << 17;
        out.init.max_readahead = 1 << 17;
        out.init.max_background = 10;
        out.init.congestion_threshold = 7;
        ANSWER(out.init);
        break;
    case FUSE_LOOKUP:
        id = find(in->nodeid, body);
        if (!id && !S->entry_valid) {
            ERROR(ENOENT);
            break;
        }
        entry_of(id, &out.entry);
        ANSWER(out.entry);
        break;
    case FUSE_GETATTR:
        attr_of(in->nodeid, &out.attr.attr);
        out.attr.attr_valid = S->attr_valid;
        ANSWER(out.attr);
        break;
    case FUSE_SETATTR: {
        struct fuse_setattr_in *set = (void *)body;
        S->setattr_valid = set->valid;
        if (set->valid & FATTR_MODE)
            n->mode = (n->mode & S_IFMT) | (set->mode & 07777);
        if (set->valid & FATTR_UID)
            n->uid = set->uid;
        if (set->valid & FATTR_GID)
            n->gid = set->gid;
        if (set->valid & FATTR_SIZE) {
            if (set->size > n->size)
                memset(n->data + n->size, 0, set->size - n->size);
            n->size = set->size;
        }
        if (set->valid & FATTR_ATIME)
            n->atime = set->valid & FATTR_ATIME_NOW ? 77 : set->atime;
        if (set->valid & FATTR_MTIME)
            n->mtime = set->valid & FATTR_MTIME_NOW ? 77 : set->mtime;
        attr_of(in->nodeid, &out.attr.attr);
        out.attr.attr_valid = S->attr_valid;
        ANSWER(out.attr);
        break;
    }
    case FUSE_READLINK:
        answer_to(fd, unique, 0, n->data, n->size);
        break;
    case FUSE_SYMLINK:
        id = make(in->nodeid, body, S_IFLNK | 0777, in);
        strcpy(S->nodes[id].data, body + strlen(body) + 1);
        S->nodes[id].size = strlen(S->nodes[id].data);
        entry_of(id, &out.entry);
        ANSWER(out.entry);
        break;
    case FUSE_MKNOD: {
        struct fuse_mknod_in *mk = (void *)body;
        id = make(in->nodeid, body + sizeof(*mk), mk->mode, in);
        S->nodes[id].rdev = mk->rdev;
        entry_of(id, &out.entry);
        ANSWER(out.entry);
        break;
    }
    case FUSE_MKDIR: {
        struct fuse_mkdir_in *mk = (void *)body;
        id = make(in->nodeid, body + sizeof(*mk), S_IFDIR | (mk->mode & 07777), in);
        n->nlink++;
        entry_of(id, &out.entry);
        ANSWER(out.entry);
        break;
    }
    case FUSE_CREATE: {
        struct fuse_create_in *mk = (void *)body;
        struct {
            struct fuse_entry_out entry;
            struct fuse_open_out open;
        } both = {{0}};
        S->create_how = mk->flags;
        S->create_umask = mk->umask;
        id = make(in->nodeid, body + sizeof(*mk), mk->mode, in);
        S->nodes[id].open++;
        entry_of(id, &both.entry);
        both.open.fh = id;
        both.open.open_flags = S->open_flags;
        ANSWER(both);
        break;
    }
    case FUSE_UNLINK:
    case FUSE_RMDIR:
        id = find(in->nodeid, body);
        if (in->opcode == FUSE_RMDIR) {
            for (int i = 2; i < NODES; i++)
                if (S->nodes[i].parent == id && S->nodes[i].name[0]) {
                    ERROR(ENOTEMPTY);
                    return;
                }
            n->nlink--;
        }
        S->nodes[id].nlink = 0;
        S->nodes[id].name[0] = 0; /* stays as long as it is known */
        answer_to(fd, unique, 0, NULL, 0);
        break;
    case FUSE_RENAME:
    case FUSE_RENAME2: {
        struct fuse_rename2_in *re = (void *)body;
        size_t head = in->opcode == FUSE_RENAME2 ? sizeof(*re) : sizeof(struct fuse_rename_in);
        uint32_t flags = in->opcode == FUSE_RENAME2 ? re->flags : 0;
        const char *from = body + head, *to = from + strlen(from) + 1;
        uint64_t old = find(in->nodeid, from), over = find(re->newdir, to);
        if (over && flags == 2 /* RENAME_EXCHANGE */) {
            strcpy(S->nodes[over].name, from);
            S->nodes[over].parent = in->nodeid;
        } else if (over) {
            S->nodes[over].name[0] = 0;
            S->nodes[over].nlink = 0;
        }
        strcpy(S->nodes[old].name, to);
        S->nodes[old].parent = re->newdir;
        answer_to(fd, unique, 0, NULL, 0);
        break;
    }
    case FUSE_LINK: /* one name for each node is all this one has */
        ERROR(EMLINK);
        break;
    case FUSE_OPEN:
        S->open_how = ((struct fuse_open_in *)body)->flags;
        /* fall through */
    case FUSE_OPENDIR:
        n->open++;
        out.open.fh = in->nodeid;
        out.open.open_flags = S->open_flags;
        ANSWER(out.open);
        break;
    case FUSE_READ: {
        struct fuse_read_in *rd = (void *)body;
        size_t size = rd->offset >= n->size ? 0 : n->size - rd->offset;
        answer_to(fd, unique, 0, n->data + rd->offset, size < rd->size ? size : rd->size);
        break;
    }
    case FUSE_WRITE: {
        struct fuse_write_in *wr = (void *)body;
        S->write_flags = wr->write_flags;
        S->write_size = wr->size;
        if (wr->offset + wr->size > sizeof(n->data)) {
            ERROR(ENOSPC);
            break;
        }
        memcpy(n->data + wr->offset, body + sizeof(*wr), wr->size);
        if (wr->offset + wr->size > n->size)
            n->size = wr->offset + wr->size;
        n->mtime++;
        out.write.size = wr->size;
        ANSWER(out.write);
        break;
    }
    case FUSE_STATFS:
        out.statfs.st.blocks = 1000;
        out.statfs.st.bfree = 500;
        out.statfs.st.bavail = 500;
        out.statfs.st.files = 64;
        out.statfs.st.ffree = 32;
        out.statfs.st.bsize = 4096;
        out.statfs.st.frsize = 4096;
        out.statfs.st.namelen = 63;
        ANSWER(out.statfs);
        break;
    case FUSE_RELEASE:
        S->release_flags = ((struct fuse_release_in *)body)->release_flags;
        /* fall through */
    case FUSE_RELEASEDIR:
        n->open--;
        answer_to(fd, unique, 0, NULL, 0);
        break;
    case FUSE_FLUSH:
        S->flush_owner = ((struct fuse_flush_in *)body)->lock_owner;
        /* fall through */
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
    case FUSE_FALLOCATE:
        answer_to(fd, unique, 0, NULL, 0);
        break;
    case FUSE_ACCESS:
        if (((struct fuse_access_in *)body)->mask & ~(n->mode >> 6))
            ERROR(EACCES);
        else
            answer_to(fd, unique, 0, NULL, 0);
        break;
    case FUSE_READDIR:
    case FUSE_READDIRPLUS: {
        struct fuse_read_in *rd = (void *)body;
        size_t used = list(in->nodeid, rd->offset, rd->size, data, in->opcode == FUSE_READDIRPLUS);
        answer_to(fd, unique, 0, data, used);
        break;
    }
    case FUSE_SETXATTR: {
        uint32_t size = *(uint32_t *)body;
        strcpy(n->xattr, body + FUSE_COMPAT_SETXATTR_IN_SIZE);
        memcpy(n->value, body + FUSE_COMPAT_SETXATTR_IN_SIZE + strlen(n->xattr) + 1, size);
        n->value_size = size;
        answer_to(fd, unique, 0, NULL, 0);
        break;
    }
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR: {
        struct fuse_getxattr_in *get = (void *)body;
        const char *value = in->opcode == FUSE_GETXATTR ? n->value : n->xattr;
        uint32_t size = in->opcode == FUSE_GETXATTR ? n->value_size
                                                    : n->xattr[0] ? strlen(n->xattr) + 1 : 0;
        if (in->opcode == FUSE_GETXATTR && strcmp(n->xattr, body + sizeof(*get)))
            ERROR(ENODATA);
        else if (!get->size) {
            out.xattr.size = size;
            ANSWER(out.xattr);
        } else if (get->size < size)
            ERROR(ERANGE);
        else
            answer_to(fd, unique, 0, value, size);
        break;
    }
    case FUSE_REMOVEXATTR:
        n->xattr[0] = 0;
        answer_to(fd, unique, 0, NULL, 0);
        break;
    case FUSE_LSEEK: {
        struct fuse_lseek_in *seek = (void *)body;
        out.seek.offset = seek->whence == SEEK_DATA ? seek->offset : 12;
        ANSWER(out.seek);
        break;
    }
    case FUSE_GETLK:
        out.lock.lk = ((struct fuse_lk_in *)body)->lk;
        out.lock.lk.type = F_WRLCK;
        out.lock.lk.start = 3;
        out.lock.lk.end = 5;
        out.lock.lk.pid = getppid();
        ANSWER(out.lock);
        break;
    case FUSE_SETLK:
    case FUSE_SETLKW:
        S->lock_owner = ((struct fuse_lk_in *)body)->owner;
        if (S->lock_errors)
            ERROR(S->lock_errors);
        else
            answer_to(fd, unique, 0, NULL, 0);
        break;
    case FUSE_IOCTL: {
        struct fuse_ioctl_in *io = (void *)body;
        out.ioctl.result = 5;
        for (uint32_t i = 0; i < io->out_size; i++)
            out.bytes[sizeof(out.ioctl) + i] = io->in_size ? body[sizeof(*io) + i] + 1 : 'x';
        answer_to(fd, unique, 0, &out, sizeof(out.ioctl) + io->out_size);
        break;
    }
    default:
        ERROR(ENOSYS);
    }
}

static void serve(int fd)
{
    for (;;) {
        ssize_t got = read(fd, fuse_buffer, sizeof(fuse_buffer));
        if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
            continue;
        if (got <= 0)
            _exit(0);
        struct fuse_in_header *in = (void *)fuse_buffer;
        if (in->len != got)
            _exit(9);
        serve_one(fd, in, fuse_buffer + sizeof(*in));
    }
}

static void prepare(void)
{
    S = mmap(NULL, sizeof(*S), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(S != MAP_FAILED);
    S->nodes[1].mode = S_IFDIR | 0755;
    S->nodes[1].nlink = 2;
    CHECK(unshare(CLONE_NEWNS) == 0);
    CHECK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    mkdir("mnt", 0755);
}

static int mount_at(int fd, const char *where, const char *more)
{
    char options[256];
    snprintf(options, sizeof(options), "fd=%d,rootmode=40755,user_id=0,group_id=0%s", fd, more);
    return mount("source", where, "fuse.abi", MS_NOSUID | MS_NODEV, options);
}

/* Mounts it on mnt; the server alone has the device. */
static pid_t start(const char *more)
{
    int fd = open_fuse();
    CHECK(mount_at(fd, "mnt", more) == 0);
    pid_t server = fork();
    CHECK(server >= 0);
    if (!server)
        serve(fd);
    close(fd);
    return server;
}

static void stop(pid_t server)
{
    int status;
    CHECK(umount("mnt") == 0);
    CHECK(waitpid(server, &status, 0) == server && WIFEXITED(status) && !WEXITSTATUS(status));
}

/* Until a server in another process has come so far. */
#define AWAIT(cond)                                                                             \
    do {                                                                                        \
        for (int tries_ = 0; tries_ < 20000 && !(cond); tries_++) {                             \
            usleep(1000);                                                                       \
            ABI_FENCE;                                                                          \
        }                                                                                       \
        CHECK(cond);                                                                            \
    } while (0)

#endif
