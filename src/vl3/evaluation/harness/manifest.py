"""What lmms-eval finds through the entry-point group `lmms_eval.models`: `lmms-eval --model vl3 --model_args ...`."""

from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """The model `vl3`."""
    return ModelManifest(model_id="vl3", chat_class_path="vl3.evaluation.harness.model.Vl3")
