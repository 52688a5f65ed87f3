/* execve and execveat: what they refuse, scripts of scripts, close-on-exec, limits of arguments. */
#define _GNU_SOURCE
#include "abi.h"
#include <elf.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BAD ((void *)8)

static char self[4096];
static char *no_env[] = {NULL};

static void make(const char *name, const void *data, size_t size, int mode)
{
    unlink(name);
    int fd = open(name, O_CREAT | O_WRONLY | O_EXCL, 0700);
    CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    CHECK(fchmod(fd, mode) == 0 && close(fd) == 0);
}

static void text(const char *name, const char *line) { make(name, line, strlen(line), 0755); }

/* The errno of execveat in a child, or minus its exit status. */
static int at(int dir, const void *path, void *argv, void *envp, int flags)
{
    pid_t child = fork();
    if (child == 0) {
        syscall(SYS_execveat, dir, path, argv, envp, flags);
        _exit(errno);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status) >= 200 ? 100 - WEXITSTATUS(status) : WEXITSTATUS(status);
}

static int run(const void *path, void *argv, void *envp)
{
    return at(AT_FDCWD, path, argv, envp, 0);
}

/* AT_SYMLINK_NOFOLLOW is about the last component alone, wherever the way leads. */
static void links(char **again)
{
    char name[40];
    CHECK(mkdir("folder", 0755) == 0 && mkdir("folder/below", 0755) == 0);
    CHECK(symlink("folder", "way") == 0 && symlink("way", "way2") == 0);
    CHECK(symlink(self, "folder/program") == 0 && symlink("program", "folder/twice") == 0);
    CHECK(symlink("loop", "loop") == 0 && symlink("nothing", "folder/dangling") == 0);
    CHECK(link("script", "folder/script") == 0);
    static const char *const ways[] = {"folder", "way", "way2", "way/below/..", "./way2/."};
    for (int i = 0; i < 5; i++) {
        int folder = open(ways[i], O_PATH | O_CLOEXEC);
        static const char *const names[] = {"program", "twice"};
        for (int j = 0; j < 2; j++) {
            snprintf(name, sizeof name, "%s/%s", ways[i], names[j]);
            CHECK(at(AT_FDCWD, name, again, no_env, AT_SYMLINK_NOFOLLOW) == ELOOP);
            CHECK(at(AT_FDCWD, name, again, no_env, 0) == -102);
            CHECK(at(folder, names[j], again, no_env, AT_SYMLINK_NOFOLLOW) == ELOOP);
            CHECK(at(folder, names[j], again, no_env, 0) == -102);
        }
        snprintf(name, sizeof name, "%s/script", ways[i]);
        CHECK(at(AT_FDCWD, name, again, no_env, AT_SYMLINK_NOFOLLOW) == -103);
        snprintf(name, sizeof name, "%s/dangling", ways[i]);
        CHECK(at(AT_FDCWD, name, again, no_env, AT_SYMLINK_NOFOLLOW) == ELOOP);
        CHECK(at(AT_FDCWD, name, again, no_env, 0) == ENOENT);
        close(folder);
    }
    CHECK(at(AT_FDCWD, "loop", again, no_env, AT_SYMLINK_NOFOLLOW) == ELOOP);
    CHECK(at(AT_FDCWD, "loop/x", again, no_env, AT_SYMLINK_NOFOLLOW) == ELOOP);
    CHECK(at(AT_FDCWD, "way", again, no_env, AT_SYMLINK_NOFOLLOW) == ELOOP);
    CHECK(at(AT_FDCWD, "way/", again, no_env, AT_SYMLINK_NOFOLLOW) == EACCES);
    CHECK(at(AT_FDCWD, "way/program/", again, no_env, AT_SYMLINK_NOFOLLOW) == ENOTDIR);
    int itself = open("way/program", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    CHECK(at(itself, "", again, no_env, AT_EMPTY_PATH) == ELOOP);
    CHECK(at(itself, "", again, no_env, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) == ELOOP);
    close(itself);
}

/* What the test does when it runs itself: says with 200 + argc that it was reached. */
#define REACHED(argc) (-(100 + (argc)))

int main(int argc, char **argv)
{
    if (argc > 0 && strcmp(argv[argc - 1], "again") == 0)
        return 200 + argc;
    if (argc == 1 && argv[0][0] == 0)
        return 200;
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    char *again[] = {"x", "again", NULL}, *empty[] = {NULL};
    char long_name[5000];
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = 0;

    CHECK(run(self, again, no_env) == REACHED(2));
    CHECK(run("none", again, no_env) == ENOENT);
    CHECK(run("none", BAD, no_env) == ENOENT);
    CHECK(run("", again, no_env) == ENOENT);
    CHECK(run(BAD, again, no_env) == EFAULT);
    CHECK(run(long_name, again, no_env) == ENAMETOOLONG);
    CHECK(run("/", again, no_env) == EACCES);
    CHECK(run("/proc/self/exe/x", again, no_env) == ENOTDIR);
    CHECK(run(self, BAD, no_env) == EFAULT);
    CHECK(run(self, again, BAD) == EFAULT);
    CHECK(run(self, NULL, NULL) == REACHED(0));
    CHECK(run(self, empty, no_env) == REACHED(0));
    CHECK(mkfifo("fifo", 0755) == 0 && run("fifo", again, no_env) == EACCES);
    text("garbage", "garbage\n");
    CHECK(run("./garbage", again, no_env) == ENOEXEC);
    text("nothing", "");
    CHECK(run("./nothing", again, no_env) == ENOEXEC);
    make("plain", "#!/bin/sh\n", 10, 0644);
    CHECK(run("./plain", again, no_env) == EACCES);

    /* scripts */
    char line[5000];
    snprintf(line, sizeof line, "#! %s\t-i  a b \n", self);
    text("script", line);
    CHECK(run("./script", again, no_env) == REACHED(4));
    snprintf(line, sizeof line, "#!%s", self);
    text("script", line);
    CHECK(run("./script", again, no_env) == REACHED(3));
    text("wrong", "#!\n");
    CHECK(run("./wrong", again, no_env) == ENOEXEC);
    text("wrong", "#!");
    CHECK(run("./wrong", again, no_env) == EACCES);
    text("wrong", "#!/none\n");
    CHECK(run("./wrong", again, no_env) == ENOENT);
    text("wrong", "#!/\n");
    CHECK(run("./wrong", again, no_env) == EACCES);
    text("wrong", "#!./wrong\n");
    CHECK(run("./wrong", again, no_env) == ELOOP);
    for (int depth = 1; depth < 8; depth++) {
        char name[20];
        snprintf(line, sizeof line, "#!%s\n", self);
        if (depth > 1)
            snprintf(line, sizeof line, "#!./depth%d\n", depth - 1);
        snprintf(name, sizeof name, "./depth%d", depth);
        text(name, line);
        CHECK(run(name, again, no_env) == (depth <= 5 ? REACHED(2 + depth) : ELOOP));
    }

    /* execveat */
    int open_script = open("script", O_RDONLY), closed = open("script", O_RDONLY | O_CLOEXEC);
    int here = open(".", O_RDONLY | O_DIRECTORY), here_closed = open(".", O_RDONLY | O_CLOEXEC);
    int program = open(self, O_PATH | O_CLOEXEC);
    CHECK(at(open_script, "", again, no_env, AT_EMPTY_PATH) == REACHED(3));
    CHECK(at(closed, "", again, no_env, AT_EMPTY_PATH) == ENOENT);
    CHECK(at(here, "script", again, no_env, 0) == REACHED(3));
    CHECK(at(here_closed, "script", again, no_env, 0) == ENOENT);
    CHECK(at(program, "", again, no_env, AT_EMPTY_PATH) == REACHED(2));
    CHECK(at(program, "", again, no_env, 0) == ENOENT);
    CHECK(at(program, "", again, no_env, 1) == ENOENT);
    CHECK(at(program, "x", again, no_env, 1) == EINVAL);
    CHECK(at(program, "x", again, no_env, 0) == ENOTDIR);
    CHECK(at(-1, "x", again, no_env, 0) == EBADF);
    CHECK(at(here, "", again, no_env, AT_EMPTY_PATH) == EACCES);
    CHECK(symlink(self, "link") == 0);
    CHECK(at(here, "link", again, no_env, AT_SYMLINK_NOFOLLOW) == ELOOP);
    CHECK(at(here, "link", again, no_env, 0) == REACHED(2));
    links(again);

    /* arguments that are too long */
    char *big = malloc(200000);
    memset(big, 'b', 200000);
    big[131071] = 0;
    char *one[] = {"x", big, "again", NULL};
    CHECK(run(self, one, no_env) == REACHED(3));
    big[131071] = 'b';
    big[131072] = 0;
    CHECK(run(self, one, no_env) == E2BIG);
    char *environment[] = {big, NULL};
    CHECK(run(self, again, environment) == E2BIG);
    big[100000] = 0;
    char *many[64];
    for (int i = 0; i < 64; i++)
        many[i] = big;
    many[14] = "again";
    many[15] = NULL;
    CHECK(run(self, many, no_env) == REACHED(15));
    many[14] = many[15] = big;
    many[63] = NULL;
    CHECK(run(self, many, no_env) == E2BIG);

    /* somebody writes to it */
    snprintf(line, sizeof line, "#!%s\n", self);
    text("busy", line);
    int writer = open("busy", O_WRONLY | O_CLOEXEC);
    CHECK(run("./busy", again, no_env) == ETXTBSY);
    CHECK(close(writer) == 0 && run("./busy", again, no_env) == REACHED(3));
    return 0;
}
