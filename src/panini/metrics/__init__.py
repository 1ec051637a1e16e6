"""What a restored face is measured by."""

from panini.metrics.descriptions import DESCRIPTIONS as DESCRIPTIONS
from panini.metrics.descriptions import Description as Description
