/* Programs that try to get round a policy (policy_attempts.py), each in a process of its own, in a
   folder of its own with a file `secret`. Each says what it got: 0 is that it had its way. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64], secret[96], self[256];

static int outcome(long result) { return result < 0 ? errno : 0; }
static int opens(const char *path, int flags)
{
    int fd = open(path, flags, 0600);
    if (fd >= 0)
        close(fd);
    return outcome(fd);
}
static void copy(const char *from, const char *to)
{
    char data[65536];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    for (ssize_t n; (n = read(in, data, sizeof data)) > 0;)
        if (write(out, data, n) != n)
            _exit(99);
    close(in);
    close(out);
}
/* What a program ends with that was run: 0; an errno if it could not be. */
static int ran(pid_t child)
{
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}
static int runs(const char *path)
{
    pid_t child = fork();
    if (!child) {
        execl(path, path, "nothing", NULL);
        _exit(errno);
    }
    return ran(child);
}

/* --- files */
static int dots(void) { chdir("/"); return opens("w/../w/dots/./secret", O_RDONLY); }
static int directory(void)
{
    int fd = open("/w", O_PATH);
    return outcome(openat(fd, "directory/secret", O_RDONLY));
}
static int relative(void) { chdir(folder); return opens("secret", O_RDONLY); }
static int symbolic(void) { symlink(secret, "/tmp/symbolic"); return opens("/tmp/symbolic", O_RDONLY); }
static int symbolic_folder(void)
{
    symlink(folder, "/tmp/folder");
    return opens("/tmp/folder/secret", O_RDONLY);
}
static int hard(void) { return outcome(link(secret, "/w/hard_link")) ?: opens("/w/hard_link", O_RDONLY); }
static int renamed(void) { return outcome(rename(secret, "/w/moved")) ?: opens("/w/moved", O_RDONLY); }
static int renamed_folder(void)
{
    return outcome(rename(folder, "/w/gone")) ?: opens("/w/gone/secret", O_RDONLY);
}
static int renamed_over(void)
{
    close(open("/w/mine", O_CREAT | O_WRONLY, 0600));
    return outcome(rename("/w/mine", secret));
}
static int exchanged(void)
{
    mkdir("/w/other", 0700);
    return outcome(syscall(SYS_renameat2, -100, "/w/other", -100, folder, 2))
        ?: opens("/w/other/secret", O_RDONLY);
}
static int bound(void)
{
    mkdir("/tmp/bound", 0700);
    return outcome(mount(folder, "/tmp/bound", 0, MS_BIND, 0)) ?: opens("/tmp/bound/secret", O_RDONLY);
}
static int bound_above(void)
{
    mkdir("/tmp/above", 0700);
    return outcome(mount("/w", "/tmp/above", 0, MS_BIND, 0))
        ?: opens("/tmp/above/bound_above/secret", O_RDONLY);
}
static int attached(void)
{
    mkdir("/tmp/attached", 0700);
    int tree = syscall(SYS_open_tree, -100, folder, 1);
    syscall(SYS_move_mount, tree, "", -100, "/tmp/attached", 4);
    return opens("/tmp/attached/secret", O_RDONLY);
}
static int overlay(void)
{
    mkdir("/tmp/o", 0700), mkdir("/tmp/u", 0700), mkdir("/tmp/v", 0700);
    return outcome(mount("overlay", "/tmp/o", "overlay", 0, "lowerdir=/w/overlay:/tmp/v"))
        ?: opens("/tmp/o/secret", O_RDONLY);
}
static int new_root(void) { chroot(folder); return opens("/secret", O_RDONLY); }
static int namespaced(void)
{
    unshare(CLONE_NEWNS);
    int tree = syscall(SYS_open_tree, -100, "/w", 1);
    mkdir("/tmp/namespaced", 0700);
    syscall(SYS_move_mount, tree, "", -100, "/tmp/namespaced", 4);
    chroot("/tmp/namespaced");
    return opens("/namespaced/secret", O_RDONLY);
}
static int by_descriptor(void)
{
    char path[64];
    sprintf(path, "/proc/self/fd/%d", open(secret, O_RDONLY));
    return opens(path, O_RDWR); /* it may be read */
}
static int by_thread_root(void) { return opens("/proc/thread-self/root/w/by_thread_root/secret", O_RDONLY); }
static int in_root(void)
{
    struct open_how how = {.resolve = RESOLVE_IN_ROOT};
    return outcome(syscall(SYS_openat2, open("/w", O_PATH), "/in_root/secret", &how, sizeof how));
}
static int by_handle(void)
{
    union { struct file_handle handle; char room[256]; } place = {.handle.handle_bytes = 128};
    int mount_id;
    if (name_to_handle_at(AT_FDCWD, secret, &place.handle, &mount_id, 0) < 0)
        return errno;
    return outcome(open_by_handle_at(open("/w", O_RDONLY), &place.handle, O_RDONLY));
}
static int creates(void)
{
    char path[128];
    sprintf(path, "%s/new", folder);
    int result = outcome(creat(path, 0600));
    return result && !access(path, F_OK) ? 900 : result;
}
static int dangling(void)
{
    symlink("/w/dangling/new", "/tmp/dangling");
    return opens("/tmp/dangling", O_CREAT | O_WRONLY);
}
static int truncates(void) { return opens(secret, O_RDONLY | O_TRUNC); }
static int truncates_path(void) { return outcome(truncate(secret, 0)); }
static int nameless(void) { return opens(folder, O_TMPFILE | O_RDWR); }
static int mapped(void)
{
    int fd = open(secret, O_RDWR);
    if (fd < 0)
        return errno;
    char *at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? errno : (at[0] = 'x', 0);
}
static volatile char raced[96];
static volatile int stop;
static void *flip(void *other)
{
    while (!stop) {
        strcpy((char *)raced, secret);
        strcpy((char *)raced, other);
    }
    return NULL;
}
static int raced_path(void)
{
    pthread_t thread;
    int won = EACCES;
    close(open("/tmp/mine", O_CREAT | O_WRONLY, 0600));
    strcpy((char *)raced, "/tmp/mine");
    pthread_create(&thread, 0, flip, "/tmp/mine");
    for (int i = 0; i < 400 && won; i++) {
        char byte;
        int fd = open((char *)raced, O_RDONLY);
        if (fd >= 0 && read(fd, &byte, 1) == 1)
            won = 0; /* mine is empty */
        if (fd >= 0)
            close(fd);
    }
    stop = 1;
    pthread_join(thread, 0);
    return won;
}
static void *swap(void *nothing)
{
    while (!stop) {
        unlink("/tmp/raced");
        symlink(secret, "/tmp/raced");
        unlink("/tmp/raced");
        symlink("/tmp/mine", "/tmp/raced");
    }
    return nothing;
}
static int raced_link(void)
{
    pthread_t thread;
    int won = EACCES;
    close(open("/tmp/mine", O_CREAT | O_WRONLY, 0600));
    pthread_create(&thread, 0, swap, 0);
    for (int i = 0; i < 400 && won; i++) {
        char byte;
        int fd = open("/tmp/raced", O_RDONLY);
        if (fd >= 0 && read(fd, &byte, 1) == 1)
            won = 0;
        if (fd >= 0)
            close(fd);
    }
    stop = 1;
    pthread_join(thread, 0);
    return won;
}
static int by_vfork(void)
{
    volatile int result = 0;
    pid_t child = vfork();
    if (!child) {
        result = opens(secret, O_RDONLY);
        _exit(0);
    }
    waitpid(child, 0, 0);
    return result;
}

