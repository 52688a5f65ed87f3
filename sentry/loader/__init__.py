"""Programs: ELF files and scripts become address spaces. See README.md."""

from sentry.loader.load import load

__all__ = ["load"]
