"""How to reach the API server: address, certificates and credentials as the `kubernetes` client finds them."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.errors import ConfigError

if TYPE_CHECKING:
    import urllib3

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEFAULT_NAMESPACE = "vl3"

# The kernel detects a dead connection, so that watches and logs need no short read timeouts.
_KEEP_ALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


class Connection:
    """One API server, and our credentials for it."""

    def __init__(self, configuration: Any, namespace: str, source: str, context: str | None = None) -> None:
        """Use `connect` to create one."""
        self._configuration = configuration
        self._context = context
        self.namespace = namespace
        self.source = source
        """Where the address and the credentials come from, for messages."""
        self.pool = _pool(configuration)

    @property
    def server(self) -> str:
        """Address of the API server."""
        return str(self._configuration.host).rstrip("/")

    def authorization(self) -> dict[str, str]:
        """The header with our token; a service account's token is read again when it is rotated."""
        token = self._configuration.get_api_key_with_prefix("authorization")
        return {"Authorization": token} if token else {}

    def reload(self) -> None:
        """Read the credentials again, as after a login: the API server rejected the current ones."""
        self._configuration, _, _ = _load(self.source, self._context)
        self.pool.clear()
        self.pool = _pool(self._configuration)


def connect(namespace: str | None = None, kubeconfig: Path | None = None, context: str | None = None) -> Connection:
    """The connection of a pod to its own cluster, otherwise that of the kubeconfig's current context.

    Args:
        namespace: namespace to work in; None uses the pod's own, the context's, or `vl3`.
        kubeconfig: file to use; None uses a pod's service account, otherwise KUBECONFIG or ~/.kube/config.
        context: context of the kubeconfig; None uses a pod's service account, otherwise the current context.

    Raises:
        ConfigError: there is neither, or the file cannot be used.
    """
    configuration, found, source = _load(str(kubeconfig) if kubeconfig else None, context)
    return Connection(configuration, namespace or found or DEFAULT_NAMESPACE, source, context)


def _load(source: str | None, context: str | None = None) -> tuple[Any, str | None, str]:
    """Configuration, namespace and their source; `source` is a file or the source of an earlier result."""
    from kubernetes import client, config

    configuration = client.Configuration()
    if source in (None, _IN_CLUSTER) and context is None:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            if source is not None:
                raise ConfigError(
                    "the service account's token is gone from this pod. Make the pod mount it (serviceAccountName, "
                    "automountServiceAccountToken) and start again."
                ) from None
        else:
            namespace = NAMESPACE_FILE.read_text(encoding="utf-8").strip() if NAMESPACE_FILE.is_file() else None
            return configuration, namespace, _IN_CLUSTER
    path = source or config.KUBE_CONFIG_DEFAULT_LOCATION
    try:
        config.load_kube_config(config_file=path, context=context, client_configuration=configuration)
        contexts, current = config.list_kube_config_contexts(config_file=path)
    except (config.ConfigException, OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"no cluster is configured: this is not a pod with a service account, and {path} cannot be used ({error}). "
            "Set KUBECONFIG to the cluster's file (`make kind-up` writes build/kind/kubeconfig), or set "
            "launch.backend=local."
        ) from error
    chosen = next((item for item in contexts if item["name"] == context), current)
    return configuration, chosen["context"].get("namespace"), path


def _pool(configuration: Any) -> "urllib3.PoolManager":
    import urllib3
    from kubernetes.client.rest import RESTClientObject

    if not configuration.verify_ssl:  # the kubeconfig says so; a warning at every request adds nothing
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    pool = RESTClientObject(configuration, maxsize=8).pool_manager
    pool.connection_pool_kw["socket_options"] = _KEEP_ALIVE
    return pool


_IN_CLUSTER = "the pod's service account"
