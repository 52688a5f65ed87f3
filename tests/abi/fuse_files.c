/* Files of a server: what calls ask it, and what they make of its answers. fuse(4). Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include "fuse.h"
#include <sys/file.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

static char text[8192];

static const char *contents(const char *path)
{
    FILE *f = fopen(path, "r");
    CHECK(f);
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    text[n] = 0;
    fclose(f);
    return text;
}

static void put(const char *path, const char *what)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    CHECK(fd >= 0);
    CHECK(write(fd, what, strlen(what)) == (ssize_t)strlen(what));
    CHECK(close(fd) == 0);
}

static void device_without_a_mount(void)
{
    int fd = open_fuse();
    char buffer[16384];
    CHECK_ERR(read(fd, buffer, sizeof(buffer)), EPERM);
    CHECK_ERR(write(fd, buffer, 16), EPERM);
    struct pollfd p = {fd, POLLIN | POLLOUT, 0};
    CHECK(poll(&p, 1, 0) == 1 && p.revents == POLLERR);
    uint32_t other = fd;
    CHECK_ERR(ioctl(fd, FUSE_DEV_IOC_CLONE, &other), EPERM);
    CHECK_ERR(ioctl(fd, FUSE_DEV_IOC_CLONE, (void *)8), EFAULT);
    CHECK_ERR(ioctl(fd, 0x1234, &other), ENOTTY);
    CHECK_ERR(lseek(fd, 0, SEEK_CUR), ESPIPE);
    close(fd);
}

static void mount_options(void)
{
    int fd = open_fuse(), null = open("/dev/null", O_RDWR);
    char options[128];
#define REFUSED(format, number, error)                                                          \
    snprintf(options, sizeof(options), format, number);                                         \
    CHECK_ERR(mount("x", "mnt", "fuse", 0, options), error)
    REFUSED("fd=%d,rootmode=40000,user_id=0", fd, EINVAL);
    REFUSED("fd=%d,user_id=0,group_id=0", fd, EINVAL);
    REFUSED("rootmode=40000,user_id=%d,group_id=0", 0, EINVAL);
    REFUSED("fd=%d,rootmode=0,user_id=0,group_id=0", fd, EINVAL);
    REFUSED("fd=%d,rootmode=49000,user_id=0,group_id=0", fd, EINVAL);
    REFUSED("fd=%d,rootmode=40000,user_id=x,group_id=0", fd, EINVAL);
    REFUSED("fd=%d,rootmode=40000,user_id=0,group_id=0,nonsense", fd, EINVAL);
    REFUSED("fd=%d,rootmode=40000,user_id=0,group_id=0,blksize=512", fd, EINVAL);
    REFUSED("fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions=1", fd, EINVAL);
    REFUSED("fd=%d,rootmode=40000,user_id=0,group_id=0", null, EINVAL);
    CHECK_ERR(mount("x", "mnt", "fuse", 0, NULL), EINVAL);
    CHECK_ERR(mount("x", "mnt", "fuse.", 0, options), EINVAL);
    CHECK_ERR(mount("x", "mnt", "tmpfs.sub", 0, NULL), ENODEV);
    CHECK_ERR(mount("nowhere", "mnt", "fuseblk", 0, options), ENOENT);
    CHECK_ERR(mount("/dev/null", "mnt", "fuseblk", 0, options), ENOTBLK);
    CHECK(mount_at(fd, "mnt", ",max_read=8192,allow_other") == 0);
    CHECK_ERR(mount_at(fd, "mnt", ""), EBUSY); /* the same file system */
    mkdir("again", 0755);
    CHECK(mount_at(fd, "again", "") == 0 && umount("again") == 0);
    struct pollfd p = {fd, POLLIN | POLLOUT, 0};
    CHECK(poll(&p, 1, 0) == 1 && p.revents == (POLLIN | POLLOUT)); /* INIT */
    char small[4096];
    CHECK_ERR(read(fd, small, sizeof(small)), EINVAL);
    char *mounts = (char *)contents("/proc/self/mounts");
    char *line = strstr(mounts, "source ");
    CHECK(line && strstr(line, " fuse.abi rw,nosuid,nodev,relatime,user_id=0,group_id=0,"
                               "allow_other,max_read=8192 0 0\n"));
    CHECK(umount("mnt") == 0);
    CHECK_ERR(read(fd, fuse_buffer, sizeof(fuse_buffer)), ENODEV);
    p.revents = 0;
    CHECK(poll(&p, 1, 0) == 1 && p.revents == POLLERR);
    CHECK_ERR(mount_at(fd, "mnt", ""), ENOTCONN);
    close(fd);
    close(null);
}

