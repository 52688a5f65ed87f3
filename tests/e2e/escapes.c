/* Ways out that were once open on Linux or in other runtimes, for test_escapes.py.
 *
 *     escapes abstract NAME    does somebody listen at an abstract name?
 *     escapes dirty PATH       stores into a file that may only be read, in all ways
 *
 * It says what worked; silence is right. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

static int abstract(const char *name)
{
    static const int kinds[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    for (int i = 0; i < 3; i++) {
        struct sockaddr_un at = {.sun_family = AF_UNIX};
        strcpy(at.sun_path + 1, name);
        int fd = socket(AF_UNIX, kinds[i], 0);
        if (!connect(fd, (void *)&at, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)))
            printf("connected, type %d\n", kinds[i]);
        else if (errno != ECONNREFUSED)
            printf("errno %d, type %d\n", errno, kinds[i]);
        close(fd);
    }
    return 0;
}

static volatile int stop;
static char *copy;

static void *discard(void *unused)
{
    while (!stop)
        madvise(copy, PAGE, MADV_DONTNEED);
    return NULL;
}

/* Copy on write against MADV_DONTNEED: the store must never reach the file's own page. */
static void race(int fd)
{
    pthread_t thread;
    int mem = open("/proc/self/mem", O_RDWR);
    copy = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    pthread_create(&thread, NULL, discard, NULL);
    for (int i = 0; i < 2000; i++)
        pwrite(mem, "COW", 3, (off_t)copy);
    stop = 1;
    pthread_join(thread, NULL);
    close(mem);
}

/* A pipe that holds the file's page: what is written to the pipe next goes elsewhere. */
static void through_pipe(int fd)
{
    int pair[2];
    char some[PAGE];
    memset(some, 'P', sizeof some);
    pipe(pair);
    for (int i = 0; i < 16; i++) /* all its buffers were written to once, and can be appended to */
        write(pair[1], some, PAGE);
    for (int i = 0; i < 16; i++)
        read(pair[0], some, PAGE);
    for (loff_t at = 0; at < 3; at++) {
        loff_t from = at;
        if (splice(fd, &from, pair[1], NULL, 1, 0) == 1)
            write(pair[1], "PIPE", 4);
        from = at;
        if (sendfile(pair[1], fd, &from, 1) == 1)
            write(pair[1], "PIPE", 4);
    }
    struct iovec gift = {mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0), PAGE};
    vmsplice(pair[1], &gift, 1, SPLICE_F_GIFT);
    write(pair[1], "PIPE", 4);
}

#define WORKED(call)                                                                            \
    do {                                                                                        \
        if ((long)(call) >= 0)                                                                  \
            printf("worked: %s\n", #call);                                                      \
    } while (0)

static int dirty(const char *path)
{
    char self[64];
    int fd = open(path, O_RDONLY);
    char *page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    struct iovec from = {"VM", 2}, to = {page, 2};
    int pair[2], mem = open("/proc/self/mem", O_RDWR), other = open("/tmp/other", O_CREAT | O_RDWR, 0600);
    loff_t start = 0;
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    WORKED(open(path, O_RDWR));
    WORKED(open(path, O_WRONLY | O_TRUNC));
    WORKED(open(self, O_RDWR));
    WORKED(truncate(path, 1));
    WORKED(ftruncate(fd, 1));
    WORKED(write(fd, "x", 1));
    WORKED(pwrite(fd, "x", 1, 0));
    WORKED(fallocate(fd, 0, 0, 100000));
    WORKED(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1));
    WORKED(copy_file_range(other, &start, fd, &start, 1, 0));
    WORKED(chmod(path, 0777));
    WORKED(fchmod(fd, 0777));
    WORKED(chown(path, 1, 1));
    WORKED(unlink(path));
    WORKED(rename(path, "/tmp/moved"));
    WORKED(mprotect(page, PAGE, PROT_READ | PROT_WRITE));
    WORKED(pwrite(mem, "MEM", 3, (off_t)page));
    WORKED(process_vm_writev(getpid(), &from, 1, &to, 1, 0));
    pipe(pair);
    write(pair[1], "READ", 4);
    WORKED(read(pair[0], page, 4));
    if (mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED)
        printf("worked: a shared mapping that can be written\n");
    char *own = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    memcpy(own, "PRIVATE", 7);
    if (!fork()) {
        memcpy(own + 10, "CHILD", 5);
        _exit(0);
    }
    wait(NULL);
    msync(own, PAGE, MS_SYNC);
    race(fd);
    through_pipe(fd);
    return 0;
}

int main(int argc, char **argv)
{
    return !strcmp(argv[1], "abstract") ? abstract(argv[2]) : dirty(argv[2]);
}
