"""Ways by which a program may try to get past an egress policy: `PROGRAM` runs in a container."""

from __future__ import annotations

from tests.e2e.own_stack import TOLD

PROGRAM = TOLD + r"""
import fcntl, select, threading
GOOD, BAD, GOOD6, BAD6 = "198.51.100.1", "198.51.100.66", "2001:db8:1::1", "2001:db8:1::66"
OWN, OWN6 = "10.9.0.2", "fd09::2"
ROUTER = bytearray(6)
ATTEMPTS = {}
def attempt(function):
    ATTEMPTS[function.__name__] = function
    return function
def tcp(address, port=80, family=socket.AF_INET, prepare=lambda sock: None):
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(60)
        prepare(sock)
        sock.connect((address, port))
        return sock.recv(100).decode()
def udp(address, port=80, family=socket.AF_INET, prepare=lambda sock: None, flags=0):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        prepare(sock)
        return sock.sendto(b"x", flags, (address, port))
def addresses(name):
    found = socket.getaddrinfo(name, 80, 0, socket.SOCK_STREAM)
    return sorted({each[4][0] for each in found})
def total(data):
    data += b"\0" * (len(data) % 2)
    found = sum(struct.unpack(f">{len(data) // 2}H", data))
    while found >> 16:
        found = (found & 0xFFFF) + (found >> 16)
    return ~found & 0xFFFF
def four(protocol, target, data, source=OWN, fragment=0, options=b"", ident=9):
    size = 20 + len(options)
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack(">BBHHHBBH", 0x40 | size // 4, 0, size + len(data), ident, fragment, 64,
                       protocol, 0) + ends + options
    return head[:10] + struct.pack(">H", total(head)) + head[12:] + data
def six(following, target, data, source=OWN6):
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    return struct.pack(">IHBB", 6 << 28, len(data), following, 64) + ends + data
def datagram(port, data=b"frame"):
    return struct.pack(">HHHH", 4000, port, 8 + len(data), 0) + data
def syn(port):
    return struct.pack(">HHIIBBHHH", 4001, port, 1, 0, 0x50, 2, 1000, 0, 0)
def frame(packet, kind=0x800, target=ROUTER):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind(("eth0", 0))
        return sock.send(bytes(target) + b"\2" * 6 + struct.pack(">H", kind) + packet)
def raw(protocol, target, data, *, whole=False):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as sock:
        if whole:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        return sock.sendto(data, (target, 0))

@attempt
def address_literal(): return tcp(BAD)
@attempt
def datagram_to_an_address(): return udp(BAD)
@attempt
def other_port_of_an_allowed_address(): return tcp(GOOD, 81)
@attempt
def other_protocol_of_an_allowed_address(): return udp(GOOD)
@attempt
def datagram_of_a_connected_socket():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((BAD, 80))
        return sock.send(b"x")
@attempt
def other_address_of_a_connected_socket():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((GOOD, 80))
        return sock.sendto(b"x", (BAD, 80))
@attempt
def connected_anew():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(60)
        sock.connect((GOOD, 80))
        libc_connect(sock, struct.pack("=H14x", socket.AF_UNSPEC))
        sock.connect((BAD, 80))
        return sock.recv(100)
def libc_connect(sock, address):
    import ctypes
    ctypes.CDLL(None).connect(sock.fileno(), address, len(address))
@attempt
def many_datagrams_in_one_call():
    import ctypes
    class Iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_char_p), ("size", ctypes.c_size_t)]
    class Msghdr(ctypes.Structure):
        _fields_ = [("name", ctypes.c_char_p), ("namelen", ctypes.c_uint),
                    ("iov", ctypes.POINTER(Iovec)), ("iovlen", ctypes.c_size_t),
                    ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                    ("flags", ctypes.c_int), ("sent", ctypes.c_uint)]
    to = struct.pack(">2sH4s8x", struct.pack("=H", 2), 80, socket.inet_aton(BAD))
    one = Iovec(b"x", 1)
    messages = (Msghdr * 3)(*[Msghdr(to, 16, ctypes.pointer(one), 1) for _ in range(3)])
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        done = libc.sendmmsg(sock.fileno(), messages, 3, 0)
        return errno.errorcode[ctypes.get_errno()] if done < 0 else done
@attempt
def data_with_the_first_segment():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        return sock.sendto(b"x", socket.MSG_FASTOPEN, (BAD, 80))
@attempt
def data_from_a_pipe():
    reader, writer = os.pipe()
    os.write(writer, b"x")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((BAD, 80))
        return os.splice(reader, sock.fileno(), 1)
@attempt
def by_an_interface():
    bind = lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    return tcp(BAD, prepare=bind)
@attempt
def from_the_port_of_a_nameserver(): return udp(BAD, prepare=lambda sock: sock.bind(("", 53)))
@attempt
def urgent_and_out_of_any_route(): return udp(BAD, flags=socket.MSG_DONTROUTE)
@attempt
def ping():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        return sock.sendto(b"\x08\0\0\0\0\0\0\1secret", (BAD, 0))
@attempt
def lite_datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136) as sock:
        return sock.sendto(b"x", (BAD, 80))
@attempt
def raw_protocol(): return raw(47, BAD, b"gre")
@attempt
def raw_datagram(): return raw(17, BAD, datagram(80))
@attempt
def raw_packet_with_its_header(): return raw(255, BAD, four(17, BAD, datagram(80)), whole=True)
@attempt
def raw_packet_that_says_another_target_than_the_call():
    return raw(255, GOOD, four(17, BAD, datagram(80)), whole=True)
@attempt
def raw_packet_from_somebody_else():
    return raw(255, BAD, four(6, BAD, syn(80), source=GOOD), whole=True)
@attempt
def complaint_about_a_packet_that_never_came():
    quoted = four(17, OWN, datagram(7), source=BAD)
    kind = b"\x03\x03"
    return raw(1, BAD, kind + struct.pack(">HI", total(kind + bytes(6) + quoted), 0) + quoted)
@attempt
def frame_of_a_datagram(): return frame(four(17, BAD, datagram(80)))
@attempt
def frame_of_a_segment(): return frame(four(6, BAD, syn(80)))
@attempt
def frame_for_everybody(): return frame(four(17, BAD, datagram(80)), target=b"\xff" * 6)
@attempt
def frame_without_a_link_header():
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
        return sock.sendto(four(17, BAD, datagram(80)), ("eth0", 0x800, 0, 0, bytes(ROUTER)))
@attempt
def frame_with_a_source_route():
    route = b"\x83\x07\x04" + socket.inet_aton(BAD) + b"\0"
    return frame(four(6, GOOD, syn(80), options=route))
@attempt
def source_route_of_a_socket():
    route = b"\x83\x07\x04" + socket.inet_aton(BAD) + b"\0"
    prepare = lambda sock: sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, route)
    return udp(BAD, prepare=prepare)
@attempt
def frame_with_a_tag(): return frame(b"\0\5\x08\0" + four(17, BAD, datagram(80)), kind=0x8100)
@attempt
def frame_of_another_protocol(): return frame(b"secret" * 10, kind=0x88B5)
@attempt
def frame_that_asks_for_a_neighbour():
    return frame(struct.pack(">HHBBH", 1, 0x800, 6, 4, 1) + bytes(20), kind=0x806)
@attempt
def fragment_that_hides_the_port():
    return frame(four(17, GOOD, datagram(80)[:2], fragment=0x2000))
@attempt
def fragment_of_nothing(): return frame(four(17, BAD, b"x" * 24, fragment=3, ident=77))
@attempt
def fragment_that_is_put_over_the_first():
    frame(four(6, GOOD, syn(80)[:16] + bytes(8), fragment=0x2000, ident=78))
    return frame(four(6, BAD, b"over it" * 3, fragment=1, ident=78))
@attempt
def address_of_four_in_one_of_six(): return tcp(f"::ffff:{BAD}", family=socket.AF_INET6)
@attempt
def address_of_six(): return tcp(BAD6, family=socket.AF_INET6)
@attempt
def translated_address(): return udp("64:ff9b::" + BAD, family=socket.AF_INET6)
@attempt
def tunnelled_address(): return udp("2002:c633:6442::1", family=socket.AF_INET6)
@attempt
def frame_of_six(): return frame(six(17, BAD6, datagram(80)), kind=0x86DD)
@attempt
def frame_of_six_with_a_routing_header():
    by = bytes([17, 2, 0, 1]) + bytes(4) + socket.inet_pton(socket.AF_INET6, BAD6)
    return frame(six(43, GOOD6, by + datagram(80)), kind=0x86DD)
@attempt
def frame_of_six_with_options():
    return frame(six(60, BAD6, bytes([17, 0, 1, 4, 0, 0, 0, 0]) + datagram(80)), kind=0x86DD)
@attempt
def neighbour_discovery_to_somebody_far():
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
        return sock.sendto(b"\x87\0\0\0" + bytes(4) + b"secret".ljust(16), (BAD6, 0))
@attempt
def metadata_of_a_cloud(): return tcp("169.254.169.254")
@attempt
def name_of_metadata():
    assert addresses("meta.good.org") == ["169.254.169.254"]
    return tcp("169.254.169.254")
@attempt
def name_of_a_private_address():
    assert addresses("inner.good.org") == ["10.9.0.1"]
    return tcp("10.9.0.1")
@attempt
def name_that_is_bound_anew():
    first = addresses("rebound.good.org")
    second = addresses("rebound.good.org")
    assert (first, second) == ([GOOD], ["10.9.0.1"]), (first, second)
    return tcp("10.9.0.1")
@attempt
def all_at_once():
    return udp("10.9.0.255", prepare=lambda sock: sock.setsockopt(1, socket.SO_BROADCAST, 1))
@attempt
def group(): return udp("239.255.255.250", 1900)
@attempt
def group_of_six(): return udp("ff02::fb", 5353, socket.AF_INET6)
@attempt
def other_nameserver(): return udp(BAD, 53)
@attempt
def names_over_tls(): return tcp(BAD, 853)
@attempt
def names_over_https(): return tcp(BAD, 443)
@attempt
def name_that_nobody_may_ask_for(): return addresses("bad.org")
@attempt
def name_that_ends_alike(): return addresses("evilgood.org")
@attempt
def name_that_begins_alike(): return addresses("good.org.bad.org")
@attempt
def name_in_a_datagram_of_ones_own():
    return asked(socket.SOCK_DGRAM, b"\6secret\3bad\3org\0")
@attempt
def name_in_a_stream(): return asked(socket.SOCK_STREAM, b"\6secret\3bad\3org\0")
@attempt
def name_with_a_dot_in_a_label():
    return asked(socket.SOCK_DGRAM, b"\6secret\3bad\12x.good.org\3net\0")
def asked(kind, name):
    message = struct.pack(">HHHHHH", 5, 256, 1, 0, 0, 0) + name + b"\0\1\0\1"
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(60)
        sock.connect(("10.9.0.1", 53))
        is_stream = kind == socket.SOCK_STREAM
        sock.send(struct.pack(">H", len(message)) * is_stream + message)
        found = sock.recv(1000)[2 * is_stream :]
        return f"rcode {found[3] & 15}"
@attempt
def proxy_inside():
    listener = socket.create_server(("127.0.0.1", 3128))
    said = []
    def serve():
        with listener.accept()[0] as client:
            client.recv(1)
            said.append(told(tcp, BAD))
    thread = threading.Thread(target=serve)
    thread.start()
    with socket.create_connection(("127.0.0.1", 3128)) as sock:
        sock.send(b"x")
        thread.join()
    listener.close()
    return said[0]
@attempt
def descriptor_of_another_process():
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((BAD, 80))
        socket.send_fds(theirs, [b"x"], [sock.fileno()])
        os._exit(0)
    _, (fd,), *_ = socket.recv_fds(ours, 10, 1)
    os.waitpid(child, 0)
    with socket.socket(fileno=fd) as sock:
        return sock.send(b"x")
@attempt
def datagram_socket_that_is_connected_when_it_was_used():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("127.0.0.1", 9))
        sock.connect((BAD, 80))
        return sock.send(b"x")
def segment(target, ports, flags, source):
    head = struct.pack(">HHIIBBHHH", *ports, 1, 0, 0x50, flags, 1000, 0, 0)
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    check = total(ends + struct.pack(">HH", 6, len(head)) + head)
    return four(6, target, head[:16] + struct.pack(">H", check) + head[18:], source=source)
# by an interface of one's own, whose other end is this program
def served(*packets, mask=0x1001, ip="10.8.0.1"):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    KEPT.append(fd)
    name = fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"tun%d", mask))[:16]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for request, each in ((0x8916, ip), (0x891C, "255.255.255.0")):
            address = struct.pack("HH4s16x", socket.AF_INET, 0, socket.inet_aton(each))
            fcntl.ioctl(sock, request, name + address)
        fcntl.ioctl(sock, 0x8914, name + struct.pack("H22x", 0x1091))
    for each in packets:
        os.write(fd, each)
    return "written"
KEPT = []
@attempt
def connection_that_begins_at_an_interface_of_ones_own_as_from_somebody():
    KEPT.append(socket.create_server((OWN, 22)))
    return served(segment(OWN, (4001, 22), 2, BAD))
@attempt
def reset_for_somebody_who_has_not_called():
    return served(segment(OWN, (4002, 23), 16, BAD))
@attempt
def echo_for_somebody_who_has_not_asked():
    message = b"\x08\0\0\0\0\7\0\1secret"
    message = message[:2] + struct.pack(">H", total(message)) + message[4:]
    return served(four(1, OWN, message, source=BAD))
@attempt
def complaint_for_somebody_who_has_not_sent():
    return served(four(17, OWN, datagram(9999), source=BAD))
def forwarded(*packets, ip="10.8.0.1"):
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")
    return served(*packets, ip=ip)
@attempt
def datagram_that_is_to_be_forwarded():
    return forwarded(four(17, BAD, datagram(80), source="10.8.0.2"))
@attempt
def segment_to_an_allowed_address_that_is_to_be_forwarded():
    return forwarded(segment(GOOD, (4003, 80), 2, "10.8.0.2"))
@attempt
def segment_as_from_somebody_that_is_to_be_forwarded():
    return forwarded(segment(GOOD, (4004, 80), 2, BAD))
@attempt
def fragments_that_are_to_be_forwarded():
    whole = datagram(80, b"secret" * 8)
    first = four(17, BAD, whole[:32], source="10.8.0.2", fragment=0x2000, ident=99)
    return forwarded(first, four(17, BAD, whole[32:], source="10.8.0.2", fragment=4, ident=99))
def behind(name):
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    question = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
    net = f"10.7.{len(KEPT)}."  # the way back to an interface is the first one's that has its net
    asker = four(17, "10.9.0.1", datagram(53, question), source=net + "2")
    forwarded(asker, ip=net + "1")
    while True:
        select.select([KEPT[-1]], [], [], 20)
        data = os.read(KEPT[-1], 2000)
        if data[0] == 0x45 and data[9] == 17:
            return data[31] & 15, socket.inet_ntoa(data[-4:])
@attempt
def name_that_is_asked_for_behind_a_router():
    return f"rcode {behind('secret.bad.org')[0]}"
@attempt
def source_that_is_an_address_of_ones_own_interface():
    served(ip="10.77.0.1")
    return tcp(GOOD, prepare=lambda sock: sock.bind(("10.77.0.1", 4005)))
@attempt
def network_of_ones_own():
    child = os.fork()
    if not child:
        os.unshare(os.CLONE_NEWNET)
        os._exit(77 if told(tcp, BAD) == "ENETUNREACH" else 1)
    return f"status {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"
@attempt
def other_user():
    child = os.fork()
    if not child:
        os.setresuid(1234, 1234, 1234)
        os._exit(78 if told(udp, BAD) == "ECONNREFUSED" else 1)
    return f"status {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"
@attempt
def answer_to_who_did_not_ask():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((OWN, 80))
        sock.connect((BAD, 9))
        return sock.send(b"answer")
# another container of the sandbox
def meet():
    global server
    server = socket.socket(socket.AF_UNIX)
    server.bind("/v/sock")
    server.listen()
def exchange():
    with server.accept()[0] as other, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        mine.connect((BAD, 80))
        socket.send_fds(other, [b"x"], [mine.fileno()])
        said, (fd,), *_ = socket.recv_fds(other, 100, 1)
        with socket.socket(fileno=fd) as theirs:
            return said.decode(), told(theirs.sendto, b"x", (BAD, 80))
def keep(address):
    KEPT.append(socket.create_connection((address, 80), 20))
print("ready", flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
"""
OTHER_CONTAINER = """
import errno, socket
sock = socket.socket(socket.AF_UNIX)
sock.connect("/v/sock")
_, (fd,), *_ = socket.recv_fds(sock, 10, 1)
with socket.socket(fileno=fd) as theirs:
    try:
        said = str(theirs.send(b"x"))
    except OSError as error:
        said = errno.errorcode[error.errno]
mine = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
socket.send_fds(sock, [said.encode()], [mine.fileno()])
sock.recv(1)
"""
"""It uses a socket of the first one, and gives it one of its own."""
