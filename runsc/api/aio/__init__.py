"""For asyncio; `runsc.api.blocking` is made of this by ci/generate_sync.py."""
