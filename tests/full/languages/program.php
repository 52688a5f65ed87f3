<?php
// Files, streams, sockets, children, sorting, errors.
$folder = sys_get_temp_dir() . "/php" . getmypid();
mkdir($folder);
for ($i = 0; $i < 50; $i++) file_put_contents("$folder/$i", str_repeat("x", $i), LOCK_EX);
$total = 0;
foreach (new DirectoryIterator($folder) as $f) if ($f->isFile()) $total += $f->getSize();
echo "files $total\n";
array_map('unlink', glob("$folder/*"));
rmdir($folder);
$server = stream_socket_server("tcp://127.0.0.1:0");
$clients = [];
for ($i = 0; $i < 10; $i++) {
    $clients[] = $c = stream_socket_client("tcp://" . stream_socket_get_name($server, false));
    fwrite($c, "client $i\n");
}
for ($i = 0; $i < 10; $i++) {
    $s = stream_socket_accept($server);
    fwrite($s, strrev(trim(fgets($s))));
    fclose($s);
}
$open = $clients;
$text = [];
while ($open) {
    $read = $open; $write = $except = null;
    stream_select($read, $write, $except, 5);
    foreach ($read as $r) {
        $piece = fread($r, 100);
        if ($piece === "" && feof($r)) unset($open[array_search($r, $open)]);
        else $text[] = $piece;
    }
}
sort($text);
echo "tcp ", implode(",", $text), "\n";
$p = proc_open(["sh", "-c", "cat; echo e >&2; exit 3"], [["pipe", "r"], ["pipe", "w"], ["pipe", "w"]], $pipes);
fwrite($pipes[0], "to a child");
fclose($pipes[0]);
echo stream_get_contents($pipes[1]), " ", trim(stream_get_contents($pipes[2])), " ", proc_close($p), "\n";
$values = [];
mt_srand(1);
for ($i = 0; $i < 100000; $i++) $values[] = mt_rand();
sort($values);
echo "sort ", $values[50000], " ", md5(implode(",", $values)), "\n";
function f(int $n): Generator { for ($i = 0; $i < $n; $i++) yield $i => $i ** 2; }
echo "generator ", array_sum(iterator_to_array(f(1000))), "\n";
try { intdiv(1, 0); } catch (DivisionByZeroError $e) { echo $e->getMessage(), "\n"; }
usleep(1000);
register_shutdown_function(function () { echo "end\n"; exit(9); });
throw new Exception("not caught");
