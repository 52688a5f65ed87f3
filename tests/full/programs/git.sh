# git: init, add, commit, branch, merge, clone, push, gc, fsck, log, rebase, worktree, bundle.
set -e
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@b
export GIT_AUTHOR_DATE=2024-01-01T00:00:00Z GIT_COMMITTER_DATE=2024-01-01T00:00:00Z
git init -q -b main repo
cd repo
for i in {1..100}; do
    mkdir -p d$((i % 10))
    seq $i >d$((i % 10))/$i
done
git add .
git commit -qm first
git rev-parse HEAD
for i in {1..5}; do
    echo $i >>d1/1
    git commit -qam "change $i"
done
git log --oneline
git log --stat -1
git checkout -qb topic
echo t >t
git add t
git commit -qm topic
git checkout -q main
echo m >m
git add m
git commit -qm m
git merge -q --no-edit topic
git log --graph --oneline -4
cd ..
git clone -q repo clone
git clone -q --bare "file://$PWD/repo" bare.git
cd clone
git log -1 --format=%H
echo x >x
git add x
git commit -qm x
git push -q ../bare.git main
git -C ../bare.git log -1 --format=%s main
cd ../repo
git gc -q
git fsck --strict
git count-objects -v | grep -v size
git pull -q ../bare.git main
git rebase -q HEAD~1
git status --short
git diff HEAD~3 --stat
git blame d1/1 | tail -2
git archive HEAD | sha256sum
git worktree add -q ../wt
git -C ../wt status -sb
git bundle create -q b main
git bundle verify -q b
