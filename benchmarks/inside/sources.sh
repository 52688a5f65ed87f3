# A medium C file and a project of eight, below $1.
parts=$1/parts
mkdir -p "$parts"
function_of() {
    echo "int f$1(int n, int *a) { int s = $1; for (int i = 0; i < n; i++) {"
    echo "  s += a[i] * $1; if (s & 1) s ^= a[(i * $1) % n]; else s -= i; } return s; }"
}
{
    echo '#include <stdio.h>'
    echo '#include <stdlib.h>'
    for i in $(seq 400); do function_of "$i"; done
} >"$1/m.c"
for part in 1 2 3 4 5 6 7 8; do
    { echo '#include <stdio.h>'; for i in $(seq 40); do function_of "$part$i"; done; } >"$parts/p$part.c"
done
echo 'int main(void) { return 0; }' >"$parts/main.c"
printf 'OBJS = main.o p1.o p2.o p3.o p4.o p5.o p6.o p7.o p8.o\nall: $(OBJS)\n\tgcc -o prog $(OBJS)\n.c.o:\n\tgcc -O2 -c -o $@ $<\nclean:\n\trm -f *.o prog\n' >"$parts/Makefile"
