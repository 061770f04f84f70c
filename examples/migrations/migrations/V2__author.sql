-- With a default, so that a version that knows no authors can still write notes.
ALTER TABLE note ADD COLUMN author TEXT NOT NULL DEFAULT '';
