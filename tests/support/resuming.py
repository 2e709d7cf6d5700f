"""Runs that are stopped and resumed: every system with the steppers it takes, and what a file holds to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nlsim
from nlsim.integrate.catalogue import ADAPTIVE
from nlsim.record import read_checkpoint
from nlsim.scenario.load import LoadedScenario, parse_scenario
from nlsim.simulation.resume import resume
from nlsim.simulation.run import run
from nlsim.systems.catalogue import RESPONDERS, SYSTEMS

EXPLICIT = ["explicit_euler", "heun", "rk4", "sdirk2", "implicit_midpoint", "gauss4", ADAPTIVE]
"""What every system takes."""
SWEEPS = ["implicit_sweep", "exponential_sweep", "exponential_euler", "etdrk2", "etdrk4"]
SPLIT = ["symplectic_euler", "symplectic_euler_adjoint", "stormer_verlet", "conformal_verlet"]
OFFERED = {
    **dict.fromkeys(SYSTEMS, EXPLICIT),
    "costate_reversal": EXPLICIT + SWEEPS,
    "hamilton_equations": [*EXPLICIT, "conformal_midpoint"],
    "heavy_ball": [*EXPLICIT, *SWEEPS, *SPLIT, "conformal_midpoint"],
    "hamiltonian_learning": [*EXPLICIT, "ordered_euler", "ordered_euler_old"],
    "inference": EXPLICIT + SWEEPS,
    "masked_neuron": EXPLICIT + SWEEPS,
    "neumiss": EXPLICIT + SWEEPS,
}
"""System -> every stepper that it takes."""

LAYERS = 'network={layers=[64,6,10], output_activation="identity"}'
SYSTEM = {
    "costate_reversal": 'name="costate_reversal", speed=5.0, mass=2.0, dissipation=1.0, network={layers=[64,6,10]}',
    "hamilton_equations": 'name="hamilton_equations", speed=2.0, mass=2.0, dissipation=1.0, network={layers=[64,6,10]}',
    "heavy_ball": 'name="heavy_ball", mass=20.0, dissipation=1.0, network={layers=[64,6,10]}',
    "hamiltonian_learning": f'name="hamiltonian_learning", beta=0.02, eta=1.0, speed=5.0, {LAYERS}',
    "inference": f'name="inference", update={{name="adam", rate=1e-3}}, {LAYERS}',
    "incremental_inference": f'name="incremental_inference", rate=0.2, {LAYERS}',
    "sequential_inference": f'name="sequential_inference", update={{name="mean_size", rate=1e-3}}, {LAYERS}',
    "backpropagation": f'name="backpropagation", descent={{name="adam"}}, {LAYERS}',
    "backpropagation_proximal": f'name="backpropagation_proximal", rate=0.1, {LAYERS}',
    "error_form": f'name="error_form", update={{name="nlms"}}, {LAYERS}',
    "fixed_prediction": f'name="fixed_prediction", descent={{name="adam"}}, {LAYERS}',
    "zero_divergence": f'name="zero_divergence", descent={{name="sgd", rate=0.1}}, {LAYERS}',
    "implicit_sgd": f'name="implicit_sgd", rate=0.1, {LAYERS}',
    "linear_quadratic": 'name="linear_quadratic", drift=[[-1.0,0.2],[0.0,-0.5]], control=[[1.0],[0.5]], '
    "tracking_weight=[[10.0,0.0],[0.0,1.0]], control_weight=[[0.1]], start=[0.3,-0.1], is_reversed=true",
    "tracking": 'name="tracking", neurons=5, tracking_weight=10.0, is_reversed=true',
    "masked_neuron": 'name="masked_neuron", inputs=64, neurons=6, recurrent_norm=0.5',
    "masked_energy": 'name="masked_energy", inputs=64, neurons=6, recurrent_norm=0.5',
    "neumiss": 'name="neumiss", inputs=64, ridge=0.1',
}
FOLLOWERS = ("linear_quadratic", "tracking")
# 400 of 1437 images in each interval: the second epoch begins in the fourth
IMAGES = 'name="samples", dataset="digits", batch=400, interval=0.3, test_fraction=0.2'
# small enough for the dense matrices and fixed points of implicit steppers
FEW_IMAGES = IMAGES.replace("400", "20")
IMPLICIT = ("sdirk2", "implicit_midpoint", "gauss4", "conformal_midpoint")
SINE = 'name="sine_target", amplitude=0.5, frequency=0.5'

REPRESENTATIVE = [
    *((name, "explicit_euler") for name in SYSTEMS),
    ("costate_reversal", "implicit_sweep"),
    ("costate_reversal", "exponential_sweep"),
    ("costate_reversal", "etdrk2"),
    ("costate_reversal", "etdrk4"),
    ("hamilton_equations", "sdirk2"),
    ("hamiltonian_learning", "ordered_euler"),
    ("hamiltonian_learning", "ordered_euler_old"),
    ("hamiltonian_learning", ADAPTIVE),
    *(("heavy_ball", stepper) for stepper in ("exponential_euler", "conformal_midpoint", *SPLIT)),
    ("inference", "gauss4"),
    ("inference", "exponential_sweep"),
    ("masked_neuron", "etdrk2"),
    ("neumiss", "sdirk2"),
    ("inference", ADAPTIVE),
    ("incremental_inference", "rk4"),
    ("tracking", "heun"),
    ("tracking", ADAPTIVE),
    ("linear_quadratic", "implicit_midpoint"),
]
ALL = [(name, stepper) for name, offered in OFFERED.items() for stepper in offered]


def scenario(
    system: str,
    stepper: str,
    *,
    signal: str | None = None,
    mask: str = "",
    until: float = 1.5,
    dt: float = 0.05,
    dtype: str = "float32",
) -> LoadedScenario:
    is_follower = any(f'name="{name}"' in system for name in FOLLOWERS)
    is_responder = any(f'name="{name}"' in system for name in RESPONDERS)
    channel = "lagrangian" if is_follower else "observed_fraction" if is_responder else "loss"
    images = FEW_IMAGES if stepper in IMPLICIT else IMAGES
    chosen = f'name="{ADAPTIVE}", rtol=1e-3, atol=1e-4' if stepper == ADAPTIVE else f'name="{stepper}", dt={dt}'
    signal = signal or (SINE if is_follower else images)
    return parse_scenario(
        f"seed = 3\nuntil = {until}\nsystem = {{{system}}}\nsignal = {{{signal}}}\n"
        f"stepper = {{{chosen}}}\n{mask}\n[numerics]\ndtype = '{dtype}'\n[record]\nevery = 0.1\n"
        f"channels = ['{channel}']\n"
    )


def stop_at(tick: int) -> Callable[[float, int], None]:
    seen = 0

    def progress(t: float, steps: int) -> None:
        nonlocal seen
        seen += 1
        if seen == tick:
            raise KeyboardInterrupt

    return progress


def bits(path: Path) -> dict[str, object]:
    """Everything that a run recorded and ended in, as bytes."""
    with nlsim.open_run(path) as data:
        found: dict[str, object] = {str(name): data[name].values.tobytes() for name in data.variables}
        found |= {each: data.attrs[each] for each in ("ending", "ending_detail", "steps", "state")}
    tensors, numbers = read_checkpoint(path)
    found |= {f"checkpoint {name}": tensor.tobytes() for name, tensor in tensors.items()}
    return found | {each: numbers[each] for each in ("time", "frames")}


def assert_resumes(source: LoadedScenario, folder: Path, stops: tuple[int, ...]) -> None:
    """Stop after so many ticks, then after so many more, and compare with the run that was not stopped."""
    assert run(source, folder / "whole.nc").ending == "reached_end"
    path = folder / "stopped.nc"
    outcome = run(source, path, progress=stop_at(stops[0]))
    for stop in stops[1:]:
        assert outcome.ending == "interrupted"
        outcome = resume(path, progress=stop_at(stop))
    assert outcome.ending == "interrupted"
    assert resume(path).ending == "reached_end"
    found, wanted = bits(path), bits(folder / "whole.nc")
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []
