"""When does it run? Schedules and dependencies; no business rule, no SQL."""
