"""All rules, in the order in which they are judged and told: `rows_*.py` hold them as data.

Ids are those of the users' procedures; docs/health.md says what was corrected, and why."""

from __future__ import annotations

from orchestrator.core.health import rows_guides, rows_ladder, rows_study

RULES = (*rows_ladder.ROWS, *rows_study.ROWS, *rows_guides.ROWS)
