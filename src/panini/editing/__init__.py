"""What a person can turn and look into: bias, variations, and where a face was invented."""

from panini.editing.bias import BIAS_LIMIT, parse_bias
from panini.editing.explanation import Explanation, explain
from panini.editing.explanation_report import write_explanation
from panini.editing.invention import Invention, invention_map
from panini.editing.pictures import heat_map
from panini.editing.variation import Variations, variations, vary
from panini.editing.variation_report import VariationOptions, VariationReport, write_variations

__all__ = [
    "BIAS_LIMIT",
    "Explanation",
    "Invention",
    "VariationOptions",
    "VariationReport",
    "Variations",
    "explain",
    "heat_map",
    "invention_map",
    "parse_bias",
    "variations",
    "vary",
    "write_explanation",
    "write_variations",
]
