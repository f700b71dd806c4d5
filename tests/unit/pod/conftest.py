"""A small dataset, model and object store to train with."""

from tests.support.training import (  # noqa: F401  # fixtures
    make_config,
    make_model,
    make_row,
    process_group,
    s3_endpoint,
    s3_root,
    stage_inputs,
)