static void mount_by_descriptors(void)
{
    int device = open_fuse(), fs = fsopen("fuse", 0);
    CHECK(fs >= 0);
    CHECK(fsconfig(fs, FSCONFIG_SET_STRING, "source", "from", 0) == 0);
    CHECK(fsconfig(fs, FSCONFIG_SET_STRING, "subtype", "sub", 0) == 0);
    char number[16];
    snprintf(number, sizeof(number), "%d", device);
    CHECK_ERR(fsconfig(fs, FSCONFIG_SET_FD, "fd", NULL, device), EINVAL);
    CHECK(fsconfig(fs, FSCONFIG_SET_STRING, "fd", number, 0) == 0);
    CHECK(fsconfig(fs, FSCONFIG_SET_STRING, "rootmode", "40000", 0) == 0);
    CHECK(fsconfig(fs, FSCONFIG_SET_STRING, "user_id", "0", 0) == 0);
    CHECK_ERR(fsconfig(fs, FSCONFIG_SET_STRING, "group_id", "x", 0), EINVAL);
    CHECK_ERR(fsconfig(fs, FSCONFIG_SET_FLAG, "nonsense", NULL, 0), EINVAL);
    CHECK(fsconfig(fs, FSCONFIG_SET_STRING, "group_id", "0", 0) == 0);
    CHECK(fsconfig(fs, FSCONFIG_SET_FLAG, "allow_other", NULL, 0) == 0);
    CHECK(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0);
    int tree = fsmount(fs, 0, 0);
    CHECK(tree >= 0);
    CHECK(move_mount(tree, "", AT_FDCWD, "mnt", MOVE_MOUNT_F_EMPTY_PATH) == 0);
    CHECK(strstr(contents("/proc/self/mounts"), "from ") != NULL);
    CHECK(strstr(text, " fuse.sub rw,relatime,user_id=0,group_id=0,allow_other 0 0\n"));
    close(tree);
    close(fs);
    CHECK(umount("mnt") == 0);
    close(device);
}