/* --- programs: each folder has a copy of this one as `program` */
static char *program(void)
{
    static char path[128];
    sprintf(path, "%s/program", folder);
    return path;
}
static int exec_link(void) { symlink(program(), "/tmp/exec_link"); return runs("/tmp/exec_link"); }
static int exec_descriptor(void)
{
    int fd = open(program(), O_RDONLY);
    pid_t child = fork();
    if (!child) {
        char *words[] = {"x", "nothing", 0}, *none[] = {0};
        syscall(SYS_execveat, fd, "", words, none, AT_EMPTY_PATH);
        _exit(errno);
    }
    return ran(child);
}
static int exec_script(void)
{
    FILE *file = fopen("/tmp/script", "w");
    fprintf(file, "#!%s nothing\n", program());
    fclose(file);
    chmod("/tmp/script", 0755);
    return runs("/tmp/script");
}
static int exec_copy(void) { copy(program(), "/tmp/exec_copy"); return runs("/tmp/exec_copy"); }
static int exec_memory(void)
{
    char path[64];
    int fd = memfd_create("mine", 0);
    sprintf(path, "/proc/self/fd/%d", fd);
    copy(program(), path);
    int readable = open(path, O_RDONLY | O_CLOEXEC);
    close(fd);
    sprintf(path, "/proc/self/fd/%d", readable);
    return runs(path);
}
static int exec_vfork(void)
{
    volatile int error = 0;
    pid_t child = vfork();
    if (!child) {
        execl(program(), "x", "nothing", NULL);
        error = errno;
        _exit(0);
    }
    waitpid(child, 0, 0);
    return error;
}
static int exec_arguments(void)
{
    pid_t child = fork();
    if (!child) {
        execl(program(), "x", "nothing", "--evil", NULL);
        _exit(errno);
    }
    return ran(child);
}

