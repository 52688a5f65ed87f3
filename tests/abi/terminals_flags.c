/* What c_oflag, c_iflag and the echo flags of c_lflag do to bytes that go through a pty. */
#define _GNU_SOURCE
#include "abi.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#ifndef IUCLC
#define IUCLC 0001000
#endif
#ifndef OLCUC
#define OLCUC 0000002
#endif
#define LINE (ICANON | IEXTEN | ECHO | ECHOE | ECHOK | ECHOKE | ECHOCTL)

static int master, slave;
static struct termios plain;

static void flags(int input, int output, int local)
{
    struct termios t = plain;
    t.c_iflag = input;
    t.c_oflag = output;
    t.c_lflag = local;
    t.c_cc[VEOL] = 5;
    CHECK(tcsetattr(slave, TCSAFLUSH, &t) == 0);
}

/* All that `fd` has to give is this. */
static int gives(int fd, const char *expected, size_t size)
{
    char found[512];
    size_t length = 0;
    struct pollfd ready = {fd, POLLIN};
    while (length < size && poll(&ready, 1, 5000) == 1) {
        ssize_t n = read(fd, found + length, sizeof found - length);
        CHECK(n > 0);
        length += n;
    }
    if (poll(&ready, 1, 0) == 1 && ready.revents & POLLIN)
        length += read(fd, found + length, sizeof found - length);
    if (length == size && memcmp(found, expected, size) == 0)
        return 1;
    fprintf(stderr, "instead of %s: %.*s\n", expected, (int)length, found);
    return 0;
}

/* What the screen gets of what a program writes: at the beginning of a line. */
static void screen(int output, int input, const char *written, const char *expected)
{
    flags(0, OPOST, 0);
    CHECK(write(slave, "\r", 1) == 1 && gives(master, "\r", 1));
    flags(input, OPOST | output, 0);
    CHECK(write(slave, written, strlen(written)) == strlen(written));
    CHECK(gives(master, expected, strlen(expected)));
}

/* What a program reads of what is typed, and what is echoed. */
static void typed(int input, int local, const char *keys, const char *line, const char *echo)
{
    flags(input, 0, local);
    CHECK(write(master, keys, strlen(keys)) == strlen(keys));
    CHECK(gives(slave, line, strlen(line)) && gives(master, echo, strlen(echo)));
}

static void output(void)
{
    screen(0, 0, "a\nb\rc\td\b", "a\nb\rc\td\b");
    screen(ONLCR, 0, "a\nb\r\n", "a\r\nb\r\r\n");
    screen(OCRNL, 0, "a\r\nb\r", "a\n\nb\n");
    screen(OCRNL | ONLCR, 0, "a\r\nb\rc", "a\n\r\nb\nc"); /* what was a CR stays a NL */
    screen(ONOCR, 0, "\ra\r\rb\n\r", "a\rb\n\r");
    screen(ONOCR | ONLCR, 0, "\ra\n\rb", "a\r\nb");
    screen(ONOCR | ONLRET, 0, "a\n\rb\r", "a\nb\r");
    screen(ONOCR | OCRNL, 0, "\ra\r\rb", "a\n\nb"); /* a NL does not go to column 0... */
    screen(ONOCR | OCRNL | ONLRET, 0, "\ra\r\rb", "a\nb"); /* ...but with ONLRET */
    screen(TAB3, 0, "\ta\tb\n\tc\r\td", "        a       b\n       c\r        d");
    screen(TAB3, 0, "ab\b\tc", "ab\b       c");
    screen(TAB3, 0, "a\x01\t", "a\x01       "); /* control characters take no room */
    screen(TAB3 | ONLCR, 0, "a\n\tb", "a\r\n        b");
    screen(TAB3 | ONLRET, 0, "a\n\tb", "a\n        b");
    screen(TAB3 | OCRNL, 0, "ab\r\tc", "ab\n      c");
    screen(TAB3 | OCRNL | ONLRET, 0, "ab\r\tc", "ab\n        c");
    screen(TAB3, 0, "\xc3\xa9\t|", "\xc3\xa9      |");
    screen(TAB3, IUTF8, "\xc3\xa9\t|", "\xc3\xa9       |");
    screen(TAB1, 0, "\ta", "\ta");
    screen(OLCUC, 0, "aBz{\xe9\xf7\n\t", "ABZ{\xc9\xf7\n\t");
    screen(OLCUC | ONLCR | TAB3, 0, "ab\n\tc", "AB\r\n        C");
    /* columns count while nothing needs them */
    flags(0, OPOST | ONLCR, 0);
    CHECK(write(slave, "x\nabc", 5) == 5 && gives(master, "x\r\nabc", 6));
    flags(0, OPOST | ONLCR | TAB3, 0);
    CHECK(write(slave, "\t", 1) == 1 && gives(master, "     ", 5));
    flags(0, OCRNL | OLCUC | TAB3, 0); /* no OPOST */
    CHECK(write(slave, "a\r\t", 3) == 3 && gives(master, "a\r\t", 3));
}

