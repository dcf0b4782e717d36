"""The command line names every command, and says what is wrong in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tandem.cli import main


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environment)


def test_help_names_every_command() -> None:
    text = run("--help").output
    for command in main.commands:
        assert command in text
        assert run(command, "--help").exit_code == 0


def test_regions_are_listed_for_a_person_and_a_program(tmp_path: Path) -> None:
    assert run("regions", TANDEM_HOME=str(tmp_path)).output.splitlines()[0].startswith("east ")
    told = json.loads(run("regions", "--json", TANDEM_HOME=str(tmp_path)).output)
    assert [region["name"] for region in told] == ["east", "central", "west"]


@pytest.mark.parametrize(
    ("file", "said"),
    [("regions.toml", "regions.toml: key top level: missing required field `region`; the keys here are region")],
)
def test_a_wrong_file_is_said_in_one_line(tmp_path: Path, file: str, said: str) -> None:
    (tmp_path / file).write_text("")
    result = run("regions", TANDEM_CONFIG=str(tmp_path))
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert said in result.output


def test_a_wrong_setting_is_said_in_one_line() -> None:
    result = run("regions", TANDEM_COLOUR="red")
    assert result.exit_code == 1
    assert result.output.startswith("Error: environment: TANDEM_COLOUR is no setting of Tandem")


def test_a_day_that_is_none_is_refused() -> None:
    assert run("gate", "--as-of", "tomorrow").exit_code == 2
