"""Settings are read once from the environment; a wrong one is named."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tandem.errors import ConfigError
from tandem.settings import Settings, from_environment


def test_what_is_not_set_has_its_default() -> None:
    assert from_environment({"PATH": "/bin"}) == Settings()


def test_a_variable_becomes_its_type() -> None:
    found = from_environment({"TANDEM_HOME": "/srv/t", "TANDEM_EDGE_PORT": "9000", "TANDEM_SPARK_PACKAGES": "false"})
    assert (found.home, found.edge_port, found.spark_packages) == (Path("/srv/t"), 9000, False)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TANDEM_EDGE_PROT", "1", "TANDEM_EDGE_PROT is no setting of Tandem; did you mean TANDEM_EDGE_PORT?"),
        ("TANDEM_ZZZ", "1", "TANDEM_ZZZ is no setting of Tandem"),
        ("TANDEM_EDGE_PORT", "http", "TANDEM_EDGE_PORT: "),
        ("TANDEM_QUOTE_TTL_SECONDS", "0", "TANDEM_QUOTE_TTL_SECONDS must be at least 1, not 0"),
        ("TANDEM_STOCK_LIMIT_SECONDS", "-5", "TANDEM_STOCK_LIMIT_SECONDS must be at least 1"),
        ("TANDEM_CANARY_SECONDS", "-1", "TANDEM_CANARY_SECONDS must not be negative"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        from_environment({name: value})
    assert "\n" not in str(error.value)


def test_the_lake_lies_in_the_home_unless_said_otherwise(tmp_path: Path) -> None:
    assert Settings(home=tmp_path).lake_root == str(tmp_path / "lake")
    assert Settings(home=tmp_path, lake="s3a://bucket/lake/").lake_root == "s3a://bucket/lake"
    assert Settings(home=tmp_path).config_folder == tmp_path / "config"


def test_a_secret_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    made = settings.secret("quote")
    assert len(made) == 64
    assert settings.secret("quote") == made != settings.secret("deltas")
    path = tmp_path / "secrets" / "quote"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_all_who_ask_for_a_new_secret_at_once_get_the_same(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with ThreadPoolExecutor(16) as pool:
        for round_ in range(40):
            found = set(pool.map(settings.secret, [f"s{round_}"] * 16))
            assert len(found) == 1
            assert len(found.pop()) == 64
    assert len(list((tmp_path / "secrets").iterdir())) == 40


def test_a_given_s3_secret_wins(tmp_path: Path) -> None:
    assert Settings(home=tmp_path, s3_secret_key="given").s3_secret == "given"
    assert Settings(home=tmp_path).s3_secret == Settings(home=tmp_path).secret("s3")
