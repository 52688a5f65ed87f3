/* /dev/net/tun: requests, their errors, what stands before packets. Needs root. */
#define _GNU_SOURCE
#include "net_tun.h"

#include <fcntl.h>

#define NOWHERE ((void *)1)

static int polled(int fd)
{
    struct pollfd one = {fd, POLLIN | POLLOUT};
    CHECK(poll(&one, 1, 0) >= 0);
    return one.revents;
}

static void without_interface(void)
{
    char data[64] = {0};
    unsigned features;
    int fd = open_tun(O_NONBLOCK);
    CHECK_ERR(read(fd, data, 10), EBADFD);
    CHECK_ERR(write(fd, data, 10), EBADFD);
    CHECK_ERR(write(fd, data, 0), EBADFD);
    CHECK_ERR(lseek(fd, 0, SEEK_SET), ESPIPE);
    CHECK_ERR(pread(fd, data, 1, 0), EBADFD);
    CHECK_ERR(pwrite(fd, data, 1, 0), EBADFD);
    CHECK(polled(fd) == POLLERR);
    CHECK_ERR(ioctl(fd, TUNGETIFF, NOWHERE), EBADFD);
    CHECK_ERR(ioctl(fd, 0x1234, NOWHERE), EBADFD);
    CHECK_ERR(ioctl(fd, SIOCGIFHWADDR, NOWHERE), EFAULT);
    CHECK_ERR(ioctl(fd, SIOCGIFMTU, data), EBADFD);
    CHECK_ERR(ioctl(fd, TUNGETFEATURES, NOWHERE), EFAULT);
    CHECK(ioctl(fd, TUNGETFEATURES, &features) == 0);
    CHECK((features & 0x7113) == (IFF_TUN | IFF_TAP | IFF_NAPI | IFF_NO_PI | IFF_ONE_QUEUE |
                                  IFF_VNET_HDR | IFF_MULTI_QUEUE));
    CHECK_ERR(ioctl(fd, TUNSETQUEUE, NOWHERE), EFAULT);
    CHECK_ERR(ioctl(fd, TUNSETQUEUE, data), EINVAL);
    CHECK_ERR(ioctl(fd, TUNSETIFF, NOWHERE), EFAULT);
    CHECK_ERR(ioctl(fd, TUNSETIFF, data), EINVAL); /* of no kind */
    struct ifreq request = named("a/b", IFF_TUN);
    CHECK_ERR(ioctl(fd, TUNSETIFF, &request), EINVAL);
    request = named("lo", IFF_TUN);
    CHECK_ERR(ioctl(fd, TUNSETIFF, &request), EINVAL);
    request = named("lo", IFF_TUN | IFF_TUN_EXCL);
    CHECK_ERR(ioctl(fd, TUNSETIFF, &request), EBUSY);
    request = named("many%d%d", IFF_TUN);
    CHECK_ERR(ioctl(fd, TUNSETIFF, &request), EINVAL);
    request = named("napi", IFF_TUN | IFF_NAPI | IFF_NAPI_FRAGS);
    CHECK_ERR(ioctl(fd, TUNSETIFF, &request), EINVAL);
    close(fd);
}

static void names(void)
{
    struct ifreq request = named("", IFF_TUN);
    int one = open_tun(0), two = open_tun(0), three = open_tun(0), index = -1;
    CHECK(ioctl(one, TUNSETIFF, &request) == 0 && !strcmp(request.ifr_name, "tun0"));
    CHECK(request.ifr_flags == IFF_TUN);
    request = named("", IFF_TUN);
    CHECK(ioctl(two, TUNSETIFF, &request) == 0 && !strcmp(request.ifr_name, "tun1"));
    CHECK_ERR(ioctl(two, TUNSETIFINDEX, &index), EPERM);
    CHECK_ERR(ioctl(three, TUNSETIFINDEX, &index), EINVAL);
    CHECK_ERR(ioctl(three, TUNSETIFINDEX, NOWHERE), EFAULT);
    index = 77;
    CHECK(ioctl(three, TUNSETIFINDEX, &index) == 0);
    request = named("", IFF_TAP);
    memset(request.ifr_name, 'x', IFNAMSIZ);
    CHECK(ioctl(three, TUNSETIFF, &request) == 0 && strlen(request.ifr_name) == IFNAMSIZ - 1);
    CHECK(if_nametoindex(request.ifr_name) == 77);
    close(one);
    CHECK(if_nametoindex("tun0") == 0 && if_nametoindex("tun1") > 1);
    close(two);
    close(three);
    CHECK(if_nametoindex("tun1") == 0);
}

