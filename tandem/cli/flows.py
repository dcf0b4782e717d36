"""What flows: topics, dead letters, projectors."""

from __future__ import annotations

import click

from tandem import settings as settings_file
from tandem.cli.group import main
from tandem.errors import TandemError


@main.command()
@click.option("--region", required=True)
@click.option("--member", default="first", show_default=True, help="Its name among the region's projectors.")
@click.option("--metrics-port", type=int, help="Answer Prometheus there, on loopback.")
@click.option("--from-earliest", is_flag=True, help="Begin with what the broker still has, though messages are gone.")
@click.pass_obj
def project(
    settings: settings_file.Settings, region: str, member: str, metrics_port: int | None, *, from_earliest: bool
) -> None:
    """Bring stock and prices from Kafka into a region's Redis, each change once, until TERM or Ctrl-C."""
    from streams import projector

    projector.project(settings, region, member, metrics_port, click.echo, accept_gap=from_earliest)


@main.group()
def streams() -> None:
    """Kafka: topics, messages, and the way from there into a region's Redis."""


@streams.command("dead-letters")
@click.pass_obj
def dead_letters(settings: settings_file.Settings) -> None:
    """What no consumer could read: where it lay, its key, and why."""
    from streams import dead_letters

    click.echo(dead_letters.as_text(dead_letters.held(settings)) or "there are none")


@streams.command("show")
@click.argument("topic")
@click.option("--key", help="Of messages with this key alone.")
@click.pass_obj
def show(settings: settings_file.Settings, topic: str, key: str | None) -> None:
    """What a topic holds now: partition, offset, key and value of each message."""
    from streams import kept, topics

    found = topics.TOPICS.get(topic)
    if found is None:
        raise TandemError(f"{topic}: is no topic; known are {', '.join(topics.TOPICS)}")
    click.echo(kept.as_text(kept.records(settings, found), key) or "there are none")


@streams.command()
@click.option("--type", "kind", help="The JSON Schema of one type of message instead.")
def schema(kind: str | None) -> None:
    """Topics and messages as an AsyncAPI 3 document: the file docs/streams.asyncapi.json."""
    from streams import messages, schema

    if kind not in (None, *messages.MESSAGES):
        raise TandemError(f"--type {kind}: is no message; known are {', '.join(messages.MESSAGES)}")
    click.echo(schema.json_schema(kind) if kind else schema.asyncapi(), nl=False)


@streams.command()
@click.pass_obj
def topics(settings: settings_file.Settings) -> None:
    """Make the topics that are missing, and give the others the settings that are declared."""
    from streams import broker

    broker.make_topics(settings, click.echo)
