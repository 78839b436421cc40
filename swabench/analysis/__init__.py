"""What is made from records alone: statistics, tables, figures. Nothing here trains."""