static void requests(void)
{
    struct ifreq request = named("t%d", IFF_TUN | IFF_NO_PI);
    int number;
    int fd = open_tun(O_NONBLOCK);
    CHECK(ioctl(fd, TUNSETIFF, &request) == 0 && !strcmp(request.ifr_name, "t0"));
    CHECK_ERR(ioctl(fd, TUNSETIFF, &request), EEXIST);
    CHECK_ERR(ioctl(fd, TUNSETIFF, NOWHERE), EFAULT);
    CHECK(ioctl(fd, TUNGETIFF, &request) == 0);
    CHECK((unsigned short)request.ifr_flags == (IFF_TUN | IFF_NO_PI | IFF_NOFILTER));
    CHECK_ERR(ioctl(fd, TUNGETIFF, NOWHERE), EFAULT);
    CHECK_ERR(ioctl(fd, 0x1234, NOWHERE), EINVAL);
    CHECK_ERR(ioctl(fd, SIOCGIFMTU, NOWHERE), EFAULT);
    CHECK_ERR(ioctl(fd, SIOCGIFMTU, &request), EINVAL);
    CHECK_ERR(ioctl(fd, TUNSETOFFLOAD, 0x100), EINVAL);
    CHECK_ERR(ioctl(fd, TUNSETOFFLOAD, TUN_F_TSO4), EINVAL);
    CHECK(ioctl(fd, TUNSETOFFLOAD, 0x1f) == 0 && ioctl(fd, TUNSETOFFLOAD, 0) == 0);
    CHECK_ERR(ioctl(fd, TUNSETOWNER, -1), EINVAL);
    CHECK_ERR(ioctl(fd, TUNSETGROUP, -1), EINVAL);
    CHECK(ioctl(fd, TUNSETOWNER, 5) == 0 && ioctl(fd, TUNSETGROUP, 6) == 0);
    CHECK_ERR(ioctl(fd, TUNSETTXFILTER, NOWHERE), EINVAL); /* of TAP alone */
    CHECK_ERR(ioctl(fd, TUNATTACHFILTER, NOWHERE), EINVAL);
    CHECK_ERR(ioctl(fd, TUNDETACHFILTER, NOWHERE), EINVAL);
    CHECK_ERR(ioctl(fd, TUNGETFILTER, NOWHERE), EINVAL);
    CHECK(ioctl(fd, TUNGETVNETHDRSZ, &number) == 0 && number == 10);
    CHECK_ERR(ioctl(fd, TUNGETVNETHDRSZ, NOWHERE), EFAULT);
    number = 9;
    CHECK_ERR(ioctl(fd, TUNSETVNETHDRSZ, &number), EINVAL);
    number = 12;
    CHECK(ioctl(fd, TUNSETVNETHDRSZ, &number) == 0);
    number = 0;
    CHECK(ioctl(fd, TUNGETVNETHDRSZ, &number) == 0 && number == 12);
    CHECK(ioctl(fd, TUNGETSNDBUF, &number) == 0 && number == 0x7FFFFFFF);
    number = 0;
    CHECK_ERR(ioctl(fd, TUNSETSNDBUF, &number), EINVAL);
    CHECK_ERR(ioctl(fd, TUNSETSNDBUF, NOWHERE), EFAULT);
    CHECK(ioctl(fd, TUNGETVNETLE, &number) == 0 && number == 0);
    number = 1;
    CHECK(ioctl(fd, TUNSETVNETLE, &number) == 0);
    CHECK(ioctl(fd, TUNGETVNETLE, &number) == 0 && number == 1);
    CHECK_ERR(ioctl(fd, TUNGETVNETBE, &number), EINVAL);
    CHECK_ERR(ioctl(fd, TUNSETCARRIER, NOWHERE), EFAULT);
    CHECK(ioctl(fd, TUNSETNOCSUM, 1) == 0);
    CHECK(ioctl(fd, TUNSETLINK, 512) == 0);
    CHECK(ioctl(fd, SIOCGIFHWADDR, &request) == 0 && request.ifr_hwaddr.sa_family == 512);
    CHECK(ioctl(fd, TUNSETLINK, 65534) == 0);
    CHECK_ERR(ioctl(fd, SIOCSIFHWADDR, &request), EOPNOTSUPP);
    set_up("t0", 1);
    CHECK_ERR(ioctl(fd, TUNSETLINK, 512), EBUSY);
    CHECK(flags_of("t0") == (IFF_UP | IFF_RUNNING | IFF_POINTOPOINT | IFF_NOARP | IFF_MULTICAST));
    number = 0;
    CHECK(carrier_of("t0") && ioctl(fd, TUNSETCARRIER, &number) == 0 && !carrier_of("t0"));
    close(fd);
}

