/* Epolls within epolls: epoll(7), the limits of fs/eventpoll.c on rows, circles and paths. */
#define _GNU_SOURCE
#include "abi.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

static int add(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static int delete(int epoll, int fd)
{
    return epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
}

static void close_all(const int *fds, int n)
{
    for (int i = 0; i < n; i++)
        close(fds[i]);
}

static void rows_and_circles(void)
{
    int row[6];
    for (int i = 0; i < 6; i++)
        CHECK((row[i] = epoll_create1(0)) >= 0);
    CHECK_ERR(add(row[0], row[0]), EINVAL);
    for (int i = 0; i < 4; i++)
        CHECK(add(row[i + 1], row[i]) == 0);
    CHECK_ERR(add(row[5], row[4]), ELOOP);
    CHECK_ERR(add(row[0], row[5]) ? -1 : add(row[0], row[4]), ELOOP);
    CHECK_ERR(add(row[0], row[4]), ELOOP);
    CHECK_ERR(add(row[0], row[1]), ELOOP);
    close_all(row, 6);
}

/* Every epoll of a level watches every one of the level below. */
static void diamonds(void)
{
    enum { WIDE = 20, DEEP = 4 };
    int level[DEEP][WIDE];
    for (int d = 0; d < DEEP; d++)
        for (int i = 0; i < WIDE; i++) {
            CHECK((level[d][i] = epoll_create1(0)) >= 0);
            for (int k = 0; d && k < WIDE; k++)
                CHECK(add(level[d][i], level[d - 1][k]) == 0);
        }
    /* there is nothing to be told of, until there is: 20 x 20 x 20 ways through four epolls */
    int event = eventfd(0, EFD_NONBLOCK);
    CHECK_ERR(add(level[0][0], event), EINVAL);
    CHECK_ERR(delete(level[0][0], event), ENOENT);
    CHECK_ERR(add(level[3][0], level[0][0]) ? -1 : add(level[0][0], level[3][0]), ELOOP);
    close(event);
    for (int d = 0; d < DEEP; d++)
        close_all(level[d], WIDE);
}

/* There are at most `limit` ways of so many epolls in a row from a file. */
static void ways(int limit, int length)
{
    int first[10], rest[4], last[200], used = 0, event = eventfd(0, EFD_NONBLOCK);
    for (int i = 0; i < 10; i++)
        CHECK((first[i] = epoll_create1(0)) >= 0 && add(first[i], event) == 0);
    for (int i = 0; i < length - 2; i++) {
        CHECK((rest[i] = epoll_create1(0)) >= 0);
        for (int k = 0; k < 10; k++)
            if (i == 0)
                CHECK(add(rest[0], first[k]) == 0);
        if (i)
            CHECK(add(rest[i], rest[i - 1]) == 0);
    }
    for (; used <= limit / 10; used++) {
        CHECK((last[used] = epoll_create1(0)) >= 0);
        if (used == limit / 10)
            break;
        for (int i = 0; i < (length == 2 ? 10 : 1); i++)
            CHECK(add(last[used], length == 2 ? first[i] : rest[length - 3]) == 0);
    }
    CHECK_ERR(add(last[used], length == 2 ? first[0] : rest[length - 3]), EINVAL);
    /* what is there works */
    struct epoll_event got;
    uint64_t one = 1;
    CHECK(write(event, &one, 8) == 8);
    CHECK(epoll_wait(last[0], &got, 1, 0) == 1 && epoll_wait(first[9], &got, 1, 0) == 1);
    close_all(last, used + 1);
    close_all(rest, length - 2);
    close_all(first, 10);
    close(event);
}

/* One epoll of its own each: as many as there are. */
static void many_side_by_side(void)
{
    int epolls[1200], event = eventfd(0, EFD_NONBLOCK);
    for (int i = 0; i < 1200; i++)
        CHECK((epolls[i] = epoll_create1(0)) >= 0 && add(epolls[i], event) == 0);
    close_all(epolls, 1200);
    close(event);
}

int main(void)
{
    struct rlimit files = {4096, 4096};
    CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
    rows_and_circles();
    diamonds();
    ways(500, 2);
    ways(100, 3);
    ways(50, 4);
    ways(10, 5);
    many_side_by_side();
    return 0;
}
