"""Fixtures that these tests share with others."""

from tests.support.pipelines_server import make_pipelines_server, pipelines_server

__all__ = ["make_pipelines_server", "pipelines_server"]
