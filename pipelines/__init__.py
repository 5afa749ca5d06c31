"""What DVC and the orchestrators call: one entry point a stage, tracking, registry."""
