// Exceptions through frames and threads, futures, condition variables, thread-local storage.
#include <atomic>
#include <condition_variable>
#include <future>
#include <iostream>
#include <mutex>
#include <queue>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

struct Problem : std::runtime_error {
    int code;
    Problem(int c) : std::runtime_error("problem " + std::to_string(c)), code(c) {}
};

static int deep(int n) {
    std::string guard(n, 'x');
    if (n == 0) throw Problem(42);
    return deep(n - 1) + (int)guard.size();
}

template <class T> class Channel {
    std::mutex m;
    std::condition_variable filled, emptied;
    std::queue<T> q;
    static constexpr size_t bound = 4;

public:
    void put(T v) {
        std::unique_lock l(m);
        emptied.wait(l, [&] { return q.size() < bound; });
        q.push(v);
        filled.notify_one();
    }
    T get() {
        std::unique_lock l(m);
        filled.wait(l, [&] { return !q.empty(); });
        T v = q.front();
        q.pop();
        emptied.notify_one();
        return v;
    }
};

static thread_local int own;

int main() {
    int caught = 0;
    for (int i = 0; i < 2000; i++) {
        try {
            deep(i % 50);
        } catch (const Problem &p) {
            caught += p.code;
        }
    }
    std::cout << "caught " << caught << "\n";

    Channel<int> channel;
    std::atomic<long> sum{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++)
        threads.emplace_back([&] {
            for (int v; (v = channel.get()) >= 0; own++) sum += v;
        });
    for (int i = 0; i < 20000; i++) channel.put(i);
    for (int t = 0; t < 4; t++) channel.put(-1);
    for (auto &t : threads) t.join();
    std::cout << "sum " << sum << " own " << own << "\n";

    std::vector<std::future<int>> futures;
    for (int i = 0; i < 50; i++)
        futures.push_back(std::async(std::launch::async, [i] { return i % 2 ? deep(5) : i; }));
    int values = 0, errors = 0;
    for (auto &f : futures) {
        try {
            values += f.get();
        } catch (const Problem &p) {
            errors += p.code;
        }
    }
    std::cout << "futures " << values << " " << errors << "\n";

    std::shared_mutex shared;
    long counter = 0;
    std::atomic<long> seen{0};
    threads.clear();
    for (int t = 0; t < 6; t++)
        threads.emplace_back([&, t] {
            for (int i = 0; i < 3000; i++) {
                if (t % 3 == 0) {
                    std::unique_lock l(shared);
                    counter++;
                } else {
                    std::shared_lock l(shared);
                    seen += counter >= 0;
                }
            }
        });
    for (auto &t : threads) t.join();
    std::cout << "counter " << counter << " " << seen << "\n";

    std::condition_variable never;
    std::mutex m;
    std::unique_lock l(m);
    auto status = never.wait_for(l, std::chrono::milliseconds(20));
    std::cout << "timeout " << (status == std::cv_status::timeout) << std::endl;
    throw Problem(1);
}
