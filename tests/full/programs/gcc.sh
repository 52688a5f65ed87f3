# gcc and g++: compile, link (static, with LTO, shared), run; errors.
cat >a.c <<'C'
#include <stdio.h>
int main(int c, char **v) { printf("hello %d %s\n", c, v[1]); return 4; }
C
cat >b.cc <<'C'
#include <filesystem>
#include <future>
#include <iostream>
#include <stdexcept>
#include <vector>
int main()
{
    std::vector<std::future<int>> all;
    for (int i = 0; i < 8; i++)
        all.push_back(std::async(std::launch::async, [i] { return i * i; }));
    int sum = 0;
    for (auto &one : all)
        sum += one.get();
    std::cout << sum << "\n";
    try {
        throw std::runtime_error("thrown");
    } catch (std::exception &e) {
        std::cout << e.what() << std::filesystem::exists("/etc/passwd") << "\n";
    }
}
C
cat >load.c <<'C'
#include <dlfcn.h>
int main(void) { return ((int (*)(void))dlsym(dlopen("./lib.so", RTLD_NOW), "f"))(); }
C
gcc -O2 -Wall -o a a.c && ./a dynamic
echo $?
gcc -static -o a a.c && ./a static
echo $?
gcc -flto=2 -pipe -o a a.c && ./a whole
echo $?
g++ -O1 -pthread -o b b.cc && ./b
echo 'int f(void) { return 42; }' | gcc -shared -fPIC -o lib.so -x c -
gcc -o load load.c && ./load
echo $?
gcc -c missing.c
echo $?
echo 'int f() { return x; }' | gcc -c -x c -
echo $?
