"""Where Spark runs, and on what, comes from settings alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import services
from spark_jobs import session, submit
from tandem.errors import ConfigError
from tandem.settings import Settings


def test_a_cluster_gets_its_jars_and_no_option_of_one_machine(tmp_path: Path):
    (tmp_path / "delta.jar").touch()
    (tmp_path / "complete").touch()
    found = session.conf(Settings(home=tmp_path, spark_master="spark://host:7077", spark_jars=tmp_path))
    assert found["spark.jars"] == str(tmp_path / "delta.jar")
    assert "spark.driver.extraClassPath" not in found
    assert "spark.driver.bindAddress" not in found


def test_executors_keep_compiled_kernels_in_their_own_folder_unless_told_another(tmp_path: Path):
    key = "spark.executorEnv.NUMBA_CACHE_DIR"
    assert key not in session.conf(Settings(home=tmp_path, spark_jars=tmp_path))
    cluster = {"home": tmp_path, "spark_jars": tmp_path, "spark_master": "spark://host:7077"}
    assert not session.conf(Settings(**cluster))[key].startswith("/")
    assert session.conf(Settings(**cluster, spark_conf=f"{key}=/var/cache/kernels"))[key] == "/var/cache/kernels"


def test_packages_are_asked_for_by_name_until_they_were_fetched(tmp_path: Path):
    found = session.conf(Settings(home=tmp_path, spark_jars=tmp_path))
    assert session.DELTA in found["spark.jars.packages"]
    assert "spark.jars" not in found


def test_jars_fetched_for_folders_alone_do_not_pass_for_those_of_a_lake_on_s3(tmp_path: Path):
    (tmp_path / "delta.jar").touch()
    (tmp_path / "complete").touch()
    on_s3 = Settings(home=tmp_path, lake="s3a://bucket/lake", s3_secret_key="secret", spark_jars=tmp_path)
    assert "hadoop-aws" in session.conf(on_s3)["spark.jars.packages"]


def test_jars_fetched_for_a_lake_on_s3_do_for_a_folder_too(tmp_path: Path):
    (tmp_path / "delta.jar").touch()
    (tmp_path / "complete-s3a").touch()
    found = session.conf(Settings(home=tmp_path, spark_jars=tmp_path))
    assert found["spark.driver.extraClassPath"] == str(tmp_path / "delta.jar")


def test_an_image_that_holds_the_jars_is_asked_for_none(tmp_path: Path):
    found = session.conf(Settings(home=tmp_path, spark_jars=tmp_path, spark_packages=False))
    assert not [key for key in found if "jars" in key]


def test_a_lake_on_s3_brings_its_endpoint_and_credentials(tmp_path: Path):
    settings = Settings(
        home=tmp_path,
        lake="s3a://bucket/lake",
        s3_endpoint="http://127.0.0.1:9",
        s3_access_key="me",
        s3_secret_key="secret",
        spark_jars=tmp_path,
    )
    found = session.conf(settings)
    assert found["spark.hadoop.fs.s3a.endpoint"] == "http://127.0.0.1:9"
    assert found["spark.hadoop.fs.s3a.connection.ssl.enabled"] == "false"
    assert found["spark.hadoop.fs.s3a.access.key"] == "me"
    assert "hadoop-aws" in found["spark.jars.packages"]


def test_further_settings_win_and_a_wrong_one_is_named(tmp_path: Path):
    settings = Settings(home=tmp_path, spark_jars=tmp_path, spark_conf="spark.sql.shuffle.partitions=64; a.b = c=d ")
    found = session.conf(settings)
    assert found["spark.sql.shuffle.partitions"] == "64"
    assert found["a.b"] == "c=d"
    with pytest.raises(ConfigError, match=r"TANDEM_SPARK_CONF: 'nonsense'"):
        session.conf(Settings(home=tmp_path, spark_jars=tmp_path, spark_conf="nonsense"))


def test_a_job_says_which_spark_connect_server_does_not_answer(tmp_path: Path):
    """In a process of its own: a process that once asked a server can't have a Spark of its own any more."""
    (port,) = services.free_ports(1)
    variables = {"TANDEM_HOME": str(tmp_path), "TANDEM_SPARK_CONNECT": f"sc://localhost:{port}"}
    done = subprocess.run(
        [sys.executable, "-m", "spark_jobs.submit", "segments", "--as-of", "2024-01-01"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == submit.AGAIN
    assert f"Spark Connect server at sc://localhost:{port}" in done.stderr
