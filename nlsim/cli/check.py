"""``nlsim check``: validate a scenario without running it."""

from __future__ import annotations

from nlsim.cli.run import Overrides, Scenario


def check(scenario: Scenario, overrides: Overrides = None) -> None:
    """Validate SCENARIO and say what it would do; nothing is run or written."""
    import typer

    from nlsim.core.state import leaves
    from nlsim.scenario.load import load_scenario
    from nlsim.simulation.build import build

    source = load_scenario(scenario, overrides=overrides or [])
    simulation = build(source)
    values, plan = source.values, simulation.plan
    count = sum(leaf.numel() for leaf in leaves(simulation.state))
    typer.echo(
        f"{source.path or source.name} is valid: {values.system.name} under {values.stepper.name} "
        f"to t = {values.until:g}, a state of {count} numbers, "
        f"{len(plan.times)} frames of {len(plan.channels)} channels."
    )
