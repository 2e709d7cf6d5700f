"""``nlsim check``: validate a scenario without running it."""

from __future__ import annotations

from nlsim.cli.run import Overrides, Scenario


def check(scenario: Scenario, overrides: Overrides = None) -> None:
    """Validate SCENARIO and say what it would do; nothing is run or written."""
    import typer  # noqa: PLC0415

    from nlsim.core.state import leaves  # noqa: PLC0415
    from nlsim.scenario.load import load_scenario  # noqa: PLC0415
    from nlsim.simulation.build import build  # noqa: PLC0415

    source = load_scenario(scenario, overrides=overrides or [])
    simulation = build(source)
    values, plan = source.values, simulation.plan
    count = sum(leaf.numel() for leaf in leaves(simulation.state))
    typer.echo(
        f"{source.path or source.name} is valid: {values.system.name} under {values.stepper.name} "
        f"to t = {values.until:g}, a state of {count} numbers, "
        f"{len(plan.times)} frames of {len(plan.channels)} channels."
    )
