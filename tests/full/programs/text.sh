# perl; gawk with pipes, a coprocess and the network; sed.
perl /mnt/perl.pl
echo "perl $?"
seq 100000 | gawk '
    { sum += $1; count[$1 % 7]++ }
    END {
        print sum
        for (i = 0; i < 7; i++) print count[i]
        "date -u -d @0 +%Y" | getline year
        print year
        print "b\na" | "sort"
        close("sort")
    }'
gawk 'BEGIN {
    cat = "/bin/cat"
    print "to a coprocess" |& cat
    close(cat, "to")
    cat |& getline line
    print line
    server = "/inet/tcp/0/127.0.0.1/1"
    if ((server |& getline line) < 0) print "refused"
}'
gawk 'BEGIN { RS = "\0" } /^HOME/' /proc/self/environ
cp /etc/passwd p
sed -i.bak 's/root/toor/g' p
diff p p.bak
stat -c %a p
sed -E 's/([a-z]+):.*/\1/;3q' p
seq 5 | sed 'N;P;D'
seq 3 | sed 'w out'
cat out
sed '1e echo executed' p.bak | head -1
