/* What the programs about overlays have in common. */
#ifndef ABI_OVERLAY_H
#define ABI_OVERLAY_H

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

__attribute__((unused)) static void put(const char *path, const char *text)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0);
}

__attribute__((unused)) static int has(const char *path, const char *text)
{
    char found[100] = {0};
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return 0;
    ssize_t size = read(fd, found, sizeof found - 1);
    close(fd);
    return size >= 0 && !strcmp(found, text);
}

/* How many names but the dots. */
__attribute__((unused)) static int names(const char *path)
{
    int count = -2;
    DIR *dir = opendir(path);
    CHECK(dir != 0);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

__attribute__((unused)) static int is_whiteout(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0);
}

__attribute__((unused)) static int marked(const char *path, const char *name, const char *value)
{
    char found[300] = {0};
    return getxattr(path, name, found, sizeof found - 1) >= 0 && !strcmp(found, value);
}

#endif
