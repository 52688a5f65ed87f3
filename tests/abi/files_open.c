/* open, openat2, close, close_range: flags, rights, the order of checks. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BAD ((void *)8)

static void touch(const char *path, const char *text)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    CHECK(fd >= 0);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    CHECK(close(fd) == 0);
}

static int as_user(int (*check)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        if (setgid(1000) || setuid(1000))
            _exit(9);
        _exit(check());
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

static int denied(void)
{
    if (open("secret", O_RDONLY) != -1 || errno != EACCES)
        return 1;
    if (open("readable", O_WRONLY) != -1 || errno != EACCES)
        return 2;
    if (open("readable", O_RDONLY) < 0)
        return 3;
    if (open("readable", O_RDONLY | O_NOATIME) != -1 || errno != EPERM)
        return 4;
    if (open("new", O_CREAT | O_WRONLY, 0600) != -1 || errno != EACCES)
        return 5;
    return 0;
}

static void wrong(void)
{
    struct open_how how = {.flags = O_RDONLY};
    /* flags, then the path, then the directory */
    CHECK_ERR(syscall(SYS_openat, 99, BAD, O_TMPFILE | O_RDONLY, 0), EINVAL);
    CHECK_ERR(syscall(SYS_openat, 99, BAD, O_CREAT | O_DIRECTORY, 0), EINVAL);
    CHECK_ERR(syscall(SYS_openat, 99, BAD, O_RDONLY, 0), EFAULT);
    CHECK_ERR(syscall(SYS_openat, 99, "x", O_RDONLY, 0), EBADF);
    CHECK_ERR(syscall(SYS_openat, 99, "", O_RDONLY, 0), ENOENT);
    CHECK_ERR(syscall(SYS_openat2, 99, BAD, BAD, 1), EINVAL);
    CHECK_ERR(syscall(SYS_openat2, 99, BAD, BAD, 24), EFAULT);
    CHECK_ERR(syscall(SYS_openat2, 99, BAD, &how, 1 << 20), E2BIG);
    how.resolve = 1 << 20;
    CHECK_ERR(syscall(SYS_openat2, 99, BAD, &how, sizeof how), EINVAL);
    how.resolve = RESOLVE_BENEATH | RESOLVE_IN_ROOT;
    CHECK_ERR(syscall(SYS_openat2, 99, BAD, &how, sizeof how), EINVAL);
    how.resolve = 0;
    how.mode = 0600;
    CHECK_ERR(syscall(SYS_openat2, 99, BAD, &how, sizeof how), EINVAL);
    how.mode = 0;
    how.flags = 1ull << 40;
    CHECK_ERR(syscall(SYS_openat2, 99, BAD, &how, sizeof how), EINVAL);
    CHECK_ERR(close(99), EBADF);
    CHECK_ERR(close(-1), EBADF);
    CHECK_ERR(syscall(SYS_close_range, 5, 4, 0), EINVAL);
    CHECK_ERR(syscall(SYS_close_range, 4, 5, 64), EINVAL);
}

static void flags(void)
{
    int fd;
    char c;
    touch("file", "text");
    CHECK((fd = open("file", O_RDWR | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)) >= 0);
    CHECK(fcntl(fd, F_GETFL) == (O_RDWR | O_APPEND | O_NONBLOCK | 0100000));
    CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC);
    close(fd);
    CHECK((fd = open("file", O_PATH | O_RDWR)) >= 0);
    CHECK(fcntl(fd, F_GETFL) == O_PATH);
    CHECK_ERR(read(fd, &c, 1), EBADF);
    CHECK_ERR(fchmod(fd, 0600), EBADF);
    struct stat st;
    CHECK(fstat(fd, &st) == 0 && st.st_size == 4);
    close(fd);
    CHECK((fd = open("file", 3)) >= 0);
    CHECK_ERR(read(fd, &c, 1), EBADF);
    CHECK_ERR(write(fd, &c, 1), EBADF);
    close(fd);
    CHECK_ERR(open("file", O_CREAT | O_EXCL, 0600), EEXIST);
    CHECK_ERR(open("file", O_DIRECTORY), ENOTDIR);
    CHECK_ERR(open("file/", O_RDONLY), ENOTDIR);
    CHECK_ERR(open("new/", O_CREAT | O_RDWR, 0600), EISDIR);
    CHECK_ERR(open(".", O_RDWR), EISDIR);
    CHECK_ERR(open(".", O_CREAT, 0600), EISDIR);
    CHECK_ERR(open("..", O_CREAT | O_EXCL, 0600), EEXIST);
    CHECK_ERR(open("none/x", O_CREAT, 0600), ENOENT);
    CHECK((fd = open("file", O_RDONLY | O_TRUNC)) >= 0);
    CHECK(fstat(fd, &st) == 0 && st.st_size == 0);
    close(fd);
    umask(027);
    CHECK((fd = open("masked", O_CREAT | O_RDWR, 06777)) >= 0);
    CHECK(fstat(fd, &st) == 0 && (st.st_mode & 07777) == 06750);
    close(fd);
    umask(022);
    /* a file created with no right to write is open for writing all the same */
    CHECK((fd = open("odd", O_CREAT | O_RDWR, 0)) >= 0);
    CHECK(write(fd, "x", 1) == 1);
    close(fd);
}

