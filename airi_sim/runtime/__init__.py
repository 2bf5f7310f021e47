"""Floor 1: sans-IO state machines. Time is an argument; no clock, no simpy, no torch, no threads, no randomness."""
