/* A file that is mapped: what is read(2) and written, stores, fork, truncate, the end, execve.
   tests/e2e/test_objects_mapped.py runs it in a file system that is served from outside, too. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 100
#define RW (PROT_READ | PROT_WRITE)

static sigjmp_buf jump;
static siginfo_t info;

static void caught(int signo, siginfo_t *details, void *context)
{
    (void)signo, (void)context;
    info = *details;
    siglongjmp(jump, 1);
}

static int trapped(volatile char *at)
{
    info.si_signo = 0;
    if (!sigsetjmp(jump, 1))
        (void)*at;
    return info.si_signo == SIGBUS && info.si_code == BUS_ADRERR && info.si_addr == (void *)at;
}

static int made(const char *name, char *page, int pages)
{
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    for (int i = 0; i < pages; i++) {
        memset(page, 'a' + i % 26, PAGE);
        CHECK(write(fd, page, PAGE) == PAGE);
    }
    return fd;
}

static void private_mapping(char *page)
{
    int fd = made("private", page, PAGES);
    char *at = mmap(0, PAGES * PAGE, RW, MAP_PRIVATE, fd, 0);
    CHECK(at != MAP_FAILED);
    for (int i = 0; i < PAGES; i++)
        CHECK(at[i * PAGE] == 'a' + i % 26 && at[i * PAGE + PAGE - 1] == 'a' + i % 26);
    at[0] = 'X';
    CHECK(pread(fd, page, PAGE, 0) == PAGE && page[0] == 'a');
    CHECK(pwrite(fd, "YZ", 2, PAGE) == 2);
    CHECK(at[PAGE] == 'Y' && at[PAGE + 1] == 'Z' && at[PAGE + 2] == 'b');
    CHECK(at[0] == 'X' && at[2 * PAGE] == 'c');
    /* A hole shows, but where there is a copy; not every file system makes some. */
    if (!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 3 * PAGE))
        CHECK(at[0] == 'X' && at[PAGE] == 0 && at[2 * PAGE] == 0 && at[3 * PAGE] == 'd');
    CHECK(close(fd) == 0);
    CHECK(at[99 * PAGE] == 'a' + 99 % 26);
    CHECK(munmap(at, PAGES * PAGE) == 0);
}

static void shared_mapping(char *page)
{
    int fd = made("shared", page, 3), reader = open("shared", O_RDONLY);
    char *at = mmap(0, 3 * PAGE, RW, MAP_SHARED, fd, 0);
    char *seen = mmap(0, 3 * PAGE, PROT_READ, MAP_SHARED, reader, 0);
    CHECK(at != MAP_FAILED && seen != MAP_FAILED);
    CHECK(seen[0] == 'a');
    at[0] = '0';
    at[2 * PAGE + PAGE - 1] = '2';
    CHECK(seen[0] == '0' && seen[3 * PAGE - 1] == '2');
    CHECK(pread(reader, page, 1, 0) == 1 && page[0] == '0');
    CHECK(pwrite(fd, "w", 1, 1) == 1);
    CHECK(at[0] == '0' && at[1] == 'w' && seen[1] == 'w');
    at[PAGE] = '1';
    CHECK(msync(at, 3 * PAGE, MS_SYNC) == 0 && fsync(fd) == 0);
    int child = fork();
    if (!child) {
        at[PAGE + 1] = 'c';
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(at[PAGE + 1] == 'c');
    at[2] = 'u';
    CHECK(munmap(at, 3 * PAGE) == 0 && seen[2] == 'u');
    CHECK(munmap(seen, 3 * PAGE) == 0 && close(fd) == 0);
    CHECK(pread(reader, page, 3, 0) == 3 && !memcmp(page, "0wu", 3));
    CHECK(pread(reader, page, 2, PAGE) == 2 && !memcmp(page, "1c", 2));
    CHECK(close(reader) == 0);
}

static void end_of_a_process(char *page)
{
    int child = fork(), status;
    if (!child) {
        int fd = made("ended", page, 2);
        char *at = mmap(0, 2 * PAGE, RW, MAP_SHARED, fd, 0);
        CHECK(at != MAP_FAILED && close(fd) == 0);
        strcpy(at + PAGE, "stored last");
        _exit(7);
    }
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7);
    int fd = open("ended", O_RDONLY);
    CHECK(pread(fd, page, PAGE, PAGE) == PAGE && !strcmp(page, "stored last"));
    CHECK(close(fd) == 0);
}

static void sizes(char *page)
{
    int fd = made("cut", page, 4);
    CHECK(ftruncate(fd, 3 * PAGE + 5) == 0);
    char *at = mmap(0, 5 * PAGE, RW, MAP_SHARED, fd, 0);
    CHECK(at != MAP_FAILED);
    CHECK(at[3 * PAGE + 4] == 'd' && at[3 * PAGE + 5] == 0 && at[4 * PAGE - 1] == 0);
    CHECK(trapped(at + 4 * PAGE));
    at[3 * PAGE + 100] = 'x';
    at[0] = 'k';
    CHECK(ftruncate(fd, PAGE + 1) == 0);
    CHECK(at[0] == 'k' && at[PAGE] == 'b' && at[PAGE + 1] == 0);
    CHECK(trapped(at + 2 * PAGE));
    CHECK(trapped(at + 3 * PAGE));
    CHECK(pwrite(fd, "longer", 6, 2 * PAGE) == 6);
    CHECK(at[PAGE + 1] == 0 && !memcmp(at + 2 * PAGE, "longer", 6) && at[2 * PAGE + 6] == 0);
    CHECK(truncate("cut", 0) == 0);
    CHECK(trapped(at));
    int zeros[2];
    CHECK(pipe(zeros) == 0);
    CHECK_ERR(write(zeros[1], at, 10), EFAULT);
    CHECK(munmap(at, 5 * PAGE) == 0 && close(fd) == 0);
    struct stat found;
    CHECK(stat("cut", &found) == 0 && found.st_size == 0);
}

static void removed(char *page)
{
    int fd = made("removed", page, 2);
    char *at = mmap(0, 2 * PAGE, RW, MAP_SHARED, fd, 0);
    CHECK(at != MAP_FAILED && unlink("removed") == 0);
    CHECK(at[PAGE] == 'b');
    at[PAGE] = 'B';
    CHECK(pread(fd, page, 1, PAGE) == 1 && page[0] == 'B');
    CHECK(close(fd) == 0 && at[0] == 'a');
    CHECK(munmap(at, 2 * PAGE) == 0);
}

static void programs(char *page)
{
    int from = open("/proc/self/exe", O_RDONLY), to = open("program", O_WRONLY | O_CREAT, 0700);
    CHECK(from >= 0 && to >= 0);
    for (long count; (count = read(from, page, PAGE)) > 0;)
        CHECK(write(to, page, count) == count);
    CHECK(close(from) == 0 && close(to) == 0);
    to = open("script", O_WRONLY | O_CREAT | O_TRUNC, 0700);
    CHECK(write(to, "#! program script\n", 18) == 18 && close(to) == 0);
    for (int i = 0; i < 2; i++) {
        int child = fork(), status;
        if (!child) {
            if (i)
                execl("./script", "script", NULL);
            else
                execl("./program", "program", "again", NULL);
            _exit(1);
        }
        CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 23);
    }
}

int main(int argc, char **argv)
{
    static char page[PAGE];
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
    if (argc > 1)
        return 23;
    sigaction(SIGBUS, &action, NULL);
    private_mapping(page);
    shared_mapping(page);
    end_of_a_process(page);
    sizes(page);
    removed(page);
    programs(page);
    return 0;
}
