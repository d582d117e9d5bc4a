"""The header `traceparent` of W3C Trace Context."""

from __future__ import annotations

import re

TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""Version, trace id, id of the caller's span, flags. What is no such thing is to be ignored, not refused."""
