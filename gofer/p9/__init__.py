"""The 9P2000.L wire messages and this project's extensions of them, sans-io.

Both ends use this package: the Gofer's server and the Sentry's client. It knows no sockets.
"""
