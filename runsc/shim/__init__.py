"""containerd's shim: `containerd-shim-runsc-v1`."""
