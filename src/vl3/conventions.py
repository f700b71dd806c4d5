"""What configuration, data and models, which do not know each other, agree on."""

IMAGE_MERGE_SIZES = (1, 2)
"""Sides of the square of patches that one token of an image may stand for in training."""
VIDEO_MERGE_SIZE = 2
"""The only one of a video (arXiv 2501.13106 sec. 3.1.2, and the released code in every stage)."""
IGNORED_LABEL = -100
"""The label of a token that is not supervised; torch's losses leave it out by themselves."""
PATCH_SIZE_PX = 14
"""Side of a patch of the encoders of the method (SigLIP so400m, and the tiny one)."""
