/* Takes all of one thing of the host, says "full", and gives it back at the next line; see
 * test_exhaustion.py. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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
    printf("over\n");
    return 0;
}
