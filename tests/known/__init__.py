"""Known answers: worked out by hand, or by NumPy, pandas, DuckDB and Polars."""
