"""From a SandboxConfig to a running kernel."""
