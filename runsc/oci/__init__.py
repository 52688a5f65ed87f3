"""The OCI runtime specification: bundles as values."""
