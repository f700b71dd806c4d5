"""Model versions of a registered model: candidates, the champion, promotion under a lock, rollback.

A version points to a checkpoint by URI; no weights pass through MLflow. The champion is an alias that moves only
(1) under a lock, (2) from the champion that the candidate was compared with, (3) to a version whose tags have a
passing result of every gate.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.errors import ConfigError, GateError
from vl3.system.clock import now_to_the_second
from vl3.system.uris import sqlite_path
from vl3.tracking.client import is_server, open_client, platform_errors, shown
from vl3.tracking.evidence import ChampionEvidence, Evidence, ScoreEvidence
from vl3.tracking.gates import GATE_NAMES, GateResult, gate_table, is_promotable
from vl3.tracking.lock import file_lock, name_lock

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

CANDIDATE = "candidate"
"""Alias of the version registered last."""
CHAMPION = "champion"
"""Alias of the version in use."""
PREVIOUS = "previous-champion"
"""Alias of the version that a rollback returns to."""

_DECISION = "vl3.promotion"
_JUDGED_AGAINST = "vl3.judged_against"
_PREVIOUS_TAG = "vl3.previous_champion"
_SCORE = "vl3.score."
_GATE = "vl3.gate."
_NONE = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionRow:
    """One model version as a row of a table."""

    version: int
    """Number of the version."""
    aliases: tuple[str, ...]
    """Aliases that point to it."""
    stage: str
    """Training stage that created the checkpoint."""
    source: str
    """URI of the checkpoint."""
    decision: str
    """`passed` or `refused` by the gates; empty if never evaluated."""
    mean_accuracy: float | None
    """Mean held-out accuracy; None if never evaluated."""
    created_at: float
    """Unix time of registration."""
    tags: Mapping[str, str]
    """All tags: digests of checkpoint, dataset and configuration, scores, gates."""


class Registry:
    """The versions of one registered model. Nothing is imported or contacted before the first use.

    Args:
        tracking_uri: where MLflow keeps runs and registry (see client.open_client).
        model: name of the registered model.
        template: migrated empty database for a fresh SQLite file.
    """

    def __init__(self, tracking_uri: str, model: str, *, template: Path | None = None) -> None:
        self.tracking_uri = tracking_uri
        self.model = model
        self._template = template

    @cached_property
    def client(self) -> "MlflowClient":
        """The client, opened on first use (see client.open_client for the errors)."""
        return open_client(self.tracking_uri, template=self._template)

    def register_candidate(
        self,
        source_uri: str,
        *,
        stage: str,
        checkpoint_sha256: str,
        dataset_digest: str,
        config_digest: str,
        mlflow_run_id: str | None = None,
        step: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> int:
        """Register a checkpoint with the alias `candidate`; registering the same one twice gives one version.

        Returns:
            Number of the version.

        Raises:
            ConfigError: the tracking server refuses the checkpoint's URI.
            ClusterError: MLflow fails.
        """
        own = {
            "vl3.stage": stage,
            "vl3.checkpoint_sha256": checkpoint_sha256,
            "vl3.dataset_digest": dataset_digest,
            "vl3.config_digest": config_digest,
            "vl3.step": "" if step is None else str(step),
            **(tags or {}),
        }
        with platform_errors(self.tracking_uri, f"register {source_uri} as {self.model}"), self._lock("register"):
            self._ensure_model()
            version = self._same_version(source_uri, checkpoint_sha256)
            if version is None:
                version = self._create_version(source_uri, mlflow_run_id, own)
            self.client.set_registered_model_alias(self.model, CANDIDATE, str(version))
        return version

    def list_versions(self) -> list[VersionRow]:
        """All versions, newest first; empty if the model was never registered."""
        with platform_errors(self.tracking_uri, f"list the versions of {self.model}"):
            aliases = self._aliases()
            return sorted((_row(found, aliases) for found in self._versions()), key=lambda row: -row.version)

    def get(self, version: int) -> VersionRow:
        """One version.

        Raises:
            ConfigError: there is no such version; the message lists the existing ones.
        """
        rows = {row.version: row for row in self.list_versions()}
        if version not in rows:
            known = ", ".join(map(str, sorted(rows))) or "none"
            raise ConfigError(
                f"{self.model} has no version {version} at {shown(self.tracking_uri)}. Its versions: {known}."
            )
        return rows[version]

    def champion(self) -> VersionRow | None:
        """The version in use; None if no version was ever promoted."""
        with platform_errors(self.tracking_uri, f"read the champion of {self.model}"):
            version = self._aliases().get(CHAMPION)
        return None if version is None else self.get(version)

    def champion_evidence(self) -> ChampionEvidence | None:
        """The champion's scores at its promotion, from its tags; None if there is no champion."""
        champion = self.champion()
        if champion is None:
            return None
        return ChampionEvidence(
            version=champion.version,
            tasks=_scores(champion.tags),
            dataset_digest=champion.tags.get("vl3.evaluated_dataset") or None,
        )

    def record_evidence(self, version: int, evidence: Evidence, results: Sequence[GateResult]) -> None:
        """Tag the version with its scores, the decision of each gate and the champion that it was compared with."""
        champion = evidence.champion.version if evidence.champion else _NONE
        tags: dict[str, Any] = {f"{_GATE}{result.name}": json.dumps(result.to_dict()) for result in results}
        tags |= {f"{_SCORE}{category}": score.to_text() for category, score in evidence.tasks.items()}
        tags |= {
            "vl3.mean_accuracy": "" if evidence.mean_accuracy is None else repr(evidence.mean_accuracy),
            "vl3.evaluated_dataset": evidence.dataset_digest or "",
            _JUDGED_AGAINST: champion,
            _DECISION: "passed" if is_promotable(results) else "refused",
        }
        self._tag(version, tags)

    def set_champion(self, version: int, *, holder: str = "") -> int | None:
        """Move the alias `champion` to a version, if its recorded evidence allows it and still applies.

        Args:
            version: the version; record_evidence must have been called on it.
            holder: who promotes, for the lock and the record.

        Returns:
            The previous champion's version, now `previous-champion`; None if there was none.

        Raises:
            GateError: a gate refused or has no evidence, or the champion has changed since the evaluation.
            ClusterError: the lock is held by another process, or MLflow fails.
        """
        with platform_errors(self.tracking_uri, f"promote {self.model} v{version}"), self._lock(holder):
            row = self.get(version)
            former = self._aliases().get(CHAMPION)
            _require_passed(self.model, row)
            if former == version:
                return _version_or_none(row.tags.get(_PREVIOUS_TAG))
            self._require_unmoved(row, former)
            self._move(version, former, holder)
            return former

    def rollback(self, *, holder: str = "") -> tuple[int, int]:
        """Return the alias `champion` to the version that had it before.

        With champions promoted in the order v1, v4, v7: champion v7 becomes v4, and `previous-champion` v1. A second
        rollback makes v1 champion, a third is refused.

        Returns:
            (version that was champion, version that is champion now).

        Raises:
            GateError: there is no champion, or it had no predecessor.
            ClusterError: the lock is held by another process, or MLflow fails.
        """
        with platform_errors(self.tracking_uri, f"roll {self.model} back"), self._lock(holder):
            current = self._aliases().get(CHAMPION)
            if current is None:
                raise GateError(f"{self.model} has no champion, so there is nothing to roll back. Promote a version.")
            earlier = _version_or_none(self.get(current).tags.get(_PREVIOUS_TAG))
            if earlier is None:
                raise GateError(f"{self.model} v{current} is the first champion: there is none to roll back to.")
            before = _version_or_none(self.get(earlier).tags.get(_PREVIOUS_TAG))
            self._tag(current, {"vl3.rolled_back_at": now_to_the_second(), "vl3.rolled_back_by": holder})
            self._point_previous(before)
            self.client.set_registered_model_alias(self.model, CHAMPION, str(earlier))
        log.info("%s: champion rolled back from v%d to v%d", self.model, current, earlier)
        return current, earlier

    def _move(self, version: int, former: int | None, holder: str) -> None:
        """Move the alias last: until then a crash leaves the previous champion in place."""
        self._tag(
            version,
            {_PREVIOUS_TAG: former or _NONE, "vl3.promoted_at": now_to_the_second(), "vl3.promoted_by": holder},
        )
        self._point_previous(former)
        self.client.set_registered_model_alias(self.model, CHAMPION, str(version))
        log.info("%s: champion moved from %s to v%d", self.model, former, version)

    def _require_unmoved(self, row: VersionRow, champion: int | None) -> None:
        judged_against = _version_or_none(row.tags.get(_JUDGED_AGAINST))
        if judged_against == champion:
            return
        winner = "there is none" if champion is None else f"it is v{champion} ({_promotion_note(self.get(champion))})"
        was = "no champion" if judged_against is None else f"champion v{judged_against}"
        raise GateError(
            f"{self.model} v{row.version} was compared with {was}, but the champion has changed: now {winner}. It "
            "could be worse than the new one. Run the gates again to compare it with the current champion."
        )

    def _point_previous(self, version: int | None) -> None:
        if version is not None:
            self.client.set_registered_model_alias(self.model, PREVIOUS, str(version))
        elif PREVIOUS in self._aliases():
            self.client.delete_registered_model_alias(self.model, PREVIOUS)

    def _tag(self, version: int, tags: Mapping[str, Any]) -> None:
        with platform_errors(self.tracking_uri, f"tag {self.model} v{version}"):
            for key, value in tags.items():
                self.client.set_model_version_tag(self.model, str(version), key, str(value))

    def _ensure_model(self) -> None:
        if not self.client.search_registered_models(filter_string=f"name = '{self.model}'", max_results=1):
            self.client.create_registered_model(self.model)

    def _aliases(self) -> dict[str, int]:
        """Version by alias."""
        found = self.client.search_registered_models(filter_string=f"name = '{self.model}'", max_results=1)
        return {alias: int(version) for alias, version in found[0].aliases.items()} if found else {}

    def _versions(self) -> "list[ModelVersion]":
        versions: list[ModelVersion] = []
        token = None
        while True:
            page = self.client.search_model_versions(f"name = '{self.model}'", page_token=token)
            versions += page
            token = page.token
            if not token:
                return versions

    def _same_version(self, source_uri: str, checkpoint_sha256: str) -> int | None:
        for found in self._versions():
            if found.source == source_uri and found.tags.get("vl3.checkpoint_sha256") == checkpoint_sha256:
                return int(found.version)
        return None

    def _create_version(self, source_uri: str, mlflow_run_id: str | None, tags: Mapping[str, str]) -> int:
        from mlflow.exceptions import MlflowException

        try:
            created = self.client.create_model_version(
                self.model, source_uri, run_id=mlflow_run_id, tags=dict(tags), await_creation_for=0
            )
        except MlflowException as error:
            if is_server(self.tracking_uri) and error.error_code == "INVALID_PARAMETER_VALUE":
                raise ConfigError(self._refused_source(source_uri, str(error))) from error
            raise
        return int(created.version)

    def _refused_source(self, source_uri: str, reason: str) -> str:
        return (
            f"the tracking server {shown(self.tracking_uri)} refuses a model version at {source_uri}: "
            f"{reason.splitlines()[0]} A server cannot see this machine's folders and accepts only s3:// and similar. "
            "Put the artifacts on s3://, or use an SQLite tracking URI with artifacts on file://."
        )

    def _lock(self, holder: str) -> AbstractContextManager[None]:
        if self.tracking_uri.startswith("sqlite:"):
            return file_lock(sqlite_path(self.tracking_uri), holder=holder or self.model)
        return name_lock(self.client, self.model, holder=holder or self.model)


