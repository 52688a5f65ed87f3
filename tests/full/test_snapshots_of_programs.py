"""Large programs of the host go on from a snapshot, twice, and so does the first one.

Each is a server that counts what it is asked.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runsc import Sandbox
from tests.e2e import sandboxes
from tests.e2e.bundle import kvm_is_usable

TIMEOUT_S = 120
MEMORY = 2 << 30
PYTHON = """
import asyncio, http.server, multiprocessing, sqlite3, subprocess, threading
db = sqlite3.connect("/tmp/x.db", check_same_thread=False)
db.execute("create table t(n)")
pool = multiprocessing.get_context("fork").Pool(3)
cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
lock = threading.Lock()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with lock:
            db.execute("insert into t values(1)")
            db.commit()
            count, = db.execute("select count(*) from t").fetchone()
            cat.stdin.write(f"{sum(pool.map(abs, [0, -count]))}\\n")
            cat.stdin.flush()
            answer = cat.stdout.readline().encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *values):
        pass
async def tick():
    while True:
        await asyncio.sleep(0.02)
threading.Thread(target=lambda: asyncio.run(tick()), daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""
NODE = """
let n = 0; setInterval(() => {}, 10)
const answer = (_, to) => require("zlib").gzip("x", () => to.end(`${++n}\\n`))
require("http").createServer(answer).listen(8080, "127.0.0.1")
"""
JAVA = """
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicInteger;
public class Server {
    public static void main(String[] none) throws Exception {
        AtomicInteger n = new AtomicInteger();
        Executors.newScheduledThreadPool(1).scheduleAtFixedRate(
            () -> { byte[] waste = new byte[100000]; }, 10, 10, TimeUnit.MILLISECONDS);
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 8080), 0);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/", asked -> {
            byte[] answer = (n.incrementAndGet() + "\\n").getBytes();
            asked.sendResponseHeaders(200, answer.length);
            asked.getResponseBody().write(answer);
            asked.close(); });
        server.start();
    }
}
"""
POSTGRES = """
umask 077
initdb -D /tmp/data >/dev/null && exec postgres -D /tmp/data -k /tmp -c listen_addresses=
"""
QUERY = "create table if not exists t(n int); insert into t values (1); select count(*) from t"
PSQL = f"psql -h /tmp -U postgres -AtX -q -c '{QUERY}'"
FETCH = """python3 -c 'if True:
    import urllib.request
    print(urllib.request.urlopen("http://127.0.0.1:8080/", timeout=60).read().decode())'"""
SERVERS = {
    "python3": ("/tmp/server.py", PYTHON, "python3 /tmp/server.py", FETCH),
    "node": ("/tmp/server.js", NODE, "node /tmp/server.js", FETCH),
    "java": ("/tmp/Server.java", JAVA, "java /tmp/Server.java", FETCH),
    "postgres": (
        "/tmp/server.sh",
        POSTGRES,
        "setpriv --reuid=postgres --regid=postgres --clear-groups sh /tmp/server.sh",
        PSQL,
    ),
}


def ask(sandbox: Sandbox, ask_it: str, tries: int = 1) -> str:
    command = f"for i in $(seq {tries}); do {ask_it} && exit; sleep 0.3; done 2>/tmp/errors"
    found = sandbox.commands.run(f"{command}; cat /tmp/errors", timeout=TIMEOUT_S)
    return found.stdout.strip()


@pytest.mark.full
@pytest.mark.parametrize("program", SERVERS)
def test_a_server_goes_on_from_its_snapshot(program: str, tmp_path: Path) -> None:
    if not kvm_is_usable() or not all(map(shutil.which, (program, "python3", "setpriv"))):
        pytest.skip(f"needs /dev/kvm, {program}, python3 and setpriv")
    path, text, start, ask_it = SERVERS[program]
    with sandboxes.made(tmp_path, Path("/"), memory=MEMORY) as first:
        first.commands.run("mkdir -p /tmp; chmod 1777 /tmp")
        first.files.write(path, text)
        first.commands.run(f"setsid {start} >/tmp/log 2>&1 </dev/null &")
        found = ask(first, ask_it, 200)
        assert found == "1", (found, first.files.read("/tmp/log"))
        snapshot = first.create_snapshot(tmp_path / "image")
        assert ask(first, ask_it) == "2"
        for _ in range(2):
            with Sandbox.restore(snapshot, state=tmp_path / "state") as other:
                assert [ask(other, ask_it) for _ in range(3)] == ["2", "3", "4"]
        assert ask(first, ask_it) == "3"


NGINX = """
mkdir -p /tmp/pages && echo page >/tmp/pages/index.html
echo 'daemon off; master_process off; pid /tmp/pid; error_log /dev/null; events {}
http { access_log off; server { listen 127.0.0.1:8080; root /tmp/pages; } }' >/tmp/nginx.conf
exec nginx -c /tmp/nginx.conf
"""
PAGE = """bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080
printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; tail -n1 <&3'"""
WORKERS = NGINX.replace("master_process off;", "user root; worker_processes 2;")
NEW_WORKERS = f"""master=$(cat /tmp/pid); old=$(cat /proc/$master/task/$master/children)
kill -HUP $master; for each in $old; do while kill -0 $each; do sleep 0.01; done; done
{PAGE}"""
OF_DEBIAN = {
    "redis": ("exec redis-server --save ''", "redis-cli incr n | grep [0-9]", "1234"),
    "nginx": (NGINX, PAGE, ["page"] * 4),
    "nginx, its master process and its workers": (WORKERS, NEW_WORKERS, ["page"] * 4),
}
"""What starts it, what asks it, and what it says one time after the other."""


@pytest.mark.full
@pytest.mark.parametrize("program", OF_DEBIAN)
def test_a_server_of_debian_goes_on_from_its_snapshot(
    program: str, tmp_path: Path, languages: Path
) -> None:
    if not kvm_is_usable():
        pytest.skip("needs /dev/kvm")
    text, ask_it, says = OF_DEBIAN[program]
    with sandboxes.made(tmp_path, languages, memory=MEMORY) as first:
        first.commands.run("mkdir -p /tmp /var/lib/nginx /var/log/nginx; chmod 1777 /tmp")
        first.files.write("/tmp/server.sh", text)
        first.commands.run("setsid sh /tmp/server.sh >/tmp/log 2>&1 </dev/null &")
        found = ask(first, ask_it, 200)
        assert found == says[0], (found, first.files.read("/tmp/log"))
        snapshot = first.create_snapshot(tmp_path / "image")
        for _ in range(2):
            with Sandbox.restore(snapshot, state=tmp_path / "state") as other:
                assert [ask(other, ask_it) for _ in range(3)] == list(says[1:])
        assert ask(first, ask_it) == says[1]


TRANSACTIONS = 2000
BENCH = f"""
export PGHOST=/tmp PGUSER=postgres
pgbench -i -q postgres && pgbench -c 4 -j 2 -t {TRANSACTIONS // 4} postgres
echo $? >/tmp/ended
"""
ASK = "psql -h /tmp -U postgres -AtX -q -c"
WRITTEN = f"{ASK} 'select count(*) from pgbench_history'"
BALANCES = """
select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts),
sum(delta) = (select sum(bbalance) from pgbench_branches),
sum(delta) = (select sum(tbalance) from pgbench_tellers) from pgbench_history
"""
ENDED = f"test -e /tmp/ended && cat /tmp/ended && {ASK} '{BALANCES}'"


@pytest.mark.full
@pytest.mark.timeout(4 * TIMEOUT_S)
def test_a_database_under_load_goes_on_in_both(tmp_path: Path) -> None:
    """Clients and servers are amidst thousands of transactions."""
    if not kvm_is_usable() or not all(map(shutil.which, ("postgres", "pgbench", "setpriv"))):
        pytest.skip("needs /dev/kvm, postgres, pgbench and setpriv")
    with sandboxes.made(tmp_path, Path("/"), memory=MEMORY) as first:
        first.commands.run("mkdir -p /tmp; chmod 1777 /tmp")
        first.files.write("/tmp/server.sh", POSTGRES)
        first.files.write("/tmp/bench.sh", BENCH)
        first.commands.run(f"setsid {SERVERS['postgres'][2]} >/tmp/log 2>&1 </dev/null &")
        assert ask(first, f"{ASK} 'select 1'", 200) == "1"
        first.commands.run("setsid sh /tmp/bench.sh >/tmp/bench 2>&1 </dev/null &")
        begun = f"n=$({WRITTEN}) && test $n -gt 50 && echo begun"
        assert ask(first, begun, 200) == "begun", first.files.read("/tmp/bench")
        snapshot = first.create_snapshot(tmp_path / "image")
        with Sandbox.restore(snapshot, state=tmp_path / "state") as other:
            assert 50 < int(ask(other, WRITTEN)) < TRANSACTIONS
            whole = f"0\n{TRANSACTIONS}|t|t|t"
            assert ask(other, ENDED, 400) == whole, other.files.read("/tmp/bench")
            assert ask(first, ENDED, 400) == whole, first.files.read("/tmp/bench")
