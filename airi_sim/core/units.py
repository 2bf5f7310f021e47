"""Units: seconds, tokens, bytes everywhere; these are the only conversions."""

from __future__ import annotations

MS = 1e-3
US = 1e-6
GB = 1e9
GIB = 1 << 30
TERA = 1e12