static void names_and_attributes(void)
{
    struct stat st;
    CHECK(stat("mnt", &st) == 0 && S_ISDIR(st.st_mode) && st.st_ino == 1);
    CHECK_ERR(stat("mnt/none", &st), ENOENT);
    umask(027);
    int fd = open("mnt/file", O_CREAT | O_RDWR | O_EXCL, 0666);
    CHECK(fd >= 0 && S->calls[FUSE_CREATE] == 1 && S->calls[FUSE_OPEN] == 0);
    CHECK(S->create_how == (O_CREAT | O_RDWR | O_EXCL | 0100000) && S->create_umask == 027);
    CHECK(S->last[FUSE_CREATE].pid == (uint32_t)getpid() && S->last[FUSE_CREATE].uid == 0);
    umask(022);
    CHECK(fstat(fd, &st) == 0 && st.st_mode == (S_IFREG | 0640) && st.st_nlink == 1);
    CHECK(write(fd, "hello, world", 12) == 12 && S->write_size == 12);
    CHECK(fstat(fd, &st) == 0 && st.st_size == 12);
    char buffer[100];
    CHECK(pread(fd, buffer, 100, 7) == 5 && memcmp(buffer, "world", 5) == 0);
    CHECK(pread(fd, buffer, 100, 12) == 0);
    CHECK(lseek(fd, 0, SEEK_END) == 12);
    CHECK(ftruncate(fd, 5) == 0 && S->setattr_valid & FATTR_FH);
    CHECK(S->setattr_valid & FATTR_SIZE && fstat(fd, &st) == 0 && st.st_size == 5);
    CHECK(fsync(fd) == 0 && S->calls[FUSE_FSYNC] == 1);
    CHECK(fchmod(fd, 0600) == 0 && fchown(fd, 3, 4) == 0);
    CHECK(stat("mnt/file", &st) == 0 && st.st_mode == (S_IFREG | 0600));
    CHECK(st.st_uid == 3 && st.st_gid == 4);
    struct timespec times[2] = {{1234, 0}, {5678, 0}};
    CHECK(futimens(fd, times) == 0 && S->nodes[st.st_ino].mtime == 5678);
    CHECK(fstat(fd, &st) == 0 && st.st_atime == 1234 && st.st_mtime == 5678);
    CHECK(utimensat(AT_FDCWD, "mnt/file", NULL, 0) == 0);
    CHECK(S->setattr_valid & FATTR_ATIME_NOW && S->nodes[st.st_ino].mtime == 77);
    CHECK(close(fd) == 0 && S->calls[FUSE_FLUSH] == 1);
    AWAIT(S->calls[FUSE_RELEASE] == 1);

    CHECK(mkdir("mnt/dir", 0755) == 0 && stat("mnt/dir", &st) == 0 && S_ISDIR(st.st_mode));
    CHECK_ERR(mkdir("mnt/dir", 0755), EEXIST);
    put("mnt/dir/inner", "inside");
    CHECK(strcmp(contents("mnt/dir/inner"), "inside") == 0);
    CHECK_ERR(rmdir("mnt/dir"), ENOTEMPTY);
    CHECK(symlink("dir/inner", "mnt/link") == 0);
    CHECK(readlink("mnt/link", buffer, sizeof(buffer)) == 9 && !memcmp(buffer, "dir/inner", 9));
    CHECK(strcmp(contents("mnt/link"), "inside") == 0);
    CHECK(mknod("mnt/fifo", S_IFIFO | 0600, 0) == 0 && stat("mnt/fifo", &st) == 0);
    CHECK(S_ISFIFO(st.st_mode));
    CHECK_ERR(link("mnt/file", "mnt/other"), EMLINK);
    CHECK(rename("mnt/file", "mnt/dir/moved") == 0 && S->calls[FUSE_RENAME] == 1);
    CHECK_ERR(stat("mnt/file", &st), ENOENT);
    CHECK(stat("mnt/dir/moved", &st) == 0 && st.st_size == 5);
    put("mnt/dir/second", "2");
    CHECK(renameat2(AT_FDCWD, "mnt/dir/moved", AT_FDCWD, "mnt/dir/second", RENAME_EXCHANGE) == 0);
    CHECK(S->calls[FUSE_RENAME2] == 1 && strcmp(contents("mnt/dir/moved"), "2") == 0);
    CHECK_ERR(renameat2(AT_FDCWD, "mnt/dir/moved", AT_FDCWD, "mnt/dir/second", RENAME_NOREPLACE),
              EEXIST);
    fd = open("mnt/dir/moved", O_RDONLY);
    CHECK(fd >= 0 && S->open_how == (O_RDONLY | 0100000) && unlink("mnt/dir/moved") == 0);
    CHECK(fstat(fd, &st) == 0 && st.st_nlink == 0 && read(fd, buffer, 9) == 1);
    close(fd);
    CHECK(unlink("mnt/dir/second") == 0 && unlink("mnt/dir/inner") == 0);
    CHECK(unlink("mnt/link") == 0 && unlink("mnt/fifo") == 0 && rmdir("mnt/dir") == 0);
    CHECK_ERR(stat("mnt/dir", &st), ENOENT);

    struct statfs fs;
    CHECK(statfs("mnt", &fs) == 0 && fs.f_type == 0x65735546 && fs.f_blocks == 1000);
    CHECK(fs.f_bfree == 500 && fs.f_files == 64 && fs.f_namelen == 63);
}

