"""The Kubeflow Pipelines server: one connection through the kfp client, with its errors as our families.

Importing this module imports kfp, which takes seconds, so only commands that use a server do it.
"""

import contextlib
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import kfp
import kfp_server_api
import urllib3
from kfp.client import ServiceAccountTokenVolumeCredentials
from kfp_server_api.rest import RESTClientObject

from vl3.config.parameters import refuse_secret
from vl3.errors import ClusterError, ConfigError, Vl3Error

ENDPOINT_VARIABLE = "VL3_KFP_ENDPOINT"
_TOKEN_VARIABLE = "VL3_KFP_TOKEN"
_COOKIES_VARIABLE = "VL3_KFP_COOKIES"
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_TOKEN_PATH_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
_SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"
_TIMEOUT_SECONDS = 30.0
_PAGE_SIZE = 100
_VERSIONS_PAGE = 10  # each has its whole workflow; the one that is looked for is mostly the newest
_OLDEST = (2, 17)
"""The release for which the workflow is compiled."""


class _Rest(RESTClientObject):
    """Adds what kfp's client does not do: timeouts, and a look at the answer, of which it makes an empty object."""

    def request(self, *args: Any, **kwargs: Any) -> Any:
        limits = (_TIMEOUT_SECONDS, _TIMEOUT_SECONDS)  # to connect, between two bytes
        answer = super().request(*args, **kwargs | {"_request_timeout": limits})
        if not isinstance(json.loads(answer.data), dict):
            raise ValueError("the answer is not a JSON object")
        return answer


