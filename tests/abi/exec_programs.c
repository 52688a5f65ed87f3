/* execve(2): scripts, what is no program, arguments, the auxiliary vector, rights. */
#define _GNU_SOURCE
#include "abi.h"
#include <elf.h>
#include <stddef.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char self[4096], here[4096];

static void file(const char *name, const char *data, size_t size, int mode)
{
    unlink(name);
    int fd = open(name, O_CREAT | O_WRONLY, 0600);
    CHECK(fd >= 0 && write(fd, data, size) == size && fchmod(fd, mode) == 0);
    close(fd);
}

static void text(const char *name, const char *data)
{
    file(name, data, strlen(data), 0755);
}

/* Run a program in a child; its wait status. errno of a failed execve: status 200 << 8. */
static int run(const char *path, char *const argv[])
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        char *env[] = {"A=1", NULL};
        execve(path, argv, env);
        _exit(200 + (errno < 55 ? errno : 55));
    }
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static int fails_with(const char *path, int error)
{
    char *argv[] = {"x", NULL};
    return run(path, argv) == (200 + (error < 55 ? error : 55)) << 8;
}

static void scripts(void)
{
    char line[8192];
    char *argv[] = {"name", "one", "two", NULL};
    sprintf(line, "#! %s  script  arg\tb \nrest", self);
    text("script", line);
    CHECK(run("./script", argv) == 0);
    sprintf(line, "#!%s", self);
    text("bare", line);
    CHECK(run("./bare", argv) == 77 << 8);

    /* five levels of interpreters are allowed */
    sprintf(line, "#!%s/bare\n", here);
    for (int i = 1; i <= 5; i++) {
        char name[16];
        sprintf(name, "level%d", i);
        text(name, line);
        sprintf(line, "#!%s/level%d\n", here, i);
    }
    CHECK(run("./level4", argv) == 77 << 8);
    CHECK(fails_with("./level5", ELOOP));

    text("nothing", "#!\n");
    CHECK(fails_with("./nothing", ENOEXEC));
    text("missing", "#!/no/such/interpreter\n");
    CHECK(fails_with("./missing", ENOENT));
    text("folder", "#!/\n");
    CHECK(fails_with("./folder", EACCES));
    memset(line, 'x', 400);
    memcpy(line, "#!/", 3);
    line[400] = 0;
    text("long", line);
    CHECK(fails_with("./long", ENOEXEC));
}

static void no_programs(void)
{
    Elf64_Ehdr head;
    text("empty", "");
    CHECK(fails_with("./empty", ENOEXEC));
    text("plain", "echo hello\n");
    CHECK(fails_with("./plain", ENOEXEC));
    CHECK(fails_with("./absent", ENOENT));
    CHECK(fails_with(".", EACCES));
    CHECK(fails_with("./plain/x", ENOTDIR));
    file("unexecutable", "#!/bin/sh\n", 10, 0644);
    CHECK(fails_with("./unexecutable", EACCES));

    int fd = open(self, O_RDONLY);
    CHECK(read(fd, &head, sizeof head) == sizeof head);
    close(fd);
    file("short", (char *)&head, 40, 0755);
    CHECK(fails_with("./short", ENOEXEC));
    file("headers", (char *)&head, sizeof head, 0755);
    CHECK(fails_with("./headers", ENOEXEC));
    head.e_machine = EM_AARCH64;
    file("foreign", (char *)&head, sizeof head, 0755);
    CHECK(fails_with("./foreign", ENOEXEC));
    head.e_machine = EM_X86_64;
    head.e_type = ET_REL;
    file("object", (char *)&head, sizeof head, 0755);
    CHECK(fails_with("./object", ENOEXEC));

    struct {
        Elf64_Ehdr head;
        Elf64_Phdr table[1];
        char name[32];
    } bad = {head};
    bad.head.e_type = ET_EXEC;
    bad.head.e_phnum = 1;
    bad.head.e_phoff = sizeof head;
    bad.table[0] = (Elf64_Phdr){PT_INTERP, PF_R, offsetof(typeof(bad), name), 0, 0, 9, 9, 1};
    strcpy(bad.name, "/no/such");
    file("interp", (char *)&bad, sizeof bad, 0755);
    CHECK(fails_with("./interp", ENOENT));
    bad.table[0].p_filesz = 8;
    file("interp", (char *)&bad, sizeof bad, 0755);
    CHECK(fails_with("./interp", ENOEXEC));
    sprintf(bad.name, "./plain");
    file("interp", (char *)&bad, sizeof bad, 0755);
    CHECK(fails_with("./interp", EIO));
    bad.table[0].p_filesz = 0;
    file("interp", (char *)&bad, sizeof bad, 0755);
    CHECK(fails_with("./interp", ENOEXEC));

    /* beyond the point of no return the program dies */
    char *argv[] = {"x", NULL};
    bad.table[0] = (Elf64_Phdr){PT_LOAD, PF_R, 0, 1UL << 47, 0, 8, 8, 4096};
    file("beyond", (char *)&bad, sizeof bad, 0755);
    int status = run("./beyond", argv);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == 11);
    bad.table[0] = (Elf64_Phdr){PT_LOAD, PF_R, 0, 0x400000, 0, 9, 8, 4096};
    file("beyond", (char *)&bad, sizeof bad, 0755);
    status = run("./beyond", argv);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == 11);
}

