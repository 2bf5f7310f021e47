"""Tests mirror the tree, plus laws/ (what must hold everywhere) and benchmark/. Run them from the repository root."""
