"""Where minutes come from: replays of CSV and Parquet files, and synthetic days for when there are none."""
