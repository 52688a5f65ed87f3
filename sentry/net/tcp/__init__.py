"""The protocol engine of TCP, sans-io: segments and a clock in, segments and wake-ups out."""
