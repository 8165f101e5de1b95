"""Request records to metrics, SLO penalties, verdicts, the Pareto frontier and the ranking."""
