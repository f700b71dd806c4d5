"""How the answers to a run's data are judged: `judging.yaml` beside the annotations, which rebuilds no dataset."""

from typing import Any

from vl3.data.corpus import read_corpus
from vl3.evaluation.judging.rule import JUDGING_FILE, parse_rules
from vl3.steps.request import Request
from vl3.store.objects import open_store
from vl3.store.uris import join_uri


def judging_of(request: Request) -> dict[str, dict[str, Any]]:
    """The rules by dataset, of a run's only one by ""; datasets without a file are left out.

    Raises:
        ConfigError: a file cannot be read or has a rule that contradicts itself.
        StorageError: the store does not answer.
    """
    uris = read_corpus(request.data_uri)
    if len(uris) == 1:  # its ids have no dataset's name in front
        (only,) = uris.values()
        uris = {"": only}
    found = {
        name: parse_rules(open_store(uri).read(JUDGING_FILE), join_uri(uri, JUDGING_FILE)) for name, uri in uris.items()
    }
    return {name: rules for name, rules in found.items() if rules}
