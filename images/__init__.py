"""The container images of the workflow: `python -m images.build` builds them, `python -m images.lock` pins them."""
