"""Model versions of a registered model: candidates, the champion, promotion under a lock, rollback.

A version points to a checkpoint by URI; no weights pass through MLflow. The champion is an alias that moves only
(1) under a lock, (2) from the champion that the candidate was compared with, (3) to a version whose tags have a
passing result of every gate.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vl3.errors import ConfigError, GateError
from vl3.system.clock import now_to_the_second
from vl3.system.uris import sqlite_path
from vl3.tracking.client import is_server, open_client, platform_errors, require_answer, shown
from vl3.tracking.evidence import ChampionEvidence, Evidence
from vl3.tracking.gates import GateResult
from vl3.tracking.lock import file_lock, name_lock
from vl3.tracking.versions import (
    MADE_FROM,
    PROMOTION,
    STAGE,
    VersionRow,
    describe,
    evidence_tags,
    promotion_note,
    require_passed,
    row_of,
)

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

_DESCRIPTION = (
    "Checkpoints of a VideoLLaMA 3 model, one version a training stage. **champion** is in use, **candidate** was "
    "registered last, **previous-champion** is what a rollback returns to. A version becomes champion only when every "
    "gate passed; its description says what was measured."
)


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
        run_id: str | None = None,
    ) -> int:
        """Register a checkpoint with the alias `candidate`; registering the same one twice gives one version.

        Returns:
            Number of the version.

        Raises:
            ConfigError: the tracking server refuses the checkpoint's URI.
            ClusterError: MLflow fails.
        """
        made_from = {
            "checkpoint_sha256": checkpoint_sha256,
            "dataset_digest": dataset_digest,
            "config_digest": config_digest,
            "step": step,
            "run_id": run_id,
        }
        with platform_errors(self.tracking_uri, f"register {source_uri} as {self.model}"), self._lock("register"):
            self._ensure_model()
            version = self._same_version(source_uri, checkpoint_sha256)
            if version is None:
                version = self._create_version(
                    source_uri, mlflow_run_id, {STAGE: stage, MADE_FROM: json.dumps(made_from)}
                )
                self._describe(version)
            self._point(CANDIDATE, version)
        return version

    def list_versions(self) -> list[VersionRow]:
        """All versions, newest first; empty if the model was never registered."""
        with platform_errors(self.tracking_uri, f"list the versions of {self.model}"):
            aliases = self._aliases()
            return sorted((row_of(found, aliases) for found in self._versions()), key=lambda row: -row.version)

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

    def named(self, name: str) -> VersionRow:
        """The version with this number or alias.

        Raises:
            ConfigError: there is none; the message lists the aliases or the versions.
        """
        if name.isdecimal():
            return self.get(int(name))
        with platform_errors(self.tracking_uri, f"read the aliases of {self.model}"):
            aliases = self._aliases()
        if name not in aliases:
            known = ", ".join(sorted(aliases)) or "none"
            raise ConfigError(
                f"{self.model} has no alias {name!r} at {shown(self.tracking_uri)}. Its aliases: {known}."
            )
        return self.get(aliases[name])

    def to_compare_with(self, checkpoint_sha256: str) -> VersionRow | None:
        """The champion that a candidate with this checkpoint has to be compared with; None if there is none.

        If the candidate has become champion itself, in an attempt of which the rest was lost, it is the one before, so
        that an evaluation that is started again compares the same two.
        """
        champion = self.champion()
        if champion is None or champion.made_from.get("checkpoint_sha256") != checkpoint_sha256:
            return champion
        earlier = _previous(champion)
        return None if earlier is None else self.get(earlier)

    def champion_evidence(self, checkpoint_sha256: str = "") -> ChampionEvidence | None:
        """The champion that a candidate with this checkpoint has to be compared with, for the gates."""
        champion = self.to_compare_with(checkpoint_sha256)
        if champion is None:
            return None
        digest = str(champion.made_from.get("checkpoint_sha256") or "")
        return ChampionEvidence(version=champion.version, checkpoint_sha256=digest, scores=champion.scores)

    def record_evidence(self, version: int, evidence: Evidence, results: Sequence[GateResult]) -> None:
        """Tag the version with its scores, the decision of each gate and the champion that it was compared with."""
        self._tag(version, evidence_tags(evidence, results))
        self._describe(version)

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
            require_passed(self.model, row)
            if former == version:
                return _previous(row)
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
            row = self.get(current)
            earlier = _previous(row)
            if earlier is None:
                raise GateError(f"{self.model} v{current} is the first champion: there is none to roll back to.")
            before = _previous(self.get(earlier))
            rolled_back = {"rolled_back_at": now_to_the_second(), "rolled_back_by": holder}
            self._tag(current, {PROMOTION: json.dumps({**row.promotion, **rolled_back})})
            self._describe(current)
            self._point_previous(before)
            self._point(CHAMPION, earlier)
        log.info("%s: champion rolled back from v%d to v%d", self.model, current, earlier)
        return current, earlier

    def _move(self, version: int, former: int | None, holder: str) -> None:
        """Move the alias last: until then a crash leaves the previous champion in place."""
        facts = {"previous": former, "at": now_to_the_second(), "by": holder}
        self._tag(version, {PROMOTION: json.dumps(facts)})
        self._describe(version)
        self._point_previous(former)
        self._point(CHAMPION, version)
        log.info("%s: champion moved from %s to v%d", self.model, former, version)

    def _require_unmoved(self, row: VersionRow, champion: int | None) -> None:
        judged_against = row.evidence.get("judged_against")
        if judged_against == champion:
            return
        winner = "there is none" if champion is None else f"it is v{champion} ({promotion_note(self.get(champion))})"
        was = "no champion" if judged_against is None else f"champion v{judged_against}"
        raise GateError(
            f"{self.model} v{row.version} was compared with {was}, but the champion has changed: now {winner}. It "
            "could be worse than the new one. Run the gates again to compare it with the current champion."
        )

    def _point_previous(self, version: int | None) -> None:
        if version is not None:
            self._point(PREVIOUS, version)
        elif PREVIOUS in self._aliases():
            self.client.delete_registered_model_alias(self.model, PREVIOUS)

    def _describe(self, version: int) -> None:
        """Write the description that follows from the tags."""
        with platform_errors(self.tracking_uri, f"describe {self.model} v{version}"):
            self.client.update_model_version(self.model, str(version), describe(self.get(version)))

    def _tag(self, version: int, tags: Mapping[str, str]) -> None:
        with platform_errors(self.tracking_uri, f"tag {self.model} v{version}"):
            for key, value in tags.items():
                self.client.set_model_version_tag(self.model, str(version), key, value)
            written = self.client.get_model_version(self.model, str(version)).tags
            require_answer(tags.items() <= written.items(), f"tags of v{version} as they were written")

    def _point(self, alias: str, version: int) -> None:
        """Set an alias and read it again: MLflow's client takes any JSON for success, a proxy's, too."""
        self.client.set_registered_model_alias(self.model, alias, str(version))
        require_answer(self._aliases().get(alias) == version, f"alias {alias} at v{version}")

    def _ensure_model(self) -> None:
        if not self.client.search_registered_models(filter_string=f"name = '{self.model}'", max_results=1):
            self.client.create_registered_model(self.model, description=_DESCRIPTION)

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
        """The version of a checkpoint. None is asked twice: JSON that a proxy answers reads as an empty list."""
        for _ in range(2):
            for row in (row_of(found, {}) for found in self._versions()):
                if row.source == source_uri and row.made_from.get("checkpoint_sha256") == checkpoint_sha256:
                    return row.version
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


def _previous(row: VersionRow) -> int | None:
    """The champion before a version; None if it was the first."""
    previous = row.promotion.get("previous")
    return previous if isinstance(previous, int) else None
