"""The Spark session: what it is made of, from settings only; the same for a laptop and a cluster.

`python -m spark_jobs.session --fetch` gets the packages once; `--defaults FILE` writes spark-defaults.conf for
spark-submit; `--serve PORT` is one Spark for many jobs (they find it by TANDEM_SPARK_CONNECT).
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import msgspec

from tandem import settings as settings_file
from tandem.errors import ConfigError, Unavailable
from tandem.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DELTA = "io.delta:delta-spark_4.2_2.13:4.4.0"
S3A = (
    "org.apache.hadoop:hadoop-aws:3.5.0",
    "software.amazon.awssdk:s3:2.35.4",
    "software.amazon.awssdk:s3-transfer-manager:2.35.4",
    "software.amazon.awssdk:sts:2.35.4",
    "software.amazon.awssdk:netty-nio-client:2.35.4",
    "software.amazon.awssdk:apache-client:2.35.4",
    "software.amazon.s3.analyticsaccelerator:analyticsaccelerator-s3:1.3.1",
)
STREAMS = ("org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0", "org.postgresql:postgresql:42.7.8")
# What PySpark's own wheel already holds, or nothing here calls.
EXCLUDES = (
    "org.apache.hadoop:hadoop-client-api",
    "org.apache.hadoop:hadoop-client-runtime",
    "org.apache.parquet:*",
    "org.apache.logging.log4j:*",
    "com.fasterxml.jackson.core:*",
    "com.fasterxml.jackson.datatype:*",
    "org.slf4j:*",
    "org.scala-lang:*",
    "org.scala-lang.modules:*",
    "org.xerial.snappy:*",
    "at.yawk.lz4:*",
    "com.github.luben:*",
    "org.roaringbitmap:*",
    "io.unitycatalog:*",
    "io.delta:delta-kernel-unitycatalog",
    "com.google.code.findbugs:*",
    "org.apache.spark:spark-tags_2.13",
    "org.locationtech.jts:*",
    "io.airlift:*",
    "commons-pool:*",
    "commons-logging:*",
    "commons-codec:*",
    "javax.annotation:*",
    "org.antlr:*",
    "org.checkerframework:*",
    "org.wildfly.openssl:*",
    "software.amazon.awssdk:bundle",
    "io.netty:*",
)
ARCHIVE = "classes.jsa"
"""A JVM class-data archive: Spark's and Delta's classes as they lie in memory, so that a job starts sooner."""

QUICK_START = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseParallelGC"
"""On one machine a job is over before the JVM's second compiler has paid for itself: 15 s became 11.5 s. G1's threads
cost a tenth of a build's CPU more than this collector."""

CONNECT = "org.apache.spark.sql.connect.service.SparkConnectServer"
CONNECT_PORT = 15002
CONNECT_SECONDS = 10.0

KERNELS = "numba"
"""Where executors keep compiled kernels, in their own working folder: it is the one place that they may surely write
to, as the package often belongs to root and their user to no home."""


def conf(settings: Settings) -> dict[str, str]:
    """All Spark settings that follow from Tandem's, the master aside."""
    found = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.shuffle.partitions": str(settings.shuffle_partitions),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.debug.maxToStringFields": "100",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.pyspark.python": sys.executable,
        "spark.pyspark.driver.python": sys.executable,
    }
    if settings.spark_is_local:
        found |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    else:
        found |= {"spark.executorEnv.NUMBA_CACHE_DIR": KERNELS}
    return found | _jars(settings) | _s3a(settings) | _given(settings)


def create(settings: Settings, name: str = "tandem") -> SparkSession:
    """The session of this process, made where there is none."""
    from pyspark.sql import SparkSession

    if settings.spark_connect:
        return _connected(settings, name)
    builder = SparkSession.builder.master(settings.spark_master).appName(name)
    for key, value in conf(settings).items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def submitted(settings: Settings, name: str) -> SparkSession:
    """The session of a process that spark-submit started: master and settings come from there."""
    from pyspark.sql import SparkSession

    return _connected(settings, name) if settings.spark_connect else SparkSession.builder.appName(name).getOrCreate()


