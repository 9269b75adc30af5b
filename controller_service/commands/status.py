"""``governor status``."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from controller_service.commands.client import call, controller_option


@click.command()
@controller_option
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
def status(controller: str, as_json: bool) -> None:
    """Show the controller and its engines."""
    answer = call(controller, "/v1/status")
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
        return
    click.echo(
        f"controller {answer['controller_id']} {answer['version']}  "
        f"policy {answer['policy']}  up {answer['uptime_s']:.0f} s"
    )
    if answer.get("log"):
        _show_log(answer["log"])
    if not answer["engines"]:
        click.echo("no engine has introduced itself")
    for engine in answer["engines"]:
        _show(engine)


def _show_log(log: dict[str, Any]) -> None:
    dropped = sum(log["dropped"].values())
    click.echo(
        f"log        {log['folder']}  {log['files']} files  {log['bytes'] / 2**20:.1f} MiB  "
        f"{sum(log['written'].values())} records  {dropped} dropped"
    )
    if log["error"]:
        click.echo(f"           cannot be written: {log['error']}")


def _show(engine: dict[str, Any]) -> None:
    predictor, turnaround = engine["predictor"], engine["turnaround_us"]
    where = engine.get("url") or "no HTTP address told"  # an older plugin, or used as a library
    click.echo(
        f"\n{engine['engine_id']}  {where}  {engine['model']}  "
        f"SGLang {engine['sglang_version']}  tp {engine['tp_size']}"
    )
    counted = [f"{name} {count}" for name, count in engine["outcomes"].items() if count]
    outcomes = f"  decisions: {', '.join(counted)}" if counted else ""
    click.echo(f"  steps      {engine['steps']} reported{outcomes}")
    age_s = engine["last_snapshot_age_s"]
    click.echo(f"  rows       {engine['rows']} in the newest report; heard of {age_s:.1f} s ago")
    if turnaround["p50"] is not None:
        click.echo(
            f"  turnaround p50 {turnaround['p50']:.0f} us, p99 {turnaround['p99']:.0f} us, from "
            "report to decision"
        )
    click.echo(f"  predictor  {predictor['name']}, {_learnt(predictor)}")
    for one in engine.get("unmet", ()):
        click.echo(f"  without    {one['policy']} does nothing here: {one['why']}")


def _learnt(predictor: dict[str, Any]) -> str:
    """How good a predictor is, and what it stands on."""
    words = "fitted" if predictor["fitted"] else "still learning"
    error = predictor["mape_recent"]
    if error is not None:
        words += f"; recent decode steps took {error:.1%} more or less than predicted, on average"
    model = predictor.get("model", {}).get("model")
    return f"{words}; model {model}" if model else words
