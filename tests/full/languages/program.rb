# Threads, fibers, fork, pipes, sockets, files, signals.
require "socket"
require "tmpdir"
require "open3"
require "json"
require "digest"
require "timeout"
queue = SizedQueue.new(3)
workers = 4.times.map { Thread.new { n = 0; while (v = queue.pop) != :end do n += v end; n } }
2000.times { |i| queue << i }
4.times { queue << :end }
puts "threads #{workers.sum(&:value)}"
server = TCPServer.new("127.0.0.1", 0)
serving = Thread.new { 20.times { Thread.new(server.accept) { |s| s.puts(s.gets.reverse); s.close } } }
answers = 20.times.map { |i| Thread.new { s = TCPSocket.new("127.0.0.1", server.addr[1]); s.puts("n#{i}"); s.read.strip } }
puts "tcp #{answers.map(&:value).join(",")}"
serving.join
Dir.mktmpdir do |folder|
  50.times { |i| File.write("#{folder}/#{i}", "x" * i) }
  puts "files #{Dir["#{folder}/*"].sum { |f| File.size(f) }}"
  File.open("#{folder}/lock", "w") { |f| puts "lock #{f.flock(File::LOCK_EX | File::LOCK_NB)}" }
  UNIXServer.open("#{folder}/s") do |u|
    pid = fork { UNIXSocket.open("#{folder}/s") { |s| s.write("from a child") }; exit!(3) }
    puts "unix #{u.accept.read}"
    puts "child #{Process.wait2(pid)[1].exitstatus}"
  end
end
trap("USR1") { puts "signal" }
Process.kill("USR1", Process.pid)
sleep 0.01
puts Open3.capture3("cat; echo e >&2; exit 2", stdin_data: "in")[0, 2].inspect
puts "fibers #{Fiber.new { 3.times { |i| Fiber.yield i } }.then { |f| 3.times.map { f.resume }.sum }}"
puts JSON.generate({ digest: Digest::SHA256.hexdigest("a") })
reader, writer = IO.pipe
pid = spawn("seq 1 20000", out: writer)
writer.close
puts "pipe #{reader.each_line.sum(&:to_i)}"
Process.wait(pid)
begin
  Timeout.timeout(0.02) { sleep }
rescue Timeout::Error
  puts "timeout"
end
GC.stress = false
GC.start
at_exit { puts "at exit" }
abort "the end"