static void sizes(void)
{
    static char big[131073];
    char *argv[] = {"sizes", big, NULL};
    memset(big, 'a', 131071);
    CHECK(run(self, argv) == 0);
    big[131071] = 'a';
    CHECK(run(self, argv) == (200 + E2BIG) << 8);
    CHECK_ERR(execve(self, (char **)8, NULL), EFAULT);

    static char *many[200];
    big[100000] = 0;
    for (int i = 0; i < 60; i++)
        many[i] = big;
    many[0] = "sizes";
    struct rlimit old, small = {8 << 20, 0};
    CHECK(getrlimit(RLIMIT_STACK, &old) == 0);
    small.rlim_max = old.rlim_max;
    CHECK(setrlimit(RLIMIT_STACK, &small) == 0);
    CHECK(run(self, many) == (200 + E2BIG) << 8);
    many[15] = NULL;
    CHECK(run(self, many) == 0);
    CHECK(setrlimit(RLIMIT_STACK, &old) == 0);
    /* no arguments at all become one that is empty */
    char *none[] = {NULL};
    CHECK(run(self, none) == 66 << 8);
}

static void by_descriptor(void)
{
    char *argv[] = {"fd", NULL};
    int status, fd = open(self, O_RDONLY | O_CLOEXEC);
    pid_t child = fork();
    if (child == 0) {
        syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
        _exit(1);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_ERR(syscall(SYS_execveat, fd, "", argv, environ, 0), ENOENT);
    CHECK_ERR(syscall(SYS_execveat, fd, "x", argv, environ, 0x4000), EINVAL);
    CHECK_ERR(syscall(SYS_execveat, 99, "", argv, environ, AT_EMPTY_PATH), EBADF);
    close(fd);
    CHECK(symlink(self, "link") == 0 || errno == EEXIST);
    CHECK_ERR(syscall(SYS_execveat, AT_FDCWD, "link", argv, environ, AT_SYMLINK_NOFOLLOW), ELOOP);
    unlink("link");
}

static void rights(void)
{
    char data[65536];
    int n, from = open(self, O_RDONLY), to = open("setid", O_CREAT | O_WRONLY | O_TRUNC, 0755);
    while ((n = read(from, data, sizeof data)) > 0)
        CHECK(write(to, data, n) == n);
    CHECK(fchown(to, 4321, 8765) == 0 && fchmod(to, 06755) == 0);
    close(from);
    close(to);
    char *argv[] = {"setid", NULL}, *plain[] = {"unsecure", NULL};
    CHECK(run("./setid", argv) == 0);
    int status;
    pid_t child = fork();
    if (child == 0) {
        CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        execve("./setid", plain, environ);
        _exit(1);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    unlink("setid");
}

static void vector(void)
{
    CHECK(getauxval(AT_PAGESZ) == 4096 && getauxval(AT_CLKTCK) == 100);
    CHECK(getauxval(AT_UID) == getuid() && getauxval(AT_EGID) == getegid());
    CHECK(getauxval(AT_SECURE) == 0 && getauxval(AT_PHENT) == 56);
    CHECK(strcmp((char *)getauxval(AT_PLATFORM), "x86_64") == 0);
    CHECK(getauxval(AT_MINSIGSTKSZ) >= 1000 && getauxval(AT_RANDOM) != 0);
    CHECK(getauxval(AT_FLAGS) == 0);
    CHECK(memcmp((void *)(getauxval(AT_PHDR) - 64), "\177ELF", 4) == 0);
    CHECK(strchr((char *)getauxval(AT_EXECFN), 'x') != NULL);
    CHECK(getauxval(AT_ENTRY) != 0 && getauxval(AT_BASE) == 0);
    char *heap = sbrk(0);
    CHECK(sbrk(1 << 20) == heap && (memset(heap, 1, 1 << 20), heap[5] == 1));
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "script  arg\tb") == 0)
        return strcmp(argv[2], "./script") || strcmp(argv[3], "one") || strcmp(argv[4], "two");
    if (argc > 1 && strstr(argv[1], "bare"))
        return 77;
    if (argc == 1 && argv[0][0] == 0)
        return argv[1] == NULL ? 66 : 1;
    if (strcmp(argv[0], "sizes") == 0 || strcmp(argv[0], "fd") == 0)
        return strcmp(environ[0], "A=1") && argv[0][0] == 's';
    if (strcmp(argv[0], "setid") == 0) {
        CHECK(geteuid() == 4321 && getegid() == 8765 && getuid() == 0 && getauxval(AT_SECURE) == 1);
        CHECK(prctl(PR_GET_DUMPABLE) == 0);
        return 0;
    }
    if (strcmp(argv[0], "unsecure") == 0)
        return geteuid() != 0 || getauxval(AT_SECURE) != 0;

    CHECK(getcwd(here, sizeof here));
    if (strcmp(here, "/") == 0)
        here[0] = 0;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(n > 0);
    vector();
    scripts();
    no_programs();
    sizes();
    by_descriptor();
    rights();
    return 0;
}
