"""Pages and tables, made in one room."""
