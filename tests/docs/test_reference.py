"""The reference speaks of everything there is: every field, channel, stepper, theorem, command, dependency."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from nlsim_docs.command_line import command_line_page
from nlsim_docs.schema import schema_page
from nlsim_docs.theorems import theorem_page

from nlsim.integrate.catalogue import ADAPTIVE, STEPPERS
from nlsim.scenario import model
from nlsim.scenario.load import LoadedScenario, load_scenario, parse_scenario, shipped_scenarios
from nlsim.simulation.build import build
from nlsim.systems.catalogue import FOLLOWERS, RESPONDERS, SYSTEMS
from nlsim.theorems.catalogue import THEOREMS
from nlsim.theorems.hamiltonian.backprop_numbers import stepper_table
from nlsim.theorems.hamiltonian.flip_runs import scalar_tracking
from nlsim.theorems.statement import Effort

DOCS = Path(__file__).resolve().parents[2] / "docs"
PYPROJECT = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())


def models() -> list[type[model.Model]]:
    """Return the models that a scenario can hold, bases left out."""
    found = [each for each in vars(model).values() if inspect.isclass(each) and issubclass(each, model.Model)]
    return [each for each in found if not any(other is not each and issubclass(other, each) for other in found)]


def first_cells(markdown: str) -> list[str]:
    return [line.split("|")[1].strip().strip("`") for line in markdown.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("described", models(), ids=lambda each: each.__name__)
def test_schema_page_has_every_field(described: type[model.Model]) -> None:
    section = schema_page().split(f"(scenario-{described.__name__})=")[1].split("\n(scenario-")[0]
    assert set(described.model_fields) <= set(first_cells(section))


def test_theorem_page_has_every_theorem_and_every_leg() -> None:
    page = theorem_page()
    for key, theorem in THEOREMS.items():
        section = page.split(f"`{key}`")[1].split("\n## ")[0]
        rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| ")][2:]
        assert len(rows) == len(theorem.checks)
        assert all(leg.strip() and what.strip() for leg, what in rows), f"a check of {key} has no docstring"


def test_command_line_page_has_every_command() -> None:
    page = command_line_page()
    for command in ("run", "check", "show", "plot", "list", "verify"):
        assert f"## `nlsim {command}`" in page


NETWORK = 'network = {layers = [64, 8, 10], activation = "tanh", output_activation = "identity"}'
STEP = 'precision = {name = "step", rate = 0.1}'
CONSTANTS = {
    "costate_reversal": "speed = 100.0",
    "hamilton_equations": "speed = 100.0",
    "hamiltonian_learning": 'form = "state", beta = 0.01, eta = 0.1, phi = 1.0, speed = 1.0',
    "inference": f'{STEP}, update = {{name = "nlms"}}',
    "incremental_inference": f"{STEP}, rate = 0.1",
    "sequential_inference": 'update = {name = "mean_size", rate = 0.01}',
    "backpropagation": 'descent = {name = "sgd", rate = 0.1}',
    "backpropagation_proximal": "rate = 0.1",
    "error_form": 'update = {name = "lms", rate = 0.1}',
    "fixed_prediction": 'descent = {name = "sgd", rate = 0.1}',
    "zero_divergence": 'descent = {name = "sgd", rate = 0.1}',
    "implicit_sgd": "rate = 0.1",
}
"""What a system needs beside its network; nothing, where it is not listed."""
RESPONSES = {
    "masked_neuron": "inputs = 6, neurons = 3",
    "masked_energy": "inputs = 13, neurons = 3, nudge = 0.1",
    "neumiss": f"inputs = 6, covariance = {[[2.0 * (i == j) for j in range(6)] for i in range(6)]}",
}
"""What a system needs that responds."""


def scenario_of(system: str) -> LoadedScenario:
    """Return a scenario with this system, flipped where it follows a target."""
    if system in FOLLOWERS:
        return load_scenario(
            {"linear_quadratic": "hamiltonian/flip_scalar", "tracking": "hamiltonian/flip_sinusoid"}[system]
        )
    if system in RESPONDERS:
        overrides = [f'system={{name = "{system}", {RESPONSES[system]}}}', 'record.channels=["observed_fraction"]']
        if system == "masked_energy":  # nudged, it has one channel more
            overrides.append(
                'signal={name="samples", dataset="wine", batch=6, interval=40.0, centred=true, scaled=true}'
            )
            overrides.append('mask={name="random", rate=0.5, interval=40.0}')
        return load_scenario("masked/blackout", overrides=overrides)
    text = shipped_scenarios()["hamiltonian/digits"].read_text(encoding="utf-8")
    constants = "".join(f", {each}" for each in [CONSTANTS.get(system), NETWORK] if each)
    overrides = [f'system={{name = "{system}"{constants}}}', 'record.channels=["loss"]', "until=80"]
    return parse_scenario(text, overrides=[*overrides, "stepper.name=explicit_euler"])


def channel_rows() -> dict[str, list[str]]:
    """Return the cells of the channel page by the name of the channel."""
    rows = {}
    for line in (DOCS / "reference" / "channels.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 5:
            rows[cells[0].strip("`")] = cells[1:]
    return rows


@pytest.mark.parametrize("system", SYSTEMS)
def test_channel_page_has_every_channel_of_a_system(system: str) -> None:
    built, page, seen = build(scenario_of(system)), channel_rows(), set()
    for name, channel in built.system.observables().items():
        row = re.sub(r"/\d+$", "/l", name)
        seen.add(row)
        assert row in page, name
        dims, units, _, systems = page[row]
        for dim in channel.dims:
            assert re.sub(r"_\d+$", "_l", dim) in dims, f"{row}, {dim}"
        assert units == channel.units, row
        assert f"`{system}`" in systems or systems.startswith("all"), f"{row}, {channel.long_name}"
    named = {row for row, cells in page.items() if f"`{system}`" in cells[3]}
    assert named <= seen, f"{system} has no {named - seen}"


@pytest.mark.parametrize("name", shipped_scenarios())
def test_table_of_scenarios_has_every_file(name: str) -> None:
    readme = (DOCS.parent / "scenarios" / "README.md").read_text(encoding="utf-8")
    assert f"`{name}.toml`" in readme


def test_every_stepper_has_a_row_with_its_order() -> None:
    page = (DOCS / "how-to" / "choose-a-stepper.md").read_text(encoding="utf-8").split("\n## ")[0]
    cells = [[cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in page.splitlines()]
    rows = {row[0]: row for row in cells if len(row) == 5}
    assert set(rows) - {"stepper", "---"} == {*STEPPERS, ADAPTIVE}
    for name, stepper in STEPPERS.items():
        assert re.match(rf"{stepper.order}\b", rows[name][2]), name


def test_table_of_gradient_errors_is_the_measured_one() -> None:
    page = (DOCS / "how-to" / "choose-a-stepper.md").read_text(encoding="utf-8")
    measured = stepper_table(Effort()).tables[0]
    written = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line[:5] == "| 1e+"]
    assert f"| {' | '.join(measured.columns)} |" in page
    assert len(written) == len(measured.rows)
    for shown, found in zip(written, measured.rows, strict=True):
        for a, b in zip(shown, found, strict=True):
            if a == "refused":
                assert b.startswith("refused")
            elif float(a) < 1e-12:  # round-off: its digits are the machine's own
                assert float(b) < 1e-12
            else:
                assert float(a) == pytest.approx(float(b), rel=0.02)


def test_changelog_has_every_system_and_every_scenario() -> None:
    page = (DOCS / "contributing" / "changelog.md").read_text(encoding="utf-8")
    for system in SYSTEMS:
        assert f"`{system}`" in page, system
    for scenario in shipped_scenarios():
        family, name = scenario.split("/")
        assert f"`{scenario}`" in page or (f"`{family}/" in page and f"`{name}`" in page), scenario


def test_the_absolute_errors_of_the_sign_flip_are_the_measured_ones() -> None:
    page = (DOCS / "explanation" / "sign-flip.md").read_text(encoding="utf-8")
    measured = scalar_tracking([10.0, 100.0, 1000.0]).rms.tolist()
    assert f"| rms(x − z) | {' | '.join(f'{each:.3g}' for each in measured)} |" in page


def test_page_of_the_equations_names_every_system_of_its_family() -> None:
    page = (DOCS / "explanation" / "hamiltonian.md").read_text(encoding="utf-8")
    family = {name for name, entry in SYSTEMS.items() if "hamiltonian" in entry.system.__module__} | {"heavy_ball"}
    assert family == {name for name in first_cells(page) if name not in ("system", "---")}


def dependencies() -> set[str]:
    project = PYPROJECT["project"]
    given = [
        *PYPROJECT["build-system"]["requires"],
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    names = {re.split(r"[\[<>=~!; ]", each)[0] for each in given}
    return names - {"nlsim"}


def test_dependencies_are_listed_and_no_others() -> None:
    page = (DOCS / "contributing" / "dependencies.md").read_text(encoding="utf-8")
    assert set(first_cells(page)) - {"package", "---"} == dependencies()


def figure_script() -> ModuleType:
    """Return tools/figures/sign_flip.py as a module."""
    path = DOCS.parent / "tools" / "figures" / "sign_flip.py"
    spec = importlib.util.spec_from_file_location("sign_flip_figures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_tables_of_the_sign_flip_are_the_measured_ones() -> None:
    page = (DOCS / "explanation" / "sign-flip.md").read_text(encoding="utf-8")
    script = figure_script()
    stable = script.baselines()
    unstable = script.baselines(replace(script.SCALAR, drift=1.0))
    for table in (script.network_rows(), script.formula_rows(), script.baseline_rows(stable, unstable)):
        assert script.markdown(table) in page


def test_figures_are_small() -> None:
    assert (DOCS / "_static" / "digits.png").stat().st_size < 200_000
    for figure in (DOCS / "_static" / "sign-flip").iterdir():
        assert figure.stat().st_size < 150_000, figure.name


def test_every_figure_of_the_sign_flip_is_shown_and_every_shown_one_is_there() -> None:
    page = (DOCS / "explanation" / "sign-flip.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"_static/sign-flip/([\w.]+)", page))
    assert shown == {figure.name for figure in (DOCS / "_static" / "sign-flip").iterdir()}
