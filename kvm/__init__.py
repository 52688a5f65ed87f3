"""/dev/kvm as objects. See README.md.

Nothing is imported here: `from kvm.system import System` is where to start.
"""
