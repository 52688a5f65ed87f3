# /tmp/repo: a thousand small files in a hundred folders, committed.
export GIT_CONFIG_GLOBAL=/tmp/gitconfig
git config --global user.name bench
git config --global user.email bench@localhost
git init -q /tmp/repo
cd /tmp/repo || exit 1
for folder in $(seq 100); do
    mkdir "d$folder"
    for file in 0 1 2 3 4 5 6 7 8 9; do echo "$folder $file" >"d$folder/f$file"; done
done
git add -A
git commit -q -m first
