/* What the programs about namespaces have in common. */
#ifndef NS_H
#define NS_H

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define NS_GET_USERNS 0xb701
#define NS_GET_PARENT 0xb702
#define NS_GET_NSTYPE 0xb703
#define NS_GET_OWNER_UID 0xb704
#define TCGETS_ 0x5401
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

/* The wait status of a child. */
__attribute__((unused)) static int status_of(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

/* Code in a process of its own, which must succeed. */
#define IN_CHILD(...)                                                                           \
    do {                                                                                        \
        pid_t in_child_ = fork();                                                               \
        if (!in_child_) {                                                                       \
            __VA_ARGS__;                                                                        \
            _exit(0);                                                                           \
        }                                                                                       \
        CHECK(in_child_ > 0 && status_of(in_child_) == 0);                                      \
    } while (0)

/* write(2) to a file: what it gives, or -errno. */
__attribute__((unused)) static int write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0) return -errno;
    int done = write(fd, text, strlen(text));
    if (done < 0) done = -errno;
    close(fd);
    return done;
}

__attribute__((unused)) static void read_text(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    int done = read(fd, text, size - 1);
    CHECK(done >= 0);
    text[done] = 0;
    close(fd);
}

/* Send one byte with SCM_CREDENTIALS; it fails with `error` unless that is 0. */
__attribute__((unused)) static void send_creds(int sock, pid_t pid, uid_t uid, gid_t gid, int error)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(struct ucred))];
    } control = {.head = {CMSG_LEN(sizeof(struct ucred)), SOL_SOCKET, SCM_CREDENTIALS}};
    struct ucred creds = {pid, uid, gid};
    memcpy(CMSG_DATA(&control.head), &creds, sizeof creds);
    struct iovec iov = {"c", 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                         .msg_controllen = sizeof control};
    if (error)
        CHECK_ERR(sendmsg(sock, &msg, 0), error);
    else
        CHECK(sendmsg(sock, &msg, 0) == 1);
}

__attribute__((unused)) static struct ucred receive_creds(int sock)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct ucred creds;
    char byte;
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                         .msg_controllen = sizeof control};
    CHECK(recvmsg(sock, &msg, 0) == 1);
    CHECK(control.head.cmsg_type == SCM_CREDENTIALS);
    memcpy(&creds, CMSG_DATA(&control.head), sizeof creds);
    return creds;
}

#endif