static void links(void)
{
    char name[8], target[8];
    CHECK(symlink("file", "to-file") == 0);
    CHECK(symlink("absent", "dangling") == 0);
    CHECK(symlink("self", "self") == 0);
    CHECK_ERR(open("to-file", O_NOFOLLOW), ELOOP);
    CHECK_ERR(open("self", O_RDONLY), ELOOP);
    CHECK_ERR(open("self", O_CREAT | O_RDWR, 0600), ELOOP);
    CHECK_ERR(open("dangling", O_RDONLY), ENOENT);
    CHECK_ERR(open("dangling", O_CREAT | O_EXCL, 0600), EEXIST);
    int fd = open("dangling", O_CREAT | O_RDWR, 0600);
    CHECK(fd >= 0);
    close(fd);
    CHECK(access("absent", F_OK) == 0);
    CHECK((fd = open("to-file", O_PATH | O_NOFOLLOW)) >= 0);
    struct stat st;
    CHECK(fstat(fd, &st) == 0 && S_ISLNK(st.st_mode));
    CHECK(readlinkat(fd, "", name, sizeof name) == 4);
    close(fd);
    strcpy(target, "file");
    for (int i = 0; i < 41; i++) {
        snprintf(name, sizeof name, "l%d", i);
        CHECK(symlink(target, name) == 0);
        strcpy(target, name);
    }
    CHECK(access("l39", F_OK) == 0);
    CHECK_ERR(access("l40", F_OK), ELOOP);
}

static int openat2_(int dir, const char *path, unsigned long long resolve)
{
    struct open_how how = {.flags = O_PATH, .resolve = resolve};
    return syscall(SYS_openat2, dir, path, &how, sizeof how);
}

static void resolve(void)
{
    int dir;
    CHECK(mkdir("box", 0755) == 0 && mkdir("box/in", 0755) == 0);
    CHECK(symlink("in", "box/link") == 0 && symlink("/", "box/root") == 0);
    CHECK(symlink("..", "box/up") == 0);
    CHECK((dir = open("box", O_PATH)) >= 0);
    CHECK(openat2_(dir, "in", RESOLVE_BENEATH) >= 0);
    CHECK(openat2_(dir, "link/../in", RESOLVE_BENEATH) >= 0);
    CHECK_ERR(openat2_(dir, "..", RESOLVE_BENEATH), EXDEV);
    CHECK_ERR(openat2_(dir, "up", RESOLVE_BENEATH), EXDEV);
    CHECK_ERR(openat2_(dir, "root", RESOLVE_BENEATH), EXDEV);
    CHECK_ERR(openat2_(dir, "/in", RESOLVE_BENEATH), EXDEV);
    CHECK(openat2_(dir, "/in", RESOLVE_IN_ROOT) >= 0);
    CHECK(openat2_(dir, "root/in", RESOLVE_IN_ROOT) >= 0);
    CHECK(openat2_(dir, "up/up/in", RESOLVE_IN_ROOT) >= 0);
    CHECK_ERR(openat2_(dir, "link", RESOLVE_NO_SYMLINKS), ELOOP);
    CHECK_ERR(openat2_(dir, "link/x", RESOLVE_NO_SYMLINKS), ELOOP);
    CHECK(openat2_(dir, "in", RESOLVE_NO_SYMLINKS) >= 0);
    CHECK_ERR(openat2_(AT_FDCWD, "/proc/self/exe", RESOLVE_NO_MAGICLINKS), ELOOP);
    CHECK_ERR(openat2_(AT_FDCWD, "/proc/version", RESOLVE_NO_XDEV), EXDEV);
}

static void descriptors(void)
{
    int a, b;
    CHECK((a = open("file", O_RDONLY)) >= 0);
    CHECK((b = open("file", O_RDONLY)) == a + 1);
    CHECK(close(a) == 0);
    CHECK(open("file", O_RDONLY) == a);
    CHECK(fcntl(a, F_DUPFD, 100) == 100);
    CHECK(fcntl(a, F_DUPFD_CLOEXEC, 100) == 101);
    CHECK(fcntl(101, F_GETFD) == FD_CLOEXEC);
    CHECK(syscall(SYS_close_range, 100, 100, 4) == 0);
    CHECK(fcntl(100, F_GETFD) == FD_CLOEXEC);
    CHECK(syscall(SYS_close_range, 100, ~0u, 0) == 0);
    CHECK_ERR(fcntl(100, F_GETFD), EBADF);
    CHECK_ERR(fcntl(101, F_GETFD), EBADF);
}