static void input(void)
{
    typed(0, 0, "a\r\nB\xe9", "a\r\nB\xe9", "");
    typed(ICRNL, 0, "a\r\n", "a\n\n", "");
    typed(INLCR, 0, "a\r\n", "a\r\r", "");
    typed(ICRNL | INLCR, 0, "a\r\n", "a\n\r", "");
    typed(IGNCR | ICRNL, 0, "a\r\n", "a\n", "");
    typed(ISTRIP, 0, "a\xe1\xc1", "aaA", "");
    typed(IUCLC, IEXTEN, "aBZ\xc9\xd7", "abz\xe9\xd7", "");
    typed(IUCLC, 0, "aBZ", "aBZ", ""); /* not without IEXTEN */
    typed(IUCLC | ISTRIP, IEXTEN, "\xc1", "a", "");
    typed(PARMRK, 0, "a\xff", "a\xff\xff", "");
    typed(PARMRK | ISTRIP, 0, "a\xff", "a\x7f", "");
    typed(PARMRK, ICANON, "a\xff\n", "a\xff\xff\n", "");
}

static void echo(void)
{
    typed(0, ECHO, "a\x01\n", "a\x01\n", "a\x01\n");
    typed(0, ECHO | ECHOCTL, "a\x01\r\n\t\x7f", "a\x01\r\n\t\x7f", "a^A^M^J\t^?");
    typed(0, LINE, "a\x01\n", "a\x01\n", "a^A\n");
    typed(0, LINE, "a\x16\n\n", "a\n\n", "a^\b^J\n");
    typed(0, LINE, "ab\x05", "ab\x05", "ab^E"); /* VEOL */
    typed(0, LINE & ~ECHOCTL, "a\x01\n", "a\x01\n", "a\x01\n");
    typed(0, ICANON | ECHONL, "ab\n", "ab\n", "\n");
    typed(0, LINE, "ab\x01\x7f\x7f" "c\n", "ac\n", "ab^A\b \b\b \b\b \bc\n");
    typed(0, LINE & ~ECHOE, "ab\x7f\n", "a\n", "ab^?\n");
    typed(0, LINE & ~ECHOKE, "ab\x15" "c\n", "c\n", "ab^U\nc\n");
    typed(0, LINE & ~(ECHOKE | ECHOK), "ab\x15" "c\n", "c\n", "ab^Uc\n");
    typed(0, LINE, "ab\x15" "c\n", "c\n", "ab\b \b\b \bc\n");
    typed(0, LINE | ECHOPRT, "abc\x7f\x7f" "d\n", "ad\n", "abc\\cb/d\n");
    typed(0, LINE | ECHOPRT, "ab\x7f\x7f" "c\n", "c\n", "ab\\ba/c\n");
    typed(0, LINE | ECHOPRT, "a b\x17" "c\n", "a c\n", "a b\\b/c\n");
    typed(IUTF8, LINE | ECHOPRT, "x\xc3\xa9\x7f" "c\n", "xc\n", "x\xc3\xa9\\\xc3\xa9/c\n");
    /* what was erased and is no line any more does not end later */
    flags(0, 0, LINE | ECHOPRT);
    CHECK(write(master, "ab\x7f", 3) == 3 && gives(master, "ab\\b", 4));
    typed(0, LINE, "c\n", "c\n", "c\n");
    /* a tab is as wide as it was, wherever the line began */
    flags(0, OPOST, LINE);
    CHECK(write(slave, "\r> ", 3) == 3 && gives(master, "\r> ", 3));
    CHECK(write(master, "a\t\x7f\n", 4) == 4);
    CHECK(gives(slave, "a\n", 2) && gives(master, "a\t\b\b\b\b\b\n", 8));
    /* what is echoed is output, too */
    flags(ICRNL, OPOST | OLCUC | ONLCR, LINE);
    CHECK(write(master, "aB\xff\r", 4) == 4);
    CHECK(gives(slave, "aB\xff\n", 4) && gives(master, "AB\xff\r\n", 5));
    flags(0, OPOST | OCRNL, ECHO);
    CHECK(write(master, "a\r", 2) == 2 && gives(slave, "a\r", 2) && gives(master, "a\n", 2));
}

int main(void)
{
    CHECK((master = posix_openpt(O_RDWR | O_NOCTTY)) >= 0);
    CHECK(grantpt(master) == 0 && unlockpt(master) == 0);
    CHECK((slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
    CHECK(tcgetattr(slave, &plain) == 0);
    output();
    input();
    echo();
    return 0;
}
