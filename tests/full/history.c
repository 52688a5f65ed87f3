/* Does what a script says to files, and says before each line which one it is.
 *
 * Usage: history SCRIPT. A line is a letter and words without blanks: c FILE makes one, w FILE TEXT
 * replaces what is in it, f FILE is fsync, y syncs the file system, r OLD NEW renames, l OLD NEW
 * links, u FILE unlinks, m and d make and remove a directory, s NAME TEXT makes a link, p FILE MODE
 * is chmod. Standard output gets the number of the line, and "NUMBER ERRNO" if it failed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int with_file(const char *name, int flags, const char *text, int sync) {
    int fd = open(name, flags, 0644), result = fd < 0 ? errno : 0;
    if (fd < 0)
        return result;
    if (text && write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        result = ENOSPC; /* or a part of it */
    if (sync == 1 && fsync(fd))
        result = errno;
    if (sync == 2 && syncfs(fd))
        result = errno;
    if (close(fd))
        result = errno;
    return result;
}

static int done(char what, const char *a, const char *b) {
    switch (what) {
    case 'c': return with_file(a, O_WRONLY | O_CREAT | O_EXCL, NULL, 0);
    case 'w': return with_file(a, O_WRONLY | O_TRUNC, b, 0);
    case 'f': return with_file(a, O_RDONLY, NULL, 1);
    case 'y': return with_file(".", O_RDONLY, NULL, 2);
    case 'r': return rename(a, b) ? errno : 0;
    case 'l': return link(a, b) ? errno : 0;
    case 'u': return unlink(a) ? errno : 0;
    case 'm': return mkdir(a, 0755) ? errno : 0;
    case 'd': return rmdir(a) ? errno : 0;
    case 's': return symlink(b, a) ? errno : 0;
    case 'p': return chmod(a, strtoul(b, NULL, 8)) ? errno : 0;
    }
    return EINVAL;
}

static void say(const char *format, int number, int error) {
    char text[32];
    int length = snprintf(text, sizeof text, format, number, error);
    if (write(1, text, length) != length)
        exit(2);
}

int main(int argc, char **argv) {
    FILE *script = argc == 2 ? fopen(argv[1], "r") : NULL;
    char what, a[128], b[128], line[300];
    umask(0);
    if (!script || chdir("/history"))
        return 1;
    for (int number = 0; fgets(line, sizeof line, script); number++) {
        a[0] = b[0] = 0;
        sscanf(line, "%c %127s %127s", &what, a, b);
        say("%d\n", number, 0);
        int error = done(what, a, b);
        if (error)
            say("%d %d\n", number, error);
    }
    return 0;
}
