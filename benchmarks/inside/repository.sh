# [FOLDER [COUNT]]: a repository, /tmp/repo, of ten small files in each of so many folders, 100.
at=${1:-/tmp/repo}
GIT_CONFIG_GLOBAL=$(dirname "$at")/gitconfig
export GIT_CONFIG_GLOBAL
git config --global user.name bench
git config --global user.email bench@localhost
git init -q "$at"
cd "$at" || exit 1
for folder in $(seq "${2:-100}"); do
    mkdir "d$folder"
    for file in 0 1 2 3 4 5 6 7 8 9; do echo "$folder $file" >"d$folder/f$file"; done
done
git add -A
git commit -q -m first
