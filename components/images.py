"""The one place for the names of the images that the components run in."""

_REGISTRY = "ghcr.io/vl3"
_TAG = "0.1.0"

BASE = f"{_REGISTRY}/python-base:{_TAG}"
"""Light steps: prerequisites, promotion, report."""
DATA = f"{_REGISTRY}/python-data:{_TAG}"
"""Media decoding and validation."""
TRAINER = f"{_REGISTRY}/python-trainer:{_TAG}"
"""DeepSpeed training."""
EVALUATOR = f"{_REGISTRY}/python-evaluator:{_TAG}"
"""Generation on held-out samples."""
