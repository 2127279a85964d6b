"""What a team writes down: project folder, settings, targets, templates, policies."""
