# make -j4 of a 50-file project.
set -e
for i in {1..50}; do
    echo "int f$i(int n) { int s = 0; for (int i = 0; i < n; i++) s += i * $i; return s; }" >f$i.c
done
{
    echo '#include <stdio.h>'
    for i in {1..50}; do echo "int f$i(int);"; done
    echo 'int main(void) { int s = 0;'
    for i in {1..50}; do echo "s += f$i(10);"; done
    echo 'printf("%d\n", s); }'
} >main.c
cat >Makefile <<'M'
prog: $(patsubst %.c,%.o,$(wildcard *.c))
	@gcc -o $@ $^
%.o: %.c
	@gcc -O2 -c -o $@ $<
fails: one two
one two:
	@exit 3
M
make -s -j4
./prog
make -j4
touch f1.c
make -q || echo "stale $?"
make -n | wc -l
make -j4 -k fails 2>&1 | sort