/* F_CREATED_QUERY, of Linux 6.12. */
static void created(void)
{
    int first = open("created", O_CREAT | O_RDWR, 0644);
    int again = open("created", O_CREAT | O_RDWR, 0644), nameless = open(".", O_TMPFILE | O_RDWR, 0600);
    CHECK(first >= 0 && again >= 0);
    if (fcntl(first, 1028, 0) == -1 && errno == EINVAL)
        return;
    CHECK(fcntl(first, 1028, 0) == 1 && fcntl(dup(first), 1028, 0) == 1);
    CHECK(fcntl(again, 1028, 0) == 0);
    CHECK(nameless < 0 || fcntl(nameless, 1028, 0) == 0);
    CHECK(unlink("created") == 0);
}

static int handle_without_rights(void)
{
    struct {
        struct file_handle head;
        char rest[MAX_HANDLE_SZ];
    } h = {{MAX_HANDLE_SZ}};
    int mount;
    CHECK(name_to_handle_at(AT_FDCWD, "readable", &h.head, &mount, 0) == 0);
    CHECK_ERR(open_by_handle_at(AT_FDCWD, &h.head, O_RDONLY), EPERM);
    return 0;
}

static void handles(void)
{
    struct {
        struct file_handle head;
        char rest[MAX_HANDLE_SZ];
    } h = {{MAX_HANDLE_SZ}};
    int mount, fd;
    char c;

    touch("named", "n");
    CHECK(symlink("named", "to-named") == 0);
    CHECK(name_to_handle_at(AT_FDCWD, "named", &h.head, &mount, 0) == 0);
    CHECK(h.head.handle_type > 0 && h.head.handle_bytes > 0 && mount > 0);
    CHECK((fd = open_by_handle_at(AT_FDCWD, &h.head, O_RDWR)) >= 0);
    CHECK(read(fd, &c, 1) == 1 && c == 'n');
    close(fd);
    CHECK_ERR(open_by_handle_at(AT_FDCWD, &h.head, O_RDONLY | O_DIRECTORY), ENOTDIR);
    CHECK_ERR(open_by_handle_at(999, &h.head, O_RDONLY), EBADF);
    CHECK_ERR(open_by_handle_at(AT_FDCWD, (void *)8, O_RDONLY), EFAULT);
    CHECK(rename("named", "renamed") == 0);
    CHECK((fd = open_by_handle_at(AT_FDCWD, &h.head, O_PATH)) >= 0);
    close(fd);
    CHECK(unlink("renamed") == 0);
    CHECK_ERR(open_by_handle_at(AT_FDCWD, &h.head, O_RDONLY), ESTALE);
    CHECK((fd = open(".", O_PATH)) >= 0);
    CHECK_ERR(open_by_handle_at(fd, &h.head, O_RDONLY), EBADF);
    CHECK(close(fd) == 0);
    h.head.handle_bytes = 0;
    CHECK_ERR(open_by_handle_at(AT_FDCWD, &h.head, O_RDONLY), EINVAL);
    CHECK_ERR(name_to_handle_at(AT_FDCWD, "to-named", &h.head, &mount, 0), EOVERFLOW);
    CHECK(h.head.handle_bytes > 0 && h.head.handle_bytes <= MAX_HANDLE_SZ);
    CHECK(name_to_handle_at(AT_FDCWD, "to-named", &h.head, &mount, 0) == 0);
    CHECK_ERR(open_by_handle_at(AT_FDCWD, &h.head, O_RDONLY), ELOOP);
    CHECK_ERR(name_to_handle_at(AT_FDCWD, "to-named", &h.head, &mount, AT_SYMLINK_FOLLOW), ENOENT);
    h.head.handle_bytes = MAX_HANDLE_SZ + 1;
    CHECK_ERR(name_to_handle_at(AT_FDCWD, ".", &h.head, &mount, 0), EINVAL);
    CHECK_ERR(name_to_handle_at(AT_FDCWD, ".", (void *)8, &mount, 0), EFAULT);
    CHECK_ERR(name_to_handle_at(999, "x", &h.head, &mount, 0), EBADF);
    CHECK_ERR(name_to_handle_at(AT_FDCWD, ".", &h.head, &mount, 0x80000), EINVAL);
}

int main(void)
{
    wrong();
    flags();
    created();
    links();
    resolve();
    descriptors();
    touch("secret", "s");
    chmod("secret", 0600);
    touch("readable", "r");
    chmod(".", 0755);
    CHECK(as_user(denied) == 0);
    handles();
    CHECK(as_user(handle_without_rights) == 0);
    return 0;
}
