/* /proc/PID/map_files and numa_maps: proc(5), numa(7). */
#define _GNU_SOURCE
#include "abi.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096L
#define MPOL_BIND 2
#define MPOL_INTERLEAVE 3
#define MPOL_F_STATIC_NODES (1 << 15)

static char text[1 << 16], here[200];

static char *name_of(const char *at, int pages)
{
    static char name[100];
    sprintf(name, "/proc/self/map_files/%lx-%lx", (long)at, (long)at + pages * PAGE);
    return name;
}

static int is_link_to(const char *name, const char *expected)
{
    char found[300];
    ssize_t size = readlink(name, found, sizeof found - 1);
    if (size < 0) return 0;
    found[size] = 0;
    return !strcmp(found, expected);
}

static int listed(const char *name)
{
    DIR *directory = opendir("/proc/self/map_files");
    int found = 0;
    CHECK(directory != NULL);
    for (struct dirent *each; (each = readdir(directory));) {
        CHECK(each->d_name[0] == '.' || each->d_type == DT_LNK);
        found += !strcmp(each->d_name, name + strlen("/proc/self/map_files/"));
    }
    closedir(directory);
    return found;
}

static void become(int id)
{
    CHECK(setresgid(id, id, id) == 0 && setresuid(id, id, id) == 0);
    CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
}

static void links(void)
{
    struct stat st, file;
    char path[300], other[100];
    int status, fd = open("a file", O_RDWR | O_CREAT, 0644), read_only = open("a file", O_RDONLY);
    sprintf(path, "%s/a file", here);
    CHECK(fd >= 0 && read_only >= 0 && ftruncate(fd, 8 * PAGE) == 0 && fstat(fd, &file) == 0);
    char *area = mmap(NULL, 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED && !listed(name_of(area, 8)));
    CHECK_ERR(lstat(name_of(area, 8), &st), ENOENT);
    char *at = mmap(area + PAGE, 4 * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, PAGE);
    CHECK(at == area + PAGE && listed(name_of(at, 4)) == 1 && is_link_to(name_of(at, 4), path));
    CHECK(lstat(name_of(at, 4), &st) == 0 && st.st_mode == (S_IFLNK | 0600) && st.st_size == 64);
    CHECK_ERR(lstat(name_of(at, 3), &st), ENOENT);
    CHECK_ERR(lstat(name_of(at + PAGE, 3), &st), ENOENT);
    sprintf(other, "/proc/self/map_files/0%lx-%lx", (long)at, (long)at + 4 * PAGE);
    CHECK_ERR(lstat(other, &st), ENOENT);
    CHECK_ERR(lstat("/proc/self/map_files/1", &st), ENOENT);
    CHECK(stat("/proc/self/map_files", &st) == 0 && st.st_mode == (S_IFDIR | 0500));
    if (getuid() == 0) {
        CHECK(stat(name_of(at, 4), &st) == 0 && st.st_ino == file.st_ino);
        pid_t root = getpid(), pid = fork();
        if (pid == 0) {
            sprintf(other, "/proc/%d/map_files", root);
            DIR *of_root = opendir(other);
            CHECK(of_root && readdir(of_root));
            rewinddir(of_root);
            become(1000);
            CHECK(readdir(of_root) && readdir(of_root)); /* . and .. */
            CHECK(!readdir(of_root) && errno == EACCES);
            CHECK_ERR(open(other, O_RDONLY), EACCES);
            CHECK(listed(name_of(at, 4)) == 1 && is_link_to(name_of(at, 4), path));
            CHECK_ERR(open(name_of(at, 4), O_RDONLY), EPERM);
            CHECK_ERR(stat(name_of(at, 4), &st), EPERM);
            exit(0);
        }
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    }
    CHECK(munmap(at + 3 * PAGE, PAGE) == 0);
    CHECK_ERR(readlink(name_of(at, 4), other, 100), ENOENT);
    CHECK(is_link_to(name_of(at, 3), path));
    CHECK(mmap(at, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, read_only, 0) == at);
    CHECK(lstat(name_of(at, 1), &st) == 0 && st.st_mode == (S_IFLNK | 0400));
    CHECK(unlink("a file") == 0);
    strcat(path, " (deleted)");
    CHECK(is_link_to(name_of(at, 1), path));
    sprintf(other, "/proc/self/task/%d/map_files", getpid());
    CHECK_ERR(access(other, F_OK), ENOENT);
    CHECK(munmap(area, 8 * PAGE) == 0);
}

/* The line of numa_maps of the mapping at an address, without the address. */
static const char *line_of(const void *at)
{
    static char line[1000];
    char start[50];
    int fd = open("/proc/self/numa_maps", O_RDONLY);
    ssize_t size = 0, more;
    CHECK(fd >= 0);
    while ((more = read(fd, text + size, sizeof text - 1 - size)) > 0)
        size += more;
    text[size] = 0;
    close(fd);
    sprintf(start, "%08lx ", (long)at);
    char *found = strstr(text, start);
    CHECK(found != NULL);
    sscanf(found + strlen(start), "%999[^\n]", line);
    return line;
}

static int begins(const char *line, const char *start) { return !strncmp(line, start, strlen(start)); }

static void nodes(void)
{
    unsigned long first = 1;
    char *area = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0); /* nothing ahead */
    char expected[400];
    CHECK(mprotect(area, PAGE, PROT_NONE) == 0 && mprotect(area + 7 * PAGE, PAGE, PROT_NONE) == 0);
    char *at = area + PAGE;
    CHECK(!strcmp(line_of(at), "default"));
    for (int i = 0; i < 6; i++)
        at[i * PAGE] = 1;
    CHECK(begins(line_of(at), "default anon=6 dirty=6 "));
    CHECK(strstr(line_of(at), " N0=6 kernelpagesize_kB=4") != NULL);
    CHECK(strstr(text, " default stack anon=") != NULL);
    CHECK(syscall(SYS_mbind, at, 6 * PAGE, MPOL_BIND | MPOL_F_STATIC_NODES, &first, 64, 0) == 0);
    CHECK(begins(line_of(at), "bind=static:0 anon=6 dirty=6 "));
    CHECK(syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, &first, 64) == 0);
    CHECK(!strcmp(line_of(area), "interleave:0") && begins(line_of(at), "bind=static:0 "));
    CHECK(syscall(SYS_set_mempolicy, 0, NULL, 0) == 0);
    int fd = open("with a\tname=", O_RDWR | O_CREAT, 0644);
    CHECK(fd >= 0 && write(fd, text, 2 * PAGE) == 2 * PAGE);
    char *file = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(file != MAP_FAILED && file[0] == text[0]);
    sprintf(expected, "default file=%s/with\\040a\\011name\\075", here);
    CHECK(begins(line_of(file), expected));
    CHECK(strstr(line_of(file), " kernelpagesize_kB=4") != NULL);
    unlink("with a\tname=");
}

int main(void)
{
    CHECK(getcwd(here, sizeof here) != NULL);
    links();
    nodes();
    return 0;
}
