"""Environment variables to set before MLflow is imported. Standard library only."""

MLFLOW_ENVIRONMENT: dict[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""Defaults that entry points apply (without overwriting what is set) before MLflow is first imported.

No usage telemetry; its INFO lines go to our own log and no links to stdout; a server that stops answering fails within
a minute instead of many.
"""