class _Client(kfp.Client):
    """kfp's client without its start-up: five requests within 25 seconds, and a file in the user's home."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._run_api.api_client.rest_client = _Rest(self._existing_config)  # shared by all of kfp's services

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:  # noqa: ARG002 - kfp's signature
        return kfp_server_api.V2beta1GetHealthzResponse(multi_user=False)


class Server:
    """A Kubeflow Pipelines server.

    Args:
        endpoint: its address, `https://pipelines.example.org`.
        namespace: the team's namespace on a multi-user server; empty on a single-user one.
        environ: variables for token (VL3_KFP_TOKEN, or kfp's own for a service account's), cookies (VL3_KFP_COOKIES)
            and certificates (SSL_CERT_FILE).

    Raises:
        Vl3Error: it cannot be reached, or refuses.
    """

    def __init__(self, endpoint: str, namespace: str, environ: "os._Environ[str] | dict[str, str]") -> None:
        self.endpoint = _checked(endpoint)
        self.namespace = namespace
        self.version = ""
        """What the server says of its release; empty or `unknown` for a build without a tag."""
        self.is_multi_user: bool | None = None
        """Whether it has a namespace for each team; None before it has answered."""
        self._ca = next((environ[name] for name in _CA_VARIABLES if environ.get(name)), None)
        self._cookies = environ.get(_COOKIES_VARIABLE) or None
        self._specs: dict[str, Any] = {}  # by the id of their pipeline version
        token_path = environ.get(_TOKEN_PATH_VARIABLE, _SERVICE_ACCOUNT_TOKEN)
        with self._errors("connect"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._client = _Client(
                host=self.endpoint,
                namespace=namespace or "kubeflow",
                existing_token=environ.get(_TOKEN_VARIABLE) or None,
                cookies=self._cookies,
                ssl_ca_cert=self._ca,
                credentials=ServiceAccountTokenVolumeCredentials(token_path) if Path(token_path).exists() else None,
            )
            self._require_answer()

    def submit(self, workflow: Any, *, name: str, experiment: str, parameters: dict[str, Any], account: str) -> Any:
        """Start a run of a compiled workflow: the Path of one to upload, or a pipeline version of the server.

        Raises:
            Vl3Error: the server is too old, or refuses the workflow, the namespace or our credentials.
        """
        self._require_release()
        silent = contextlib.redirect_stdout(io.StringIO())  # kfp prints its own links
        if isinstance(workflow, Path):
            source = {"pipeline_package_path": str(workflow)}
        else:
            source = {"pipeline_id": workflow.pipeline_id, "version_id": workflow.pipeline_version_id}
        with self._errors(f"submit the run {name!r}"), silent:
            home = self._client.create_experiment(experiment, namespace=self.namespace or None)
            return self._client.run_pipeline(
                home.experiment_id, name, params=parameters, service_account=account or None, **source
            )

    def versions(self, pipeline: str) -> Iterator[Any]:
        """Versions of a pipeline by its name, the newest first.

        Nothing is asked by filter: a server that keeps pipelines as Kubernetes objects refuses kfp's EQUALS.
        """
        with self._errors(f"list the versions of the pipeline {pipeline}"):
            pipelines = _items(self._pipelines, "pipelines")
            for found in [one for one in pipelines if one.name == pipeline]:
                yield from _items(partial(self._versions, found.pipeline_id), "pipeline_versions")

    def runs(self, name: str = "", *, limit: int = _PAGE_SIZE) -> list[Any]:
        """Runs, newest first; only those called `name`, if given."""
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        found: list[Any] = []
        token = ""
        with self._errors("list runs"):
            while len(found) < limit:
                page = self._client.list_runs(
                    page_token=token,
                    page_size=min(_PAGE_SIZE, limit - len(found)),
                    sort_by="created_at desc",
                    namespace=self.namespace or None,
                    filter=json.dumps({"predicates": [predicate]}) if name else None,
                )
                found += page.runs or []
                token = page.next_page_token or ""
                if not token:
                    break
        return found

    def run(self, kfp_id: str) -> Any:
        """A run with all its tasks, by the server's own id."""
        with self._errors(f"read the run {kfp_id}", missing=f"run {kfp_id} is not known"):
            run = self._client.get_run(kfp_id)
            if not run.pipeline_spec and run.pipeline_version_reference:
                run.pipeline_spec = self._spec_of(run.pipeline_version_reference)
            return run

    def terminate(self, kfp_id: str) -> None:
        """Ask the server to stop a run."""
        with self._errors(f"cancel the run {kfp_id}", missing=f"run {kfp_id} is not known"):
            self._client.terminate_run(kfp_id)

    def log(self, kfp_id: str, pod: str) -> Iterator[str]:
        """Lines of a pod's log as far as it is written; kfp's client has no call for this route, which cannot follow.

        Raises:
            ConfigError: the server refuses.
            ClusterError: the pod is gone and the server has no archive of its log, or the server cannot be reached.
        """
        path = f"/apis/v1alpha1/runs/{quote(kfp_id, safe='')}/nodes/{quote(pod, safe='')}/log"
        with self._errors(f"read the log of {pod}"):
            response = self._get(path)
            if "html" in response.headers.get("content-type", ""):
                raise ValueError("it sends a page")
            for line in _lines(response):
                if reason := _failure_in(line):
                    raise ClusterError(
                        f"{self.endpoint} has no log of pod {pod}: the pod is gone, and so is its log, or was never "
                        f"archived ({reason}). `vl3 run status` and the run's page in MLflow say how its task ended; "
                        "for later runs, let the server archive logs (archiveLogs in its workflow controller's "
                        "settings)."
                    )
                yield line

    def link(self, kfp_id: str) -> str:
        """Address of a run's page."""
        return f"{self.endpoint}/#/runs/details/{kfp_id}"

    def _pipelines(self, token: str) -> Any:
        return self._client.list_pipelines(page_token=token, page_size=_PAGE_SIZE, namespace=self.namespace or None)

    def _versions(self, pipeline_id: str, token: str) -> Any:
        return self._client.list_pipeline_versions(
            pipeline_id, page_token=token, page_size=_VERSIONS_PAGE, sort_by="created_at desc"
        )

    def _spec_of(self, version: Any) -> Any:
        """The workflow of a pipeline version, which the server leaves out of the version's runs.

        A version never changes, so it is asked once. None if it has been deleted: its runs outlive it.
        """
        key = version.pipeline_version_id
        if key not in self._specs:
            try:
                self._specs[key] = self._client.get_pipeline_version(version.pipeline_id, key).pipeline_spec
            except kfp_server_api.ApiException as error:
                if error.status != 404:
                    raise
                self._specs[key] = None
        return self._specs[key]

    def _require_answer(self) -> None:
        """Check that this is a Kubeflow Pipelines server that accepts us: kfp takes a login page for an empty answer.

        The API server and the user interface in front of it name its release differently.

        Raises:
            ValueError, AttributeError: something else answers.
        """
        facts = json.loads(self._get("/apis/v2beta1/healthz").data)
        self.version = str(facts.get("tag_name") or facts.get("apiServerTagName") or "")
        self.is_multi_user = bool(facts.get("multi_user"))

    def _require_release(self) -> None:
        found = re.match(r"v?(\d+)\.(\d+)", self.version)
        if found and tuple(map(int, found.groups())) < _OLDEST:
            wanted = ".".join(map(str, _OLDEST))
            raise ConfigError(
                f"{self.endpoint} is Kubeflow Pipelines {self.version}; the workflow is compiled for {wanted} and "
                "newer. Have the server upgraded, or name another with --endpoint."
            )

    def _get(self, path: str) -> urllib3.BaseHTTPResponse:
        """One request outside of kfp's client, with its credentials."""
        configuration = self._client._existing_config
        headers = {"cookie": self._cookies} if self._cookies else {}
        if hook := getattr(configuration, "refresh_api_key_hook", None):
            hook(configuration)
        if key := configuration.get_api_key_with_prefix("authorization"):
            headers["authorization"] = key
        pool = urllib3.PoolManager(ca_certs=self._ca) if self._ca else urllib3.PoolManager()
        timeout = urllib3.Timeout(connect=_TIMEOUT_SECONDS, read=_TIMEOUT_SECONDS)
        response = pool.request(
            "GET",
            f"{self.endpoint}{path}",
            headers=headers,
            timeout=timeout,
            redirect=False,
            retries=2,
            preload_content=False,
        )
        if response.status >= 400:
            raise kfp_server_api.ApiException(http_resp=_Answer(response))
        if response.status >= 300:
            raise ValueError(f"it redirects to {response.headers.get('location', 'another address')}")
        return response

    def _refusal(self, error: kfp_server_api.ApiException, action: str, missing: str) -> Vl3Error:
        status, said = int(error.status or 0), _said(error)
        where = f"namespace {self.namespace!r} of {self.endpoint}" if self.namespace else self.endpoint
        if status == 401:
            return ConfigError(
                f"{self.endpoint} rejects our credentials (401, tried to {action}: {said}). The token is missing, "
                f"wrong or has expired: set {_TOKEN_VARIABLE} or {_COOKIES_VARIABLE} again."
            )
        if status == 403:
            return ConfigError(f"{where}: no permission to {action} (403: {said}). {self._namespace_advice()}")
        if status == 404 and missing:
            return ConfigError(f"{missing} to {where}. `vl3 run list` shows its runs.")
        if 400 <= status < 500 and status != 429:
            return ConfigError(
                f"{where} refuses to {action} ({status}: {said}). {self._namespace_advice()} The server must be "
                f"{'.'.join(map(str, _OLDEST))} or newer."
            )
        return ClusterError(f"{where} failed to {action} ({status}: {said}). Try again, or check its log.")

    def _namespace_advice(self) -> str:
        if self.is_multi_user and not self.namespace:
            return "The server has a namespace for each team: set --namespace to yours."
        if self.is_multi_user is False and self.namespace:
            return "The server serves one team and knows no namespaces: leave out --namespace."
        return "Check --namespace, or ask its owner for permission."

    @contextlib.contextmanager
    def _errors(self, action: str, *, missing: str = "") -> Iterator[None]:
        try:
            yield
        except kfp_server_api.ApiException as error:
            raise self._refusal(error, action, missing) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _unreachable(error, self.endpoint, action) from error
        except (ValueError, TypeError, AttributeError) as error:
            raise ClusterError(
                f"{self.endpoint} does not answer like Kubeflow Pipelines (tried to {action}: {_short(error)}). "
                f"There may be a login page in front of it: check the endpoint, or set {_COOKIES_VARIABLE} or "
                f"{_TOKEN_VARIABLE}."
            ) from error


