"""vl3: train, promote and evaluate VideoLLaMA3-style models as one workflow."""
