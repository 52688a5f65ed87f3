"""The sandbox's own resolver: what programs ask, what is asked outside, what is remembered."""
