"""What may be wrong with this machine's KVM.

>>> from kvm.system import System
>>> System("/no/kvm")
Traceback (most recent call last):
kvm.errors.Unavailable: /no/kvm: No such file or directory
"""


class Unavailable(RuntimeError):
    """There is no usable /dev/kvm; the text says why."""
