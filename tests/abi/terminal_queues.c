/* Pseudo-terminals: flushing and stopping from either side, packet mode. ioctl_tty(2). */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static int master, slave;

static void open_raw_pair(void)
{
    struct termios raw;
    CHECK((master = posix_openpt(O_RDWR | O_NOCTTY)) >= 0);
    CHECK(unlockpt(master) == 0);
    CHECK((slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
    CHECK(tcgetattr(slave, &raw) == 0);
    raw.c_lflag = raw.c_oflag = 0;
    raw.c_iflag = IXON;
    CHECK(tcsetattr(slave, TCSANOW, &raw) == 0);
    CHECK(fcntl(master, F_SETFL, O_NONBLOCK) == 0 && fcntl(slave, F_SETFL, O_NONBLOCK) == 0);
}

static void put(int fd, const char *text)
{
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

/* The other side gets this within two seconds. */
static void get(int fd, const char *text)
{
    char buf[64];
    size_t have = 0, size = strlen(text);
    while (have < size) {
        struct pollfd p = {fd, POLLIN};
        CHECK(poll(&p, 1, 2000) == 1);
        ssize_t n = read(fd, buf + have, size - have);
        CHECK(n > 0);
        have += n;
    }
    CHECK(memcmp(buf, text, size) == 0);
}

static void wait_readable(int fd)
{
    struct pollfd p = {fd, POLLIN};
    CHECK(poll(&p, 1, 2000) == 1);
}

static void nothing(int fd)
{
    char c;
    CHECK_ERR(read(fd, &c, 1), EAGAIN);
}

/* Input of the master is what the slave wrote; what lies there already is no output any more. */
static void flushes(void)
{
    CHECK_ERR(ioctl(master, TCFLSH, 3), EINVAL);
    put(slave, "abcdef");
    get(master, "ab");
    CHECK(tcflush(master, TCOFLUSH) == 0);
    CHECK(tcflush(slave, TCOFLUSH) == 0);
    get(master, "cd");
    CHECK(tcflush(master, TCIFLUSH) == 0);
    nothing(master);
    put(slave, "GH");
    get(master, "GH");

    put(master, "uvwxyz");
    get(slave, "uv");
    CHECK(tcflush(slave, TCOFLUSH) == 0);
    CHECK(tcflush(master, TCOFLUSH) == 0);
    CHECK(tcflush(master, TCIFLUSH) == 0);
    get(slave, "wx");
    CHECK(tcflush(slave, TCIFLUSH) == 0);
    nothing(slave);

    put(slave, "1");
    put(master, "2");
    wait_readable(slave);
    wait_readable(master);
    CHECK(tcflush(master, TCIOFLUSH) == 0);
    nothing(master);
    get(slave, "2");
    put(master, "3");
    wait_readable(slave);
    CHECK(tcflush(slave, TCIOFLUSH) == 0);
    nothing(slave);
}

static void flow(void)
{
    CHECK_ERR(ioctl(slave, TCXONC, 4), EINVAL);
    CHECK_ERR(ioctl(master, TCXONC, -1), EINVAL);
    CHECK(tcflow(slave, TCOOFF) == 0);
    CHECK_ERR(write(slave, "a", 1), EAGAIN);
    put(master, "b");
    get(slave, "b");
    CHECK(tcflow(slave, TCOON) == 0);
    put(slave, "a");
    get(master, "a");

    CHECK(tcflow(master, TCOOFF) == 0);
    CHECK_ERR(write(master, "a", 1), EAGAIN);
    put(slave, "b");
    get(master, "b");
    CHECK(tcflow(master, TCOON) == 0);
    put(master, "a");
    get(slave, "a");

    /* The characters that ask the other side to stop and to go on. */
    CHECK(tcflow(slave, TCIOFF) == 0);
    get(master, "\x13");
    CHECK(tcflow(slave, TCION) == 0);
    get(master, "\x11");
    CHECK(tcflow(master, TCIOFF) == 0);
    struct pollfd p = {slave, POLLOUT};
    CHECK(tcflow(master, TCION) == 0);
    CHECK(poll(&p, 1, 2000) == 1);
    nothing(slave);
}

static void control(int expected)
{
    char buf[8];
    struct pollfd p = {master, POLLIN | POLLPRI};
    CHECK(poll(&p, 1, 2000) == 1);
    CHECK(p.revents == (expected ? POLLIN | POLLPRI : POLLIN));
    CHECK(read(master, buf, sizeof buf) == (expected ? 1 : 2));
    CHECK(buf[0] == expected);
}

static void packets(void)
{
    int on = 1, off = 0;
    struct termios now;
    CHECK(ioctl(master, TIOCPKT, &on) == 0);
    nothing(master);
    put(slave, "a");
    control(TIOCPKT_DATA);
    CHECK(tcflush(slave, TCIFLUSH) == 0);
    control(TIOCPKT_FLUSHREAD);
    CHECK(tcflush(slave, TCOFLUSH) == 0);
    control(TIOCPKT_FLUSHWRITE);
    CHECK(tcflush(slave, TCIOFLUSH) == 0);
    control(TIOCPKT_FLUSHREAD | TIOCPKT_FLUSHWRITE);
    nothing(master);
    CHECK(tcflow(slave, TCOOFF) == 0);
    control(TIOCPKT_STOP);
    CHECK(tcflow(slave, TCOOFF) == 0 && tcflow(slave, TCOON) == 0);
    control(TIOCPKT_START);
    CHECK(tcgetattr(slave, &now) == 0);
    now.c_iflag &= ~IXON;
    CHECK(tcsetattr(slave, TCSANOW, &now) == 0);
    control(TIOCPKT_NOSTOP);
    now.c_iflag |= IXON;
    CHECK(tcsetattr(slave, TCSANOW, &now) == 0);
    control(TIOCPKT_DOSTOP);
    put(slave, "b");
    control(TIOCPKT_DATA);
    CHECK(tcflush(slave, TCIFLUSH) == 0);
    CHECK(ioctl(master, TIOCPKT, &on) == 0); /* on already: what was said stays */
    control(TIOCPKT_FLUSHREAD);
    CHECK(ioctl(master, TIOCPKT, &off) == 0);
    CHECK(tcflush(slave, TCIFLUSH) == 0);
    nothing(master);
}

/* What the program has no room for yet waits. */
static void type_ahead(void)
{
    static char line[4100], got[5000];
    struct termios now;
    memset(line, 'm', sizeof line);
    CHECK(write(master, line, sizeof line) == sizeof line);
    put(master, "\n");
    size_t seen = 0;
    while (seen < sizeof line + 1) { /* in pieces of any size: a kernel thread brings them */
        wait_readable(slave);
        ssize_t n = read(slave, got + seen, sizeof got - seen);
        CHECK(n > 0);
        seen += n;
    }
    CHECK(seen == sizeof line + 1);
    CHECK(memcmp(got, line, sizeof line) == 0 && got[sizeof line] == '\n');

    CHECK(tcgetattr(slave, &now) == 0);
    now.c_lflag |= ICANON;
    CHECK(tcsetattr(slave, TCSANOW, &now) == 0);
    for (int i = 0; i < 3; i++) { /* three lines, each too long */
        for (int k = 0; k < sizeof line; k++)
            CHECK(write(master, line, 1) == 1);
        put(master, "\n");
    }
    for (int i = 0; i < 3; i++) {
        wait_readable(slave);
        CHECK(read(slave, got, sizeof got) == 4096 && got[4095] == '\n' && got[4094] == 'm');
    }
    nothing(slave);
    now.c_lflag &= ~ICANON;
    CHECK(tcsetattr(slave, TCSANOW, &now) == 0);

    int fits = 0;
    while (write(master, line, 1) == 1)
        fits++;
    CHECK(fits > 8192 && fits < 65536);
    CHECK_ERR(write(master, line, 1), EAGAIN);
    CHECK(tcflush(slave, TCIFLUSH) == 0);
    nothing(slave);
    put(master, "again");
    get(slave, "again");
}

int main(void)
{
    open_raw_pair();
    flushes();
    type_ahead();
    flow();
    packets();
    return 0;
}
