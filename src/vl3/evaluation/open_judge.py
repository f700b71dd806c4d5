"""Which judge an evaluation has: a file that describes an endpoint, or the folder of a model."""

from pathlib import Path

from vl3.config.endpoint import read_endpoint
from vl3.evaluation.judges import AnswerJudge, EndpointJudge
from vl3.evaluation.local_judge import LocalJudge

JUDGE_RECORDS = "judge.sqlite"
"""File of the questions to a judge and its answers, in the folder of an evaluation."""


def open_judge(place: Path, records: Path) -> AnswerJudge:
    """A judge with its records.

    Args:
        place: a YAML file with the fields of EndpointConfig, or a folder with a model.
        records: file of questions and answers; made if it does not exist.

    Raises:
        ConfigError: there is no such file, a field is wrong, or the folder has no model.
        StorageError: the records cannot be used.
    """
    return LocalJudge(place, records) if place.is_dir() else EndpointJudge(read_endpoint(place), records)
