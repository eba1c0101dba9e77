"""The subcommands of `guidino`: their options and what they print."""