static void listings(void)
{
    char name[32];
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof(name), "mnt/name%02d", i);
        put(name, "x");
    }
    DIR *d = opendir("mnt");
    CHECK(d);
    int seen = 0;
    long third = 0;
    char third_name[32] = "";
    for (struct dirent *e; (e = readdir(d)); seen++) {
        if (seen == 3)
            strcpy(third_name, e->d_name);
        if (seen == 2)
            third = telldir(d);
        if (e->d_name[0] == 'n')
            CHECK(e->d_type == DT_REG);
    }
    CHECK(seen == 42);
    seekdir(d, third);
    CHECK(strcmp(readdir(d)->d_name, third_name) == 0);
    rewinddir(d);
    CHECK(strcmp(readdir(d)->d_name, ".") == 0);
    closedir(d);
    CHECK(S->calls[FUSE_OPENDIR] == 1);
    AWAIT(S->calls[FUSE_RELEASEDIR] == 1);
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof(name), "mnt/name%02d", i);
        CHECK(unlink(name) == 0);
        for (int id = 2; id < NODES; id++)
            if (!S->nodes[id].name[0])
                S->nodes[id].mode = 0;
    }
}

static void extended_attributes(void)
{
    char buffer[64];
    put("mnt/x", "x");
    CHECK(setxattr("mnt/x", "user.one", "value", 5, 0) == 0);
    CHECK(getxattr("mnt/x", "user.one", buffer, sizeof(buffer)) == 5);
    CHECK(memcmp(buffer, "value", 5) == 0 && getxattr("mnt/x", "user.one", NULL, 0) == 5);
    CHECK_ERR(getxattr("mnt/x", "user.one", buffer, 2), ERANGE);
    CHECK_ERR(getxattr("mnt/x", "user.two", buffer, 9), ENODATA);
    CHECK(listxattr("mnt/x", buffer, sizeof(buffer)) == 9 && strcmp(buffer, "user.one") == 0);
    CHECK(removexattr("mnt/x", "user.one") == 0 && listxattr("mnt/x", buffer, 9) == 0);

    /* a server that has not asked for more gets and gives lists, which count for nothing here */
    const char *list = "system.posix_acl_access";
    struct {
        uint32_t version;
        struct {
            uint16_t tag, rights;
            uint32_t id;
        } entries[5];
    } few = {2, {{1, 6, -1}, {2, 4, 1000}, {4, 4, -1}, {16, 4, -1}, {32, 4, -1}}};
    CHECK_ERR(getxattr("mnt/x", list, buffer, sizeof(buffer)), ENODATA);
    CHECK(setxattr("mnt/x", list, &few, sizeof(few), 0) == 0);
    CHECK(getxattr("mnt/x", list, buffer, sizeof(buffer)) == sizeof(few));
    CHECK(memcmp(buffer, &few, sizeof(few)) == 0);
    CHECK_ERR(setxattr("mnt/x", list, &few, sizeof(few) - 1, 0), EINVAL);
    CHECK(removexattr("mnt/x", list) == 0);
    CHECK_ERR(getxattr("mnt/x", list, buffer, sizeof(buffer)), ENODATA);

    S->errors[FUSE_GETXATTR] = ENOSYS;
    CHECK_ERR(getxattr("mnt/x", "user.one", buffer, 9), EOPNOTSUPP);
    int before = S->calls[FUSE_GETXATTR];
    CHECK_ERR(getxattr("mnt/x", "user.one", buffer, 9), EOPNOTSUPP);
    CHECK(S->calls[FUSE_GETXATTR] == before);
    S->errors[FUSE_GETXATTR] = 0;
}

