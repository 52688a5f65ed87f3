"""Modules of Python's library that lean on the kernel."""

import asyncio
import concurrent.futures
import ctypes
import mmap
import os
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
from queue import Queue


def threads():
    queue, out = Queue(), []

    def work():
        while (item := queue.get()) is not None:
            out.append(item * item)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for item in [*range(1000), *[None] * 8]:
        queue.put(item)
    for worker in workers:
        worker.join()
    print(sum(out), threading.Event().wait(0.05))
    barrier = threading.Barrier(4)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        print(sorted(pool.map(lambda _: barrier.wait(), range(4))))


def programs():
    program = subprocess.Popen(
        ["sh", "-c", "cat | wc -c; echo err >&2; exit 3"],
        **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE),
    )
    print(program.communicate(b"data" * 50000), program.returncode)
    try:
        subprocess.run(["sleep", "60"], timeout=0.1, check=False)
    except subprocess.TimeoutExpired as expired:
        print(expired)
    print(subprocess.run(["sh", "-c", "kill -9 $$"], check=False).returncode)
    print(subprocess.run(
        ["sh", "-c", "id -u; umask; ps -o sid= -p $$ | grep -c $$"], capture_output=True,
        start_new_session=True, user="nobody", group="nogroup", extra_groups=[], umask=0o77,
        check=False,
    ).stdout)  # fmt: skip
    try:
        subprocess.run(["/nope"], check=False)
    except OSError as error:
        print(error)
    print(os.posix_spawn("/bin/true", ["true"], {}) > 0, os.wait()[1])


def memory():
    with tempfile.TemporaryFile() as file:
        file.truncate(8192)
        area = mmap.mmap(file.fileno(), 8192)
        area[4096:4101] = b"hello"
        area.flush()
        print(os.pread(file.fileno(), 5, 4096))
        area.resize(16384)
        print(len(area), area.find(b"ello"), os.fstat(file.fileno()).st_size)
    area = mmap.mmap(-1, 4096)
    if not (pid := os.fork()):
        area[:2] = b"ok"
        os._exit(0)
    os.waitpid(pid, 0)
    print(area[:2])
    fd = os.memfd_create("x")
    os.write(fd, b"abc\n")
    os.sendfile(1, fd, 0, 4)
    one, other = socket.socketpair()
    socket.send_fds(one, [b"x"], [fd])
    print(os.pread(socket.recv_fds(other, 1, 1)[1][0], 3, 0))


def foreign():
    libc = ctypes.CDLL(None, use_errno=True)
    print(libc.getpid() == os.getpid(), libc.close(99), os.strerror(ctypes.get_errno()))
    pointer = ctypes.POINTER(ctypes.c_int)
    compare = ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer)(lambda a, b: a[0] - b[0])
    numbers = (ctypes.c_int * 5)(5, 1, 4, 2, 3)
    libc.qsort(numbers, 5, 4, compare)
    print(list(numbers))


def database():
    db = sqlite3.connect("x.db")
    db.execute("pragma journal_mode=wal")
    db.execute("create table t(a, b)")
    db.executemany("insert into t values(?, ?)", ((i, str(i)) for i in range(5000)))
    db.commit()
    print(db.execute("select sum(a), count(b) from t where a % 3 = 0").fetchone())

    def insert():
        with sqlite3.connect("x.db", timeout=60) as mine:
            mine.execute("insert into t values(1, 2)")

    others = [threading.Thread(target=insert) for _ in range(4)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    print(db.execute("select count(*) from t").fetchone())


async def serve(reader, writer):
    while data := await reader.readline():
        writer.write(data.upper())
        await writer.drain()
    writer.close()


async def ask(port, number):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(20):
        writer.write(b"line %d\n" % number)
        answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer


async def events():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print((await asyncio.gather(*(ask(port, number) for number in range(20))))[-1])
    server.close()
    program = await asyncio.create_subprocess_exec("sort", stdin=-1, stdout=-1)
    print(await program.communicate(b"b\na\n"))
    loop = asyncio.get_running_loop()
    signalled = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, signalled.set_result, "signalled")
    os.kill(os.getpid(), signal.SIGUSR1)
    print(await signalled)
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.05)
    except TimeoutError:
        print("timeout")
    print(await asyncio.to_thread(os.path.exists, "/etc"))
    print((await loop.getaddrinfo("localhost", 80, family=socket.AF_INET))[0][4])


def signals():
    signal.signal(signal.SIGALRM, lambda *_: print("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    signal.pause()
    print(signal.sigtimedwait([signal.SIGUSR2], 0.01))


for part in (threads, programs, memory, foreign, database, signals):
    print(part.__name__, flush=True)
    part()
asyncio.run(events())
