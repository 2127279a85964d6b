"""The way from a client to its Spark Connect server, which nobody else of the machine can take or be.

Why it exists: pyspark knows TLS with public certificates alone, and sends its token to whoever answers at
``localhost``. Here the server has to show the cluster's own certificate before anything is sent, and the client
shows the same.

What it must not do: start or end anything, or keep a session.
"""

from __future__ import annotations

import os
from typing import Any

from shoal.client.frames import send_by_file
from shoal.model.endpoint import Endpoint


def spark_session(endpoint: Endpoint) -> Any:
    """A new Spark Connect session, not connected before its first use; it becomes this process's default one."""
    from pyspark.sql.connect.session import SparkSession

    # As pyspark.sql's own builder does, which takes no channel: functions look at it.
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
    builder: Any = SparkSession.builder
    session = builder.channelBuilder(_pinned(endpoint)).create()
    if endpoint.files:
        send_by_file(session, endpoint.files)
    return session


def _pinned(endpoint: Endpoint) -> Any:
    """A pyspark ``ChannelBuilder`` for this server alone."""
    import grpc
    from pyspark.sql.connect.client import DefaultChannelBuilder

    from shoal.client.spark_code import WithModules

    class Pinned(DefaultChannelBuilder):  # type: ignore[misc]
        def toChannel(self) -> Any:
            shown = endpoint.security
            if shown:
                channel = grpc.ssl_channel_credentials(
                    root_certificates=shown["tls_ca_file"].encode(),
                    private_key=shown["tls_client_key"].encode(),
                    certificate_chain=shown["tls_client_cert"].encode(),
                )
            else:  # a cluster from before there was TLS
                channel = grpc.local_channel_credentials()
            token = grpc.access_token_call_credentials(endpoint.token)
            return self._secure_channel(self.endpoint, grpc.composite_channel_credentials(channel, token))

    # No proxy of a company's: the server is on this machine, and its name means nothing elsewhere.
    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    if endpoint.name:
        options += [
            ("grpc.ssl_target_name_override", endpoint.name),
            ("grpc.default_authority", endpoint.name),
        ]
    # Never by name: `localhost` is ::1 as well, where somebody else may listen.
    builder = Pinned(endpoint.address.replace("//localhost:", "//127.0.0.1:"), options)
    builder.add_interceptor(WithModules())
    return builder
