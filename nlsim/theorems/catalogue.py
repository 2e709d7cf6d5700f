"""Every theorem by key: the only list of them."""

from __future__ import annotations

from nlsim.theorems.hamiltonian.backprop_limit import BACKPROP_LIMIT
from nlsim.theorems.hamiltonian.boundary_value_limit import BOUNDARY_VALUE_LIMIT
from nlsim.theorems.hamiltonian.bounded_state import BOUNDED_STATE
from nlsim.theorems.hamiltonian.bptt_dictionary import BPTT_DICTIONARY
from nlsim.theorems.hamiltonian.conserved_hamiltonian import CONSERVED_HAMILTONIAN
from nlsim.theorems.hamiltonian.discrete_adjoint import DISCRETE_ADJOINT
from nlsim.theorems.hamiltonian.dissipative_riccati import DISSIPATIVE_RICCATI
from nlsim.theorems.hamiltonian.hamilton_equations import HAMILTON_EQUATIONS
from nlsim.theorems.hamiltonian.locality import LOCALITY
from nlsim.theorems.hamiltonian.momentum_limit import MOMENTUM_LIMIT
from nlsim.theorems.hamiltonian.normalised_costate import NORMALISED_COSTATE
from nlsim.theorems.hamiltonian.recurrent_backprop import RECURRENT_BACKPROP
from nlsim.theorems.hamiltonian.reversal_stability import REVERSAL_STABILITY
from nlsim.theorems.hamiltonian.reversed_volume import REVERSED_VOLUME
from nlsim.theorems.hamiltonian.riccati_reversal import RICCATI_REVERSAL
from nlsim.theorems.hamiltonian.sgd_dictionary import SGD_DICTIONARY
from nlsim.theorems.hamiltonian.sign_flip_euler import SIGN_FLIP_EULER
from nlsim.theorems.hamiltonian.sign_flip_identity import SIGN_FLIP_IDENTITY
from nlsim.theorems.hamiltonian.static_exactness import STATIC_EXACTNESS
from nlsim.theorems.hamiltonian.symplectic import SYMPLECTIC
from nlsim.theorems.hamiltonian.time_reversal import TIME_REVERSAL
from nlsim.theorems.hamiltonian.time_scaling import TIME_SCALING
from nlsim.theorems.hamiltonian.trajectory_gradient import TRAJECTORY_GRADIENT
from nlsim.theorems.inference.anti_decay import ANTI_DECAY
from nlsim.theorems.inference.backprop_limit import INFERENCE_BACKPROP_LIMIT
from nlsim.theorems.inference.deep_linear import DEEP_LINEAR_TARGET, EQUILIBRATED_ENERGY, TANGENT_KERNEL
from nlsim.theorems.inference.error_form import ERROR_FORM
from nlsim.theorems.inference.error_orders import ERROR_ORDERS
from nlsim.theorems.inference.fixed_prediction import FIXED_PREDICTION
from nlsim.theorems.inference.imex import IMEX
from nlsim.theorems.inference.implicit_sgd import IMPLICIT_SGD
from nlsim.theorems.inference.integrator_orders import INTEGRATOR_ORDERS
from nlsim.theorems.inference.minimum_norm import MINIMUM_NORM_UPDATE
from nlsim.theorems.inference.mu_pc import MU_PC
from nlsim.theorems.inference.post_activation_form import POST_ACTIVATION_FORM
from nlsim.theorems.inference.proximal_variants import MINI_BATCH_GRAM, NORMALISER_PENALTY
from nlsim.theorems.inference.realisation import REALISATION
from nlsim.theorems.inference.single_plastic import SINGLE_PLASTIC_LAYER
from nlsim.theorems.inference.soft_target import SOFT_TARGET
from nlsim.theorems.inference.stability import STABILITY
from nlsim.theorems.inference.step_limits import INTERPOLATION_LIMIT, ONE_LAYER_CONTRACTION, STRICT_SADDLE
from nlsim.theorems.inference.stopping_error import STOPPING_ERROR
from nlsim.theorems.inference.truncated_inference import TRUNCATED_INFERENCE
from nlsim.theorems.inference.zero_divergence import Z_IL
from nlsim.theorems.masked.additivity import ADDITIVITY
from nlsim.theorems.masked.all_missing import ALL_MISSING
from nlsim.theorems.masked.all_observed import ALL_OBSERVED
from nlsim.theorems.masked.bias_inflation import BIAS_INFLATION
from nlsim.theorems.masked.blackout_decay import BLACKOUT_DECAY
from nlsim.theorems.masked.compensatory_weight import COMPENSATORY_WEIGHT
from nlsim.theorems.masked.contraction import CONTRACTION
from nlsim.theorems.masked.convolution import CONVOLUTION
from nlsim.theorems.masked.decisiveness import DECISIVENESS
from nlsim.theorems.masked.duplication import DUPLICATION
from nlsim.theorems.masked.energy_jump import ENERGY_JUMP
from nlsim.theorems.masked.fast_mask_limits import FAST_MASK_LIMITS
from nlsim.theorems.masked.hold_or_forget import HOLD_OR_FORGET
from nlsim.theorems.masked.mcar_moments import MCAR_MOMENTS
from nlsim.theorems.masked.missing_indicator import MISSING_INDICATOR
from nlsim.theorems.masked.neumiss_equilibrium import NEUMISS_EQUILIBRIUM
from nlsim.theorems.masked.neutralizer_cancellation import NEUTRALIZER_CANCELLATION
from nlsim.theorems.masked.no_learning import NO_LEARNING_IN_BLACKOUT
from nlsim.theorems.masked.persistence import PERSISTENCE
from nlsim.theorems.masked.pruning import PRUNING
from nlsim.theorems.masked.scale_shift import SCALE_SHIFT
from nlsim.theorems.masked.shapley import SHAPLEY
from nlsim.theorems.masked.soft_mask_bounds import SOFT_MASK_BOUNDS
from nlsim.theorems.masked.sparsity_ratio import SPARSITY_RATIO
from nlsim.theorems.masked.zero_weight_gradient import ZERO_WEIGHT_GRADIENT
from nlsim.theorems.statement import Theorem

