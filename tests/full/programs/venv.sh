# python3 -m venv, and pip install of a local wheel.
set -e
python3 - <<'PY'
import base64, hashlib, zipfile
info = "pkg-1.0.dist-info"
files = {
    "pkg/__init__.py": 'def main(): print("from the wheel")\n',
    f"{info}/METADATA": "Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n",
    f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{info}/entry_points.txt": "[console_scripts]\npkgcmd = pkg:main\n",
}
with zipfile.ZipFile("pkg-1.0-py3-none-any.whl", "w") as wheel:
    record = f"{info}/RECORD,,\n"
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record += f"{name},sha256={digest.decode()},{len(text)}\n"
        wheel.writestr(name, text)
    wheel.writestr(f"{info}/RECORD", record)
PY
python3 -m venv v
v/bin/pip install -q --no-index ./pkg-1.0-py3-none-any.whl
v/bin/pkgcmd
v/bin/pip list --format=freeze | grep pkg
v/bin/python -c 'import sys, pkg; print(sys.prefix, pkg.__file__)'
v/bin/pip uninstall -qy pkg
ls v/bin
