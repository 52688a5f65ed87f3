# cmake of a library and a program, and ctest.
set -e
cat >CMakeLists.txt <<'T'
cmake_minimum_required(VERSION 3.20)
project(p C CXX)
find_package(Threads REQUIRED)
add_library(l SHARED l.c)
add_executable(m m.cc)
target_link_libraries(m l Threads::Threads)
enable_testing()
add_test(t m)
T
echo 'int l(void) { return 3; }' >l.c
cat >m.cc <<'C'
#include <cstdio>
extern "C" int l(void);
int main() { std::printf("%d\n", l()); }
C
cmake -S . -B b | sed 's/([0-9.]*s)//'
cmake --build b -j4 | sort
b/m
ctest --test-dir b | grep 'tests passed'