THEOREMS: dict[str, Theorem] = {
    each.key: each
    for each in (
        HAMILTON_EQUATIONS,
        LOCALITY,
        NORMALISED_COSTATE,
        BACKPROP_LIMIT,
        MOMENTUM_LIMIT,
        TIME_REVERSAL,
        BOUNDED_STATE,
        STATIC_EXACTNESS,
        RECURRENT_BACKPROP,
        TRAJECTORY_GRADIENT,
        BOUNDARY_VALUE_LIMIT,
        CONSERVED_HAMILTONIAN,
        SYMPLECTIC,
        REVERSED_VOLUME,
        TIME_SCALING,
        DISCRETE_ADJOINT,
        REVERSAL_STABILITY,
        SIGN_FLIP_IDENTITY,
        SIGN_FLIP_EULER,
        RICCATI_REVERSAL,
        DISSIPATIVE_RICCATI,
        SGD_DICTIONARY,
        BPTT_DICTIONARY,
        MINIMUM_NORM_UPDATE,
        REALISATION,
        IMPLICIT_SGD,
        ANTI_DECAY,
        IMEX,
        ERROR_ORDERS,
        SINGLE_PLASTIC_LAYER,
        DEEP_LINEAR_TARGET,
        EQUILIBRATED_ENERGY,
        TANGENT_KERNEL,
        INFERENCE_BACKPROP_LIMIT,
        INTERPOLATION_LIMIT,
        STABILITY,
        ONE_LAYER_CONTRACTION,
        NORMALISER_PENALTY,
        MINI_BATCH_GRAM,
        TRUNCATED_INFERENCE,
        Z_IL,
        FIXED_PREDICTION,
        ERROR_FORM,
        MU_PC,
        SOFT_TARGET,
        POST_ACTIVATION_FORM,
        STRICT_SADDLE,
        INTEGRATOR_ORDERS,
        STOPPING_ERROR,
        NEUTRALIZER_CANCELLATION,
        ALL_MISSING,
        ALL_OBSERVED,
        PRUNING,
        ADDITIVITY,
        SHAPLEY,
        MCAR_MOMENTS,
        DECISIVENESS,
        SCALE_SHIFT,
        DUPLICATION,
        BIAS_INFLATION,
        COMPENSATORY_WEIGHT,
        SPARSITY_RATIO,
        MISSING_INDICATOR,
        ZERO_WEIGHT_GRADIENT,
        CONVOLUTION,
        BLACKOUT_DECAY,
        CONTRACTION,
        PERSISTENCE,
        HOLD_OR_FORGET,
        SOFT_MASK_BOUNDS,
        FAST_MASK_LIMITS,
        ENERGY_JUMP,
        NO_LEARNING_IN_BLACKOUT,
        NEUMISS_EQUILIBRIUM,
    )
}
"""Every theorem by its key."""
