"""What rooms that do not know each other agree on: configuration, data and models; pipelines and jobs."""

ENDPOINT_SECRET, ENDPOINT_KEY = "vl3-endpoints", "VL3_ENDPOINT_KEY"
"""Secret of the namespace, which may be missing, and the variable with the key of a provider's models: what a recipe
names in an endpoint's `api_key_env` on a cluster. Only pods that ask an endpoint get it."""

IMAGE_MERGE_SIZES = (1, 2)
"""Sides of the square of patches that may be merged into one image token in training."""
VIDEO_MERGE_SIZE = 2
"""The same for a video token, always (arXiv 2501.13106, and the released scripts in every stage)."""
IGNORED_LABEL = -100
"""The label of a token that is not supervised; torch's losses leave it out by themselves."""
PATCH_SIZE_PX = 14
"""Side of a patch of the encoders of the method (SigLIP so400m, and the tiny one)."""
