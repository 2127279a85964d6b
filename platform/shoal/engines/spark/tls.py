"""Makes the TLS of Spark's own ports ask both sides for the cluster's key.

Why it exists: the driver of Spark serves files to who connects to its port, any file that its user may read
(``/artifacts/../..``), and does so before ``spark.authenticate`` is asked for. Its TLS would hold strangers off, but
a constant in Spark says that no client has to show a certificate, and no setting changes that. So the one class that
says it is put before Spark's own on the class path, with that constant changed.

What it must not do: change another class, or guess: a Spark whose class is another one is refused.
"""

from __future__ import annotations

import hashlib
import secrets
import zipfile
import zlib
from pathlib import Path

from shoal.errors import InfrastructureError

_CLASS = "org/apache/spark/network/ssl/SSLFactory.class"
_KNOWN = "4d0d7d00569367dff6a0b0363d211bbe9cdf86000f60d5d458b4aa061a54af88"  # of Spark 4.1.3, SHA-256
_NOT_NEEDED = b"\x2d\x03\xb6"  # aload_3, iconst_0, invokevirtual: engine.setNeedClientAuth(false)
_NEEDED = b"\x2d\x04\xb6"  # iconst_1: true


def asking_jar(spark: Path, folder: Path) -> Path:
    """The jar with that one class, made from the Spark in ``spark``, kept in ``folder``; for the class path.

    It stays the same file, as a :mod:`class archive <shoal.engines.spark.archive>` wants.

    Raises:
        InfrastructureError: a Spark of another version.
    """
    [theirs] = (spark / "jars").glob("spark-network-common_*.jar")
    with zipfile.ZipFile(theirs) as jar:
        content = jar.read(_CLASS)
    if hashlib.sha256(content).hexdigest() != _KNOWN or content.count(_NOT_NEEDED) != 1:
        raise InfrastructureError(
            f"{theirs.name} is not the one that Shoal knows how to close to other users of this machine",
            hint="Install the pyspark that Shoal asks for: python -m pip install 'shoal[spark]'",
        )
    changed = content.replace(_NOT_NEEDED, _NEEDED)
    file = folder / f"asking-{_KNOWN[:8]}.jar"
    if _class_of(file) != changed:
        made = folder / f"{file.name}.{secrets.token_hex(4)}"
        with zipfile.ZipFile(made, "w") as jar:
            jar.writestr(zipfile.ZipInfo(_CLASS), changed)
        made.replace(file)
    return file


def _class_of(file: Path) -> bytes | None:
    """The class in a jar of ours; None where it cannot be read."""
    try:
        with zipfile.ZipFile(file) as jar:
            return jar.read(_CLASS)
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error):
        return None
