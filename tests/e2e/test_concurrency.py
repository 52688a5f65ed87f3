"""Small programs of threads, processes and sockets: a gate's worth of what servers do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle, kvm_is_usable, natively
from tests.e2e.test_programs import ENVIRONMENT

DATABASE = """
import multiprocessing, os, sqlite3, tempfile
folder = tempfile.TemporaryDirectory()
os.chdir(folder.name)
def connect():
    return sqlite3.connect("db", timeout=60, isolation_level=None)
def write(who):
    db = connect()
    for n in range(100):
        db.execute("begin immediate")
        db.execute("insert into t values (?, ?)", (who, n))
        db.execute("commit")
print(connect().execute("pragma journal_mode=wal").fetchall())
connect().execute("create table t (who, n)")
writers = [multiprocessing.Process(target=write, args=(who,)) for who in (1, 2)]
[writer.start() for writer in writers]
[writer.join() for writer in writers]
print([writer.exitcode for writer in writers])
print(connect().execute("select who, count(*), sum(n) from t group by who").fetchall())
print(connect().execute("pragma integrity_check").fetchall(), sorted(os.listdir()))
folder.cleanup()
"""
WEB = """
import http.server, threading, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))[::-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, args=(0.01,)).start()
url, total = f"http://127.0.0.1:{server.server_port}/", []
def ask(n):
    for size in (1, 1000, 300_000):
        total.append(len(urllib.request.urlopen(url, b"x" * (size + n)).read()))
clients = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
[client.start() for client in clients]
[client.join() for client in clients]
server.shutdown()
print(sum(total), threading.active_count())
"""
LOOP = """
import asyncio, os, signal, tempfile
async def echo(reader, writer):
    while data := await reader.read(10_000):
        writer.write(data)
        await writer.drain()
    writer.close()
async def talk(connect, n):
    reader, writer = await connect
    writer.write(b"x" * n)
    writer.write_eof()
    return len(await reader.read())
async def main():
    tcp = await asyncio.start_server(echo, "127.0.0.1", 0)
    folder = tempfile.TemporaryDirectory()
    path = folder.name + "/s"
    unix = await asyncio.start_unix_server(echo, path)
    port = tcp.sockets[0].getsockname()[1]
    talks = [talk(asyncio.open_connection("127.0.0.1", port), n * 10_000) for n in range(20)]
    talks += [talk(asyncio.open_unix_connection(path), n * 10_000) for n in range(20)]
    print(sum(await asyncio.gather(*talks)))
    child = await asyncio.create_subprocess_shell("cat; exit 3", stdin=-1, stdout=-1)
    print(await child.communicate(b"to a child"), child.returncode)
    heard = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, heard.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await heard.wait()
    try:
        await asyncio.wait_for(asyncio.sleep(100), 0.01)
    except TimeoutError:
        print("timed out")
    folder.cleanup()
asyncio.run(main())
"""
PROCESSES = """
import multiprocessing as m
from multiprocessing import shared_memory
def square(n): return n * n
def count(lock, value, queue):
    for _ in range(200):
        with lock: value.value += 1
    queue.put(b"y" * 100_000)
with m.Pool(3) as pool:
    print(sum(pool.imap_unordered(square, range(1000), 7)))
lock, value, queue = m.Lock(), m.Value("i", 0, lock=False), m.Queue()
workers = [m.Process(target=count, args=(lock, value, queue)) for _ in range(4)]
[worker.start() for worker in workers]
print(sum(len(queue.get()) for _ in workers))
[worker.join() for worker in workers]
print(value.value)
memory = shared_memory.SharedMemory(create=True, size=100)
barrier = m.Barrier(3)
def mark(n):
    barrier.wait()
    memory.buf[n] = n + 1
    memory.close()
workers = [m.Process(target=mark, args=(n,)) for n in range(3)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
print(bytes(memory.buf[:4]), m.active_children())
memory.close(), memory.unlink()
"""
PROGRAMS = {"database": DATABASE, "web": WEB, "loop": LOOP, "processes": PROCESSES}


@pytest.mark.root
@pytest.mark.kvm
@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_says_what_it_says_on_linux(tmp_path: Path, debian: Path, name: str) -> None:
    args = ("python3", "-W", "ignore", "-c", PROGRAMS[name])
    bundle = Bundle(tmp_path / "bundle", debian).args(*args)
    bundle.document["process"]["env"] = ENVIRONMENT
    bundle.document["root"]["readonly"] = False

    ours = bundle.run()

    linux = natively(debian, args, ENVIRONMENT)
    assert (ours.stdout, ours.stderr, ours.returncode) == (linux.stdout, linux.stderr, 0)
