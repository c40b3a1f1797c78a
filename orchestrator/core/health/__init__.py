"""Whether a run is worth going on with: estimators, rules, and verdicts with their evidence."""
