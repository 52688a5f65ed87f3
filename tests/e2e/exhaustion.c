/* Takes all of one thing of the host, says "full", and gives it back at the next line; see
 * test_exhaustion.py. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define STEP (64ull << 20)

static void told(void)
{
    char line[16];
    if (!fgets(line, sizeof line, stdin))
        exit(3);
}

/* Opens (and maps) the files 0, 1, 2 ... of a folder for as long as that works, as user 1000. */
static void files(int map)
{
    struct rlimit many = {1 << 16, 1 << 16};
    int n = 0, error = 0;
    if (setrlimit(RLIMIT_NOFILE, &many) || setresuid(1000, 1000, -1))
        exit(2);
    for (; !error; n++) {
        char name[32];
        snprintf(name, sizeof name, "/many/%d", n);
        int fd = open(name, O_RDONLY);
        if (fd < 0 || (map && mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED))
            error = errno;
        if (map && fd >= 0)
            close(fd);
    }
    printf("full %d %s\n", n - 1, strerrorname_np(error));
    told();
    if (map)
        return; /* they go with the process */
    close_range(3, ~0u, 0);
    int fd = open("/many/0", O_RDONLY);
    printf("again %s\n", fd < 0 ? strerrorname_np(errno) : "opened");
}

/* Looks at a file that is larger than all the room for files, twice: what is in it stays true. */
static void window(void)
{
    int fd = open("/large/file", O_RDONLY);
    off_t size = lseek(fd, 0, SEEK_END);
    uint8_t *at = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    uint64_t wrong = 0;
    if (fd < 0 || at == MAP_FAILED)
        exit(2);
    for (int round = 0; round < 2; round++)
        for (off_t i = 0; i < size; i += STEP)
            wrong += *(uint64_t *)(at + i) != (i % (16 * STEP) ? 0 : (uint64_t)i / STEP + 1);
    printf("full %llu wrong\n", (unsigned long long)wrong);
    told();
}

/* Children with as many filters as each may have, one line for each child: so many that stay, or
 * that end, and nobody asks for their status. */
static void filters(int children, int stay)
{
    static struct sock_filter code[4096];
    struct sock_fprog program = {4096, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    for (int child = 0; child < children; child++) {
        int ends[2];
        char byte;
        if (pipe(ends) || fork() == 0) {
            for (int n = 0; n < 8; n++) {
                for (int i = 0; i < 4095; i++)
                    code[i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                                           child * 65536 + n * 4096 + i, 0, 0);
                code[4095] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
                if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
                    break;
            }
            close(ends[1]);
            while (stay)
                pause();
            _exit(0);
        }
        close(ends[1]);
        read(ends[0], &byte, 1); /* its end of file: the child has all it can get, or is dead */
        close(ends[0]);
        printf("child %d\n", child);
    }
}

/* Holds memory of its own, a quarter of what there is. */
static void hold(void)
{
    size_t size = 48 << 20;
    uint8_t *at = malloc(size);
    memset(at, 7, size);
    printf("full\n");
    told();
    for (size_t i = 0; i < size; i += 4096)
        if (at[i] != 7)
            exit(4);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc != 2)
        return 2;
    if (!strcmp(argv[1], "open"))
        files(0);
    else if (!strcmp(argv[1], "map"))
        files(1);
    else if (!strcmp(argv[1], "window"))
        window();
    else if (!strcmp(argv[1], "filters"))
        filters(INT_MAX, 1);
    else if (!strcmp(argv[1], "zombies"))
        filters(330, 0);
    else if (!strcmp(argv[1], "hold"))
        hold();
    printf("over\n");
    return 0;
}
