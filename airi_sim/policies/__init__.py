"""Floor 1: decisions only. One small class a policy; no clock, no runtime, no global randomness."""
