"""What data and models, which do not know each other, agree on."""

IGNORED_LABEL = -100
"""The label of a token that is not supervised; torch's losses leave it out by themselves."""
PATCH_SIZE_PX = 14
"""Side of a patch of the encoders of the method (SigLIP so400m, and the tiny one)."""
