"""A nameserver of a test's own: it answers what it was told, over UDP and TCP, and counts."""

from __future__ import annotations

PROGRAM = """
import socket, struct, sys, threading
answers, asked = {}, []
def reply(message, is_udp):
    name, at = [], 12
    while message[at]:
        name.append(message[at + 1 : at + 1 + message[at]].decode())
        at += 1 + message[at]
    kind = struct.unpack_from(">H", message, at + 1)[0]
    question = message[12 : at + 5]
    key = ".".join(name).lower()
    asked.append((key, kind, is_udp))
    if key not in answers:
        return message[:2] + struct.pack(">HHHHH", 0x8183, 1, 0, 0, 0) + question
    ttl, addresses, is_cut = answers[key]
    if is_cut and is_udp:
        return message[:2] + struct.pack(">HHHHH", 0x8380, 1, 0, 0, 0) + question
    family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
    found = [each for each in addresses if (":" in each) == (kind == 28)] if family else []
    head = message[:2] + struct.pack(">HHHHH", 0x8180, 1, len(found), 0, 0) + question
    for each in found:
        data = socket.inet_pton(family, each)
        head += b"\\xc0\\x0c" + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data
    return head
def by_udp(sock):
    while True:
        message, sender = sock.recvfrom(4096)
        sock.sendto(reply(message, True), sender)
def by_tcp(sock):
    while True:
        with sock.accept()[0] as connection:
            size = int.from_bytes(connection.recv(2, socket.MSG_WAITALL), "big")
            made = reply(connection.recv(size, socket.MSG_WAITALL), False)
            connection.sendall(len(made).to_bytes(2, "big") + made)
def serve(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.bind((address, 53))
    tcp = socket.socket(family, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind((address, 53))
    tcp.listen()
    threading.Thread(target=by_udp, args=(udp,), daemon=True).start()
    threading.Thread(target=by_tcp, args=(tcp,), daemon=True).start()
"""