def version_table(rows: Sequence[VersionRow]) -> list[dict[str, str]]:
    """Rows for the terminal: version, aliases, stage, mean accuracy, gates, registration time, source."""
    return [
        {
            "version": str(row.version),
            "aliases": ", ".join(row.aliases),
            "stage": row.stage,
            "mean accuracy": "" if row.mean_accuracy is None else f"{row.mean_accuracy:.4f}",
            "gates": row.decision,
            "registered": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(row.created_at)),
            "source": row.source,
        }
        for row in rows
    ]


def _row(found: "ModelVersion", aliases: Mapping[str, int]) -> VersionRow:
    tags = dict(found.tags)
    version = int(found.version)
    return VersionRow(
        version=version,
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == version)),
        stage=tags.get("vl3.stage", ""),
        source=found.source or "",
        decision=tags.get(_DECISION, ""),
        mean_accuracy=float(tags["vl3.mean_accuracy"]) if tags.get("vl3.mean_accuracy") else None,
        created_at=found.creation_timestamp / 1000,
        tags=tags,
    )


def _scores(tags: Mapping[str, str]) -> dict[str, ScoreEvidence]:
    return {
        key.removeprefix(_SCORE): ScoreEvidence.from_dict(json.loads(text))
        for key, text in tags.items()
        if key.startswith(_SCORE)
    }


def _recorded_gates(row: VersionRow) -> list[GateResult]:
    texts = [row.tags.get(f"{_GATE}{name}") for name in GATE_NAMES]
    return [GateResult(**json.loads(text)) for text in texts if text]


def _require_passed(model: str, row: VersionRow) -> None:
    """Raise GateError unless the version's tags have a passing result of every gate."""
    results = _recorded_gates(row)
    if row.decision == "passed" and is_promotable(results):
        return
    if not results:
        raise GateError(
            f"{model} v{row.version} was never evaluated, so there is no evidence that it can be champion. Evaluate "
            "it: the workflow's evaluate and promote steps record the evidence."
        )
    missing = [name for name in GATE_NAMES if name not in {result.name for result in results}]
    note = f"\nWithout a result: {', '.join(missing)}." if missing else ""
    raise GateError(f"{model} v{row.version} is refused by the gates:\n{gate_table(results)}{note}")


def _promotion_note(row: VersionRow) -> str:
    by, at = row.tags.get("vl3.promoted_by") or "unknown", row.tags.get("vl3.promoted_at") or "an unknown time"
    return f"promoted by {by} at {at}"


def _version_or_none(text: str | None) -> int | None:
    return int(text) if text and text != _NONE else None