static void other_calls_on_files(void)
{
    int fd = open("mnt/x", O_RDWR | O_TRUNC), other;
    CHECK(fd >= 0 && S->setattr_valid & FATTR_SIZE && write(fd, "abcdefgh", 8) == 8);
    CHECK(lseek(fd, 2, SEEK_DATA) == 2);
    static char large[400000], back[400000];
    for (int i = 0; i < (int)sizeof(large); i++)
        large[i] = i >> 8;
    CHECK(lseek(fd, 8, SEEK_SET) == 8);
    CHECK(write(fd, large, sizeof(large)) == sizeof(large)); /* in many requests */
    CHECK(pread(fd, back, sizeof(back), 8) == sizeof(back) && !memcmp(large, back, sizeof(back)));
    CHECK(lseek(fd, 0, SEEK_CUR) == 8 + sizeof(large) && ftruncate(fd, 8) == 0);
    CHECK(lseek(fd, 8, SEEK_SET) == 8);
    CHECK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 100) == 0 && S->calls[FUSE_FALLOCATE] == 1);
    char byte = 'a';
    CHECK(ioctl(fd, _IOWR('y', 1, char), &byte) == 5 && byte == 'b');
    CHECK(ioctl(fd, _IOR('y', 2, char), &byte) == 5 && byte == 'x');
    struct flock lock = {F_WRLCK, SEEK_SET, 0, 10, 0};
    CHECK(fcntl(fd, F_SETLK, &lock) == 0 && S->calls[FUSE_SETLK] == 1);
    lock.l_type = F_RDLCK;
    CHECK(fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type == F_WRLCK);
    CHECK(lock.l_start == 3 && lock.l_len == 3 && lock.l_pid == getpid());
    S->lock_errors = EAGAIN;
    lock.l_type = F_WRLCK;
    CHECK_ERR(fcntl(fd, F_SETLK, &lock), EAGAIN);
    CHECK_ERR(flock(fd, LOCK_EX | LOCK_NB), EAGAIN);
    S->lock_errors = 0;
    CHECK(fcntl(fd, F_SETLKW, &lock) == 0 && S->calls[FUSE_SETLKW] == 1);
    uint64_t owner = S->lock_owner;
    CHECK(flock(fd, LOCK_SH) == 0);
    CHECK(copy_file_range(fd, NULL, fd, &(loff_t){100}, 0, 0) == 0);
    other = dup(fd);
    int flushes = S->calls[FUSE_FLUSH], releases = S->calls[FUSE_RELEASE];
    CHECK(close(other) == 0 && S->calls[FUSE_FLUSH] == flushes + 1 && S->flush_owner == owner);
    S->errors[FUSE_FLUSH] = EDQUOT;
    CHECK_ERR(close(fd), EDQUOT);
    S->errors[FUSE_FLUSH] = 0;
    AWAIT(S->calls[FUSE_RELEASE] == releases + 1);
    CHECK(S->release_flags == FUSE_RELEASE_FLOCK_UNLOCK);
    S->errors[FUSE_OPEN] = EMFILE;
    CHECK_ERR(open("mnt/x", O_RDONLY), EMFILE);
    S->errors[FUSE_OPEN] = 0;
    S->errors[FUSE_WRITE] = EDOM;
    fd = open("mnt/x", O_WRONLY | O_APPEND);
    CHECK_ERR(write(fd, "x", 1), EDOM);
    S->errors[FUSE_WRITE] = 0;
    CHECK(write(fd, "ijk", 3) == 3 && close(fd) == 0);
    CHECK(strcmp(contents("mnt/x"), "abcdefghijk") == 0);
}

static void mappings(void)
{
    int fd = open("mnt/x", O_RDWR);
    CHECK(ftruncate(fd, 10000) == 0 && pwrite(fd, "end", 3, 9997) == 3);
    char *p = mmap(NULL, 10000, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(p != MAP_FAILED && memcmp(p, "abcdefghijk", 11) == 0 && memcmp(p + 9997, "end", 3) == 0);
    CHECK(p[9999 + 1] == 0);
    munmap(p, 10000);
    p = mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    p[1] = 'B';
    p[5000] = 'M';
    char buffer[2];
    CHECK(pread(fd, buffer, 2, 0) == 2 && buffer[1] == 'B'); /* as the page has it */
    CHECK(msync(p, 12288, MS_SYNC) == 0);
    CHECK(S->write_flags == FUSE_WRITE_CACHE);
    uint64_t id = S->last[FUSE_WRITE].nodeid;
    CHECK(S->nodes[id].data[1] == 'B' && S->nodes[id].data[5000] == 'M');
    CHECK(S->nodes[id].size == 10000);
    CHECK(pwrite(fd, "C", 1, 2) == 1 && p[2] == 'C');
    p[8191] = 'T';
    CHECK(ftruncate(fd, 8193) == 0 && pread(fd, buffer, 2, 8191) == 2 && buffer[0] == 'T');
    CHECK(ftruncate(fd, 10000) == 0);
    p[3] = 'D';
    int reader = open("mnt/x", O_RDONLY);
    CHECK(reader >= 0 && close(reader) == 0);
    CHECK(close(fd) == 0);
    p[4] = 'E';
    CHECK(munmap(p, 12288) == 0);
    AWAIT(S->nodes[id].data[3] == 'D' && S->nodes[id].data[4] == 'E');
    CHECK(strncmp(contents("mnt/x"), "aBCDEfgh", 8) == 0);
    AWAIT(S->nodes[id].open == 0); /* each was released once */
    struct stat st;
    CHECK(stat("mnt/x", &st) == 0 && S->nodes[id].open == 0);
}

static void direct_files(void)
{
    S->open_flags = FOPEN_DIRECT_IO;
    int fd = open("mnt/x", O_RDWR);
    CHECK(fd >= 0);
    CHECK_ERR(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), ENODEV);
    uint64_t id = S->last[FUSE_OPEN].nodeid;
    strcpy(S->nodes[id].data, "changed behind");
    char buffer[14];
    CHECK(pread(fd, buffer, 14, 0) == 14 && memcmp(buffer, "changed behind", 14) == 0);
    close(fd);
    S->open_flags = FOPEN_NONSEEKABLE;
    fd = open("mnt/x", O_RDONLY);
    CHECK_ERR(lseek(fd, 0, SEEK_SET), ESPIPE);
    CHECK_ERR(pread(fd, buffer, 1, 0), ESPIPE);
    CHECK(read(fd, buffer, 14) == 14);
    close(fd);
    S->open_flags = 0;
}