/* --- addresses: port 7 to 9 of the loopback are not to be reached by datagrams */
static struct sockaddr_in target(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}
static int udp(void) { return socket(AF_INET, SOCK_DGRAM, 0); }
static int connects(void)
{
    struct sockaddr_in to = target(7);
    return outcome(connect(udp(), (void *)&to, sizeof to));
}
static int sends(void)
{
    struct sockaddr_in to = target(7);
    return outcome(sendto(udp(), "x", 1, 0, (void *)&to, sizeof to));
}
static int sends_message(void)
{
    struct sockaddr_in to = target(7);
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1};
    return outcome(sendmsg(udp(), &message, 0));
}
static int sends_messages(void)
{
    struct sockaddr_in free = target(70), to = target(7);
    struct iovec part = {"x", 1};
    struct mmsghdr messages[2] = {
        {.msg_hdr = {&free, sizeof free, &part, 1}}, {.msg_hdr = {&to, sizeof to, &part, 1}},
    };
    return sendmmsg(udp(), messages, 2, 0) == 2 ? 0 : EACCES;
}
static int mapped_address(void)
{
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(7)};
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &to.sin6_addr);
    return outcome(connect(socket(AF_INET6, SOCK_DGRAM, 0), (void *)&to, sizeof to));
}
static int wildcard(void)
{
    struct sockaddr_in to = target(7);
    to.sin_addr.s_addr = 0;
    return outcome(connect(udp(), (void *)&to, sizeof to));
}
static int unspecified(void)
{
    struct sockaddr_in to = target(7);
    to.sin_family = AF_UNSPEC;
    return outcome(sendto(udp(), "x", 1, 0, (void *)&to, sizeof to));
}
static int unspecified_wildcard(void)
{
    struct sockaddr_in to = target(7);
    to.sin_family = AF_UNSPEC, to.sin_addr.s_addr = 0;
    return outcome(sendto(udp(), "x", 1, 0, (void *)&to, sizeof to));
}
static int fast_open(void)
{
    struct sockaddr_in to = target(8), here = target(8);
    int server = socket(AF_INET, SOCK_STREAM, 0);
    bind(server, (void *)&here, sizeof here), listen(server, 1);
    return outcome(sendto(socket(AF_INET, SOCK_STREAM, 0), "x", 1, MSG_FASTOPEN, (void *)&to, sizeof to));
}
static struct sockaddr_in shared;
static void *flip_port(void *nothing)
{
    while (!stop) {
        *(volatile in_port_t *)&shared.sin_port = htons(7);
        *(volatile in_port_t *)&shared.sin_port = htons(70);
    }
    return nothing;
}
static int raced_address(void)
{
    pthread_t thread;
    int won = EACCES;
    shared = target(70);
    pthread_create(&thread, 0, flip_port, 0);
    for (int i = 0; i < 400 && won; i++) {
        int sock = udp();
        struct sockaddr_in peer;
        socklen_t size = sizeof peer;
        connect(sock, (void *)&shared, sizeof shared);
        if (!getpeername(sock, (void *)&peer, &size) && peer.sin_port == htons(7))
            won = 0;
        close(sock);
    }
    stop = 1;
    pthread_join(thread, 0);
    return won;
}
static int unix_link(void)
{
    struct sockaddr_un there = {AF_UNIX, "/w/unix_socket"}, link_to = {AF_UNIX, "/tmp/unix_link"};
    int server = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(server, (void *)&there, sizeof there), listen(server, 1);
    symlink("/w/unix_socket", "/tmp/unix_link");
    return outcome(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&link_to, sizeof link_to));
}
static int elsewhere(void) /* a handler sends it to port 70 */
{
    struct sockaddr_in to = target(9);
    socklen_t size = sizeof to;
    int sock = udp();
    if (connect(sock, (void *)&to, sizeof to) < 0 || getpeername(sock, (void *)&to, &size) < 0)
        return errno;
    return to.sin_port == htons(9) ? 0 : EACCES;
}

