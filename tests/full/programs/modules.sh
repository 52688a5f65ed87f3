# python3: threads, subprocess, mmap, ctypes, sqlite3, asyncio, signals; ends of the interpreter.
python3 -B /mnt/modules.py
echo "modules $?"
python3 -c 'import sys; sys.exit("bye")'
echo "message $?"
python3 -c 'import faulthandler, os; faulthandler.enable(); os.abort()' 2>&1 | head -1
echo 'print(input())' >i.py
echo in | python3 i.py
cp -r /usr/lib/python3.13/json .
python3 -m compileall -q -j 4 json
ls json/__pycache__
