"""From tokens to a guide, and from a guide to gated features."""