def _connected(settings: Settings, name: str) -> SparkSession:
    """A session at a running server, whose conf is its own. Raises Unavailable where nothing listens there.

    One that the address names (`;session_id=`) stays when its job ends, so that the next one finds its Python workers.
    """
    from pyspark.sql import SparkSession

    server = urlsplit(settings.spark_connect)
    try:  # Spark's own client would try for ten minutes
        socket.create_connection((server.hostname or "", server.port or CONNECT_PORT), CONNECT_SECONDS).close()
    except OSError as error:
        raise Unavailable(f"the Spark Connect server at {settings.spark_connect} does not answer: {error}") from error
    os.environ.pop("MASTER", None)  # spark-submit sets it, and Spark takes it for a contradiction
    spark = SparkSession.builder.remote(settings.spark_connect).appName(name).getOrCreate()
    spark.release_session_on_close = "session_id=" not in settings.spark_connect  # type: ignore[attr-defined]
    return spark


def serve(settings: Settings, port: int) -> NoReturn:
    """Become a Spark Connect server on loopback, with the settings that a job of its own would have.

    Who knows the secret in SPARK_CONNECT_AUTHENTICATE_TOKEN of its environment may use it.
    """
    write_defaults(settings, defaults := settings.home.absolute() / "run" / "spark" / "spark-defaults.conf")
    bound = {"spark.connect.grpc.binding.address": "127.0.0.1", "spark.connect.grpc.binding.port": str(port)}
    options = [part for key, value in bound.items() for part in ("--conf", f"{key}={value}")]
    command = [spark_submit(), "--properties-file", str(defaults), *options, "--class", CONNECT, "spark-internal"]
    os.execv(command[0], command)  # noqa: S606 - a list of arguments of our own


