// Threads, pools, virtual threads, locks, garbage of several threads, NIO, children.
import java.io.*;
import java.net.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.concurrent.locks.*;
import java.util.stream.*;

public class Threads {
    static long garbage() {
        return IntStream.range(0, 2_000_000).parallel().mapToObj(Integer::toString)
            .collect(Collectors.groupingByConcurrent(String::length, Collectors.counting()))
            .values().stream().mapToLong(Long::longValue).sum();
    }

    static int virtual() throws Exception {
        var count = new AtomicInteger();
        try (var pool = Executors.newVirtualThreadPerTaskExecutor()) {
            for (int i = 0; i < 1000; i++)
                pool.submit(() -> { Thread.sleep(5); return count.incrementAndGet(); });
        }
        return count.get();
    }

    static long locks() throws Exception {
        var lock = new ReentrantLock();
        var filled = lock.newCondition();
        var box = new ArrayDeque<Integer>();
        var total = new LongAdder();
        var pool = Executors.newFixedThreadPool(4);
        for (int t = 0; t < 4; t++) pool.submit(() -> {
            while (true) {
                lock.lock();
                try {
                    while (box.isEmpty()) filled.await();
                    int value = box.poll();
                    if (value < 0) return null;
                    total.add(value);
                } finally { lock.unlock(); }
            }
        });
        for (int i = 0; i < 20000; i++) {
            lock.lock();
            box.add(i);
            filled.signal();
            lock.unlock();
        }
        lock.lock();
        for (int t = 0; t < 4; t++) box.add(-1);
        filled.signalAll();
        lock.unlock();
        pool.shutdown();
        pool.awaitTermination(1, TimeUnit.MINUTES);
        return total.sum();
    }

    static int selector() throws Exception {
        var selector = Selector.open();
        var listener = ServerSocketChannel.open().bind(new InetSocketAddress("127.0.0.1", 0));
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        int port = ((InetSocketAddress) listener.getLocalAddress()).getPort();
        var clients = Executors.newFixedThreadPool(10);
        var answers = new ArrayList<Future<Integer>>();
        for (int i = 0; i < 50; i++) {
            int n = i;
            answers.add(clients.submit(() -> {
                try (var socket = new Socket("127.0.0.1", port)) {
                    socket.getOutputStream().write(("client " + n).getBytes());
                    socket.shutdownOutput();
                    return socket.getInputStream().readAllBytes().length;
                }
            }));
        }
        int closed = 0;
        var buffer = ByteBuffer.allocate(100);
        while (closed < 50) {
            selector.select();
            for (var keys = selector.selectedKeys().iterator(); keys.hasNext(); keys.remove()) {
                var key = keys.next();
                if (key.isAcceptable()) {
                    var accepted = listener.accept();
                    if (accepted == null) continue;
                    accepted.configureBlocking(false);
                    accepted.register(selector, SelectionKey.OP_READ);
                } else {
                    var channel = (SocketChannel) key.channel();
                    int got = channel.read(buffer.clear());
                    if (got < 0) { channel.close(); closed++; }
                    else channel.write(buffer.flip());
                }
            }
        }
        int sum = 0;
        for (var answer : answers) sum += answer.get();
        clients.shutdown();
        return sum;
    }

    static String files() throws Exception {
        var folder = Files.createTempDirectory("java");
        for (int i = 0; i < 50; i++) Files.writeString(folder.resolve("f" + i), "x".repeat(i));
        long size;
        try (var list = Files.walk(folder)) { size = list.filter(Files::isRegularFile).mapToLong(f -> f.toFile().length()).sum(); }
        try (var file = FileChannel.open(folder.resolve("map"), StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            var map = file.map(FileChannel.MapMode.READ_WRITE, 0, 10000);
            map.put(5000, (byte) 7);
            map.force();
            var lock = file.lock();
            var one = ByteBuffer.allocate(1);
            file.read(one, 5000);
            lock.release();
            return size + " " + one.get(0);
        }
    }

    public static void main(String[] args) throws Exception {
        System.out.println("garbage " + garbage());
        System.out.println("virtual " + virtual());
        System.out.println("locks " + locks());
        System.out.println("selector " + selector());
        System.out.println("files " + files());
        var child = new ProcessBuilder("sh", "-c", "cat; exit 4").start();
        child.getOutputStream().write("to a child".getBytes());
        child.getOutputStream().close();
        System.out.println(new String(child.getInputStream().readAllBytes()) + " " + child.waitFor());
        int depth[] = {0};
        try {
            new Object() { void f() { depth[0]++; f(); } }.f();
        } catch (StackOverflowError e) { System.out.println("overflow " + (depth[0] > 1000)); }
        try {
            String none = depth[0] > 0 ? null : "";
            System.out.println(none.length());
        } catch (NullPointerException e) { System.out.println("null"); }
        try {
            var kept = new ArrayList<long[]>();
            while (true) kept.add(new long[1 << 20]);
        } catch (OutOfMemoryError e) { System.out.println("memory"); }
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("hook")));
        System.exit(5);
    }
}