static void reading_and_writing(void)
{
    char data[2000] = {0}, *large = calloc(1, 100000);
    struct ifreq request = named("t0", IFF_TUN | IFF_NO_PI);
    int fd = open_tun(O_NONBLOCK);
    CHECK(ioctl(fd, TUNSETIFF, &request) == 0 && polled(fd) == 0);
    CHECK_ERR(read(fd, data, 100), EAGAIN);
    CHECK_ERR(write(fd, data, 0), EINVAL);
    CHECK_ERR(write(fd, data, 1), EINVAL); /* of no version of IP */
    CHECK_ERR(write(fd, NOWHERE, 20), EFAULT);
    data[0] = large[0] = 0x45;
    CHECK_ERR(write(fd, data, 20), EIO); /* it is down */
    set_up("t0", 1);
    CHECK(polled(fd) & POLLOUT);
    CHECK(write(fd, data, 20) == 20 && write(fd, data, 1) == 1);
    struct iovec parts[2] = {{data, 5}, {data + 5, 15}};
    CHECK(writev(fd, parts, 2) == 20);
    CHECK(write(fd, large, 100000) == 100000);
    close(fd);
    /* with packet information, and a virtio header */
    fd = open_tun(O_NONBLOCK);
    request = named("t0", IFF_TUN | IFF_VNET_HDR);
    CHECK(ioctl(fd, TUNSETIFF, &request) == 0);
    set_up("t0", 1);
    memset(data, 0, sizeof data);
    CHECK_ERR(write(fd, data, 3), EINVAL);
    CHECK_ERR(write(fd, data, 13), EINVAL);
    CHECK(write(fd, data, 14) == 14);
    data[4] = VIRTIO_NET_HDR_F_NEEDS_CSUM; /* behind the end */
    data[4 + 6] = 30;
    CHECK_ERR(write(fd, data, 14 + 20), EINVAL);
    data[4] = 0;
    data[4 + 2] = 21; /* so long are the headers */
    CHECK_ERR(write(fd, data, 14 + 20), EINVAL);
    data[4 + 2] = 0;
    data[4 + 1] = 9; /* no kind of segments */
    CHECK_ERR(write(fd, data, 14 + 20), EINVAL);
    data[4 + 1] = VIRTIO_NET_HDR_GSO_TCPV4; /* of no size */
    CHECK_ERR(write(fd, data, 14 + 20), EINVAL);
    close(fd);
    fd = open_tun(O_NONBLOCK);
    request = named("t0", IFF_TAP | IFF_NO_PI);
    CHECK(ioctl(fd, TUNSETIFF, &request) == 0);
    set_up("t0", 1);
    CHECK_ERR(write(fd, data, 13), EINVAL);
    CHECK(write(fd, data, 14) == 14);
    CHECK(read(fd, data, 0) == 0);
    close(fd);
    free(large);
}

/* What is read is cut to the buffer, and the rest is lost. */
static void short_reads(void)
{
    unsigned char data[200];
    int sock = control(), fd = make_up("t0", IFF_TUN, "10.9.0.1", "255.255.255.0");
    struct sockaddr_in to = place("10.9.0.2", 9);
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    CHECK(sendto(sock, "hello", 5, 0, (void *)&to, sizeof to) == 5);
    CHECK(read(fd, data, 24) == 24);
    CHECK(data[0] == TUN_PKT_STRIP && data[2] == 8 && data[3] == 0 && data[4] == 0x45);
    CHECK_ERR(read(fd, data, 100), EAGAIN);
    CHECK(sendto(sock, "hello", 5, 0, (void *)&to, sizeof to) == 5);
    CHECK_ERR(read(fd, data, 3), EINVAL);
    CHECK_ERR(read(fd, data, 100), EAGAIN);
    CHECK(sendto(sock, "hello", 5, 0, (void *)&to, sizeof to) == 5);
    struct iovec parts[3] = {{data, 4}, {data + 4, 20}, {data + 100, 50}};
    CHECK(polled(fd) & POLLIN);
    CHECK(readv(fd, parts, 3) == 4 + 33 && data[0] == 0 && !memcmp(data + 108, "hello", 5));
    int sent = 0, got = 0;
    while (sent < 2000 && sendto(sock, "x", 1, 0, (void *)&to, sizeof to) == 1) sent++;
    while (read(fd, data, sizeof data) > 0) got++;
    CHECK(sent == 2000 && got > 400 && got <= 500); /* a queue of 500 */
    close(fd);
    close(sock);
}