static void programs(void)
{
    char self[256], target[] = "mnt/program";
    int in = open("/proc/self/exe", O_RDONLY), out = open(target, O_CREAT | O_WRONLY, 0755);
    (void)self;
    ssize_t n = read(in, fuse_buffer, 64);
    CHECK(n == 64 && write(out, "#!/bin/sh\nexit 7\n", 17) == 17);
    close(in);
    close(out);
    pid_t child = fork();
    if (!child) {
        execl(target, target, NULL);
        _exit(1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7);
    CHECK(chmod(target, 0644) == 0);
    child = fork();
    if (!child) {
        execl(target, target, NULL);
        _exit(errno == EACCES ? 3 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 3);
    CHECK(access(target, R_OK) == 0 && S->calls[FUSE_ACCESS] > 0);
    CHECK_ERR(access(target, X_OK), EACCES);
    CHECK(unlink(target) == 0);
}

static void other_users(int allowed, int searches)
{
    pid_t child = fork();
    if (!child) {
        struct stat st;
        CHECK(setgid(5) == 0 && setuid(5) == 0);
        if (allowed) {
            CHECK(stat("mnt", &st) == 0);
            errno = 0;
            CHECK(stat("mnt/x", &st) == (searches ? 0 : -1));
        } else {
            CHECK_ERR(stat("mnt/x", &st), EACCES);
            CHECK_ERR(stat("mnt", &st), EACCES);
            CHECK_ERR(chdir("mnt"), EACCES);
            CHECK_ERR(open("mnt", O_RDONLY), EACCES);
        }
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
}

int main(void)
{
    prepare();
    device_without_a_mount();
    mount_options();
    mount_by_descriptors();
    S->offered = FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO;
    pid_t server = start("");
    names_and_attributes();
    CHECK(S->init.major == 7 && S->init.minor >= 31 && S->init.flags & FUSE_POSIX_LOCKS);
    listings();
    extended_attributes();
    other_calls_on_files();
    mappings();
    direct_files();
    programs();
    other_users(0, 0);
    stop(server);
    S->attr_valid = S->entry_valid = 100;
    server = start(",allow_other");
    other_users(1, 1);
    struct stat st;
    CHECK(stat("mnt/x", &st) == 0);
    int lookups = S->calls[FUSE_LOOKUP], getattrs = S->calls[FUSE_GETATTR];
    CHECK(stat("mnt/x", &st) == 0);
    CHECK(S->calls[FUSE_LOOKUP] == lookups && S->calls[FUSE_GETATTR] == getattrs);
    CHECK_ERR(stat("mnt/none", &st), ENOENT); /* a node 0 that holds for a while */
    lookups = S->calls[FUSE_LOOKUP];
    CHECK_ERR(stat("mnt/none", &st), ENOENT);
    CHECK(S->calls[FUSE_LOOKUP] == lookups);
    stop(server);
    S->nodes[1].mode = S_IFDIR | 0700;
    server = start(",allow_other,default_permissions");
    other_users(1, 0);
    stop(server);
    return 0;
}
