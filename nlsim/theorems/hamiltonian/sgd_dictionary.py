"""hamiltonian.sgd-dictionary: Hamiltonian Learning is the reversed system, and its step is SGD."""

from __future__ import annotations

from nlsim.integrate.ordered import OrderedEuler
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.reset import SampleReset
from nlsim.systems.hamiltonian.robust import HamiltonianLearning
from nlsim.systems.hamiltonian.sgd_dictionary import from_learning_problem, from_sgd, to_learning_problem, to_sgd
from nlsim.theorems.hamiltonian import sgd_dictionary_numbers as numbers
from nlsim.theorems.hamiltonian import sgd_dictionary_proof as proof
from nlsim.theorems.hamiltonian import sgd_dictionary_step as step
from nlsim.theorems.statement import Theorem

SGD_DICTIONARY = Theorem(
    key="hamiltonian.sgd-dictionary",
    title="Hamiltonian Learning is the reversed system in other words, and its step is SGD with momentum",
    statement=(
        "With h = x, z = p_x/φ, ω = p_w/φ, β = 1/(mc), η = θ, φ_HL L = c ℓ and s = −1 the equations of "
        "Hamiltonian Learning are those of the costate-only reversal. A step τ at c τ = 1, the state being reset "
        "sample by sample and the weights moving with the new ω, is torch's SGD with learning rate βτ, momentum "
        "1 − τη, dampening 1 − τφ and φ = 1/τ in the first step; moving with the old ω, the gradient acts one step "
        "late. At a fixed time results have a limit as τ → 0, with dissipation too."
    ),
    hypotheses=(
        "momentum in [0, 1], dampening below 1, and 0 without momentum; no Nesterov",
        "losses summed over samples",
        "h and z are 0 at the start of each sample",
    ),
    source=(
        "Melacci et al., A Unified Framework for Neural Computation and Learning Over Time, eq. 3–8, E1–E4, 20–23; "
        "the dictionary to Betti & Gori, eq. 18, the first step and the delay derived here"
    ),
    about=(
        HamiltonianLearning,
        SampleReset,
        CostateReversal,
        OrderedEuler,
        from_sgd,
        to_sgd,
        from_learning_problem,
        to_learning_problem,
    ),
    checks=(
        proof.prove_step,
        proof.prove_delay,
        proof.prove_robust_hamiltonian,
        proof.prove_same_system,
        proof.bridge_field,
        proof.bridge_step,
        numbers.equals_sgd,
        numbers.is_gradient,
        step.step_size_order,
        step.per_step_control,
        numbers.first_step_control,
        numbers.old_order_control,
    ),
)