def _items(page_of: Callable[[str], Any], name: str) -> Iterator[Any]:
    """What all pages hold, each asked when the one before is used up; a page without items is the last."""
    token = ""
    while items := getattr(page := page_of(token), name):
        yield from items
        token = page.next_page_token or ""
        if not token:
            return


class _Answer:
    """A refused answer in the form that kfp's exception takes."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self.status, self.reason, self.data = response.status, response.reason, response.data
        self.getheaders = lambda: response.headers


def _checked(endpoint: str) -> str:
    refuse_secret("--endpoint", endpoint, is_address=True)
    try:
        parts = urlsplit(endpoint)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # `http://[x`, or a port that is no number
        is_url = False
    if not is_url:
        reason = f"endpoint {endpoint!r} is not a URL" if endpoint else "no endpoint of Kubeflow Pipelines is set"
        raise ConfigError(
            f"{reason}. Set it with --endpoint https://pipelines.example.org or in {ENDPOINT_VARIABLE}; for a server "
            "inside a cluster: kubectl port-forward -n kubeflow svc/ml-pipeline 8888, then http://localhost:8888."
        )
    return endpoint.rstrip("/")


def _unreachable(error: Exception, endpoint: str, action: str) -> ClusterError:
    reason = _short(getattr(error, "reason", None) or error)
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        advice = f"Set {_CA_VARIABLES[0]} to the file with its authority's certificate."
    else:
        advice = "Check the address, the network and that the server runs."
    return ClusterError(f"{endpoint} cannot be reached (tried to {action}: {reason}). {advice}")


def _said(error: kfp_server_api.ApiException) -> str:
    """The server's own message, without headers and traces."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else (error.body or "")
    try:
        data = json.loads(body)
        body = data.get("message") or data.get("error") or body
    except (ValueError, AttributeError):
        pass
    return _short(body or error.reason or "no reason given")


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[str]:
    rest = b""
    for chunk in response.stream(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def _failure_in(line: str) -> str:
    """The reason in a line that is not of a log but of the server, which sends its errors with status 200."""
    if not line.startswith('{"error_message":'):
        return ""
    try:
        said = json.loads(line)
    except ValueError:
        return ""
    return _short(said["error_message"]) if said.keys() == {"error_message", "error_details"} else ""