static void persistent(void)
{
    struct ifreq request = named("keep", IFF_TAP);
    unsigned char filter[4 + 6 * 2] = {0, 0, 2, 0, 2, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2};
    int one = open_tun(0), two = open_tun(0);
    CHECK(ioctl(one, TUNSETIFF, &request) == 0);
    CHECK_ERR(ioctl(two, TUNSETIFF, &request), EBUSY);
    request = named("keep", IFF_TUN);
    CHECK_ERR(ioctl(two, TUNSETIFF, &request), EINVAL);
    request = named("keep", IFF_TAP | IFF_MULTI_QUEUE);
    CHECK_ERR(ioctl(two, TUNSETIFF, &request), EINVAL);
    request = named("keep", IFF_TAP | IFF_TUN_EXCL);
    CHECK_ERR(ioctl(two, TUNSETIFF, &request), EBUSY);
    CHECK(ioctl(one, TUNSETPERSIST, 1) == 0);
    close(one);
    set_up("keep", 1);
    CHECK(!carrier_of("keep")); /* nobody is there */
    request = named("keep", IFF_TAP);
    CHECK(ioctl(two, TUNSETIFF, &request) == 0);
    CHECK(carrier_of("keep"));
    CHECK_ERR(ioctl(two, TUNSETTXFILTER, NOWHERE), EFAULT);
    CHECK(ioctl(two, TUNSETTXFILTER, filter) == 2);
    CHECK(ioctl(two, SIOCGIFHWADDR, &request) == 0 && request.ifr_hwaddr.sa_family == 1);
    CHECK((request.ifr_hwaddr.sa_data[0] & 3) == 2);
    request.ifr_hwaddr.sa_data[5] ^= 1;
    CHECK(ioctl(two, SIOCSIFHWADDR, &request) == 0);
    memset(request.ifr_hwaddr.sa_data, 0, 6);
    CHECK_ERR(ioctl(two, SIOCSIFHWADDR, &request), EADDRNOTAVAIL);
    request.ifr_hwaddr.sa_family = 9;
    CHECK_ERR(ioctl(two, SIOCSIFHWADDR, &request), EINVAL);
    CHECK(ioctl(two, TUNSETPERSIST, 0) == 0);
    close(two);
    CHECK(if_nametoindex("keep") == 0);
}

static void many_queues(void)
{
    struct ifreq request = named("m", IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE), queue = {0};
    char data[40] = {0x45};
    int one = open_tun(0), two = open_tun(O_NONBLOCK);
    CHECK(ioctl(one, TUNSETIFF, &request) == 0 && ioctl(two, TUNSETIFF, &request) == 0);
    set_up("m", 1);
    CHECK_ERR(ioctl(two, TUNSETQUEUE, &queue), EINVAL);
    queue.ifr_flags = IFF_ATTACH_QUEUE;
    CHECK_ERR(ioctl(two, TUNSETQUEUE, &queue), EINVAL);
    queue.ifr_flags = IFF_DETACH_QUEUE;
    CHECK(ioctl(two, TUNSETQUEUE, &queue) == 0);
    CHECK_ERR(ioctl(two, TUNSETQUEUE, &queue), EINVAL);
    CHECK(ioctl(two, TUNGETIFF, &request) == 0);
    CHECK(request.ifr_flags == (IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE | IFF_DETACH_QUEUE));
    CHECK(polled(two) == POLLOUT && write(two, data, 20) == 20);
    CHECK_ERR(ioctl(two, TUNSETIFF, &request), EEXIST);
    queue.ifr_flags = IFF_ATTACH_QUEUE;
    CHECK(ioctl(two, TUNSETQUEUE, &queue) == 0);
    close(one);
    CHECK(write(two, data, 20) == 20);
    close(two);
}

static void rights(void)
{
    struct ifreq request = named("p", IFF_TUN);
    int one = open_tun(0), two = open_tun(0);
    CHECK(ioctl(one, TUNSETIFF, &request) == 0);
    CHECK(ioctl(one, TUNSETOWNER, 1000) == 0 && ioctl(one, TUNSETPERSIST, 1) == 0);
    close(one);
    IN_CHILD({
        CHECK(setresuid(1001, 1001, 1001) == 0);
        CHECK_ERR(ioctl(two, TUNSETIFF, &request), EPERM);
        request = named("new", IFF_TUN);
        CHECK_ERR(ioctl(two, TUNSETIFF, &request), EPERM);
        request = named("new", 0);
        CHECK_ERR(ioctl(two, TUNSETIFF, &request), EPERM);
    });
    IN_CHILD({
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK(ioctl(two, TUNSETIFF, &request) == 0);
    });
    CHECK(ioctl(two, TUNSETPERSIST, 0) == 0);
    close(two);
}

int main(void)
{
    own_tun_network();
    without_interface();
    names();
    requests();
    reading_and_writing();
    short_reads();
    persistent();
    many_queues();
    rights();
    return 0;
}
