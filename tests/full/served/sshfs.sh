# sshfs, with a server of SFTP on the other side of a pipe.
source /mnt/common.bash
printf '#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n' >ssh
chmod +x ssh
sshfs -o ssh_command=/stage/ssh host:/stage/src mnt
mounted
cat mnt/a
dd if=/dev/zero of=mnt/big bs=64k count=100 2>/dev/null
stat -c %s src/big
cp -r /usr/share/perl5 mnt/
diff -r /usr/share/perl5 mnt/perl5 && echo the same
rm -r mnt/perl5 mnt/big
tree mnt
umount mnt
