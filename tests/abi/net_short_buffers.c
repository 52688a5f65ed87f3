/* Receiving into a buffer of which the end cannot be written, and names at bad places. */
#define _GNU_SOURCE
#include "abi.h"
#include "net.h"

#include <sys/mman.h>

#define PAGE 4096

static char *page;
static char text[20] = "0123456789abcdefghi";

/* A place with room for so many bytes. */
static char *room(int size)
{
    return page + PAGE - size;
}

static void streams(void)
{
    int client, server;
    make_pair(&client, &server);
    CHECK(send(client, text, 20, 0) == 20);
    wait_for(server, POLLIN);
    CHECK_ERR(recv(server, room(10), 20, 0), EFAULT);
    CHECK_ERR(recv(server, room(0), 20, 0), EFAULT);
    CHECK(recv(server, room(10), 10, 0) == 10);
    CHECK(recv(server, page, 100, MSG_DONTWAIT) == 10 && memcmp(page, text + 10, 10) == 0);
    CHECK_ERR(send(client, room(5), 10, 0), EFAULT);
    CHECK_ERR(recv(server, page, 100, MSG_DONTWAIT), EAGAIN);
    close(client), close(server);
}

static void local(void)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(write(pair[0], text, 20) == 20);
    CHECK_ERR(recv(pair[1], room(10), 20, 0), EFAULT);
    CHECK(recv(pair[1], page, 100, MSG_DONTWAIT) == 20);
    CHECK_ERR(send(pair[0], room(5), 10, 0), EFAULT);
    for (int i = 0; i < 3; i++)
        CHECK(write(pair[0], text + i * 5, 5) == 5);
    CHECK(recv(pair[1], room(12), 20, 0) == 10);
    CHECK(recv(pair[1], page, 100, MSG_DONTWAIT) == 5 && memcmp(page, text + 10, 5) == 0);
    close(pair[0]), close(pair[1]);

    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    CHECK(write(pair[0], text, 20) == 20);
    CHECK_ERR(recv(pair[1], room(10), 20, 0), EFAULT);
    CHECK_ERR(recv(pair[1], page, 100, MSG_DONTWAIT), EAGAIN);
    close(pair[0]), close(pair[1]);
}

static void datagrams(void)
{
    int to = socket(AF_INET, SOCK_DGRAM, 0), from = socket(AF_INET, SOCK_DGRAM, 0);
    bind_to(to, 0);
    connect_to(from, port(to));
    CHECK(send(from, text, 20, 0) == 20);
    CHECK_ERR(recv(to, room(10), 20, 0), EFAULT);
    CHECK_ERR(recv(to, page, 100, MSG_DONTWAIT), EAGAIN);
    close(to), close(from);
}

/* A stream has no name to tell, so the place of the name does not matter. */
static void names(void)
{
    int client, server;
    make_pair(&client, &server);
    send(client, text, 20, 0);
    wait_for(server, POLLIN);
    socklen_t size = 16;
    CHECK(recvfrom(server, page, 2, 0, (void *)1, &size) == 2 && size == 0);
    struct iovec v = {page, 2};
    struct msghdr m = {(void *)1, 16, &v, 1};
    CHECK(recvmsg(server, &m, 0) == 2 && m.msg_namelen == 0);
    CHECK_ERR(recvfrom(server, page, 2, 0, (void *)page, (void *)1), EFAULT);
    m.msg_name = NULL, m.msg_namelen = -1;
    CHECK(recvmsg(server, &m, 0) == 2);
    CHECK(sendmsg(client, &m, 0) == 2);
    m.msg_name = page, m.msg_namelen = -1;
    CHECK_ERR(sendmsg(client, &m, 0), EINVAL);
    CHECK_ERR(recvmsg(server, &m, 0), EINVAL);
    close(client), close(server);
}

int main(void)
{
    page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED && mprotect(page + PAGE, PAGE, PROT_NONE) == 0);
    streams();
    local();
    datagrams();
    names();
    return 0;
}
