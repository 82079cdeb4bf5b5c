"""Contrastive reinforcement learning: right, fast and pleasant."""
