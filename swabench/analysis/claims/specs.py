"""The paper's claims that a study tests, C1 to C7: their words, needs and evidence."""

from swabench.analysis.claims import ensembles, methods, minima, rates, stability
from swabench.analysis.claims.claim import Claim, ClaimSpec
from swabench.analysis.flatness import LINE

SPECS = (
    ClaimSpec(
        "C1",
        "every fine-tuning is better than Adam alone",
        "Is every fine-tuning better than Adam alone?",
        "Final test accuracy of each method less that of pretraining, paired by seed. "
        "Supported if every one is above zero, contradicted if any is below.",
        lambda study: study.row_names,
        methods.every_method_beats_pretraining,
    ),
    ClaimSpec(
        "C2",
        "SWA and tuned SGD are extremely close",
        "Are SWA and tuned SGD extremely close?",
        "Final test accuracy of {rules.swa} and of {rules.swa_cyclical} less that of "
        "{rules.sgd}, paired by seed. Supported if both lie within ±{rules.margin_points:g} "
        "points (TOST), contradicted if either lies beyond. Tuned is {rules.sgd} as the study "
        "has it{tuned}: its rate was not picked here on validation images.",
        lambda study: (study.claims.sgd, study.claims.swa, study.claims.swa_cyclical),
        methods.swa_close_to_sgd,
    ),
    ClaimSpec(
        "C3",
        "the average is stable where its own cyclical iterate is not",
        "Is the average stable where its own cyclical iterate is not?",
        "The swing of a curve: the standard deviation of its changes from one epoch to the "
        "next, so that a steady rise counts for nothing and jumping up and down for all. "
        "Test accuracy and test loss of {rules.swa_cyclical}, average less iterate, paired "
        "by seed; the first {transient} of the epochs are left out for both. Supported if "
        "the average swings less in both, contradicted if more in either.",
        lambda study: (study.claims.swa_cyclical,),
        stability.average_is_steadier,
        lacks=stability.curves_lack,
    ),
    ClaimSpec(
        "C4",
        "SWA's minimum is as wide as SGD's",
        "Is SWA's minimum as wide as SGD's?",
        f"The {LINE} through the starting and the fine-tuned weights, as far to one side of "
        "the latter as to the other; its logarithm, "
        "{rules.swa} less {rules.sgd}, paired by seed. Supported if the two are within "
        "±{rules.margin_flatness:g} (TOST), contradicted if they are beyond, on either side. "
        "Other measures of flatness are shown beside it.",
        lambda study: (study.claims.sgd, study.claims.swa),
        minima.minima_alike,
        explain=minima.the_wider,
        notes=minima.about_the_line,
        lacks=minima.landscape_lacks,
    ),
    ClaimSpec(
        "C5",
        "Periodic SWA beats SWA",
        "Does Periodic SWA beat SWA?",
        "Final test accuracy of {rules.pswa} less that of {rules.swa_cyclical}, which has the "
        "same rate and no restarts, paired by seed. Supported if above zero, contradicted if "
        "below.",
        lambda study: (study.claims.pswa, study.claims.swa_cyclical),
        methods.pswa_beats_swa,
    ),
    ClaimSpec(
        "C6",
        "SWA behaves like an ensemble of its snapshots",
        "Does SWA behave like an ensemble of its snapshots?",
        "The average less the ensemble of the same snapshots, paired by seed: test accuracy "
        "within ±{rules.margin_points:g} points and test loss within ±{rules.margin_nats:g} "
        "nats (TOST). And variance reduction: the mean squared distance of a seed's "
        "predicted probabilities from the mean of the other seeds', average less iterate, "
        "below zero. Supported if all hold for {rules.swa} and {rules.swa_cyclical}, "
        "contradicted if any opposite does.",
        lambda study: (study.claims.swa, study.claims.swa_cyclical),
        ensembles.average_is_like_ensemble,
        lacks=ensembles.ensembles_lack,
    ),
    ClaimSpec(
        "C7",
        "a rate that is right for SWA is too high for plain SGD",
        "Is a rate that is right for SWA too high for plain SGD?",
        "Test accuracy at each rate of the sweep less that at the method's best rate, which "
        "is chosen for every seed by the validation accuracy at the other seeds. Supported "
        "if at some rate above {rules.sgd}'s best, {rules.swa} is within "
        "{rules.margin_points:g} points of its best (TOST) and {rules.sgd} is below its best "
        "by more; contradicted if at every such rate one of the two does not hold. The "
        "p-values are of both together, one pair a rate.",
        rates.sweep_runs,
        rates.high_rates_suit_swa_only,
        rates.judge_rates,
        notes=rates.chosen_rates,
    ),
)

UNTRIED = Claim(  # `decide` says where a study has such a row all the same
    "C8",
    "weighting the snapshots by their validation score would do better",
    "Would weighting the snapshots by their validation score do better?",
    "The paper proposes it and does not try it.",
    "not tested",
    "It is no finding of the paper, and this study runs no such method.",
)
