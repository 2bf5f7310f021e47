"""Floor 2: what a model is: layers, heads, experts, bytes and FLOPs per token."""
