"""Makes the TLS of Spark's own ports ask both sides for the cluster's key.

Why it exists: the driver of Spark serves files to who connects to its port, any file that its user may read
(``/artifacts/../..``), and does so before ``spark.authenticate`` is asked for. Its TLS would hold strangers off, but
a constant in Spark says that no client has to show a certificate, and no setting changes that. So the one class that
says it is put before Spark's own on the class path, with that constant changed.

What it must not do: change another class, or guess: a Spark whose class is another one is refused.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from shoal.errors import InfrastructureError

_CLASS = "org/apache/spark/network/ssl/SSLFactory.class"
_KNOWN = "4d0d7d00569367dff6a0b0363d211bbe9cdf86000f60d5d458b4aa061a54af88"  # of Spark 4.1.3, SHA-256
_NOT_NEEDED = b"\x2d\x03\xb6"  # aload_3, iconst_0, invokevirtual: engine.setNeedClientAuth(false)
_NEEDED = b"\x2d\x04\xb6"  # iconst_1: true


def asking_class(spark: Path, folder: Path) -> Path:
    """Write the class below ``folder``, made from that of the Spark in ``spark``; the entry for the class path.

    InfrastructureError for a Spark of another version.
    """
    [jar] = (spark / "jars").glob("spark-network-common_*.jar")
    with zipfile.ZipFile(jar) as archive:
        content = archive.read(_CLASS)
    if hashlib.sha256(content).hexdigest() != _KNOWN or content.count(_NOT_NEEDED) != 1:
        raise InfrastructureError(
            f"{jar.name} is not the one that Shoal knows how to close to other users of this machine",
            hint="Install the pyspark that Shoal asks for: python -m pip install 'shoal[spark]'",
        )
    file = folder / "classes" / _CLASS
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.replace(_NOT_NEEDED, _NEEDED))
    return folder / "classes"
