/* Maps the second page of a file, and: read FILE: shows a byte of it; store FILE WHEN: stores into
   it, and ends, or unmaps it or calls msync(2) before. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096

int main(int argc, char **argv)
{
    int stores = !strcmp(argv[1], "store");
    int fd = open(argv[2], stores ? O_RDWR : O_RDONLY);
    int prot = stores ? PROT_READ | PROT_WRITE : PROT_READ;
    char *at = mmap(0, PAGE, prot, MAP_SHARED, fd, PAGE);
    if (at == MAP_FAILED)
        return 1;
    if (!stores) {
        printf("%c\n", at[7]);
        return 0;
    }
    strcpy(at, "stored");
    close(fd);
    if (!strcmp(argv[3], "msync"))
        printf("%s\n", msync(at, PAGE, MS_SYNC) ? strerrorname_np(errno) : "done");
    if (!strcmp(argv[3], "munmap"))
        printf("%d\n", munmap(at, PAGE));
    return 0;
}
