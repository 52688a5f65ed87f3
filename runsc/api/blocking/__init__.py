"""Made of `runsc.api.aio` by ci/generate_sync.py, all but `poll.py`."""
