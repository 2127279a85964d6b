"""What a person sees of a cluster: progress, card, report, picture."""
