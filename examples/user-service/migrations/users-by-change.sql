-- For whoever follows changes: those behind a number, in their order. An older version of this service makes users without
-- a version.
CREATE INDEX users_by_change ON users ((COALESCE(version, commit_number)));