def write_defaults(settings: Settings, file: Path) -> None:
    """A spark-defaults.conf with the master and all settings; nobody else may read it, as it may hold S3's secret."""
    lines = [f"{key} {value}" for key, value in {"spark.master": settings.spark_master, **conf(settings)}.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def spark_submit() -> str:
    """The environment's own spark-submit, whatever PATH says."""
    return str(Path(sysconfig.get_path("scripts")) / "spark-submit")


def fetch(settings: Settings) -> None:
    """Get the packages into `settings.spark_jars`, make the class-data archive, compile the kernels: all of it once."""
    folder = _folder(settings)
    if not _local_jars(settings):
        staging = Path(tempfile.mkdtemp(prefix="spark-", dir=_made(folder.parent)))
        _run(settings, {"spark.jars.ivy": str(staging), **_packages(settings)})
        for jar in (staging / "jars").glob("*.jar"):
            jar.replace(_made(folder) / jar.name)
        shutil.rmtree(staging)
        (folder / _complete(settings)).touch()
        (folder / ARCHIVE).unlink(missing_ok=True)  # a JVM passes over one that was made for other jars
    archive = folder / ARCHIVE
    if settings.spark_is_local and not archive.exists():
        fresh = archive.with_suffix(f".{os.getpid()}")
        _run(
            settings,
            {
                **conf(settings),
                "spark.driver.extraJavaOptions": f"{QUICK_START} -XX:ArchiveClassesAtExit={fresh} -Xlog:cds=off",
            },
        )
        if fresh.exists():
            fresh.replace(archive)
    if settings.spark_is_local:
        from spark_jobs import compiled

        compiled.compile_all()


WARM = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
if spark.conf.get("spark.sql.extensions", None):
    rows = spark.range(9).selectExpr("id", "id % 3 AS k", "collect_set(id) OVER (PARTITION BY id % 3) AS s")
    rows.write.format("delta").partitionBy("k").save("{folder}/t")
    again = spark.read.format("delta").load("{folder}/t")
    again.groupBy("k").agg({{"s": "max"}}).join(spark.range(3).toDF("k"), "k").collect()
    some = spark.range(2).selectExpr("id", "1L AS k", "array(id) AS s")
    some.write.format("delta").mode("overwrite").option("replaceWhere", "k = 1").save("{folder}/t")
"""
"""One small job, which loads what jobs need."""


def _run(settings: Settings, found: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (script := Path(folder) / "warm.py").write_text(WARM.format(folder=folder), encoding="ascii")
        arguments = [part for key, value in found.items() for part in ("--conf", f"{key}={value}")]
        command = [spark_submit(), "--master", "local[1]", *arguments, str(script)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-12:])
        raise Unavailable(f"Spark's packages could not be fetched into {_folder(settings)}:\n{last}")


def _folder(settings: Settings) -> Path:
    return settings.spark_jars.expanduser().absolute()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def with_streams(settings: Settings) -> Settings:
    """The settings of a job that reads Kafka or PostgreSQL: what it needs lies in a folder of its own, fetched once."""
    if settings.spark_streams:
        return settings
    return msgspec.structs.replace(settings, spark_streams=True, spark_jars=settings.spark_jars / "streams")


def _on_s3(settings: Settings) -> bool:
    return settings.lake_root.startswith("s3a://")


def _complete(settings: Settings) -> str:
    return "complete" + ("-s3a" if _on_s3(settings) else "") + ("-streams" if settings.spark_streams else "")


def _packages(settings: Settings) -> dict[str, str]:
    wanted = (DELTA, *(S3A if _on_s3(settings) else ()), *(STREAMS if settings.spark_streams else ()))
    return {"spark.jars.packages": ",".join(wanted), "spark.jars.excludes": ",".join(EXCLUDES)}


def _local_jars(settings: Settings) -> list[str]:
    """The fetched jars, or none where the fetch has not been completed for what these settings need."""
    folder = _folder(settings)
    asked = set(_complete(settings).split("-"))
    if not any(asked <= set(path.name.split("-")) for path in folder.glob("complete*")):
        return []
    return sorted(str(path) for path in folder.glob("*.jar"))


def _jars(settings: Settings) -> dict[str, str]:
    """Fetched jars by path, else by name; on one machine on the JVM's own path, where the archive covers them."""
    if not settings.spark_packages:
        return {}
    jars = _local_jars(settings)
    if not jars:
        return _packages(settings)
    if not settings.spark_is_local:
        return {"spark.jars": ",".join(jars)}
    options = [QUICK_START]
    if (archive := _folder(settings) / ARCHIVE).exists():
        options.append(f"-XX:SharedArchiveFile={archive} -Xlog:cds=off -Xlog:cds+dynamic=off")
    return {"spark.driver.extraClassPath": os.pathsep.join(jars), "spark.driver.extraJavaOptions": " ".join(options)}


def _s3a(settings: Settings) -> dict[str, str]:
    if not _on_s3(settings):
        return {}
    found = {
        "endpoint.region": settings.s3_region,
        "path.style.access": "true",
        "access.key": settings.s3_access_key,
        "secret.key": settings.s3_secret,
        "aws.credentials.provider": "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
    }
    if settings.s3_endpoint:
        found["endpoint"] = settings.s3_endpoint
        found["connection.ssl.enabled"] = str(settings.s3_endpoint.startswith("https")).lower()
    return {f"spark.hadoop.fs.s3a.{key}": value for key, value in found.items()}


def _given(settings: Settings) -> dict[str, str]:
    pairs = [part.partition("=") for part in settings.spark_conf.split(";") if part.strip()]
    if wrong := [key for key, equals, _ in pairs if not equals]:
        raise ConfigError(f"TANDEM_SPARK_CONF: {wrong[0]!r} is not key=value; separate settings by ;")
    return {key.strip(): value.strip() for key, _, value in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fetch", action="store_true", help="get Spark's packages once")
    parser.add_argument("--streams", action="store_true", help="with --fetch: also what reads Kafka and PostgreSQL")
    parser.add_argument("--defaults", type=Path, metavar="FILE", help="write spark-defaults.conf")
    parser.add_argument("--serve", type=int, metavar="PORT", help="be a Spark Connect server until stopped")
    options = parser.parse_args()
    settings = settings_file.from_environment()
    if options.fetch:
        fetch(with_streams(settings) if options.streams else settings)
    if options.defaults:
        write_defaults(settings, options.defaults)
    if options.serve:
        serve(settings, options.serve)


if __name__ == "__main__":
    main()