/* --- calls, and handlers that fail */
static int traces(void) { return outcome(ptrace(PTRACE_TRACEME, 0, 0, 0)); }
static int emulated(void) { return syscall(SYS_getppid) == 4242 ? EACCES : 0; }
static int new_user(void) { return outcome(unshare(CLONE_NEWUSER)); }
static int new_user_clone(void)
{
    pid_t child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (!child)
        _exit(0);
    return outcome(child);
}
static int is_killed(void) { return opens(secret, O_RDONLY); }
static int plain(void) { return opens(secret, O_RDONLY); }

#define ATTEMPT(name) {#name, name}
#define PLAIN(name) {#name, plain}
static const struct { const char *name; int (*attempt)(void); } attempts[] = {
    ATTEMPT(dots), ATTEMPT(directory), ATTEMPT(relative), ATTEMPT(symbolic),
    ATTEMPT(symbolic_folder), ATTEMPT(hard), ATTEMPT(renamed), ATTEMPT(renamed_folder),
    ATTEMPT(renamed_over), ATTEMPT(exchanged), ATTEMPT(bound), ATTEMPT(bound_above),
    ATTEMPT(attached), ATTEMPT(overlay), ATTEMPT(new_root), ATTEMPT(namespaced),
    ATTEMPT(by_descriptor), ATTEMPT(by_thread_root), ATTEMPT(in_root), ATTEMPT(by_handle),
    ATTEMPT(creates), ATTEMPT(dangling), ATTEMPT(truncates), ATTEMPT(truncates_path),
    ATTEMPT(nameless), ATTEMPT(mapped), ATTEMPT(raced_path), ATTEMPT(raced_link),
    ATTEMPT(by_vfork), ATTEMPT(exec_link), ATTEMPT(exec_descriptor), ATTEMPT(exec_script),
    ATTEMPT(exec_copy), ATTEMPT(exec_memory), ATTEMPT(exec_vfork), ATTEMPT(exec_arguments),
    ATTEMPT(connects), ATTEMPT(sends), ATTEMPT(sends_message), ATTEMPT(sends_messages),
    ATTEMPT(mapped_address), ATTEMPT(wildcard), ATTEMPT(unspecified),
    ATTEMPT(unspecified_wildcard), ATTEMPT(fast_open),
    ATTEMPT(raced_address), ATTEMPT(unix_link), ATTEMPT(elsewhere), ATTEMPT(traces),
    ATTEMPT(emulated), ATTEMPT(new_user), ATTEMPT(new_user_clone), ATTEMPT(is_killed),
    PLAIN(raises), PLAIN(loops), PLAIN(allocates), PLAIN(recurses), PLAIN(sleeps), PLAIN(exits),
    PLAIN(asks),
};

int main(int count, char **words)
{
    if (count > 1)
        return 0; /* as a program that is run */
    setvbuf(stdout, 0, _IONBF, 0);
    readlink("/proc/self/exe", self, sizeof self - 1);
    mkdir("/w", 0755), mkdir("/tmp", 0777);
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        sprintf(folder, "/w/%s", attempts[i].name);
        sprintf(secret, "%s/secret", folder);
        mkdir(folder, 0755);
        char path[128];
        sprintf(path, "%s/program", folder);
        if (!strncmp(attempts[i].name, "exec", 4))
            copy(self, path);
        int fd = open(secret, O_WRONLY | O_CREAT | O_TRUNC, 0600); /* this process may */
        if (fd < 0 || write(fd, "secret", 6) != 6)
            return 98;
        close(fd);
    }
    prctl(PR_SET_NAME, "attempts");
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        sprintf(folder, "/w/%s", attempts[i].name);
        sprintf(secret, "%s/secret", folder);
        pid_t child = fork();
        if (!child) {
            int result = attempts[i].attempt();
            printf("%s %d\n", attempts[i].name, result);
            fflush(stdout);
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status))
            printf("%s signal %d\n", attempts[i].name, WTERMSIG(status));
    }
    return 0;
}
