-- At which endpoint an attempt's call was made: its name in the file of endpoints, or its address where there is no file. NULL for
-- attempts that were begun before it was kept.
ALTER TABLE generation_attempts ADD COLUMN endpoint text;
